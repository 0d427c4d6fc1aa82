//! The processes that are killed: MongoDB, the host, and Redis behind the remote backend.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Child;

use super::plan::{Kind, Victim};
use crate::artifacts;
use crate::child::free_port;
use crate::host::eventually;
use crate::mongo::MongoDb;
use crate::program::Memcell;
use crate::redis::RedisServer;

/// How long a process may take to come back.
const START_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// The index that the host asks for last.
const LAST_INDEX: &str = "updated_at_1";

/// How much of the host's log is shown when something went wrong.
const LOG_LINES: usize = 25;

/// All of them, and what they keep. They end when it is dropped.
pub(super) struct Stage {
    pub(super) mongodb: MongoDb,
    redis: Option<RedisServer>,
    memcell: Memcell,
    host: Option<Child>,
    url: String,
    directory: TempDir,
}

impl Stage {
    /// Starts MongoDB, Redis if need be, and a host with the backend `local`.
    pub(super) async fn build(kind: Kind) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("memcell-crash-").tempdir()?;
        let mongodb = MongoDb::start().await?;
        let redis = match kind {
            Kind::Remote => Some(RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"])?),
            Kind::InMemory | Kind::File => None,
        };
        let (plugin, grants, settings) = match (kind, &redis) {
            (Kind::File, _) => {
                let data = json!(directory.path().join("local").to_string_lossy());
                ("file", format!("directory = {data}"), String::new())
            }
            (_, Some(redis)) => {
                let address = json!(redis.address());
                ("remote", format!("connect = [{address}]"), format!("address = {address}"))
            }
            (_, None) => ("in_memory", String::new(), String::new()),
        };
        let plugin = json!(artifacts::plugin(plugin)?.to_string_lossy());
        let port = free_port()?;
        let config = directory.path().join("memcell.toml");
        fs::write(&config, configuration(&mongodb.uri(), port, &plugin, &grants, &settings))?;
        let memcell = Memcell::new(config)?;
        let url = format!("http://127.0.0.1:{port}");
        let mut stage = Self { mongodb, redis, memcell, host: None, url, directory };
        stage.start(Victim::Host).await?;
        stage.ready().await?;
        stage.indexed().await?;
        Ok(stage)
    }

    /// Waits until the host has created its indexes, which it does beside everything else: the development server leaves documents
    /// of transactions that are open meanwhile out of them, for good.
    async fn indexed(&self) -> Result<()> {
        let collection = self.mongodb.collection().await?;
        eventually("the indexes are there", async || {
            // There may be no collection yet.
            let names = collection.list_index_names().await.unwrap_or_default();
            Ok(names.iter().any(|name| name == LAST_INDEX))
        })
        .await
    }

    /// Where the host's API is, whenever there is a host.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::MongoDb => self.mongodb.kill(),
            Victim::Redis => self.redis.as_mut().context("there is no Redis")?.kill(),
            Victim::Host => {
                let mut host = self.host.take().context("there is no host")?;
                let ended = host.try_wait()?;
                ensure!(ended.is_none(), "the host had ended by itself ({ended:?}):\n{}", self.log());
                Ok(host.kill().await?)
            }
        }
    }

    /// Starts it again, and waits neither for MongoDB nor for the host.
    pub(super) async fn start(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::MongoDb => self.mongodb.launch(),
            Victim::Redis => self.redis.as_mut().context("there is no Redis")?.run(),
            Victim::Host => {
                // The next host is not to wait for what the one before has left; a MongoDB that is away forgets it by itself.
                let _ = self.mongodb.end_sessions().await;
                self.host = Some(self.memcell.launch(&self.log_file())?);
                Ok(())
            }
        }
    }

    /// Waits until MongoDB takes writes and the host takes requests.
    pub(super) async fn ready(&mut self) -> Result<()> {
        self.mongodb.ready().await?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let answer = client.get(format!("{}/healthz", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            let ended = self.host.as_mut().and_then(|host| host.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                bail!("the host does not take requests ({ended:?}):\n{}", self.log());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The end of the host's log.
    pub(super) fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| format!("  {line}\n")).collect()
    }

    /// The lines of the host's log that tell of a panic, which a host that goes on could hide.
    pub(super) fn panics(&self) -> Vec<String> {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("memcell.log")
    }
}

fn configuration(uri: &str, port: u16, plugin: &serde_json::Value, grants: &str, settings: &str) -> String {
    // Of strings without control characters, JSON and TOML have the same idea.
    let uri = json!(uri);
    format!(
        r#"[mongodb]
uri = {uri}
connect_timeout = "2s"
operation_timeout = "5s"

[http]
listen = "127.0.0.1:{port}"
request_timeout = "20s"

[validation]
# The machine may be busy; what is looked for here is not slowness.
read_budget = "2s"
recheck_after = "200ms"

[log]
format = "text"
level = "info"

[backends.local]
plugin = {plugin}
shards = 2
[backends.local.grants]
{grants}
[backends.local.settings]
{settings}
[backends.local.supervision]
backoff_min = "20ms"
backoff_max = "200ms"
# One that comes back again and again is no reason to give it up here.
restart_limit = 10000
"#
    )
}
