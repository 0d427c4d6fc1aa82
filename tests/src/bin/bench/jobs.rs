//! Backfill and verify over a whole collection, beside a bare scan of it by the driver.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::config::{BackendConfig, Config};
use memcell_host::mirror::MirrorState;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::host::{TestHost, file, in_memory};
use memcell_tests::sample::Samples;
use mongodb::Collection;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use serde_json::{Value, json};
use tempfile::TempDir;

/// So many documents of 2 KB, unless the environment says otherwise.
const DOCUMENTS: usize = 100_000;
const DOCUMENTS_VARIABLE: &str = "MEMCELL_BENCH_DOCUMENTS";

const PLAN: Plan = Plan { pairs: 9, iterations: 1, warm_up: 2 };

/// Each begins with a host that starts.
const FILLS: Plan = Plan { pairs: 7, iterations: 1, warm_up: 1 };

/// Ample for a server whose cache is smaller than the collection.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a job is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

pub(crate) async fn run() -> Result<Summary> {
    let documents = match std::env::var(DOCUMENTS_VARIABLE) {
        Ok(given) => given.parse().with_context(|| format!("{DOCUMENTS_VARIABLE}={given}"))?,
        Err(_) => DOCUMENTS,
    };
    let mut suite = Suite::new("jobs");
    measure(&mut suite, "in-memory", in_memory, documents).await?;
    let mut before: VecDeque<TempDir> = VecDeque::new();
    let empty_files = || {
        // Those of the backend that runs now are the last ones. What nobody needs any more makes room in memory for new ones.
        before.drain(..before.len().saturating_sub(1));
        before.push_back(tempfile::tempdir()?);
        file(before.back().context("no directory")?.path())
    };
    measure(&mut suite, "file", empty_files, documents).await?;
    suite.finish()
}

/// `empty` is the configuration of a backend that has nothing yet, a new one each time.
async fn measure(
    suite: &mut Suite,
    name: &str,
    mut empty: impl FnMut() -> Result<BackendConfig>,
    documents: usize,
) -> Result<()> {
    let mut empty = || -> Result<Vec<BackendConfig>> {
        let mut backend = empty()?;
        backend.limits.memory = 2 << 30;
        backend.format = memcell_host::config::ValueFormat::Bson;
        Ok(vec![backend])
    };
    let adjust = |config: &mut Config| config.mongodb.operation_timeout = OPERATION_TIMEOUT;
    let mut host = TestHost::start_with(empty()?, adjust).await?;
    host.live().await?;
    fill(&host, documents).await?;
    host.settled().await?;
    let bare: Collection<RawDocumentBuf> = host.collection.clone_with_type();
    suite
        .row(&format!("filling an empty backend, {name} / bare scan"))
        .plan(FILLS)
        .throughput("documents/s", documents)
        .target(Target::AtLeast(0.8))
        .compare_timed_async(async || filled(&mut host, empty()?).await, async || scan(&bare, documents).await)
        .await?;
    for (what, body, at_least) in [
        ("backfill over the same copies", json!({ "kind": "backfill" }), 0.8),
        ("verify by digests", json!({ "kind": "verify" }), 0.9),
        ("verify whole documents", json!({ "kind": "verify", "deep": true }), 0.6),
    ] {
        let before = rss()?;
        suite
            .row(&format!("{what}, {name} backend / bare scan"))
            .plan(PLAN)
            .throughput("documents/s", documents)
            .target(Target::AtLeast(at_least))
            .compare_timed_async(async || job(&host, &body).await, async || scan(&bare, documents).await)
            .await?;
        eprintln!("{what}, {name}: resident memory grew by {} MiB", rss()?.saturating_sub(before) >> 20);
    }
    host.stop().await?;
    Ok(())
}

/// Written by the driver itself, with revisions as a host gives them.
async fn fill(host: &TestHost, documents: usize) -> Result<()> {
    let mut batch: Vec<Document> = Vec::new();
    for (n, sample) in Samples::new(3).take(documents).enumerate() {
        let Bson::Document(mut document) = Bson::try_from(sample)? else { anyhow::bail!("a sample is no document") };
        document.insert("revision", i64::try_from(n)? + (1_700_000_000_000_i64 << 20));
        batch.push(document);
        if batch.len() == 1000 {
            host.collection.insert_many(std::mem::take(&mut batch)).ordered(false).await?;
        }
    }
    if !batch.is_empty() {
        host.collection.insert_many(batch).ordered(false).await?;
    }
    Ok(())
}

/// How long it takes until a new backend has all there is and takes part, from when it is seen to begin with that.
async fn filled(host: &mut TestHost, backends: Vec<BackendConfig>) -> Result<Duration> {
    host.restart(backends).await?;
    let mirror = host.store.mirrors().first().context("there is no backend")?.clone();
    let mut state = mirror.watch_state();
    state.wait_for(|state| matches!(state, MirrorState::Backfilling { .. } | MirrorState::Live)).await?;
    let started = Instant::now();
    let reached =
        state.wait_for(|state| matches!(state, MirrorState::Live | MirrorState::Failed { .. })).await?.clone();
    let elapsed = started.elapsed();
    ensure!(reached == MirrorState::Live, "{reached:?}");
    Ok(elapsed)
}

async fn job(host: &TestHost, body: &Value) -> Result<Duration> {
    let started = Instant::now();
    let ordered = host.json("POST", "/v1/jobs", body).await?.body;
    let path = format!("/v1/jobs/{}", ordered.get("id").and_then(Value::as_str).with_context(|| format!("{ordered}"))?);
    loop {
        tokio::time::sleep(POLL).await;
        let job = host.request("GET", &path).await?.body;
        let state = job.get("state").and_then(Value::as_str);
        if state != Some("running") {
            let elapsed = started.elapsed();
            let differences = job.pointer("/report/differences").and_then(Value::as_u64);
            ensure!(state == Some("done") && differences == Some(0), "{job}");
            return Ok(elapsed);
        }
    }
}

async fn scan(collection: &Collection<RawDocumentBuf>, documents: usize) -> Result<Duration> {
    let started = Instant::now();
    let mut cursor = collection.find(doc! {}).batch_size(1000).await?;
    let mut count = 0;
    while cursor.advance().await? {
        count += usize::from(cursor.current().get("_id")?.is_some());
    }
    let elapsed = started.elapsed();
    ensure!(count == documents, "{count} documents were scanned");
    Ok(elapsed)
}

/// Resident memory of this process, in bytes.
fn rss() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
