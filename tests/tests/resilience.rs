//! Whatever the backend does, MongoDB's operations succeed with the right answers, in time; and the backend converges when it can.

#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value answers null for what it lacks, and tests may panic"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::config::{Ack, BackendConfig};
use memcell_host::memcell::EventId;
use memcell_host::store::MemCellStore;
use memcell_tests::artifacts;
use memcell_tests::host::{TestHost, eventually, hostile, in_memory};
use memcell_tests::operations::{PROMPT, all_operations_work, memcell};
use memcell_tests::sample::Samples;
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_alone_is_enough() -> Result<()> {
    let host = TestHost::start(Vec::new()).await?;
    all_operations_work(&host).await?;
    let created = host.json("POST", "/v1/memcells", &memcell("x")).await?;
    assert_eq!(created.header("x-memcell-mirrored"), "none");
    let path = format!("/v1/memcells/{}?validate=true", created.body["event_id"].as_str().unwrap_or_default());
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "skipped");
    assert_eq!(host.request("GET", "/v1/backends").await?.body, json!({ "items": [] }));
    assert_eq!(host.request("GET", "/readyz").await?.status, 200);
    Ok(())
}

/// Backends that can't even be opened.
#[tokio::test(flavor = "multi_thread")]
async fn backends_that_do_not_load() -> Result<()> {
    let missing = BackendConfig::new("local", "/nonexistent/plugin.wasm".into());
    let not_wasm = BackendConfig::new("local", artifacts::workspace().join("Cargo.toml"));
    let refusing = hostile(&[("mode", "refuse"), ("on", "open")])?;
    let no_backend = BackendConfig::new("local", artifacts::guest("missing_store")?);
    for (config, reason) in [
        (missing, "/nonexistent/plugin.wasm"),
        (not_wasm, "not a WebAssembly file"),
        (refusing, "refused on purpose"),
        (no_backend, "memcell:kv/store@0.1.0"),
    ] {
        let host = TestHost::start(vec![config]).await?;
        eventually("the failure shows", async || {
            Ok(host.request("GET", "/v1/backends").await?.body["items"][0]["state"] == "failed")
        })
        .await?;
        let shown = host.request("GET", "/v1/backends").await?.body["items"][0]["reason"].to_string();
        assert!(shown.contains(reason), "{shown} does not contain {reason}");
        all_operations_work(&host).await?;
        let id = host.append(&memcell("x")).await?;
        let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
        assert_eq!((read.status, read.header("x-memcell-validation")), (200, "unavailable"));
        host.stop().await?;
    }
    Ok(())
}

/// What the system does for a plugin ends when the system lets it, whatever the deadline says: somebody else has to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_whose_file_system_hangs_says_so() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pipe = directory.path().join("pipe");
    ensure!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success());
    let mut config = hostile(&[("mode", "pipe"), ("on", "put")])?;
    config.grants.directory = Some(directory.path().to_path_buf());
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let id = host.append(&memcell("hangs")).await?;
    let state = async || Ok::<_, anyhow::Error>(host.request("GET", "/v1/backends").await?.body["items"][0].clone());
    eventually("it is said", async || {
        let shown = state().await?;
        Ok(shown["state"] == "degraded" && shown["reason"].to_string().contains("doesn't let it be cut off"))
    })
    .await?;
    let started = Instant::now();
    let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
    assert_eq!((read.status, read.header("x-memcell-validation")), (200, "unavailable"));
    ensure!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
    // The system answers again.
    let writer = tokio::task::spawn_blocking(move || {
        let writer = std::fs::File::options().write(true).open(&pipe)?;
        std::fs::remove_file(&pipe)?;
        Ok::<_, std::io::Error>(writer)
    });
    drop(writer.await??);
    host.live().await?;
    eventually("it catches up", async || Ok(host.mirrored(&id).await?.is_some())).await?;
    host.stop().await?;
    Ok(())
}

/// Backends that misbehave in every call, in every way there is a guest for.
#[tokio::test(flavor = "multi_thread")]
async fn backends_that_break_in_every_call() -> Result<()> {
    for mode in ["trap", "memory", "error", "full", "giant-error"] {
        let host = TestHost::start(vec![hostile(&[("mode", mode), ("on", "any")])?]).await?;
        all_operations_work(&host).await.with_context(|| mode)?;
        assert!(host.store.mismatches().is_empty(), "{mode}: a backend that fails is not a mismatch");
        host.stop().await?;
    }
    Ok(())
}

