//! The `memcell` program as a user runs it: a process with a configuration file.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::child::tie;

/// How long the host may take until it takes requests: it loads and compiles its plugin in the background, so this is ample.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// More than the host's own grace for requests and for the mirror, which is 10 seconds each.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The program and its configuration.
#[derive(Debug)]
pub struct Memcell {
    program: PathBuf,
    config: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

/// What `memcell import --json` reports.
#[derive(Debug, serde::Deserialize)]
pub struct Imported {
    /// Documents in the file.
    pub read: u64,
    /// Those that were stored.
    pub imported: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A running `memcell serve`. Dropping it kills it.
#[derive(Debug)]
pub struct Host {
    child: Child,
    /// Held, because the host would get an error for writing to a pipe that nobody reads.
    _output: BufReader<ChildStdout>,
    url: String,
}

impl Memcell {
    /// The program that was built into the same folder as this one, with this configuration file.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn new(config: PathBuf) -> Result<Self> {
        let own = env::current_exe().context("can't tell where this program is")?;
        let name = format!("memcell{}", env::consts::EXE_SUFFIX);
        // Tests lie in a folder `deps` beside it.
        let folders = own.ancestors().skip(1).take(2);
        let Some(program) = folders.map(|folder| folder.join(&name)).find(|program| program.is_file()) else {
            bail!("there is no {}: run `cargo build -p memcell-host`", own.with_file_name(name).display());
        };
        Ok(Self { program, config, environment: Vec::new() })
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// How `memcell plugin` with these arguments ends, and what it says.
    ///
    /// # Errors
    /// If it can't be run.
    pub async fn plugin(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command("plugin");
        command.args(arguments).output().await.context("can't run memcell plugin")
    }

    /// A command of the program, ready to be started. The child ends with the thread that starts it.
    pub fn command(&self, command: &str) -> Command {
        let mut process = std::process::Command::new(&self.program);
        tie(&mut process);
        let mut process = Command::from(process);
        process.arg(command).arg("--json").arg("--config").arg(&self.config);
        // What the user has set for a host of their own is not meant for this one.
        let ours = |name: &OsString| name.to_string_lossy().starts_with("MEMCELL_") && name != "MEMCELL_MONGOD";
        for (variable, _) in env::vars_os().filter(|(name, _)| ours(name)) {
            process.env_remove(variable);
        }
        process.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A Ctrl-C in the terminal goes to the whole process group; the host is told to end by us, in its turn.
        process.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        process
    }

    /// What a command comes to: `arguments` follow its name, and `token` is what the environment has.
    ///
    /// # Errors
    /// If the program can't be run.
    pub async fn run(&self, command: &str, arguments: &[&str], token: Option<&str>) -> Result<Output> {
        let mut process = self.command(command);
        process.args(arguments);
        if let Some(token) = token {
            process.env("MEMCELL_TOKEN", token);
        }
        process.output().await.with_context(|| format!("can't run memcell {command}"))
    }

    /// Imports a file of documents.
    ///
    /// # Errors
    /// If the program says so, or can't be run.
    pub async fn import(&self, documents: &Path) -> Result<Imported> {
        let output = self.command("import").arg(documents).output().await.context("can't run memcell import")?;
        if !output.status.success() {
            bail!("memcell import ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("memcell import reported something unexpected")
    }

    /// Starts the host, its log being added to a file, and waits for nothing.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn launch(&self, log: &Path) -> Result<Child> {
        let log = File::options().create(true).append(true).open(log).context("can't write the host's log")?;
        let mut command = self.command("serve");
        command.stdout(Stdio::null()).stderr(Stdio::from(log)).spawn().context("can't run memcell serve")
    }

    /// Starts the host, its log going to a file, and waits until it takes requests.
    ///
    /// # Errors
    /// If it can't be started, ends, or takes too long.
    pub async fn serve(&self, log: &Path) -> Result<Host> {
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
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Tells it to end, and waits for nothing.
    ///
    /// # Errors
    /// If it is gone.
    pub fn terminate(&self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.context("the host was gone before it was told to end")?;
        kill_process(pid, Signal::TERM).context("can't tell the host to end")
    }

    /// Returns when it ends without having been told to.
    ///
    /// # Errors
    /// Always: that it ended.
    pub async fn ended(&mut self) -> Result<()> {
        let status = self.child.wait().await?;
        bail!("the host ended by itself, with {status}")
    }

    /// Tells it to end, and waits until it has drained its mirror and is gone.
    ///
    /// # Errors
    /// If it doesn't end in time, or not well.
    pub async fn stop(mut self) -> Result<()> {
        self.terminate()?;
        let status = tokio::time::timeout(STOP_DEADLINE, self.child.wait())
            .await
            .with_context(|| format!("the host did not end within {STOP_DEADLINE:?}, and was killed"))??;
        if !status.success() {
            bail!("the host ended with {status}");
        }
        Ok(())
    }
}
