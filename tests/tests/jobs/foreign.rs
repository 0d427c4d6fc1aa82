//! Other programs do to documents and to their collection what a host never would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::TryStreamExt as _;
use memcell_host::clock::Clock;
use memcell_host::config::BackendConfig;
use memcell_host::memcell::MemCell;
use memcell_host::mirror::MirrorState;
use memcell_tests::host::{TestHost, eventually, file, in_memory, remote};
use memcell_tests::redis::RedisServer;
use mongodb::bson::doc;
use serde_json::{Value, json};

use super::{append, done, figures};

/// Longer than any plugin's keys.
const LONG: usize = 1030;

/// The figures of a repair that finds one document without a copy, and can't help it.
fn not_taken() -> [(String, u64); 2] {
    [("rejected".to_owned(), 1), ("missing".to_owned(), 1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_no_backend_takes_holds_no_job_up() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    append(&host, 1, 20).await?;
    host.collection.insert_one(doc! { "_id": "k".repeat(LONG), "summary": "s" }).await?;
    host.settled().await?;
    for deep in [false, true] {
        let verified = done(&host, &json!({ "kind": "verify", "deep": deep })).await?;
        assert_eq!(figures(&verified), [("missing".to_owned(), 1)], "{verified}");
    }
    let repaired = done(&host, &json!({ "kind": "repair" })).await?;
    assert_eq!(figures(&repaired), not_taken(), "{repaired}");
    assert_eq!(repaired["report"]["examples"][0]["repaired"], false, "{repaired}");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_has_become_too_large_loses_its_copy() -> Result<()> {
    let mut backend = in_memory()?;
    backend.limits.response = 1 << 20;
    let host = TestHost::start(vec![backend]).await?;
    host.live().await?;
    let id = append(&host, 2, 1).await?.remove(0);
    host.settled().await?;
    ensure!(host.mirrored(&id).await?.is_some());
    let large = doc! { "$set": { "summary": "x".repeat(2 << 20) } };
    host.collection.update_one(doc! { "user_id": { "$exists": true } }, large).await?;
    eventually("the copy of before is gone", async || Ok(host.mirrored(&id).await?.is_none())).await?;
    let repaired = done(&host, &json!({ "kind": "repair" })).await?;
    assert_eq!(figures(&repaired), not_taken(), "{repaired}");
    // Small again, it is mirrored again.
    host.json("PATCH", &format!("/v1/memcells/{id}"), &json!({ "summary": "small" })).await?;
    host.settled().await?;
    assert_eq!(host.mirrored(&id).await?, host.stored(&id).await?);
    host.stop().await?;
    Ok(())
}

/// Renames a collection of the host's database, over another one if there is such.
async fn rename(host: &TestHost, from: &str, to: &str) -> Result<()> {
    let database = host.collection.namespace().db;
    let command = doc! {
        "renameCollection": format!("{database}.{from}"), "to": format!("{database}.{to}"), "dropTarget": true,
    };
    host.collection.client().database("admin").run_command(command).await?;
    Ok(())
}

async fn is_mirrored(host: &TestHost, ids: &[String]) -> Result<bool> {
    for id in ids {
        for backend in 0..host.backends().len() {
            if host.mirrored_by(backend, id).await? != host.stored(id).await? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_exchanged_is_compared_anew() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let host = TestHost::start(vec![
        in_memory()?,
        BackendConfig { name: "redis".to_owned(), ..remote(&[server.address()], &[])? },
    ])
    .await?;
    host.live().await?;
    let ids = append(&host, 3, 10).await?;
    host.settled().await?;
    let name = host.collection.name().to_owned();

    // Away and back: no event tells of what is there again.
    rename(&host, &name, "other").await?;
    eventually("the copies are gone", async || Ok(host.mirrored_by(1, &ids[0]).await?.is_none())).await?;
    rename(&host, "other", &name).await?;
    eventually("the copies are back", async || is_mirrored(&host, &ids).await).await?;

    // Others in the place of all documents, of the same revisions.
    let change = doc! { "$addFields": { "summary": "exchanged" } };
    host.collection.aggregate([change, doc! { "$out": "prepared" }]).await?;
    rename(&host, "prepared", &name).await?;
    eventually("the copies are exchanged as well", async || {
        Ok(host.stored(&ids[0]).await?.is_some_and(|document| document["summary"] == "exchanged")
            && is_mirrored(&host, &ids).await?)
    })
    .await?;
    host.stop().await?;
    Ok(())
}

/// A change takes its revision from the clock before it lands. A document that had none, and was read in between by somebody who
/// copies everything, must not be taken for the newer one when its copy arrives at last.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_document_without_a_revision_is_older_than_its_changes() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let ids = append(&host, 4, 3).await?;
    host.collection.update_many(doc! {}, doc! { "$unset": { "revision": 1 } }).await?;
    host.settled().await?;
    let before: Vec<MemCell> =
        host.collection.clone_with_type().find(doc! {}).await?.map_ok(MemCell::from_raw).try_collect().await?;
    assert!(before.iter().all(|document| document.revision().is_none()));
    host.json("PATCH", &format!("/v1/memcells/{}", ids[0]), &json!({ "summary": "new" })).await?;
    host.request("DELETE", &format!("/v1/memcells/{}", ids[1])).await?;
    host.request("DELETE", &format!("/v1/memcells/{}?hard=true", ids[2])).await?;
    host.settled().await?;
    let reading = Clock::new().before_changes();
    let mirror = Arc::clone(&host.store.mirrors()[0]);
    assert_eq!(mirror.copy(before, reading).await?.written, 3);
    assert_eq!(host.mirrored(&ids[0]).await?.unwrap()["summary"], "new");
    for deleted in &ids[1..] {
        assert_eq!(host.mirrored(deleted).await?, None);
    }
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert_eq!(figures(&verified), [], "{verified}");
    host.stop().await?;
    Ok(())
}

/// That everything is gone is told, also while a backend is filled for the first time.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_dropped_during_a_filling_leaves_nothing() -> Result<()> {
    let (directory, server) = (tempfile::tempdir()?, RedisServer::start(&[])?);
    let mut host = TestHost::start(vec![]).await?;
    append(&host, 5, 6000).await?;
    let redis = BackendConfig { name: "redis".to_owned(), ..remote(&[server.address()], &[])? };
    host.restart(vec![file(directory.path())?, redis]).await?;
    for mirror in host.store.mirrors().iter() {
        let begun = |state: &MirrorState| matches!(state, MirrorState::Backfilling { copied } if *copied > 0);
        let is_past = |state: &MirrorState| begun(state) || *state == MirrorState::Live;
        mirror.watch_state().wait_for(is_past).await?;
    }
    host.collection.drop().await?;
    let id = append(&host, 6, 1).await?.remove(0);
    for (backend, mirror) in host.store.mirrors().iter().enumerate() {
        eventually("nothing else is left", async || {
            let is_live = mirror.state() == MirrorState::Live;
            Ok(is_live && mirror.entries().await == Some(1) && host.mirrored_by(backend, &id).await?.is_some())
        })
        .await?;
    }
    host.stop().await?;
    Ok(())
}

/// A collection that a write makes anew has no indexes of its own: nothing would expire, and every query would look at all documents.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_made_anew_gets_its_indexes() -> Result<()> {
    let host = TestHost::start(vec![]).await?;
    append(&host, 7, 1).await?;
    let names = async || -> Result<usize> { Ok(host.collection.list_index_names().await?.len()) };
    eventually("the indexes are there", async || Ok(names().await? > 1)).await?;
    let before = names().await?;
    host.collection.drop().await?;
    append(&host, 8, 1).await?;
    eventually("they are there again", async || Ok(names().await? == before)).await?;
    host.stop().await?;
    Ok(())
}

/// Changes that leave the revision alone are changes, too: what is seen of one in the middle is no mismatch.
#[tokio::test(flavor = "multi_thread")]
async fn changes_without_a_revision_are_not_taken_for_mismatches() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let ids = append(&host, 3, 10).await?;
    host.settled().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, collection) = (Arc::clone(&stop), host.collection.clone());
    let writer = tokio::spawn(async move {
        let mut n = 0_i64;
        while !stopped.load(Ordering::Relaxed) {
            n += 1;
            collection.update_many(doc! {}, doc! { "$set": { "n": n } }).await?;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        Ok::<_, mongodb::error::Error>(n)
    });
    let begun = Instant::now();
    let mut different = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        for id in &ids {
            let answer = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
            different += u32::from(answer.header("x-memcell-validation") == "different");
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await??;
    let rows = host.request("GET", "/v1/mismatches").await?.body["items"].clone();
    assert_eq!(rows, Value::Array(vec![]), "{different} reads looked different");
    let confirmed = host.figure("memcell_mismatches_confirmed_total{backend=\"local\",kind=\"different\"}").await?;
    assert_eq!(confirmed.unwrap_or_default(), 0.0, "{different} reads looked different");
    host.stop().await?;
    Ok(())
}
