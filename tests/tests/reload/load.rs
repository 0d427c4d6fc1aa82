//! From one backend to another under load: added, filled, compared, switched to, and the old one removed, while writers go on. No
//! operation fails, no write gets lost, and no read says that something is wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use memcell_tests::agreement::check_agreement;
use memcell_tests::host::{TestHost, eventually};
use memcell_tests::random::Random;
use memcell_tests::sample::Samples;
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::{VALIDATION, becomes, changes, file, in_memory, series, status};

/// Writers that use the API, beside one that writes behind the host's back.
const WRITERS: u64 = 3;

/// Rounds of all writers together between two steps of the story.
const ROUNDS: u64 = 150;

/// Between two operations of a writer, so that several of them leave a busy machine room for what is tested.
const PACE: Duration = Duration::from_millis(2);

/// What the writers and the story share.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    rounds: AtomicU64,
    /// Read-locked during a round: whoever locks it for writing has the collection to himself.
    gate: RwLock<()>,
}

impl Load {
    async fn goes_on(&self) -> bool {
        tokio::time::sleep(PACE).await;
        !self.over.load(Ordering::Relaxed)
    }

    /// Waits until the writers have done some more.
    async fn more(&self) -> Result<()> {
        let due = self.rounds.load(Ordering::Relaxed) + ROUNDS;
        eventually("the writers have gone on", async || Ok(self.rounds.load(Ordering::Relaxed) >= due)).await
    }
}

/// The documents of one writer, with the number that each has.
struct Writer<'a> {
    host: &'a TestHost,
    random: Random,
    live: Vec<(String, u64)>,
    deleted: Vec<(String, u64)>,
    written: u64,
}

impl Writer<'_> {
    async fn write(&mut self, load: &Load) -> Result<()> {
        while load.goes_on().await {
            let _gate = load.gate.read().await;
            self.step().await?;
            self.read().await?;
            load.rounds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// One change, which must succeed.
    async fn step(&mut self) -> Result<()> {
        self.written += 1;
        let number = self.written;
        match self.random.below(10) {
            4..=6 if !self.live.is_empty() => {
                let place = self.place(self.live.len());
                let (id, known) = &mut self.live[place];
                *known = number;
                let path = format!("/v1/memcells/{id}");
                let answer = self.host.json("PATCH", &path, &json!({ "number": number })).await?;
                ensure!(answer.status == 200, "{answer:?}");
            }
            7 if !self.live.is_empty() => {
                let place = self.place(self.live.len());
                let gone = self.live.swap_remove(place);
                let answer = self.host.request("DELETE", &format!("/v1/memcells/{}", gone.0)).await?;
                ensure!(answer.status == 200, "{answer:?}");
                self.deleted.push(gone);
            }
            8 if !self.deleted.is_empty() => {
                let place = self.place(self.deleted.len());
                let back = self.deleted.swap_remove(place);
                let answer = self.host.request("POST", &format!("/v1/memcells/{}/restore", back.0)).await?;
                ensure!(answer.status == 200, "{answer:?}");
                self.live.push(back);
            }
            9 if !self.live.is_empty() => {
                let place = self.place(self.live.len());
                let (id, _) = self.live.swap_remove(place);
                let answer = self.host.request("DELETE", &format!("/v1/memcells/{id}?hard=true")).await?;
                ensure!(answer.status == 200, "{answer:?}");
            }
            _ => {
                let cell = json!({ "timestamp": "2025-06-26T00:03:30Z", "user_id": "writer", "number": number });
                self.live.push((self.host.append(&cell).await?, number));
            }
        }
        Ok(())
    }

    /// A compared read, which answers what was written, and finds nothing wrong with the copy.
    async fn read(&mut self) -> Result<()> {
        if self.live.is_empty() {
            return Ok(());
        }
        let place = self.place(self.live.len());
        let (id, number) = &self.live[place];
        let answer = self.host.request("GET", &format!("/v1/memcells/{id}")).await?;
        ensure!(answer.status == 200 && answer.body["number"] == *number, "{number}: {answer:?}");
        let outcome = answer.header("x-memcell-validation");
        ensure!(!["", "different", "missing", "corrupt"].contains(&outcome), "{outcome}: {answer:?}");
        Ok(())
    }

    fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.random.below(count as u64)).unwrap_or(0)
    }
}

