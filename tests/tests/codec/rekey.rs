//! From one key to another, while others write and hosts are killed; and that the old one is not needed afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_host::mirror::MirrorState;
use memcell_tests::agreement::check_agreement;
use memcell_tests::host::{TestHost, eventually, file, in_memory, remote};
use memcell_tests::random::Random;
use memcell_tests::redis::RedisServer;
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{append, compressed, dictionary, done, encrypted, ended, figures, in_the_end, job, key, order};

fn count(job: &Value, name: &str) -> u64 {
    job["report"][name].as_u64().unwrap_or(0)
}

/// Writers that change documents until it is dropped or stopped.
struct Writers {
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<u64>>>,
}

impl Writers {
    fn start(host: &TestHost, ids: &[String]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let tasks = (0..2_u64).map(|seed| {
            let (over, client, url, ids) = (Arc::clone(&over), host.client.clone(), host.url.clone(), ids.to_vec());
            tokio::spawn(async move {
                let mut random = Random::new(seed);
                let mut written = 0;
                while !over.load(Ordering::Relaxed) {
                    let path = format!("{url}/v1/memcells/{}", ids[random.below(ids.len() as u64) as usize]);
                    let request = match random.below(5) {
                        0 => client.delete(&path),
                        1 => client.post(format!("{path}/restore")),
                        _ => client.patch(&path).json(&json!({ "n": written })),
                    };
                    let status = request.send().await?.status().as_u16();
                    ensure!(status == 200 || status == 404, "{status}");
                    written += 1;
                }
                Ok(written)
            })
        });
        Self { tasks: tasks.collect(), over }
    }

    async fn stop(self) -> Result<u64> {
        self.over.store(true, Ordering::Relaxed);
        let mut written = 0;
        for task in self.tasks {
            written += task.await??;
        }
        Ok(written)
    }
}

