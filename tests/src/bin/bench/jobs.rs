//! Backfill and verify over a whole collection, beside a bare scan of it by the driver.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::host::{TestHost, file, in_memory};
use memcell_tests::sample::Samples;
use mongodb::Collection;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use serde_json::{Value, json};

/// So many documents of 2 KB, unless the environment says otherwise.
const DOCUMENTS: usize = 100_000;
const DOCUMENTS_VARIABLE: &str = "MEMCELL_BENCH_DOCUMENTS";

const PLAN: Plan = Plan { pairs: 9, iterations: 1, warm_up: 2 };

/// Ample for a server whose cache is smaller than the collection.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a job is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

pub(crate) async fn run() -> Result<Summary> {
    let documents = match std::env::var(DOCUMENTS_VARIABLE) {
        Ok(given) => given.parse().with_context(|| format!("{DOCUMENTS_VARIABLE}={given}"))?,
        Err(_) => DOCUMENTS,
    };
    let directory = tempfile::tempdir()?;
    let mut suite = Suite::new("jobs");
    for (name, backend) in [("in-memory", in_memory()?), ("file", file(directory.path())?)] {
        measure(&mut suite, name, backend, documents).await?;
    }
    suite.finish()
}

async fn measure(suite: &mut Suite, name: &str, mut backend: BackendConfig, documents: usize) -> Result<()> {
    backend.limits.memory = 2 << 30;
    backend.format = memcell_host::config::ValueFormat::Bson;
    let host =
        TestHost::start_with(vec![backend], |config| config.mongodb.operation_timeout = OPERATION_TIMEOUT).await?;
    host.live().await?;
    fill(&host, documents).await?;
    host.settled().await?;
    let bare: Collection<RawDocumentBuf> = host.collection.clone_with_type();
    for (what, body, at_least) in [
        ("backfill", json!({ "kind": "backfill" }), 0.8),
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