/// Changes documents of its own without the host.
async fn write_behind(host: &TestHost, load: &Load) -> Result<()> {
    let mut random = Random::new(99);
    let mut ids: Vec<ObjectId> = Vec::new();
    while load.goes_on().await {
        let _gate = load.gate.read().await;
        let place = usize::try_from(random.below(ids.len() as u64 + 1)).unwrap_or(0);
        match (random.below(4), ids.get(place).copied()) {
            (0, Some(id)) => {
                ids.swap_remove(place);
                host.collection.delete_one(doc! { "_id": id }).await?;
            }
            (1, Some(id)) => {
                host.collection.update_one(doc! { "_id": id }, doc! { "$inc": { "number": 1 } }).await?;
            }
            _ => {
                let id = ObjectId::new();
                let cell = doc! { "_id": id, "timestamp": DateTime::now(), "user_id": "foreign", "number": 0 };
                host.collection.insert_one(cell).await?;
                ids.push(id);
            }
        }
        load.rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// With the collection to itself: these backends hold what MongoDB has, and nothing else.
async fn all_agree(host: &TestHost, load: &Load, backends: &[&str]) -> Result<()> {
    let _gate = load.gate.write().await;
    host.settled().await?;
    for backend in backends {
        check_agreement(host, backend).await.with_context(|| format!("the backend {backend}"))?;
    }
    Ok(())
}

/// The story that is told under load.
async fn migrate(host: &TestHost, load: &Load) -> Result<()> {
    let first = in_memory("first", "shards = 2")?;
    let second = file("second", &host.directory().join("second"), "shards = 2")?;
    load.more().await?;

    let both = format!("{VALIDATION}backend = \"first\"\n{first}{second}");
    changes(host, &both, &[("backends.second", "added")]).await?;
    becomes(host, "second", "live").await?;
    load.more().await?;
    assert_eq!(status(host, "first").await?["validates"], true);
    all_agree(host, load, &["first", "second"]).await?;

    load.more().await?;
    let mirror = host.store.mirror("second").context("the second")?;
    let switched = format!("{VALIDATION}backend = \"second\"\n{first}{second}");
    changes(host, &switched, &[("validation.backend", "changed")]).await?;
    assert_eq!(status(host, "second").await?["validates"], true);
    load.more().await?;

    let alone = format!("{VALIDATION}backend = \"second\"\n{second}");
    changes(host, &alone, &[("backends.first", "removed")]).await?;
    load.more().await?;
    eventually("nothing is left of the first", async || Ok(series(host, "first").await? == 0)).await?;
    let after = host.store.mirror("second").context("the second")?;
    assert!(std::sync::Arc::ptr_eq(&mirror, &after), "the second is the same all the time");
    load.more().await?;
    load.over.store(true, Ordering::Relaxed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_takes_the_place_of_another_under_load() -> Result<()> {
    let first = in_memory("first", "shards = 2")?;
    let host = TestHost::start_from_file(&format!("{VALIDATION}backend = \"first\"\n{first}")).await?;
    let batch: Vec<Value> = Samples::new(1).sized(1200).take(600).collect();
    assert_eq!(host.json("POST", "/v1/memcells/batch", &Value::Array(batch)).await?.status, 200);
    host.live().await?;

    let load = Load::default();
    let writer =
        |number| Writer { host: &host, random: Random::new(number), live: Vec::new(), deleted: Vec::new(), written: 0 };
    let mut writers: Vec<Writer<'_>> = (0..WRITERS).map(writer).collect();
    let writing = try_join_all(writers.iter_mut().map(|writer| writer.write(&load)));
    tokio::try_join!(Box::pin(migrate(&host, &load)), writing, write_behind(&host, &load))?;
    let live: usize = writers.iter().map(|writer| writer.live.len()).sum();
    assert!(live > 50, "{live} documents of the writers are a feeble load");

    host.settled().await?;
    check_agreement(&host, "second").await?;
    assert!(host.store.mismatches().is_empty(), "{:?}", host.store.mismatches());
    for (kind, some) in [("consistent", true), ("different", false), ("missing", false), ("corrupt", false)] {
        let name = format!("memcell_validations_total{{backend=\"second\",kind=\"{kind}\"}}");
        let count = host.figure(&name).await?.context("no such figure")?;
        assert_eq!(count > 0.0, some, "{count} reads were {kind}");
    }
    host.stop().await?;
    Ok(())
}
