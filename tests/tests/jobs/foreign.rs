//! Other programs do to documents and to their collection what a host never would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_tests::host::{TestHost, eventually, in_memory, remote};
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
