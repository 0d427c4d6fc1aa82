//! What the demo plays on: a temporary directory, a private MongoDB server, and the host once it is started.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use memcell_host::mongo::embedded::EmbeddedServer;
use memcell_tests::artifacts;
use memcell_tests::program::{Host, Memcell};
use memcell_tests::sample::Samples;
use mongodb::bson::Document;
use serde_json::json;
use tempfile::TempDir;

/// Instances of the plugin that share the documents; two, so that there is something to share.
pub(crate) const SHARDS: u64 = 2;

/// How many documents are generated if there are none given.
const SAMPLES: usize = 300;

/// How much of the host's log is shown when something went wrong.
const LOG_LINES: usize = 20;

/// Everything that has to be taken down again.
pub(crate) struct Stage {
    /// The `memcell` program with the configuration for this stage.
    pub(crate) memcell: Memcell,
    /// The collection itself: what any other program sees that knows MongoDB's address.
    pub(crate) collection: mongodb::Collection<Document>,
    host: Option<Host>,
    server: EmbeddedServer,
    directory: TempDir,
}

impl Stage {
    /// Starts the server and writes the configuration of a host that listens on `port`.
    pub(crate) async fn build(port: u16) -> Result<Self> {
        let plugin = artifacts::plugin("in_memory")?;
        let directory = tempfile::Builder::new().prefix("memcell-demo-").tempdir()?;
        let config = directory.path().join("memcell.toml");
        let memcell = Memcell::new(config.clone())?;
        let server = EmbeddedServer::start(&directory.path().join("mongodb")).await?;
        fs::write(&config, configuration(&server.uri(), port, &plugin)).context("can't write the configuration")?;
        let client = mongodb::Client::with_uri_str(server.uri()).await?;
        let collection = client.database("memcell").collection("memcells");
        Ok(Self { memcell, collection, host: None, server, directory })
    }

    /// Writes generated documents to a file, one a line.
    pub(crate) fn generate(&self) -> Result<PathBuf> {
        let path = self.directory.path().join("generated.jsonl");
        let mut file = BufWriter::new(fs::File::create(&path)?);
        for sample in Samples::new(1).take(SAMPLES) {
            writeln!(file, "{sample}")?;
        }
        file.flush()?;
        Ok(path)
    }

    /// Starts the host and answers its address.
    pub(crate) async fn start_host(&mut self) -> Result<String> {
        let host = self.memcell.serve(&self.log()).await?;
        Ok(self.host.insert(host).url().to_owned())
    }

    /// Returns if the host ends without having been told to.
    pub(crate) async fn host_ended(&mut self) -> Result<()> {
        self.host.as_mut().context("the host was not started")?.ended().await
    }

    /// Tells the host to end, and waits until it has.
    pub(crate) async fn stop_host(&mut self) -> Result<()> {
        self.host.take().context("the host was not started")?.stop().await
    }

    /// The end of the host's log; `None` if there is nothing in it.
    pub(crate) fn host_log(&self) -> Option<String> {
        let log = fs::read_to_string(self.log()).ok()?;
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..)?;
        (!tail.is_empty()).then(|| tail.join("\n"))
    }

    /// Where the host logs to.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("memcell.log")
    }

    /// Ends what still runs, the host before the server that it needs, and removes all files.
    pub(crate) async fn clear(mut self) -> Result<()> {
        let stopped = match self.host.take() {
            Some(host) => host.stop().await,
            None => Ok(()),
        };
        self.server.stop().await;
        let removed = self.directory.close().context("can't remove the temporary directory");
        stopped.and(removed)
    }
}

fn configuration(uri: &str, port: u16, plugin: &Path) -> String {
    // Of strings without control characters, JSON and TOML have the same idea.
    let (uri, plugin) = (json!(uri), json!(plugin.to_string_lossy()));
    format!(
        r#"[mongodb]
uri = {uri}

[http]
listen = "127.0.0.1:{port}"

[validation]
# The default of 50ms is for people who wait. This host may share a busy machine with a build.
read_budget = "2s"

[log]
format = "text"

[backends.local]
plugin = {plugin}
shards = {SHARDS}
"#
    )
}
