//! Faults planted in a backend, and that each is found once and mended, while writers go on at full speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use memcell_host::codec::{self, Envelope, Format};
use memcell_host::memcell::MemCell;
use memcell_tests::host::{TestHost, remote};
use memcell_tests::random::Random;
use memcell_tests::redis::RedisServer;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{RawDocumentBuf, doc};
use serde_json::{Value, json};

use super::{append, done, figures};

/// The entry of a document in the server, under the plugin's default prefix.
fn name(id: &str) -> String {
    format!("memcell:{id}")
}

struct Store(redis::Connection);

impl Store {
    fn value(&mut self, id: &str) -> Result<Vec<u8>> {
        Ok(redis::cmd("HGET").arg(name(id)).arg("value").query(&mut self.0)?)
    }

    fn set_value(&mut self, id: &str, value: &[u8]) -> Result<()> {
        Ok(redis::cmd("HSET").arg(name(id)).arg("value").arg(value).exec(&mut self.0)?)
    }

    fn remove(&mut self, id: &str) -> Result<()> {
        Ok(redis::cmd("DEL").arg(name(id)).exec(&mut self.0)?)
    }

    /// An entry that nobody's tombstone stands in the way of.
    fn plant(&mut self, name: &str, value: &[u8]) -> Result<()> {
        redis::cmd("DEL").arg(name).exec(&mut self.0)?;
        let stamp = format!("{:020}", 1);
        Ok(redis::cmd("HSET").arg(name).arg("stamp").arg(stamp).arg("value").arg(value).exec(&mut self.0)?)
    }
}

/// What keeps the host and the backend busy with documents of its own, until it is dropped.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Writers {
    fn start(host: &TestHost, ids: &[String]) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..3_u64).map(|seed| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let (client, url, ids) = (host.client.clone(), host.url.clone(), ids.to_vec());
            let collection = host.collection.clone();
            tokio::spawn(async move {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let id = &ids[random.below(ids.len() as u64) as usize];
                    let path = format!("{url}/v1/memcells/{id}");
                    let n = written.fetch_add(1, Ordering::Relaxed);
                    match random.below(6) {
                        0 => drop(client.delete(&path).send().await?),
                        1 => drop(client.post(format!("{path}/restore")).send().await?),
                        // Behind the host's back, and without counting the revision up.
                        2 => {
                            let change = doc! { "$set": { "behind": n as i64 } };
                            collection.update_one(doc! { "_id": ObjectId::parse_str(id)? }, change).await?;
                        }
                        _ => drop(client.patch(&path).json(&json!({ "n": n })).send().await?),
                    }
                }
                Ok(())
            })
        });
        let tasks = tasks.collect();
        Self { stop, written, tasks }
    }

    async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(self.written.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_once_and_mended_while_others_write() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let mut config = remote(&[server.address()], &[])?;
    config.shards = 2;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let ids = append(&host, 21, 700).await?;
    let (quiet, busy) = ids.split_at(300);
    host.settled().await?;
    let mut store = Store(server.connect()?);

    // What will be put back as a copy of an older revision, or of a document that is gone.
    let mut old = Vec::new();
    for id in &quiet[0..10] {
        old.push(store.value(id)?);
    }
    for id in &quiet[0..5] {
        host.json("PATCH", &format!("/v1/memcells/{id}"), &json!({ "summary": "newer" })).await?;
    }
    for id in &quiet[5..10] {
        host.request("DELETE", &format!("/v1/memcells/{id}")).await?;
    }
    host.settled().await?;
    let writers = Writers::start(&host, busy);

    // Stale, resurrected, missing, damaged, different at the same revision, without a document.
    for (id, value) in quiet[0..5].iter().zip(&old) {
        store.set_value(id, value)?;
    }
    for (id, value) in quiet[5..10].iter().zip(&old[5..]) {
        store.plant(&name(id), value)?;
    }
    for id in &quiet[10..15] {
        store.remove(id)?;
    }
    for (n, id) in quiet[15..20].iter().enumerate() {
        let mut value = store.value(id)?;
        let at = value.len() * n / 5;
        value[at] ^= 1;
        store.set_value(id, &value)?;
    }
    for id in &quiet[20..25] {
        let copy = Envelope::parse(&store.value(id)?)?.document()?;
        let mut document = mongodb::bson::Document::try_from(copy.as_raw())?;
        document.insert("summary", "forged");
        let forged = MemCell::from_raw(RawDocumentBuf::try_from(&document)?);
        store.set_value(id, &codec::encode(Format::Json, &forged)?)?;
    }
    let orphan = store.value(&quiet[30])?;
    let orphans: Vec<String> = (0..5).map(|_| ObjectId::new().to_hex()).collect();
    for id in &orphans {
        store.plant(&name(id), &orphan)?;
    }
    // Of an id that is no ObjectId, too; and what no host has written is left alone.
    store.plant(&name("\"text\""), &orphan)?;
    store.plant(&name("not the key of a document"), b"x")?;

    let by_digest = [("corrupt", 5), ("extra", 6), ("foreign", 1), ("missing", 5), ("resurrected", 5), ("stale", 5)];
    let deep = [by_digest.as_slice(), &[("different", 5)]].concat();
    let found = |job: &Value| -> Vec<(String, u64)> { figures(job) };
    let expected = |counts: &[(&str, u64)]| {
        let mut counts: Vec<(String, u64)> = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        counts.sort();
        counts
    };
    let sorted = |mut counts: Vec<(String, u64)>| {
        // A document that its writers never let settle is said to be that, and nothing else.
        counts.retain(|(name, _)| name != "unsettled");
        counts.sort();
        counts
    };
    let verified = done(&host, &json!({ "kind": "verify" })).await?;
    assert_eq!(sorted(found(&verified)), expected(&by_digest), "{verified}");
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert_eq!(sorted(found(&verified)), expected(&deep), "{verified}");
    let examples = verified["report"]["examples"].as_array().context("no examples")?;
    let forged = examples.iter().find(|example| example["kind"] == "different").context("no example")?;
    assert_eq!(forged["paths"], json!(["summary"]));
    let mut named: Vec<&str> = examples.iter().filter_map(|example| example["event_id"].as_str()).collect();
    let count = named.len();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), count, "none is found twice");

    let repaired = done(&host, &json!({ "kind": "repair", "deep": true })).await?;
    let all = [deep.as_slice(), &[("repaired", 31)]].concat();
    assert_eq!(sorted(found(&repaired)), expected(&all), "{repaired}");
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert_eq!(sorted(found(&verified)), expected(&[("foreign", 1)]), "{verified}");

    let written = writers.stop().await?;
    ensure!(written > 500, "only {written} writes took place meanwhile");
    // And with nobody writing, every single document agrees.
    host.settled().await?;
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert_eq!(found(&verified), expected(&[("foreign", 1)]), "{verified}");
    host.stop().await?;
    Ok(())
}
