//! What a store shows of encrypted values, what becomes of values that somebody moves or changes, and what is refused at start.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use memcell_host::codec::Format;
use memcell_host::config::{BackendConfig, Config, ScheduleConfig};
use memcell_host::jobs::{JobKind, JobOrder, Jobs};
use memcell_host::memcell::MemCell;
use memcell_host::metrics::Metrics;
use memcell_host::mirror::MirrorState;
use memcell_host::store::MemCellStore;
use memcell_tests::agreement::check_agreement;
use memcell_tests::host::{TestHost, eventually, file, in_memory, remote};
use memcell_tests::redis::RedisServer;
use mongodb::bson::{RawDocumentBuf, doc, oid::ObjectId};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{MARKER, append, compressed, dictionary, done, encrypted, figures, key};

fn secret() -> Value {
    json!({ "timestamp": "2025-06-26T00:03:30Z", "user_id": "ann", "summary": MARKER })
}

/// Whether any file of a directory contains these bytes.
fn shows(directory: &Path, bytes: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => shows(&path, bytes)?,
            false => std::fs::read(&path)?.windows(bytes.len()).any(|window| window == bytes),
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Everything that a host does with copies works on those of this backend.
async fn works(host: &TestHost) -> Result<()> {
    host.live().await?;
    let ids = append(host, 51, 120).await?;
    let id = host.append(&secret()).await?;
    host.json("PATCH", &format!("/v1/memcells/{}", ids[0]), &json!({ "summary": "changed" })).await?;
    host.request("DELETE", &format!("/v1/memcells/{}", ids[1])).await?;
    host.settled().await?;
    for id in [&id, &ids[0], &ids[2]] {
        for _ in 0..2 {
            let read = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
            ensure!(read.header("x-memcell-validation") == "consistent", "{read:?}");
        }
    }
    for deep in [false, true] {
        let verified = done(host, &json!({ "kind": "verify", "deep": deep })).await?;
        ensure!(figures(&verified).is_empty(), "{verified}");
    }
    ensure!(check_agreement(host, "local").await? == 120);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_shows_nothing_of_encrypted_values() -> Result<()> {
    let dictionary = dictionary(1)?;
    for (is_encrypted, is_compressed) in [(false, false), (true, false), (true, true)] {
        let directory = TempDir::new()?;
        let mut config = BackendConfig { shards: 2, ..file(directory.path())? };
        if is_encrypted {
            config = encrypted(config, &[key("a", '1')?]);
        }
        if is_compressed {
            config = compressed(config, Some(dictionary.clone()));
        }
        let host = TestHost::start(vec![config]).await?;
        works(&host).await?;
        host.stop().await?;
        let is_shown = shows(directory.path(), MARKER.as_bytes())?;
        assert_eq!(is_shown, !is_encrypted, "encrypted: {is_encrypted}, compressed: {is_compressed}");
        assert!(!shows(directory.path(), "1".repeat(32).as_bytes())?, "the key is nowhere");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_memory_can_be_encrypted_and_compressed() -> Result<()> {
    let config = compressed(encrypted(in_memory()?, &[key("a", '1')?]), None);
    let host = TestHost::start(vec![config]).await?;
    works(&host).await?;
    host.stop().await?;
    Ok(())
}

fn value(connection: &mut redis::Connection, id: &str) -> Result<Vec<u8>> {
    Ok(redis::cmd("HGET").arg(format!("memcell:{id}")).arg("value").query(connection)?)
}

fn set_value(connection: &mut redis::Connection, id: &str, value: &[u8]) -> Result<()> {
    Ok(redis::cmd("HSET").arg(format!("memcell:{id}")).arg("value").arg(value).exec(connection)?)
}

/// Values that somebody who has the server, and not the key, has swapped, changed, or given another revision.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_and_changed_values_are_found_and_mended() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let config = compressed(encrypted(remote(&[server.address()], &[])?, &[key("a", '1')?]), None);
    let host = TestHost::start(vec![config]).await?;
    works(&host).await?;
    let ids = append(&host, 52, 20).await?;
    host.settled().await?;
    let mut connection = server.connect()?;
    for key in redis::cmd("KEYS").arg("*").query::<Vec<String>>(&mut connection)? {
        let all: Vec<Vec<u8>> = redis::cmd("HGETALL").arg(&key).query(&mut connection)?;
        let marker = MARKER.as_bytes();
        assert!(!all.iter().any(|bytes| bytes.windows(marker.len()).any(|window| window == marker)), "{key}");
    }

    let (one, other) = (value(&mut connection, &ids[0])?, value(&mut connection, &ids[1])?);
    set_value(&mut connection, &ids[0], &other)?;
    set_value(&mut connection, &ids[1], &one)?;
    // Another value with the revision of this one, and the checksum as it should be: only the key tells that it is forged.
    let mut forged = value(&mut connection, &ids[2])?;
    let another = value(&mut connection, &ids[3])?;
    forged.truncate(32);
    forged.extend_from_slice(&another[32..]);
    reseal(&mut forged);
    set_value(&mut connection, &ids[2], &forged)?;

    for id in &ids[..3] {
        let read = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
        assert_eq!((read.status, read.header("x-memcell-validation")), (200, "corrupt"), "mongodb's answer stands");
    }
    eventually("the mismatches are confirmed", async || {
        let listed = host.request("GET", "/v1/mismatches").await?.body;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        Ok(items.len() == 3 && items.iter().all(|item| item["kind"] == "corrupt"))
    })
    .await?;
    // Revisions and checksums find what was swapped. What was forged with them in mind is found by looking at whole values.
    let verified = done(&host, &json!({ "kind": "verify" })).await?;
    assert_eq!(figures(&verified), [("corrupt".to_owned(), 2)], "{verified}");
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert_eq!(figures(&verified), [("corrupt".to_owned(), 3)], "{verified}");
    let repaired = done(&host, &json!({ "kind": "repair", "deep": true })).await?;
    assert_eq!(figures(&repaired), [("corrupt".to_owned(), 3), ("repaired".to_owned(), 3)], "{repaired}");
    for id in &ids[..3] {
        let read = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
        assert_eq!(read.header("x-memcell-validation"), "consistent");
    }
    host.stop().await?;
    Ok(())
}

/// A plain value is as good as any in a store that may have some, and a forgery where everything is encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_value_is_refused_where_everything_is_encrypted() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let config = encrypted(remote(&[server.address()], &[])?, &[key("a", '1')?]);
    let mut host = TestHost::start(vec![config.clone()]).await?;
    host.live().await?;
    let ids = append(&host, 56, 3).await?;
    host.settled().await?;
    let stored =
        host.collection.find_one(doc! { "_id": ObjectId::parse_str(&ids[0])? }).await?.context("it is there")?;
    let document = MemCell::from_raw(RawDocumentBuf::try_from(&stored)?);
    let plain = memcell_host::codec::encode(Format::Bson, &document)?;
    let mut connection = server.connect()?;
    set_value(&mut connection, &ids[0], &plain)?;
    let path = format!("/v1/memcells/{}?validate=true", ids[0]);
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");

    host.restart(vec![BackendConfig { encrypted_only: true, ..config }]).await?;
    host.live().await?;
    set_value(&mut connection, &ids[0], &plain)?;
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "corrupt");
    for deep in [false, true] {
        let verified = done(&host, &json!({ "kind": "verify", "deep": deep })).await?;
        assert_eq!(figures(&verified), [("corrupt".to_owned(), 1)], "{verified}");
    }
    let repaired = done(&host, &json!({ "kind": "repair" })).await?;
    assert_eq!(figures(&repaired), [("corrupt".to_owned(), 1), ("repaired".to_owned(), 1)], "{repaired}");
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");
    host.stop().await?;
    Ok(())
}

/// Fills the checksum of a header in, as anybody can.
fn reseal(stored: &mut [u8]) {
    let (header, rest) = stored.split_at_mut(32);
    let hash = xxhash_rust::xxh3::xxh3_64(rest);
    let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&header[..24], hash);
    header[24..].copy_from_slice(&sum.to_le_bytes());
}

