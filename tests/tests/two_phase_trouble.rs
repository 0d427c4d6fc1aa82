//! Writes in two phases that don't go as planned: backends that can't prepare, or can't commit, transactions that MongoDB
//! aborts, and backends that can't be had with two phases at all. MongoDB's result is the same in any case.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memcell_host::clock::Clock;
use memcell_host::config::{Ack, BackendConfig};
use memcell_host::memcell::{EventId, Patch};
use memcell_host::metrics::Metrics;
use memcell_host::mirror::MirrorState;
use memcell_host::mongo::embedded::EmbeddedServer;
use memcell_host::mongo::{ConnectOptions, Decision, Repository};
use memcell_host::steps::{Step, Steps};
use memcell_host::store::{MemCellStore, Mirrored, Operation};
use memcell_host::{Error, ErrorKind};
use memcell_tests::agreement::check_agreement;
use memcell_tests::artifacts;
use memcell_tests::host::{PATIENCE, TestHost, eventually, hostile, in_memory};
use memcell_tests::two_phase::{Stops, cell, config, live};
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How often something came of a transaction in the backend.
async fn count(host: &TestHost, kind: &str) -> Result<u64> {
    let text = host.store.metrics().render();
    let line = format!("memcell_mirror_two_phase_total{{backend=\"local\",kind=\"{kind}\"}} ");
    let value = text.lines().find_map(|found| found.strip_prefix(line.as_str()));
    Ok(value.map_or(Ok(0), str::parse)?)
}

/// The markers that are left of committed transactions.
async fn markers(host: &TestHost) -> Result<u64> {
    let config = &host.config.mongodb;
    let markers = host.collection.client().database(&config.database);
    let markers = markers.collection::<Document>(&format!("{}.transactions", config.collection));
    Ok(markers.count_documents(doc! { "aborted": { "$ne": true } }).await?)
}

fn two_phase(mut config: BackendConfig) -> BackendConfig {
    config.two_phase = true;
    config
}

