//! MongoDB rebuilt from a backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use memcell_host::config::{BackendConfig, Config, ScheduleConfig};
use memcell_host::jobs::{JobKind, JobOrder, JobReport, Jobs};
use memcell_host::metrics::Metrics;
use memcell_host::store::MemCellStore;
use memcell_tests::host::{TestHost, eventually, file, in_memory, remote};
use memcell_tests::redis::RedisServer;
use mongodb::Collection;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Decimal128, Document, doc};
use serde_json::json;
use tempfile::TempDir;

use super::{append, done, figures};

/// What the collection holds, by id.
async fn contents(host: &TestHost) -> Result<BTreeMap<String, Document>> {
    let all: Vec<Document> = host.collection.find(doc! {}).await?.try_collect().await?;
    all.into_iter().map(|document| Ok((document.get("_id").context("no id")?.to_string(), document))).collect()
}

/// As `memcell restore` does it while no host runs.
async fn restore(config: &Config) -> Result<JobReport> {
    // A test's host runs on, without the backend. Under the same name it would take the job for one of its own.
    let mut config = config.clone();
    config.host.name = "restoring".to_owned();
    let config = &config;
    let store = MemCellStore::open_detached(config, Arc::new(Metrics::new())).await?;
    let jobs = Jobs::start(&store, &config.host, &ScheduleConfig::default());
    eventually("the backend is open", async || Ok(store.mirrors()[0].state().can_be_read())).await?;
    let order = JobOrder { kind: JobKind::Restore, backend: None, deep: false, sweep: false, rate: None };
    let id = jobs.order(&order).await?.id;
    eventually("the job has ended", async || Ok(jobs.get(&id).await?.has_ended())).await?;
    let report = jobs.get(&id).await?;
    jobs.close(config.http.shutdown_grace).await;
    store.close(config.http.shutdown_grace).await;
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_collection_comes_back_to_the_byte() -> Result<()> {
    for format in ["json", "bson"] {
        let directory = TempDir::new()?;
        let mut backend = file(directory.path())?;
        backend.shards = 2;
        backend.format = match format {
            "bson" => memcell_host::config::ValueFormat::Bson,
            _ => memcell_host::config::ValueFormat::Json,
        };
        let mut host = TestHost::start(vec![backend.clone()]).await?;
        host.live().await?;
        let ids = append(&host, 9, 150).await?;
        host.request("DELETE", &format!("/v1/memcells/{}", ids[0])).await?;
        host.request("DELETE", &format!("/v1/memcells/{}?hard=true", ids[1])).await?;
        // What JSON has no types for, and ids of other types.
        let decimal: Decimal128 = "1.50".parse()?;
        let odd = doc! {
            "_id": ObjectId::new(), "timestamp": DateTime::from_millis(-1), "double": 1.0, "int": 1_i32, "long": 1_i64,
            "decimal": decimal, "nan": f64::NAN, "nested": [{ "at": DateTime::MAX }, Bson::Null, Bson::Undefined],
            "regex": mongodb::bson::Regex { pattern: "a.b".try_into()?, options: "i".try_into()? },
        };
        host.collection.insert_one(odd).await?;
        host.collection.insert_one(doc! { "_id": { "a": 1 }, "timestamp": DateTime::now(), "revision": 3.0 }).await?;
        host.settled().await?;
        let mut before = contents(&host).await?;

        // The disaster, while no host runs; then somebody writes to what is left.
        host.restart(Vec::new()).await?;
        host.collection.drop().await?;
        let id = ObjectId::parse_str(&ids[2])?;
        host.collection.insert_one(doc! { "_id": id, "timestamp": DateTime::now(), "of": "later" }).await?;
        let there = contents(&host).await?;

        let config = Config { backends: vec![backend.clone()], ..host.config.clone() };
        let report = restore(&config).await?;
        assert!(report.is_fine(), "{report:?}");
        let expected = (150 - 3) + 2;
        assert_eq!((report.report.tally.restored, report.report.tally.present), (expected, 1), "{report:?}");
        // All that was live is as it was, what is there was not overwritten, and what was deleted did not come back.
        before.retain(|_, document| {
            !document.contains_key("deleted_at") || document.get("deleted_at") == Some(&Bson::Null)
        });
        before.extend(there);
        let after = contents(&host).await?;
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (id, document) in &before {
            // NaN is no equal of itself.
            assert_eq!(
                mongodb::bson::serialize_to_vec(document)?,
                mongodb::bson::serialize_to_vec(&after[id])?,
                "{id}"
            );
        }

        // Once more changes nothing, and the backend takes up where it was.
        let again = restore(&config).await?;
        assert_eq!(again.report.tally.restored, 0, "{again:?}");
        host.restart(vec![backend]).await?;
        host.live().await?;
        let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
        assert!(figures(&verified).is_empty(), "{verified}");
        host.stop().await?;
    }
    Ok(())
}

/// A document that is deleted while a restore runs on a live mirror stays deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_beside_a_live_mirror_brings_nothing_deleted_back() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let ids = append(&host, 10, 200).await?;
    for ids in ids.chunks(20) {
        let job = super::order(&host, &json!({ "kind": "restore" })).await?;
        for id in ids {
            host.request("DELETE", &format!("/v1/memcells/{id}?hard=true")).await?;
        }
        let restored = super::ended(&host, &job).await?;
        assert_eq!(restored["report"]["restored"], 0, "{restored}");
    }
    assert!(contents(&host).await?.is_empty());
    host.stop().await?;
    Ok(())
}

