//! A host with a healthy backend and a hostile one, and what must hold of it.

#![expect(clippy::indexing_slicing, reason = "indexing a JSON value answers null for what it lacks")]

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_tests::host::{TestHost, eventually, in_memory};
use memcell_tests::operations::{all_operations_work, memcell};
use serde_json::Value;

/// What is to be seen of a contained backend.
pub(crate) struct Signs {
    /// The `kind` of `memcell_kv_instance_failures_total`.
    pub(crate) label: &'static str,
    /// Part of the reason in the status and in the log.
    pub(crate) reason: &'static str,
}

/// A running host whose backends are `healthy`, which reads are compared with, and `hostile`.
pub(crate) struct Stage {
    pub(crate) host: TestHost,
}

impl Stage {
    pub(crate) async fn set(mut hostile: BackendConfig) -> Result<Self> {
        capture_log();
        hostile.name = "hostile".to_owned();
        let mut healthy = in_memory()?;
        healthy.name = "healthy".to_owned();
        Ok(Self { host: TestHost::start(vec![healthy, hostile]).await? })
    }

    /// What `GET /v1/backends` says of a backend.
    pub(crate) async fn status(&self, name: &str) -> Result<Value> {
        let answer = self.host.request("GET", "/v1/backends").await?;
        let backends = answer.body["items"].as_array().context("no backends")?.clone();
        backends.into_iter().find(|backend| backend["name"] == name).context("no such backend")
    }

    /// The figure of `/metrics` with this name and these labels; 0 if it is not there.
    pub(crate) async fn figure(&self, name_and_labels: &str) -> Result<f64> {
        Ok(self.host.figure(name_and_labels).await?.unwrap_or(0.0))
    }

    /// What the hostile backend holds for these keys, or answers to these probes.
    pub(crate) async fn read_hostile(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        let entries = self.host.store.mirrors()[1].read(keys).await?;
        let text = |entry: memcell_host::kv::Entry| String::from_utf8_lossy(&entry.value).into_owned();
        Ok(entries.into_iter().map(|entry| entry.map(text)).collect())
    }

    /// Every operation is right and prompt, and the healthy backend is live and agrees with MongoDB.
    pub(crate) async fn others_are_well(&self) -> Result<()> {
        all_operations_work(&self.host).await?;
        eventually("the healthy backend is live", async || Ok(self.status("healthy").await?["state"] == "live"))
            .await?;
        let id = self.host.append(&memcell("compared")).await?;
        let path = format!("/v1/memcells/{id}");
        eventually("the healthy backend agrees", async || {
            let read = self.host.request("GET", &path).await?;
            ensure!(read.status == 200, "{read:?}");
            Ok(read.header("x-memcell-validation") == "consistent")
        })
        .await?;
        ensure!(self.host.mirrored(&id).await?.is_some());
        ensure!(self.host.store.mismatches().is_empty(), "{:?}", self.host.store.mismatches());
        self.host.request("DELETE", &format!("{path}?hard=true")).await?;
        let healthy = self.status("healthy").await?;
        ensure!(healthy["state"] == "live" && healthy["restarts"] == 0, "{healthy}");
        Ok(())
    }

    /// Works with the hostile backend until it is given up, and checks that status, metric and log say why.
    pub(crate) async fn ends_in_failure(&self, signs: &Signs) -> Result<()> {
        let ids = [self.host.append(&memcell("a")).await?, self.host.append(&memcell("b")).await?];
        let n = std::sync::atomic::AtomicU64::new(0);
        eventually("the hostile backend is given up", async || {
            let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.host.json("PATCH", &format!("/v1/memcells/{}", ids[0]), &serde_json::json!({ "n": n })).await?;
            // Only to have it answer: how that ends is what is looked at.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.read_hostile(&ids)).await;
            Ok(self.status("hostile").await?["state"] == "failed")
        })
        .await?;
        let reason = self.status("hostile").await?["reason"].to_string();
        ensure!(reason.contains(signs.reason), "{reason:?} does not contain {:?}", signs.reason);
        let figure = format!("memcell_kv_instance_failures_total{{backend=\"hostile\",kind=\"{}\"}}", signs.label);
        ensure!(self.figure(&figure).await? >= 1.0, "{figure} is not there");
        ensure!(self.figure("memcell_mirror_state{backend=\"hostile\",state=\"failed\"}").await? > 0.5);
        ensure!(logged(&["hostile", signs.reason]), "the log does not tell: {}", signs.reason);
        for id in ids {
            self.host.request("DELETE", &format!("/v1/memcells/{id}?hard=true")).await?;
        }
        Ok(())
    }

    pub(crate) async fn strike(self) -> Result<()> {
        self.host.stop().await?;
        Ok(())
    }
}

/// The whole course: others are well while it misbehaves, it ends as it should, and others are still well.
pub(crate) async fn contained(mut hostile: BackendConfig, signs: Signs) -> Result<()> {
    // Few lives, so that the end comes soon.
    hostile.supervision.restart_limit = 2;
    let stage = Stage::set(hostile).await?;
    stage.others_are_well().await?;
    stage.ends_in_failure(&signs).await?;
    stage.others_are_well().await?;
    stage.strike().await
}

/// What the host has logged in this process, as it would on a standard error.
static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn capture_log() {
    LOG.get_or_init(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&log);
        // Whoever has set another one sees to its own log.
        let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Captured(Arc::clone(&to))).try_init();
        log
    });
}

/// The lines of the log that contain all of these.
pub(crate) fn log_lines(parts: &[&str]) -> Vec<String> {
    let Some(log) = LOG.get() else { return Vec::new() };
    let bytes = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
}

fn logged(parts: &[&str]) -> bool {
    !log_lines(parts).is_empty()
}
