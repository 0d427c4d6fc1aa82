//! How long copies live: as long as their backend says, or as long as their document says, whichever is shorter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use memcell_host::config::BackendConfig;
use memcell_tests::host::{TestHost, eventually, file, in_memory, remote};
use memcell_tests::redis::RedisServer;
use mongodb::bson::{Bson, DateTime, doc, oid::ObjectId};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{done, figures};

fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn memcell(expires_at: &Value) -> Value {
    json!({ "timestamp": "2025-06-26T00:03:30Z", "user_id": "ann", "expires_at": expires_at })
}

fn iso(millis: i64) -> Result<String> {
    Ok(DateTime::from_millis(millis).try_to_rfc3339_string()?)
}

/// When the copy expires; `None` if there is no copy, or it never does.
async fn copy_expires_at(host: &TestHost, id: &str) -> Result<Option<u64>> {
    let copy = host.store.mirrors()[0].read(&[id.to_owned()]).await?.pop().flatten();
    Ok(copy.context("there is no copy")?.expires_at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_says_when_it_expires() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let directory = TempDir::new()?;
    for config in [in_memory()?, file(directory.path())?, remote(&[server.address()], &[])?] {
        let host = TestHost::start(vec![BackendConfig { ttl: Some(Duration::from_secs(3600)), ..config }]).await?;
        host.live().await?;
        // Whole seconds: their text has one form.
        let at = (now()? / 1000 + 1800) * 1000;
        let id = host.append(&memcell(&json!(iso(at)?))).await?;
        host.settled().await?;
        let path = format!("/v1/memcells/{id}");
        let read = host.request("GET", &path).await?;
        assert_eq!((&read.body["expires_at"], read.header("x-memcell-validation")), (&json!(iso(at)?), "consistent"));
        assert_eq!(copy_expires_at(&host, &id).await?, Some(u64::try_from(at)?), "the earlier of both");
        // Later than the backend's: that counts then. Null takes it away, and so does nothing else.
        host.json("PATCH", &path, &json!({ "expires_at": iso(at + 86_400_000)? })).await?;
        host.settled().await?;
        let of_backend = copy_expires_at(&host, &id).await?.context("no expiry")?;
        assert!(of_backend > u64::try_from(now()? + 3_500_000)? && of_backend < u64::try_from(at + 86_400_000)?);
        let patched = host.json("PATCH", &path, &json!({ "expires_at": null })).await?;
        assert_eq!((patched.status, &patched.body["expires_at"]), (200, &Value::Null));
        for wrong in [json!("tomorrow"), json!(5), json!([]), json!({})] {
            let refused = host.json("PATCH", &path, &json!({ "expires_at": wrong })).await?;
            assert_eq!((refused.status, &refused.body["field"]), (422, &json!("expires_at")), "{refused:?}");
            let refused = host.json("POST", "/v1/memcells", &memcell(&wrong)).await?;
            assert_eq!(refused.status, 422, "{refused:?}");
        }
        host.stop().await?;
    }
    Ok(())
}

/// Between a copy's expiry and its document's removal, which MongoDB sees to once a minute, nothing is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_on_one_side_is_no_difference() -> Result<()> {
    for config in [in_memory()?, BackendConfig { ttl: Some(Duration::from_secs(3600)), ..in_memory()? }] {
        let host = TestHost::start(vec![config]).await?;
        host.live().await?;
        slow_down_removal(&host).await?;
        let soon = host.append(&memcell(&json!(iso(now()? + 500)?))).await?;
        let over = host.append(&memcell(&json!("2020-01-01T00:00:00Z"))).await?;
        let never = host.append(&memcell(&Value::Null)).await?;
        host.settled().await?;
        eventually("the copy is gone", async || Ok(host.mirrored(&soon).await?.is_none())).await?;
        assert!(host.mirrored(&over).await?.is_none());
        for (id, outcome) in [(&soon, "skipped"), (&over, "skipped"), (&never, "consistent")] {
            let read = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
            // MongoDB still has it, so it is there: for a read by id, a search and a count.
            assert_eq!((read.status, read.header("x-memcell-validation")), (200, outcome), "{read:?}");
        }
        let found = host.request("GET", "/v1/memcells?user_id=ann").await?.body;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(3));
        assert_eq!(host.request("GET", "/v1/memcells/count?user_id=ann").await?.body["count"], 3);
        for deep in [false, true] {
            let verified = done(&host, &json!({ "kind": "verify", "deep": deep })).await?;
            assert!(figures(&verified).is_empty(), "{verified}");
        }
        assert!(host.store.mismatches().is_empty());
        // Somebody thinks better of it before MongoDB has removed it: the copy comes back.
        host.json("PATCH", &format!("/v1/memcells/{over}"), &json!({ "expires_at": null })).await?;
        host.settled().await?;
        let read = host.request("GET", &format!("/v1/memcells/{over}?validate=true")).await?;
        assert_eq!(read.header("x-memcell-validation"), "consistent");
        // MongoDB removes a document whose copy has not expired, as if its clock were ahead: a deletion like any other.
        let later = host.append(&memcell(&json!(iso(now()? + 60_000)?))).await?;
        host.settled().await?;
        host.collection.delete_one(doc! { "_id": ObjectId::parse_str(&later)? }).await?;
        host.settled().await?;
        assert!(host.mirrored(&later).await?.is_none());
        let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
        assert!(figures(&verified).is_empty(), "{verified}");
        host.stop().await?;
    }
    Ok(())
}

async fn set_monitor(host: &TestHost, seconds: i32) -> Result<()> {
    let admin = host.collection.client().database("admin");
    admin
        .run_command(doc! { "setParameter": 1, "ttlMonitorSleepSecs": seconds })
        .await
        .context("ttlMonitorSleepSecs")?;
    Ok(())
}

async fn slow_down_removal(host: &TestHost) -> Result<()> {
    set_monitor(host, 3600).await
}

/// MongoDB removes what has expired, and nothing else, and every copy goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_removes_what_has_expired() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    eventually("the indexes are there", async || {
        let names = host.collection.list_index_names().await.unwrap_or_default();
        Ok(names.contains(&"expires_at_1".to_owned()))
    })
    .await?;
    let over = host.append(&memcell(&json!("2020-01-01T00:00:00Z"))).await?;
    let kept = [
        host.append(&memcell(&json!(iso(now()? + 3_600_000)?))).await?,
        host.append(&memcell(&Value::Null)).await?,
        host.append(&json!({ "timestamp": "2025-06-26T00:03:30Z" })).await?,
    ];
    let theirs = doc! { "_id": 1, "timestamp": DateTime::now(), "expires_at": [DateTime::from_millis(5), Bson::Null] };
    host.collection.insert_one(theirs).await?;
    let begun = std::time::Instant::now();
    loop {
        let gone = host.stored(&over).await?.is_none() && host.collection.find_one(doc! { "_id": 1 }).await?.is_none();
        if gone {
            break;
        }
        // Once a minute, if nobody says otherwise.
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(150), "it is still there");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    host.settled().await?;
    for id in &kept {
        assert!(host.mirrored(id).await?.is_some());
    }
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    host.stop().await?;
    Ok(())
}
