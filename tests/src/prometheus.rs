//! A real Prometheus for one test: it scrapes a host with the configuration and the rules that are shipped, only more often.
//!
//! It ends when it is dropped, also by a failing test, and with the thread that started it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::artifacts::workspace;
use crate::child::{Killed, free_port};

/// How long it may take to start, and a figure to arrive. Two busy cores can keep everything waiting for a while.
pub const PATIENCE: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(200);

/// The shipped configuration.
pub fn shipped() -> PathBuf {
    workspace().join("ops/prometheus")
}

/// What promtool prints for these arguments, in this directory, with this on its standard input.
///
/// # Errors
/// If it isn't installed, or finds something wrong: the error has what it printed.
pub fn promtool(directory: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let mut given = tempfile::tempfile()?;
    std::io::Write::write_all(&mut given, input.as_bytes())?;
    std::io::Seek::rewind(&mut given)?;
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).current_dir(directory).stdin(given);
    let output = promtool.output().context("can't run promtool: run `cargo xtask setup`")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {}: {}\n{said}", arguments.join(" "), output.status);
    Ok(said)
}

/// A running server.
pub struct Prometheus {
    url: String,
    client: reqwest::Client,
    _child: Killed,
    directory: TempDir,
}

impl Prometheus {
    /// One that scrapes the host at `target` (`127.0.0.1:PORT`) every second.
    ///
    /// # Errors
    /// If it isn't installed, or doesn't get ready in time.
    pub async fn start(target: &str) -> Result<Self> {
        let directory = TempDir::new()?;
        let config = fs::read_to_string(shipped().join("prometheus.yml"))?;
        let adapted = config.replace("127.0.0.1:8080", target).replace(": 15s", ": 1s");
        ensure!(
            adapted.matches(": 1s").count() == 2 && adapted.contains(target),
            "prometheus.yml has changed:\n{config}"
        );
        fs::write(directory.path().join("prometheus.yml"), adapted)?;
        fs::copy(shipped().join("memcell.rules.yml"), directory.path().join("memcell.rules.yml"))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new("prometheus");
        command.current_dir(directory.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={address}"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = Killed::spawn(command)?;
        let url = format!("http://{address}");
        let server = Self { url, client: reqwest::Client::new(), _child: child, directory };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = self.client.get(format!("{}/-/ready", self.url)).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("prometheus did not get ready; its log:\n{log}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The `data` of an answer of its API.
    ///
    /// # Errors
    /// What it complains of.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), parameters)?;
        let mut answer: Value = self.client.get(url).send().await?.json().await?;
        match answer.get_mut("data") {
            Some(data) if !data.is_null() => Ok(data.take()),
            _ => bail!("prometheus refuses {path} {parameters:?}: {answer}"),
        }
    }

    /// The series that an expression answers now.
    ///
    /// # Errors
    /// If the expression is wrong.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let answer = self.get("query", &[("query", expression)]).await?;
        Ok(answer.get("result").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Waits until an expression answers something.
    ///
    /// # Errors
    /// If it doesn't within [`PATIENCE`].
    pub async fn becomes_true(&self, expression: &str) -> Result<Vec<Value>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.query(expression).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {expression}");
            tokio::time::sleep(POLL).await;
        }
    }
}
