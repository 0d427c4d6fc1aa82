//! The `memcell` program as a user runs it: a process with a configuration file.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// How long the host may take until it takes requests: it loads and compiles its plugin in the background, so this is ample.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// More than the host's own grace for requests and for the mirror, which is 10 seconds each.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The program and its configuration.
#[derive(Debug)]
pub(crate) struct Memcell {
    program: PathBuf,
    config: PathBuf,
}

/// What `memcell import --json` reports.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Imported {
    pub(crate) read: u64,
    pub(crate) imported: u64,
    pub(crate) seconds: f64,
}

/// A running `memcell serve`. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    /// Held, because the host would get an error for writing to a pipe that nobody reads.
    _output: BufReader<ChildStdout>,
    url: String,
}

impl Memcell {
    /// The program that lies beside this one, with this configuration file.
    pub(crate) fn new(config: PathBuf) -> Result<Self> {
        let own = env::current_exe().context("can't tell where this program is")?;
        let program = own.with_file_name(format!("memcell{}", env::consts::EXE_SUFFIX));
        if !program.is_file() {
            bail!("there is no {}: run `cargo xtask demo`, which builds it", program.display());
        }
        Ok(Self { program, config })
    }

    fn command(&self, command: &str) -> Command {
        let mut process = Command::new(&self.program);
        process.arg(command).arg("--json").arg("--config").arg(&self.config);
        // What the user has set for a host of their own is not meant for this one.
        for variable in ["MEMCELL_MONGODB_URI", "MEMCELL_HTTP_LISTEN", "MEMCELL_LOG"] {
            process.env_remove(variable);
        }
        // A Ctrl-C in the terminal goes to the whole process group; the host is told to end by us, in its turn.
        process.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        process
    }

    /// Imports a file of documents.
    pub(crate) async fn import(&self, documents: &Path) -> Result<Imported> {
        let output = self.command("import").arg(documents).output().await.context("can't run memcell import")?;
        if !output.status.success() {
            bail!("memcell import ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("memcell import reported something unexpected")
    }

    /// Starts the host, its log going to a file, and waits until it takes requests.
    pub(crate) async fn serve(&self, log: &Path) -> Result<Host> {
        let log = File::create(log).context("can't write the host's log")?;
        let mut child = self
            .command("serve")
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .context("can't run memcell serve")?;
        let mut output = BufReader::new(child.stdout.take().context("memcell serve has no output")?);
        let mut announcement = String::new();
        tokio::time::timeout(START_DEADLINE, output.read_line(&mut announcement))
            .await
            .context("memcell serve did not say in time that it takes requests")??;
        if announcement.is_empty() {
            bail!("memcell serve ended with {} before it took requests", child.wait().await?);
        }
        let announcement: Value = serde_json::from_str(&announcement)?;
        let url = announcement.get("url").and_then(Value::as_str).context("memcell serve did not tell its url")?;
        Ok(Host { child, url: url.to_owned(), _output: output })
    }
}

impl Host {
    /// Where its API is: `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns when it ends without having been told to.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        let status = self.child.wait().await?;
        bail!("the host ended by itself, with {status}")
    }

    /// Tells it to end, and waits until it has drained its mirror and is gone.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.context("the host was gone before it was told to end")?;
        kill_process(pid, Signal::TERM).context("can't tell the host to end")?;
        let status = tokio::time::timeout(STOP_DEADLINE, self.child.wait())
            .await
            .with_context(|| format!("the host did not end within {STOP_DEADLINE:?}, and was killed"))??;
        if !status.success() {
            bail!("the host ended with {status}");
        }
        Ok(())
    }
}