/// A write to a backend that does `mode` when it is to prepare; the header says `mirrored`, and the copy comes later.
async fn check_prepare(mode: &str, mirrored: &str) -> Result<()> {
    let mut config = two_phase(hostile(&[("mode", mode), ("on", "prepare")])?);
    config.ack_timeout = Duration::from_millis(300);
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let answer = host.json("POST", "/v1/memcells", &json!({ "timestamp": "2026-01-01T00:00:00Z" })).await?;
    ensure!((answer.status, answer.header("x-memcell-mirrored")) == (201, mirrored), "{answer:?}");
    let id = answer.body.get("event_id").and_then(Value::as_str).context("no id")?.to_owned();
    eventually("the copy is there", async || Ok(host.mirrored(&id).await.ok().flatten().is_some())).await?;
    ensure!(count(&host, "failed").await? >= 1 && count(&host, "prepared").await? == 0);
    ensure!(markers(&host).await? == 0, "a marker without anybody to ask for it");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_in_prepare_costs_no_write() -> Result<()> {
    check_prepare("sleep", "timeout").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_crashes_in_prepare_costs_no_write() -> Result<()> {
    check_prepare("trap", "failed").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_to_prepare_costs_no_write() -> Result<()> {
    check_prepare("full", "failed").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_fails_to_commit_is_committed_later() -> Result<()> {
    let mut config = two_phase(hostile(&[("mode", "error"), ("on", "commit"), ("times", "1")])?);
    config.ack = Ack::Mirrored;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let first = host.store.append(cell(EventId::new(), "first")?).await?;
    ensure!(first.mirrored == Mirrored::Failed, "{:?}", first.mirrored);
    // By the keeper, which the marker tells that it may.
    eventually("the keeper has committed it", async || Ok(count(&host, "committed").await? == 1)).await?;
    eventually("the marker is gone", async || Ok(markers(&host).await? == 0)).await?;
    let second = host.store.append(cell(EventId::new(), "second")?).await?;
    ensure!(second.mirrored == Mirrored::Applied, "{:?}", second.mirrored);
    host.settled().await?;
    ensure!(check_agreement(&host, "local").await? == 2);
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_in_conflict_leave_a_backend_that_agrees() -> Result<()> {
    let host = TestHost::start(vec![two_phase(in_memory()?)]).await?;
    host.live().await?;
    let ids = [EventId::new(), EventId::new()];
    for id in ids {
        host.store.append(cell(id, "old")?).await?;
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..6 {
        let store = host.store.clone();
        writers.spawn(async move {
            for round in 0..5 {
                let fields = json!({ "summary": format!("{writer} in {round}") });
                let patch = Patch::from_api(fields.as_object().cloned().unwrap_or_default())?;
                store.transact(ids.map(|id| Operation::Update(id, patch.clone())).to_vec()).await?;
            }
            Ok::<(), Error>(())
        });
    }
    for end in writers.join_all().await {
        end?;
    }
    host.settled().await?;
    ensure!(check_agreement(&host, "local").await? == 2);
    let due = 2 + 6 * 5;
    eventually("all are committed", async || Ok(count(&host, "committed").await? == due)).await?;
    eventually("all others are taken back", async || {
        Ok(count(&host, "prepared").await? == due + count(&host, "aborted").await?)
    })
    .await?;
    eventually("the markers are gone", async || Ok(markers(&host).await? == 0)).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_body_gives_up_is_never_prepared() -> Result<()> {
    let host = TestHost::start(vec![two_phase(in_memory()?)]).await?;
    host.live().await?;
    let id = EventId::new();
    let aborted = host
        .store
        .transaction(move |transaction| {
            Box::pin(async move {
                let cell = cell(id, "new").map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
                transaction.insert(cell).await?;
                Err::<(), _>(Error::new(ErrorKind::InvalidArgument, "changed my mind"))
            })
        })
        .await;
    ensure!(aborted.is_err_and(|error| error.message() == "changed my mind"));
    ensure!(host.mirrored(&id.to_string()).await?.is_none());
    ensure!(count(&host, "prepared").await? == 0 && markers(&host).await? == 0);
    host.stop().await?;
    Ok(())
}

/// Another process takes this one for gone, and decides: the attempt can't be committed any more, and there is another.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_others_gave_up_leaves_no_trace() -> Result<()> {
    let directory = TempDir::new()?;
    let server = EmbeddedServer::start(&directory.path().join("mongodb")).await?;
    let config = config(&server.uri(), &directory.path().join("backend"))?;
    let stops = Arc::new(Stops::at(&[Step::PreparedInAll]));
    let metrics = Arc::new(Metrics::new());
    let steps = Steps::observed_by(Arc::<Stops>::clone(&stops));
    let store = MemCellStore::open_observed(&config, Arc::clone(&metrics), steps).await?;
    live(&store).await?;
    let other = Repository::connect(
        &ConnectOptions {
            uri: server.uri(),
            database: config.mongodb.database.clone(),
            collection: config.mongodb.collection.clone(),
            connect_timeout: config.mongodb.connect_timeout,
            operation_timeout: config.mongodb.operation_timeout,
        },
        Arc::new(Clock::new()),
    )
    .await?;
    let id = EventId::new();
    let writing = tokio::spawn({
        let (store, cell) = (store.clone(), cell(id, "new")?);
        async move { store.append(cell).await }
    });
    let attempt = stops.reached().await?;
    ensure!(other.decide(&attempt).await? == Decision::Aborted);
    stops.release();
    writing.await??;
    // The first is taken back, and stays aborted; the second is what the writer was told of.
    let second = stops.reached().await?;
    ensure!(second != attempt && other.decide(&attempt).await? == Decision::Aborted);
    let mirror = store.mirror("local").context("there is no backend")?;
    tokio::time::timeout(PATIENCE, mirror.settle()).await?;
    ensure!(mirror.read(&[id.to_string()]).await?.pop().flatten().is_some());
    eventually("one is aborted, and one committed", async || {
        let text = metrics.render();
        let is_there = |kind: &str| {
            text.contains(&format!("memcell_mirror_two_phase_total{{backend=\"local\",kind=\"{kind}\"}} 1\n"))
        };
        Ok(is_there("aborted") && is_there("committed"))
    })
    .await?;
    ensure!(store.close(PATIENCE).await.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_without_two_phases_is_failed() -> Result<()> {
    let config = two_phase(BackendConfig::new("local", artifacts::guest("keyvalue")?));
    let host = TestHost::start(vec![config]).await?;
    let mirror = host.store.mirror("local").context("there is no backend")?;
    let mut state = mirror.watch_state();
    let failed = state.wait_for(|state| matches!(state, MirrorState::Failed { .. }));
    let reason = tokio::time::timeout(PATIENCE, failed).await??.reason().unwrap_or_default();
    ensure!(reason == "`two_phase` is true, but the plugin doesn't export two-phase", "{reason}");
    // And MongoDB doesn't mind.
    host.store.append(cell(EventId::new(), "new")?).await?;
    host.stop().await?;
    Ok(())
}