/// Answers that can't be believed never reach a reader.
#[tokio::test(flavor = "multi_thread")]
async fn backends_that_answer_garbage() -> Result<()> {
    for mode in
        ["short-answer", "long-answer", "swapped", "wrong-key", "giant-answer", "aliased-answer", "invalid-utf8"]
    {
        let host = TestHost::start(vec![hostile(&[("mode", mode), ("on", "get")])?]).await?;
        all_operations_work(&host).await.with_context(|| mode)?;
        host.stop().await?;
    }
    Ok(())
}

/// The deadline of the call is far away: only the reader's own budget and the writer's not waiting keep them prompt.
#[tokio::test(flavor = "multi_thread")]
async fn a_hung_backend_costs_a_read_its_budget_and_a_write_nothing() -> Result<()> {
    for mode in ["loop", "sleep"] {
        let mut config = hostile(&[("mode", mode), ("on", "get")])?;
        config.limits.call_timeout = Duration::from_secs(60);
        config.limits.cpu = config.limits.call_timeout;
        let budget = Duration::from_millis(400);
        let host = TestHost::start_with(vec![config], |config| {
            config.validation.read_budget = budget;
            config.http.shutdown_grace = Duration::from_millis(500);
        })
        .await?;
        host.live().await?;
        let id = host.append(&memcell("x")).await?;
        host.settled().await?;
        for _ in 0..2 {
            let started = Instant::now();
            let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
            let elapsed = started.elapsed();
            assert_eq!((read.status, read.header("x-memcell-validation")), (200, "unavailable"), "{mode}");
            assert!(elapsed >= budget && elapsed < budget + PROMPT, "{mode}: {elapsed:?}");
        }
        // The shard hangs now. Writes and reads that aren't validated notice nothing of it.
        let started = Instant::now();
        for n in 0..20 {
            let written = host.json("PATCH", &format!("/v1/memcells/{id}"), &json!({ "n": n })).await?;
            assert_eq!((written.status, written.header("x-memcell-mirrored")), (200, "queued"), "{mode}");
            assert_eq!(host.request("GET", &format!("/v1/memcells/{id}?validate=false")).await?.body["n"], n);
        }
        assert!(started.elapsed() < PROMPT, "{mode}: 20 writes took {:?}", started.elapsed());
        let undone = host.stop().await?;
        assert!(
            undone.is_some_and(|undone| undone.contains("local")),
            "{mode}: a shutdown says that it gave up waiting"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_asks_for_it_waits_for_the_backend() -> Result<()> {
    let mut config = in_memory()?;
    config.ack = Ack::Mirrored;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let created = host.json("POST", "/v1/memcells", &memcell("x")).await?;
    assert_eq!((created.status, created.header("x-memcell-mirrored")), (201, "applied"));
    let id = created.body["event_id"].as_str().context("no id")?;
    assert!(host.mirrored(id).await?.is_some());
    host.stop().await?;

    // One that nobody waits for has no say.
    let mut awaited = in_memory()?;
    awaited.ack = Ack::Mirrored;
    let mut other = in_memory()?;
    other.name = "other".to_owned();
    let host = TestHost::start(vec![other, awaited]).await?;
    host.live().await?;
    let created = host.json("POST", "/v1/memcells", &memcell("x")).await?;
    assert_eq!((created.status, created.header("x-memcell-mirrored")), (201, "applied"));
    host.stop().await?;

    let mut config = hostile(&[("mode", "sleep"), ("on", "put")])?;
    config.ack = Ack::Mirrored;
    config.ack_timeout = Duration::from_millis(200);
    config.limits.call_timeout = Duration::from_secs(60);
    let host =
        TestHost::start_with(vec![config], |config| config.http.shutdown_grace = Duration::from_millis(200)).await?;
    host.live().await?;
    let started = Instant::now();
    let created = host.json("POST", "/v1/memcells", &memcell("x")).await?;
    assert_eq!((created.status, created.header("x-memcell-mirrored")), (201, "timeout"));
    assert!(started.elapsed() < PROMPT);
    host.stop().await?;
    Ok(())
}

/// MongoDB and the backend agree on each of these ids.
async fn agree(host: &TestHost, ids: &[String]) -> Result<()> {
    for id in ids {
        let (stored, mirrored) = (host.stored(id).await?, host.mirrored(id).await?);
        let live = stored.filter(|document| document.get("deleted_at").is_none_or(Value::is_null));
        ensure!(live == mirrored, "{id}: mongodb has {live:?}, the backend {mirrored:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_filled_before_it_counts() -> Result<()> {
    let mut config = in_memory()?;
    config.shards = 2;
    let mut host = TestHost::start(Vec::new()).await?;
    let mut ids = Vec::new();
    for memcell in Samples::new(7).take(50) {
        ids.push(host.append(&memcell).await?);
    }
    host.request("DELETE", &format!("/v1/memcells/{}", ids[0])).await?;
    // What another program wrote: no revision, another type of id.
    host.collection.insert_one(doc! { "_id": ObjectId::new(), "timestamp": mongodb::bson::DateTime::now() }).await?;
    host.collection.insert_one(doc! { "_id": "text", "timestamp": mongodb::bson::DateTime::now() }).await?;
    host.restart(vec![config]).await?;
    host.live().await?;
    let report = host.store.backends().await;
    assert_eq!((report[0].state, report[0].entries), ("live", Some(51)));
    agree(&host, &ids).await?;
    Ok(())
}

/// Each instance dies at its third put: what it held is copied again, what it missed is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_crashes_is_filled_again() -> Result<()> {
    let mut config = hostile(&[("mode", "trap"), ("on", "put"), ("after", "3"), ("times", "1")])?;
    config.supervision.restart_limit = 1000;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let mut ids = Vec::new();
    for memcell in Samples::new(3).take(12) {
        ids.push(host.append(&memcell).await?);
        host.settled().await?;
    }
    host.request("DELETE", &format!("/v1/memcells/{}", ids[2])).await?;
    host.settled().await?;
    agree(&host, &ids).await?;
    let backend = host.request("GET", "/v1/backends").await?.body["items"][0].clone();
    assert!(backend["restarts"].as_u64() > Some(1), "{backend}");
    let read = host.request("GET", &format!("/v1/memcells/{}", ids[5])).await?;
    assert_eq!(read.header("x-memcell-validation"), "consistent");
    assert!(host.store.mismatches().is_empty());
    host.stop().await?;
    Ok(())
}

/// A queue of one change drops most of them; they are read again.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_changes_are_caught_up_with() -> Result<()> {
    let mut config = in_memory()?;
    config.queue.changes = 1;
    config.queue.batch = 1;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let batch: Vec<Value> = Samples::new(5).take(300).collect();
    let answer = host.json("POST", "/v1/memcells/batch", &Value::Array(batch)).await?;
    let ids: Vec<String> = answer.body["items"]
        .as_array()
        .context("no items")?
        .iter()
        .filter_map(|item| item["event_id"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 300);
    host.settled().await?;
    agree(&host, &ids).await?;
    let metrics = host.request("GET", "/metrics").await?.body;
    let metrics = metrics.as_str().context("no text")?;
    assert!(metrics.contains("memcell_mirror_direct_writes_total{backend=\"local\",kind=\"dropped\"}"), "{metrics}");
    host.stop().await?;
    Ok(())
}

async fn mismatch(host: &TestHost) -> Result<Value> {
    eventually("the mismatch is confirmed", async || {
        Ok(host.request("GET", "/v1/mismatches").await?.body["items"] != json!([]))
    })
    .await?;
    Ok(host.request("GET", "/v1/mismatches").await?.body["items"][0].clone())
}

/// Whatever other programs do to the collection, the tail brings it to the backend.
#[tokio::test(flavor = "multi_thread")]
async fn changes_behind_the_host_are_followed() -> Result<()> {
    let mut config = in_memory()?;
    config.shards = 2;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let mut ids = Vec::new();
    for memcell in Samples::new(11).take(20) {
        ids.push(host.append(&memcell).await?);
    }
    let object_id = |index: usize| ObjectId::parse_str(&ids[index]);
    let collection = &host.collection;
    collection.update_one(doc! { "_id": object_id(0)? }, doc! { "$set": { "summary": "changed" } }).await?;
    collection.update_one(doc! { "_id": object_id(1)? }, doc! { "$unset": { "revision": 1 } }).await?;
    collection.delete_one(doc! { "_id": object_id(2)? }).await?;
    let at = mongodb::bson::DateTime::now();
    collection.replace_one(doc! { "_id": object_id(3)? }, doc! { "timestamp": at, "new": true }).await?;
    collection.update_many(doc! { "_id": { "$gt": object_id(9)? } }, doc! { "$set": { "bulk": 1 } }).await?;
    let foreign = ObjectId::new();
    collection.insert_one(doc! { "_id": foreign, "timestamp": at }).await?;
    collection.delete_one(doc! { "_id": object_id(4)? }).await?;
    collection.insert_one(doc! { "_id": object_id(4)?, "timestamp": at, "again": true }).await?;
    ids.push(foreign.to_hex());
    host.settled().await?;
    agree(&host, &ids).await?;
    for id in &ids {
        let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
        assert_eq!(read.header("x-memcell-validation"), "consistent", "{id}");
    }
    assert!(host.store.mismatches().is_empty());

    collection.drop().await?;
    eventually("nothing is left", async || Ok(host.store.backends().await[0].entries == Some(0))).await?;
    let id = host.append(&memcell("after the end")).await?;
    host.settled().await?;
    agree(&host, &[id]).await?;
    host.stop().await?;
    Ok(())
}

/// The direct way has brought what the host itself has written; the tail reads what others have.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_others_wrote_is_read_again() -> Result<()> {
    let mut config = in_memory()?;
    config.ack = Ack::Mirrored;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let refreshed = async || host.figure("memcell_mirror_refreshed_total{backend=\"local\"}").await;
    let before = refreshed().await?.unwrap_or(0.0);
    let mut ids = Vec::new();
    for memcell in Samples::new(12).take(150) {
        ids.push(host.append(&memcell).await?);
    }
    for id in &ids {
        let path = format!("/v1/memcells/{id}");
        assert_eq!(host.json("PATCH", &path, &json!({ "summary": "mine" })).await?.status, 200);
    }
    host.settled().await?;
    let own = refreshed().await?.unwrap_or(0.0) - before;
    // An event may be there long before the backend has answered.
    assert!(own < 100.0, "{own} of 300 changes of the host itself were read again");
    agree(&host, &ids).await?;

    // Right after a change of the host, and without a revision of its own.
    for id in &ids {
        let path = format!("/v1/memcells/{id}");
        assert_eq!(host.json("PATCH", &path, &json!({ "summary": "mine again" })).await?.status, 200);
        let object_id = ObjectId::parse_str(id)?;
        host.collection.update_one(doc! { "_id": object_id }, doc! { "$set": { "summary": "theirs" } }).await?;
    }
    host.settled().await?;
    let all = refreshed().await?.unwrap_or(0.0) - before;
    assert!(all >= own + 150.0, "{all} changes were read");
    agree(&host, &ids).await?;
    host.stop().await?;
    Ok(())
}

fn losing_the_second_write() -> Result<BackendConfig> {
    hostile(&[("mode", "lost-write"), ("on", "put"), ("after", "1"), ("times", "1")])
}

/// Inserts a document as another program would, so that the tail alone brings it; answers its id.
async fn insert_behind(host: &TestHost, summary: &str) -> Result<String> {
    let (id, at) = (ObjectId::new(), mongodb::bson::DateTime::now());
    host.collection.insert_one(doc! { "_id": id, "timestamp": at, "summary": summary }).await?;
    Ok(id.to_hex())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_stays_wrong_is_confirmed_and_repaired_by_the_tail() -> Result<()> {
    let host = TestHost::start(vec![losing_the_second_write()?]).await?;
    host.live().await?;
    let id = insert_behind(&host, "as written").await?;
    host.settled().await?;
    let path = format!("/v1/memcells/{id}");
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");
    let object_id = ObjectId::parse_str(&id)?;
    host.collection.update_one(doc! { "_id": object_id }, doc! { "$set": { "summary": "changed" } }).await?;
    let read = host.request("GET", &path).await?;
    assert_eq!((read.header("x-memcell-validation"), &read.body["summary"]), ("different", &json!("changed")));
    let row = mismatch(&host).await?;
    assert_eq!((&row["event_id"], &row["kind"], &row["backend"]), (&json!(id), &json!("different"), &json!("local")));
    let difference = &row["differences"][0];
    assert_eq!(difference["path"], "summary");
    assert_eq!((&difference["mongo"], &difference["kv"]), (&json!("\"changed\""), &json!("\"as written\"")));

    let mirror = host.store.mirrors().into_iter().next().context("there is no backend")?;
    mirror.repair(vec![EventId::parse(&id)?.into()]).await?;
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");
    assert_eq!(host.request("GET", "/v1/mismatches").await?.body["items"], json!([]));
    agree(&host, &[id]).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_mismatch_is_repaired_at_once_if_that_is_wanted() -> Result<()> {
    let backends = vec![losing_the_second_write()?];
    let host = TestHost::start_with(backends, |config| config.validation.repair = true).await?;
    host.live().await?;
    let id = insert_behind(&host, "as written").await?;
    host.settled().await?;
    let change = doc! { "$set": { "summary": "changed" } };
    host.collection.update_one(doc! { "_id": ObjectId::parse_str(&id)? }, change).await?;
    host.settled().await?;
    let path = format!("/v1/memcells/{id}");
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "different");
    eventually("the copy is mended", async || {
        Ok(host.request("GET", &path).await?.header("x-memcell-validation") == "consistent")
    })
    .await?;
    eventually("nothing is left to be listed", async || Ok(host.store.mismatches().is_empty())).await?;
    host.stop().await?;
    Ok(())
}

/// An entry of a document that MongoDB doesn't have is found, and removed by a repair.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_only_the_backend_has_is_confirmed_and_repaired() -> Result<()> {
    let losing = hostile(&[("mode", "lost-write"), ("on", "delete"), ("times", "2")])?;
    let host = TestHost::start(vec![losing]).await?;
    host.live().await?;
    let id = host.append(&memcell("x")).await?;
    host.settled().await?;
    let path = format!("/v1/memcells/{id}");
    host.request("DELETE", &format!("{path}?hard=true")).await?;
    host.settled().await?;
    let read = host.request("GET", &path).await?;
    assert_eq!((read.status, read.header("x-memcell-validation")), (404, "different"));
    assert_eq!(mismatch(&host).await?["differences"][0]["kind"], "only_in_kv");
    let mirror = host.store.mirrors().into_iter().next().context("there is no backend")?;
    mirror.repair(vec![EventId::parse(&id)?.into()]).await?;
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_lost_or_damaged_are_confirmed() -> Result<()> {
    for (mode, on, kind) in
        [("lost-write", "put", "missing"), ("stale-value", "get", "corrupt"), ("garbage-value", "get", "corrupt")]
    {
        let host = TestHost::start(vec![hostile(&[("mode", mode), ("on", on)])?]).await?;
        host.live().await?;
        let id = host.append(&memcell("x")).await?;
        host.settled().await?;
        let path = format!("/v1/memcells/{id}");
        eventually("the copy has had its time", async || {
            Ok(host.request("GET", &path).await?.header("x-memcell-validation") == kind)
        })
        .await?;
        assert_eq!(mismatch(&host).await?["kind"], kind, "{mode}");
        let metrics = host.request("GET", "/metrics").await?.body;
        let figure = format!("memcell_mismatches_confirmed_total{{backend=\"local\",kind=\"{kind}\"}} 1");
        assert!(metrics.as_str().is_some_and(|metrics| metrics.contains(&figure)), "{mode}: {metrics}");
        host.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_backend_that_fails_refuses_the_start() -> Result<()> {
    let host = TestHost::start(Vec::new()).await?;
    let mut config = host.config.clone();
    let mut backend = BackendConfig::new("needed", "/nonexistent/plugin.wasm".into());
    backend.required = true;
    config.backends = vec![backend];
    let error = MemCellStore::open(&config, std::sync::Arc::default()).await.err().context("it was opened")?;
    assert!(error.to_string().contains("needed") && error.to_string().contains("/nonexistent/plugin.wasm"), "{error}");
    Ok(())
}

/// A client that hangs up in the middle of its writes leaves no trace of it in the backend: what MongoDB has, the backend gets.
#[tokio::test(flavor = "multi_thread")]
async fn writes_whose_client_went_away_are_mirrored_all_the_same() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let mut ids = Vec::new();
    for n in 0..40_u64 {
        let id = host.append(&memcell("x")).await?;
        let request = host.client.patch(format!("{}/v1/memcells/{id}", host.url)).json(&json!({ "summary": "gone" }));
        // Some of these are cut off before they reach the host, some while MongoDB is at work.
        let _ = tokio::time::timeout(Duration::from_micros(150 * n), request.send()).await;
        ids.push(id);
    }
    eventually("both sides agree", async || {
        host.settled().await?;
        Ok(agree(&host, &ids).await.is_ok())
    })
    .await?;
    host.stop().await?;
    Ok(())
}