/// Why the backend isn't live.
async fn reason(host: &TestHost) -> Result<String> {
    let backend = host.request("GET", "/v1/backends").await?.body["items"][0].clone();
    Ok(backend["reason"].as_str().unwrap_or_default().to_owned())
}

/// Where MongoDB notes how many checkpoints there were.
fn anchors(host: &TestHost) -> Collection<Document> {
    beside(host, "anchors")
}

fn beside(host: &TestHost, name: &str) -> Collection<Document> {
    host.collection.client().database(&host.config.mongodb.database).collection(&format!("memcells.{name}"))
}

/// Has MongoDB know of fewer checkpoints than there were, as an older state of it does.
async fn forget_checkpoints(host: &TestHost) -> Result<()> {
    let forgotten = anchors(host).update_many(doc! {}, doc! { "$set": { "count": 0_i64 } }).await?;
    anyhow::ensure!(forgotten.modified_count > 0, "there was no checkpoint");
    // Of private backends, there are no turns.
    beside(host, "leases").update_many(doc! {}, doc! { "$set": { "token": 1_i64 } }).await?;
    Ok(())
}

/// A MongoDB from an older backup: however little it lacks, nothing is removed or replaced until somebody says what is to be.
#[tokio::test(flavor = "multi_thread")]
async fn copies_of_what_an_older_mongodb_lacks_are_kept() -> Result<()> {
    let directory = TempDir::new()?;
    an_older_mongodb_takes_nothing_away(file(directory.path())?).await
}

/// As above, where the store has seen more turns of hosts than that MongoDB knows of.
#[tokio::test(flavor = "multi_thread")]
async fn copies_of_what_an_older_mongodb_lacks_are_kept_by_a_server() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    an_older_mongodb_takes_nothing_away(remote(&[server.address()], &[])?).await
}

async fn an_older_mongodb_takes_nothing_away(backend: BackendConfig) -> Result<()> {
    let mut host = TestHost::start(vec![backend.clone()]).await?;
    for _ in 0..5 {
        host.live().await?;
        host.restart(vec![backend.clone()]).await?;
    }
    host.live().await?;
    let ids = append(&host, 13, 30).await?;
    host.settled().await?;
    let id = |number: usize| -> Result<Document> { Ok(doc! { "_id": ObjectId::parse_str(&ids[number])? }) };
    let older = host.collection.find_one(id(0)?).await?.context("it is there")?;
    host.json("PATCH", &format!("/v1/memcells/{}", ids[0]), &json!({ "summary": "changed since" })).await?;
    host.settled().await?;
    let before = contents(&host).await?;

    host.restart(Vec::new()).await?;
    host.collection.replace_one(id(0)?, older).await?;
    for number in 1..4 {
        host.collection.delete_one(id(number)?).await?;
    }
    forget_checkpoints(&host).await?;
    host.restart(vec![backend.clone()]).await?;
    let is_told = |reason: &str| reason.contains("3 of documents") && reason.contains("1 that are newer");
    eventually("it says what would be lost", async || Ok(is_told(&reason(&host).await?))).await?;
    // Operations go on, without the backend. It is said again, and the copies stay.
    host.append(&json!({ "timestamp": "2025-06-26", "summary": "since" })).await?;
    host.restart(vec![backend.clone()]).await?;
    eventually("it says so again", async || Ok(is_told(&reason(&host).await?))).await?;
    assert_eq!(host.store.backends().await[0].entries, Some(30), "nothing was removed");
    let metrics = host.request("GET", "/metrics").await?.body.as_str().unwrap_or_default().to_owned();
    assert!(
        metrics.contains("memcell_mirror_history_lost_total{backend=\"local\"} 1\n"),
        "it is counted once: {metrics}"
    );

    // What is missing comes back. What was changed is MongoDB's, as soon as somebody says so.
    host.restart(Vec::new()).await?;
    let report = restore(&Config { backends: vec![backend.clone()], ..host.config.clone() }).await?;
    assert_eq!((report.report.tally.restored, report.is_fine()), (3, true), "{report:?}");
    let after = contents(&host).await?;
    assert!(ids[1..].iter().all(|id| {
        let key = Bson::ObjectId(ObjectId::parse_str(id).unwrap_or_default()).to_string();
        after.get(&key).is_some_and(|document| before.get(&key) == Some(document))
    }));
    host.restart(vec![backend.clone()]).await?;
    eventually("one is newer", async || Ok(reason(&host).await?.contains("0 of documents"))).await?;
    done(&host, &json!({ "kind": "backfill", "sweep": true })).await?;
    host.live().await?;
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    // And from then on it is this MongoDB's.
    host.append(&json!({ "timestamp": "2025-06-26" })).await?;
    host.settled().await?;
    host.restart(vec![backend]).await?;
    host.live().await?;
    host.stop().await?;
    Ok(())
}

