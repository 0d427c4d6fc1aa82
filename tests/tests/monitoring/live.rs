//! A real Prometheus, with what is shipped, scrapes a real host that works and one of whose backends breaks.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::metrics::declared;
use memcell_host::mongo::embedded::EmbeddedServer;
use memcell_tests::artifacts;
use memcell_tests::program::{Host, Memcell};
use memcell_tests::prometheus::{PATIENCE, Prometheus, promtool};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{dashboard, promql};

/// Figures that this host has no occasion to show.
const NO_OCCASION: [&str; 7] = [
    // The test's MongoDB need not have an oplog that can be read.
    "memcell_mongodb_oplog_first_timestamp_seconds",
    "memcell_mirror_oplog_headroom_seconds",
    // No backend has two phases, none wants what it isn't granted, and none differs.
    "memcell_mirror_two_phase",
    "memcell_kv_refusals",
    "memcell_job_differences",
    // These are shown while a job runs, and this one is over soon.
    "memcell_job_done_items",
    "memcell_job_expected_items",
];

/// A host as a process, with two sound backends and one that traps on each write.
struct Stage {
    host: Host,
    client: reqwest::Client,
    server: EmbeddedServer,
    _directory: TempDir,
}

impl Stage {
    async fn set() -> Result<Self> {
        let directory = TempDir::new()?;
        let server = EmbeddedServer::start(&directory.path().join("mongodb")).await?;
        fs::create_dir(directory.path().join("disk"))?;
        let config = directory.path().join("memcell.toml");
        let shown = |path: std::path::PathBuf| path.display().to_string();
        let text = format!(
            r#"
[mongodb]
uri = "{uri}"
[http]
listen = "127.0.0.1:0"
[validation]
backend = "disk"
read_budget = "2s"
[backends.disk]
plugin = "{file}"
[backends.disk.grants]
directory = "{disk}"
[backends.hostile]
plugin = "{hostile}"
[backends.hostile.settings]
mode = "trap"
on = "put"
[backends.hostile.supervision]
failures_to_open = 1
backoff_min = "20ms"
backoff_max = "200ms"
restart_limit = 6
"#,
            uri = server.uri(),
            file = shown(artifacts::plugin("file")?),
            disk = shown(directory.path().join("disk")),
            hostile = shown(artifacts::guest("hostile")?),
        );
        fs::write(&config, text)?;
        let host = Memcell::new(config)?.serve(&directory.path().join("log")).await?;
        Ok(Self { host, client: reqwest::Client::new(), server, _directory: directory })
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.client.request(method.parse()?, format!("{}{path}", self.host.url()));
        if let Some(body) = body {
            request = request.json(body);
        }
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Waits until `holds` of an answer.
    async fn wait(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.send("GET", path, None).await?;
            if holds(&answer) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain, {path} says {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_live(&self, backend: &str) -> Result<()> {
        let live = |answer: &Value| {
            let mut backends = answer["items"].as_array().into_iter().flatten();
            backends.any(|one| one["name"] == backend && one["state"] == "live")
        };
        self.wait("/v1/backends", live).await
    }

    /// Some of everything that the host does, but for writes: those break the hostile backend.
    async fn verify(&self) -> Result<()> {
        let order = json!({ "kind": "verify", "backend": "disk" });
        let job = self.send("POST", "/v1/jobs", Some(&order)).await?;
        let path = format!("/v1/jobs/{}", job["id"].as_str().context("no id")?);
        self.wait(&path, |job| job["state"] == "done").await
    }

    async fn write(&self, count: usize) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for n in 0..count {
            let memcell = json!({ "user_id": "ana", "timestamp": "2025-06-26T12:00:00Z", "summary": n.to_string() });
            let stored = self.send("POST", "/v1/memcells", Some(&memcell)).await?;
            ids.push(stored["event_id"].as_str().context("no id")?.to_owned());
        }
        Ok(ids)
    }

    async fn metrics(&self) -> Result<String> {
        let answer = self.client.get(format!("{}/metrics", self.host.url())).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_sees_what_is_documented_and_the_alerts_see_a_backend_break() -> Result<()> {
    let stage = Stage::set().await?;
    let prometheus = Prometheus::start(stage.host.url().trim_start_matches("http://")).await?;
    prometheus.becomes_true("up{job=\"memcell\"} == 1").await?;
    stage.is_live("disk").await?;
    prometheus.becomes_true("memcell_mirror_state{backend=\"disk\",state=\"live\"} == 1").await?;
    prometheus.becomes_true("memcell_mongodb_up == 1").await?;

    drill(&stage, &prometheus).await?;
    stage.verify().await?;
    prometheus.becomes_true("memcell_verify_last_success_timestamp_seconds{backend=\"disk\"}").await?;
    prometheus.becomes_true("memcell_mirror_checkpoint_timestamp_seconds{backend=\"disk\"}").await?;
    prometheus.becomes_true("memcell_jobs_finished_total{job_kind=\"verify\",result=\"done\"} == 1").await?;

    promtool(&artifacts::workspace(), &["check", "metrics"], &stage.metrics().await?)?;
    documented_metrics_are_there(&prometheus).await?;
    expressions_are_valid(&prometheus).await?;
    let Stage { host, server, .. } = stage;
    host.stop().await?;
    server.stop().await;
    Ok(())
}

/// Writes break the hostile backend, and nothing else: the expressions behind the alerts tell.
async fn drill(stage: &Stage, prometheus: &Prometheus) -> Result<()> {
    for quiet in ["MemCellBreakerOpen", "MemCellMirrorFailed", "MemCellPluginRestarts"] {
        let expression = expression_of(prometheus, quiet).await?;
        let found = prometheus.query(&expression).await?;
        ensure!(found.is_empty(), "{quiet} is about to fire before anything broke: {found:?}");
    }
    let ids = stage.write(5).await?;
    for alert in ["MemCellBreakerOpen", "MemCellMirrorFailed", "MemCellPluginRestarts"] {
        let found = prometheus.becomes_true(&expression_of(prometheus, alert).await?).await?;
        ensure!(found.iter().all(|series| series["metric"]["backend"] == "hostile"), "{alert}: {found:?}");
    }
    prometheus.becomes_true("ALERTS{alertname=\"MemCellMirrorFailed\",backend=\"hostile\"}").await?;
    for id in ids {
        stage.send("GET", &format!("/v1/memcells/{id}?validate=true"), None).await?;
    }
    let others = prometheus.query("memcell_mirror_state{backend=\"disk\",state=\"live\"} == 1").await?;
    ensure!(!others.is_empty(), "the sound backend is not live any more");
    prometheus.becomes_true("memcell_validations_total{backend=\"disk\",kind=\"consistent\"} > 0").await?;
    Ok(())
}

/// The rules as Prometheus has loaded them, each with its name.
async fn rules(prometheus: &Prometheus) -> Result<Vec<Value>> {
    let answer = prometheus.get("rules", &[("type", "alert")]).await?;
    let groups = answer["groups"].as_array().context("no groups")?.clone();
    Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
}

async fn expression_of(prometheus: &Prometheus, alert: &str) -> Result<String> {
    let rules = rules(prometheus).await?;
    let rule = rules.iter().find(|rule| rule["name"] == alert).with_context(|| format!("no alert {alert}"))?;
    Ok(rule["query"].as_str().context("no query")?.to_owned())
}

async fn documented_metrics_are_there(prometheus: &Prometheus) -> Result<()> {
    let metadata = prometheus.get("targets/metadata", &[("match_target", "{job=\"memcell\"}")]).await?;
    let metadata = metadata.as_array().context("no metadata")?;
    let of = |family: &str| metadata.iter().find(|one| one["metric"] == family);
    let all = prometheus.get("series", &[("match[]", "{job=\"memcell\",__name__=~\"memcell_.+|process_.+\"}")]).await?;
    let all = all.as_array().context("no series")?;
    for figure in declared() {
        if NO_OCCASION.contains(&figure.family.as_str()) {
            continue;
        }
        let found = of(&figure.family).with_context(|| format!("{} is not there", figure.family))?;
        ensure!(found["type"] == figure.kind, "{}: {found}", figure.family);
        ensure!(found["unit"] == figure.unit.as_deref().unwrap_or_default(), "{}: {found}", figure.family);
        for name in figure.series() {
            ensure!(all.iter().any(|series| series["__name__"] == name.as_str()), "there is no series {name}");
        }
    }
    let known = promql::known_series();
    for series in all {
        let labels = series.as_object().context("no labels")?;
        let name = labels["__name__"].as_str().context("no name")?;
        let expected = known.get(name).with_context(|| format!("{name} is not documented"))?;
        let found: BTreeSet<String> = labels.keys().filter(|label| *label != "__name__").cloned().collect();
        ensure!(found == *expected, "{name} has other labels than it is documented with: {found:?}");
    }
    Ok(())
}

/// Every rule and every panel: Prometheus can carry it out, and it names nothing that there isn't.
async fn expressions_are_valid(prometheus: &Prometheus) -> Result<()> {
    for rule in rules(prometheus).await? {
        ensure!(rule["health"] == "ok", "{rule}");
        promql::check(rule["query"].as_str().context("no query")?)?;
    }
    for expression in dashboard::expressions()? {
        prometheus.query(&expression).await?;
    }
    Ok(())
}