async fn reason(host: &TestHost) -> Result<String> {
    eventually("the backend is given up", async || {
        Ok(matches!(host.store.mirrors()[0].state(), MirrorState::Failed { .. }))
    })
    .await?;
    let backends = host.request("GET", "/v1/backends").await?.body;
    Ok(backends["items"][0]["reason"].as_str().context("no reason")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_or_dictionary_a_backend_is_refused_at_start() -> Result<()> {
    let directory = TempDir::new()?;
    let (first, second, dictionary) = (key("first", '1')?, key("second", '2')?, dictionary(1)?);
    let plain = || file(directory.path());
    let good = compressed(encrypted(plain()?, std::slice::from_ref(&first)), Some(dictionary.clone()));
    let mut host = TestHost::start(vec![good.clone()]).await?;
    host.live().await?;
    let id = host.append(&secret()).await?;
    host.settled().await?;
    let first_id = first.id().to_string();

    let no_key = BackendConfig { encryption_key: None, decryption_keys: Vec::new(), ..good.clone() };
    let other_key = encrypted(good.clone(), std::slice::from_ref(&second));
    let same_name = encrypted(good.clone(), &[key("first", '2')?]);
    let no_dictionary = BackendConfig { dictionary: None, ..good.clone() };
    let other_dictionary = BackendConfig { dictionary: Some(super::dictionary(7)?), ..good.clone() };
    for (config, parts) in [
        (no_key, [first_id.as_str(), "there is no [encryption.keys.first] any more"]),
        (other_key, [&first_id, "Put that key back"]),
        (same_name, [&first_id, "the key that is named first now is another one"]),
        (no_dictionary, [&dictionary.id().to_string(), "`old_dictionaries`"]),
        (other_dictionary, [&dictionary.id().to_string(), "`old_dictionaries`"]),
    ] {
        host.restart(vec![config.clone()]).await?;
        let reason = reason(&host).await?;
        for part in parts {
            assert!(reason.contains(part), "{part} is not in: {reason}");
        }
        // MongoDB goes on without it, and nothing is written to it.
        assert_eq!(host.request("GET", &format!("/v1/memcells/{id}")).await?.status, 200);

        let required =
            Config { backends: vec![BackendConfig { required: true, ..config.clone() }], ..host.config.clone() };
        host.restart(Vec::new()).await?;
        let Err(error) = MemCellStore::open(&required, Arc::new(Metrics::new())).await.map(drop) else {
            panic!("a required backend was opened without what it takes");
        };
        assert!(
            error.to_string().contains("required backend local") && error.to_string().contains(parts[0]),
            "{error}"
        );
        // Neither can it be restored from.
        let detached = MemCellStore::open_detached(
            &Config { backends: vec![config], ..host.config.clone() },
            Arc::new(Metrics::new()),
        )
        .await?;
        eventually("it says why", async || {
            Ok(matches!(detached.mirrors()[0].state(), MirrorState::Failed { reason } if reason.contains(parts[0])))
        })
        .await?;
        detached.close(host.config.http.shutdown_grace).await;
    }

    // With both it works, whatever is written with by now.
    let both = BackendConfig {
        old_dictionaries: vec![dictionary],
        ..compressed(encrypted(plain()?, &[second, first]), Some(super::dictionary(7)?))
    };
    host.restart(vec![both]).await?;
    host.live().await?;
    host.append(&secret()).await?;
    host.settled().await?;
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_collection_comes_back_from_encrypted_values() -> Result<()> {
    let directory = TempDir::new()?;
    let config = compressed(encrypted(file(directory.path())?, &[key("a", '1')?]), Some(dictionary(1)?));
    let mut host = TestHost::start(vec![config.clone()]).await?;
    host.live().await?;
    let ids = append(&host, 53, 100).await?;
    host.settled().await?;
    let mut before = Vec::new();
    for id in &ids {
        before.push(host.stored(id).await?);
    }
    host.restart(Vec::new()).await?;
    host.collection.drop().await?;
    let config = Config { backends: vec![config], ..host.config.clone() };
    let store = MemCellStore::open_detached(&config, Arc::new(Metrics::new())).await?;
    let jobs = Jobs::start(&store, &config.host, &ScheduleConfig::default());
    eventually("the backend is open", async || Ok(store.mirrors()[0].state().can_be_read())).await?;
    let order = JobOrder { kind: JobKind::Restore, backend: None, deep: false, sweep: false, rate: None };
    let id = jobs.order(&order).await?.id;
    eventually("the job has ended", async || Ok(jobs.get(&id).await?.has_ended())).await?;
    let report = jobs.get(&id).await?;
    assert!(report.is_fine() && report.report.tally.restored == 100, "{report:?}");
    jobs.close(config.http.shutdown_grace).await;
    store.close(config.http.shutdown_grace).await;
    for (id, before) in ids.iter().zip(before) {
        assert_eq!(host.stored(id).await?, before);
    }
    host.stop().await?;
    Ok(())
}