/// From plain values to the first key, to the second, and to plain ones again, each time with what came before removed.
async fn rotates(mut plain: BackendConfig) -> Result<()> {
    let (first, second) = (key("first", '1')?, key("second", '2')?);
    plain.required = true;
    let mut host = TestHost::start(vec![plain.clone()]).await?;
    host.live().await?;
    let ids = append(&host, 61, 400).await?;
    host.settled().await?;
    let steps = [
        (vec![first.clone()], vec![first.clone()]),
        (vec![second.clone(), first], vec![second.clone()]),
        (vec![second.clone()], vec![second.clone()]),
    ];
    for (step, (with, after)) in steps.into_iter().enumerate() {
        host.restart(vec![encrypted(plain.clone(), &with)]).await?;
        host.live().await?;
        let writers = Writers::start(&host, &ids[..100]);
        let rewritten = done(&host, &json!({ "kind": "rekey" })).await?;
        ensure!(writers.stop().await? > 0);
        let active = with[0].id().to_string();
        let keys = rewritten["report"]["keys"].as_object().context("no keys")?;
        assert_eq!(keys.keys().collect::<Vec<_>>(), [&active], "{rewritten}");
        assert_eq!(count(&rewritten, "outdated"), 0, "{rewritten}");
        // Of the hundred that others write, some were up to date when they were looked at; and a batch that was cut off isn't counted.
        let expected = if step == 2 { 0..=0 } else { 1..=400 };
        assert!(expected.contains(&count(&rewritten, "rewritten")), "{rewritten}");
        host.settled().await?;
        let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
        assert!(figures(&verified).is_empty(), "{verified}");
        let again = done(&host, &json!({ "kind": "rekey" })).await?;
        assert!(figures(&again).is_empty(), "there is nothing left to do: {again}");
        // The old key is not needed any more.
        host.restart(vec![encrypted(plain.clone(), &after)]).await?;
        host.live().await?;
        check_agreement(&host, "local").await?;
    }
    // Without encryption: the key is still needed to read, and then no more.
    host.restart(vec![BackendConfig { decryption_keys: vec![second], ..plain.clone() }]).await?;
    host.live().await?;
    let rewritten = done(&host, &json!({ "kind": "rekey" })).await?;
    assert!(rewritten["report"]["keys"]["none"].as_u64() > Some(0), "{rewritten}");
    host.restart(vec![plain]).await?;
    host.live().await?;
    check_agreement(&host, "local").await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_in_a_file_under_load() -> Result<()> {
    let directory = TempDir::new()?;
    rotates(BackendConfig { shards: 2, ..file(directory.path())? }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_in_a_server_under_load() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    rotates(BackendConfig { shards: 2, ..remote(&[server.address()], &[])? }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn format_compression_and_dictionary_are_changed_too() -> Result<()> {
    let directory = TempDir::new()?;
    let plain = || file(directory.path());
    let (one, other) = (dictionary(1)?, dictionary(2)?);
    let mut host = TestHost::start(vec![plain()?]).await?;
    host.live().await?;
    append(&host, 62, 150).await?;
    // Too small to be compressed: that is no reason to rewrite it each time.
    host.collection.insert_one(doc! { "_id": 1 }).await?;
    host.settled().await?;
    let bson = BackendConfig { format: memcell_host::config::ValueFormat::Bson, ..plain()? };
    let with_one = compressed(plain()?, Some(one.clone()));
    let with_other = BackendConfig { old_dictionaries: vec![one.clone()], ..compressed(plain()?, Some(other.clone())) };
    for (config, expected, dictionary) in [
        (bson, 151, None),
        (compressed(plain()?, None), 151, None),
        (with_one, 150, Some(one)),
        (with_other, 150, Some(other.clone())),
        (compressed(plain()?, Some(other.clone())), 0, Some(other.clone())),
        (BackendConfig { dictionary: Some(other), ..plain()? }, 150, None),
        (plain()?, 0, None),
    ] {
        host.restart(vec![config]).await?;
        host.live().await?;
        let rewritten = done(&host, &json!({ "kind": "rekey" })).await?;
        // A dictionary may make it worth while to compress what was too small before.
        let count = count(&rewritten, "rewritten");
        assert!(count == expected || count == expected + 1 && expected == 150, "{expected}: {rewritten}");
        let dictionaries = rewritten["report"]["dictionaries"].as_object().cloned().unwrap_or_default();
        let expected: Vec<String> = dictionary.iter().map(|dictionary| dictionary.id().to_string()).collect();
        assert_eq!(dictionaries.keys().cloned().collect::<Vec<_>>(), expected, "{rewritten}");
        host.settled().await?;
        let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
        assert!(figures(&verified).is_empty(), "{verified}");
    }
    host.stop().await?;
    Ok(())
}

/// What can't be rewritten, since its document is gone, is left as it is and counted; its key is still needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_a_document_is_left_and_its_key_is_needed() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let (first, second) = (key("first", '1')?, key("second", '2')?);
    let plain = || remote(&[server.address()], &[]);
    let mut host = TestHost::start(vec![encrypted(plain()?, std::slice::from_ref(&first))]).await?;
    host.live().await?;
    let ids = append(&host, 63, 20).await?;
    host.settled().await?;
    let mut connection = server.connect()?;
    let orphan = ObjectId::new().to_hex();
    redis::cmd("COPY").arg(format!("memcell:{}", ids[0])).arg(format!("memcell:{orphan}")).exec(&mut connection)?;
    host.restart(vec![encrypted(plain()?, &[second.clone(), first.clone()])]).await?;
    host.live().await?;
    let rewritten = done(&host, &json!({ "kind": "rekey" })).await?;
    assert_eq!((count(&rewritten, "rewritten"), count(&rewritten, "outdated")), (20, 1), "{rewritten}");
    assert_eq!(rewritten["report"]["keys"], json!({ first.id().to_string(): 1, second.id().to_string(): 20 }));
    host.restart(vec![encrypted(plain()?, std::slice::from_ref(&second))]).await?;
    eventually("the backend is refused", async || {
        Ok(matches!(host.store.mirrors()[0].state(), MirrorState::Failed { reason } if reason.contains(&first.id().to_string())))
    })
    .await?;
    // A repair removes it, and the next rekey finds that the key is not needed.
    host.restart(vec![encrypted(plain()?, &[second.clone(), first])]).await?;
    host.live().await?;
    let repaired = done(&host, &json!({ "kind": "repair" })).await?;
    assert_eq!(figures(&repaired), [("extra".to_owned(), 1), ("repaired".to_owned(), 1)], "{repaired}");
    let rewritten = done(&host, &json!({ "kind": "rekey" })).await?;
    assert_eq!(rewritten["report"]["keys"], json!({ second.id().to_string(): 20 }));
    host.restart(vec![encrypted(plain()?, &[second])]).await?;
    host.live().await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_can_be_given_up_and_goes_on_after_a_restart() -> Result<()> {
    let directory = TempDir::new()?;
    let (first, second) = (key("first", '1')?, key("second", '2')?);
    let plain = || file(directory.path());
    let mut host = TestHost::start(vec![encrypted(plain()?, std::slice::from_ref(&first))]).await?;
    host.live().await?;
    append(&host, 64, 1200).await?;
    host.settled().await?;
    let both = encrypted(plain()?, &[second.clone(), first]);
    host.restart(vec![both.clone()]).await?;
    host.live().await?;
    let id = order(&host, &json!({ "kind": "rekey", "rate": 100 })).await?;
    eventually("it has begun", async || Ok(job(&host, &id).await?["state"] == "running")).await?;
    host.request("DELETE", &format!("/v1/jobs/{id}")).await?;
    assert_eq!(ended(&host, &id).await?["state"], "cancelled");

    let id = order(&host, &json!({ "kind": "rekey", "rate": 300 })).await?;
    in_the_end("some of it is noted", async || Ok(count(&job(&host, &id).await?, "examined") >= 400)).await?;
    host.restart(vec![both]).await?;
    let after = ended(&host, &id).await?;
    assert_eq!((&after["state"], count(&after, "examined")), (&json!("done"), 1200), "{after}");
    assert_eq!(after["report"]["keys"], json!({ second.id().to_string(): 1200 }), "{after}");
    host.restart(vec![BackendConfig { required: true, ..encrypted(plain()?, &[second]) }]).await?;
    host.live().await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_in_memory_is_rewritten_in_place() -> Result<()> {
    let host = TestHost::start(vec![encrypted(in_memory()?, &[key("a", '1')?])]).await?;
    host.live().await?;
    append(&host, 65, 50).await?;
    host.collection.insert_one(doc! { "_id": "text", "timestamp": DateTime::now() }).await?;
    host.settled().await?;
    let rewritten = done(&host, &json!({ "kind": "rekey" })).await?;
    assert_eq!((count(&rewritten, "examined"), count(&rewritten, "rewritten")), (51, 0), "{rewritten}");
    host.stop().await?;
    Ok(())
}

/// What is not there yet must not be taken for what has no entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_not_loaded_is_not_rewritten() -> Result<()> {
    let host = TestHost::start(vec![BackendConfig::new("local", "nowhere.wasm".into())]).await?;
    let refused = host.json("POST", "/v1/jobs", &json!({ "kind": "rekey" })).await?;
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("unavailable")), "{refused:?}");
    host.stop().await?;
    Ok(())
}