/// A host that runs while MongoDB is brought back to an older state notices when it writes its next checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_mongodb_that_goes_back_under_a_running_host_is_noticed() -> Result<()> {
    let directory = TempDir::new()?;
    let host = TestHost::start(vec![file(directory.path())?]).await?;
    host.live().await?;
    let ids = append(&host, 14, 5).await?;
    host.settled().await?;
    let path = format!("/v1/memcells/{}", ids[0]);
    eventually("there are checkpoints enough", async || {
        host.json("PATCH", &path, &json!({ "summary": "changed" })).await?;
        let anchor = anchors(&host).find_one(doc! {}).await?;
        Ok(anchor.is_some_and(|anchor| anchor.get_i64("count").is_ok_and(|count| count >= 2)))
    })
    .await?;
    forget_checkpoints(&host).await?;
    eventually("it is noticed", async || {
        host.json("PATCH", &path, &json!({ "summary": "changed again" })).await?;
        let metrics = host.request("GET", "/metrics").await?.body.as_str().unwrap_or_default().to_owned();
        Ok(metrics.contains("memcell_mirror_history_lost_total{backend=\"local\"} 1\n"))
    })
    .await?;
    // Nothing would be lost here, so it goes on.
    host.live().await?;
    host.settled().await?;
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    host.stop().await?;
    Ok(())
}

/// A MongoDB that comes back empty doesn't take its backend with it: nothing is removed until somebody says what happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_mongodb_that_lost_everything_is_restored_from_a_backend_that_is_still_there() -> Result<()> {
    let directory = TempDir::new()?;
    let first = TestHost::start(vec![file(directory.path())?]).await?;
    first.live().await?;
    append(&first, 12, 150).await?;
    first.settled().await?;
    let before = contents(&first).await?;
    first.stop().await?;

    let mut second = TestHost::start(vec![file(directory.path())?]).await?;
    eventually("the host says what is wrong", async || Ok(reason(&second).await?.contains("memcell restore"))).await?;
    assert_eq!(second.store.backends().await[0].entries, Some(150), "nothing was removed");
    // The host itself is in the way.
    let job = second.json("POST", "/v1/jobs", &json!({ "kind": "restore" })).await?.body;
    let path = format!("/v1/jobs/{}", job["id"].as_str().context("no id")?);
    eventually("the restore ends, and says why", async || {
        let job = second.request("GET", &path).await?.body;
        Ok(job["state"] == "failed" && job["reason"].as_str().is_some_and(|reason| reason.contains("stop all hosts")))
    })
    .await?;
    second.restart(Vec::new()).await?;
    let config = Config { backends: vec![file(directory.path())?], ..second.config.clone() };
    let report = restore(&config).await?;
    assert_eq!((report.report.tally.restored, report.is_fine()), (150, true), "{report:?}");
    assert_eq!(contents(&second).await?, before);
    second.restart(vec![file(directory.path())?]).await?;
    second.live().await?;
    let verified = done(&second, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    second.stop().await?;

    // Or else everything was deleted on purpose, and somebody says so.
    let third = TestHost::start(vec![file(directory.path())?]).await?;
    eventually("the host says what is wrong", async || Ok(reason(&third).await?.contains("--sweep"))).await?;
    done(&third, &json!({ "kind": "backfill", "sweep": true })).await?;
    third.live().await?;
    assert_eq!(third.store.backends().await[0].entries, Some(0));
    third.stop().await?;
    Ok(())
}
