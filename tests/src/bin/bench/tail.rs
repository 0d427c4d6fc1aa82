//! How soon the in-memory backend follows another program's writes, and what a key-value server that is down costs the store's
//! operations.
//!
//! The lag of a write is the time from its acknowledgement by MongoDB until the backend has its revision. Only the tail can bring
//! it, for the host knows nothing of the writer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::clock::{SUB_MILLISECOND_BITS, unix_millis};
use memcell_host::memcell::{EventId, NewMemCell, Patch};
use memcell_host::mirror::Mirror;
use memcell_host::store::MemCellStore;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::host::{PATIENCE, TestHost, in_memory, remote};
use memcell_tests::redis::RedisServer;
use memcell_tests::sample::Samples;
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Documents that writes go over.
const DOCUMENTS: usize = 2000;

/// What the other program writes: so many a second, by so many connections.
const WRITES_PER_SECOND: u64 = 2000;
const WRITERS: u64 = 8;

/// Every so many of a writer's writes, one is watched.
const SAMPLE: u64 = 20;

/// How often the backend is asked for the writes that are watched, all in one read.
const POLL: Duration = Duration::from_millis(1);

/// Samples in a second.
const SAMPLES: usize = 100;
const SECONDS: usize = 20;

/// The lag that 99 % of the writes must not exceed.
const TARGET: Duration = Duration::from_millis(50);

/// Operations whose p99 is one figure.
const GROUP: usize = 100;

const GROUPS: Plan = Plan { pairs: 20, iterations: 4, warm_up: 1 };

pub(crate) async fn run() -> Result<Summary> {
    let mut suite = Suite::new("tail");
    lag(&mut suite).await?;
    outage(&mut suite).await?;
    suite.finish()
}

async fn lag(suite: &mut Suite) -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let ids = fill(&host.store).await?;
    host.settled().await?;
    let (lags, rate) = follow(&host, &ids).await?;
    let mut all = lags.iter().copied().cycle();
    let target = async || Ok(TARGET);
    suite
        .row(&format!("lag of a write at {rate:.0} writes/s / 50 ms"))
        .plan(Plan { pairs: SECONDS, iterations: SAMPLES, warm_up: 0 })
        .compare_timed_async(async || all.next().context("there are no samples"), target)
        .await?;
    let mut seconds = lags.chunks(SAMPLES).map(p99).cycle();
    suite
        .row("p99 of a second's lags / 50 ms")
        .plan(Plan { pairs: SECONDS, iterations: 1, warm_up: 0 })
        .target(Target::AtMost(1.0))
        .compare_timed_async(async || seconds.next().context("there are no samples"), target)
        .await?;
    host.stop().await?;
    Ok(())
}

/// A write that is watched.
struct Watched {
    key: String,
    revision: u64,
    acknowledged: Instant,
}

/// Lets the other program write, and answers the lags of the writes that were watched, in the order they arrived, and how many
/// writes there were a second.
async fn follow(host: &TestHost, ids: &[EventId]) -> Result<(Vec<Duration>, f64)> {
    let (watch, watched) = mpsc::unbounded_channel();
    let started = Instant::now();
    let count = (SECONDS * SAMPLES) as u64 * SAMPLE / WRITERS;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        writers.spawn(write(host.collection.clone(), ids.to_vec(), number, count, watch.clone()));
    }
    drop(watch);
    let mirror = host.store.mirrors().into_iter().next().context("there is no backend")?;
    let written = async {
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        Ok::<_, anyhow::Error>((count * WRITERS) as f64 / started.elapsed().as_secs_f64())
    };
    let (lags, rate) = tokio::join!(observe(&mirror, watched), written);
    Ok((lags?, rate?))
}

/// One connection's share of the writes, evenly spread. It counts revisions up as the host does.
async fn write(
    collection: Collection<Document>,
    ids: Vec<EventId>,
    number: u64,
    count: u64,
    watch: mpsc::UnboundedSender<Watched>,
) -> Result<()> {
    let mut turns =
        tokio::time::interval(Duration::from_secs(1) * u32::try_from(WRITERS)? / u32::try_from(WRITES_PER_SECOND)?);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for turn in 0..count {
        turns.tick().await;
        // Each writer has documents of its own.
        let at = usize::try_from(turn * WRITERS + number)? % ids.len();
        let id = *ids.get(at).context("there are no documents")?;
        let revision = (unix_millis() << SUB_MILLISECOND_BITS) + turn;
        let change = doc! { "$set": { "number": i64::try_from(turn)?, "revision": i64::try_from(revision)? } };
        collection.update_one(doc! { "_id": id.object_id() }, change).await?;
        if turn % SAMPLE == 0 {
            // The observer ends after the writers.
            let _ = watch.send(Watched { key: id.to_string(), revision, acknowledged: Instant::now() });
        }
    }
    Ok(())
}

async fn observe(mirror: &Mirror, mut watched: mpsc::UnboundedReceiver<Watched>) -> Result<Vec<Duration>> {
    let (mut lags, mut waiting): (Vec<Duration>, Vec<Watched>) = (Vec::new(), Vec::new());
    let mut polls = tokio::time::interval(POLL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        polls.tick().await;
        while let Ok(write) = watched.try_recv() {
            waiting.push(write);
        }
        if waiting.is_empty() {
            if watched.is_closed() && watched.is_empty() {
                return Ok(lags);
            }
            continue;
        }
        let keys: Vec<String> = waiting.iter().map(|write| write.key.clone()).collect();
        let copies = mirror.read(&keys).await?;
        let mut stamps = copies.into_iter().map(|copy| copy.map_or(0, |copy| copy.stamp));
        waiting.retain(|write| {
            let is_there = stamps.next().is_some_and(|stamp| stamp >= write.revision);
            if is_there {
                lags.push(write.acknowledged.elapsed());
            }
            !is_there
        });
        ensure!(waiting.iter().all(|write| write.acknowledged.elapsed() < PATIENCE), "the tail does not follow");
    }
}

async fn outage(suite: &mut Suite) -> Result<()> {
    let mut redis = RedisServer::start(&[])?;
    let with = TestHost::start(vec![remote(&[redis.address()], &[])?]).await?;
    with.live().await?;
    let mut config = with.config.clone();
    config.backends.clear();
    config.validation.backend = None;
    config.mongodb.collection = "without".into();
    let without = MemCellStore::open(&config, std::sync::Arc::default()).await?;
    let (ids, others) = (fill(&with.store).await?, fill(&without).await?);
    with.settled().await?;
    redis.kill()?;

    let (mut a, mut b) = (Updates::new(ids), Updates::new(others));
    suite
        .row("p99 of 100 updates: server down / no backend")
        .plan(GROUPS)
        .target(Target::AtMost(1.2))
        .compare_timed_async(async || a.group(&with.store).await, async || b.group(&without).await)
        .await?;
    let (mut a, mut b) = (Samples::new(3), Samples::new(3));
    suite
        .row("p99 of 100 appends: server down / no backend")
        .plan(GROUPS)
        .target(Target::AtMost(1.2))
        .compare_timed_async(async || append(&with.store, &mut a).await, async || append(&without, &mut b).await)
        .await?;
    without.close(config.http.shutdown_grace).await;
    // Nothing can be drained to a server that is down.
    drop(with.stop().await?);
    Ok(())
}

/// Updates of one document after the other.
struct Updates {
    ids: Vec<EventId>,
    made: usize,
}

impl Updates {
    fn new(ids: Vec<EventId>) -> Self {
        Self { ids, made: 0 }
    }

    /// The p99 of the next group.
    async fn group(&mut self, store: &MemCellStore) -> Result<Duration> {
        let mut times = Vec::with_capacity(GROUP);
        for _ in 0..GROUP {
            let id = *self.ids.get(self.made % self.ids.len()).context("there are no documents")?;
            self.made += 1;
            let fields: Map<String, Value> =
                [("summary".into(), json!(format!("number {}", self.made)))].into_iter().collect();
            let patch = Patch::from_api(fields)?;
            let started = Instant::now();
            store.update(id, &patch).await?;
            times.push(started.elapsed());
        }
        Ok(p99(&times))
    }
}

/// The p99 of a group of appends.
async fn append(store: &MemCellStore, samples: &mut Samples) -> Result<Duration> {
    let cells = samples.take(GROUP).map(cell).collect::<Result<Vec<_>>>()?;
    let mut times = Vec::with_capacity(GROUP);
    for cell in cells {
        let started = Instant::now();
        store.append(cell).await?;
        times.push(started.elapsed());
    }
    Ok(p99(&times))
}

/// What 99 % don't exceed.
fn p99(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

fn cell(value: Value) -> Result<NewMemCell> {
    let Value::Object(fields) = value else { anyhow::bail!("a sample is no object") };
    Ok(NewMemCell::from_api(fields)?)
}

async fn fill(store: &MemCellStore) -> Result<Vec<EventId>> {
    let cells = Samples::new(2).take(DOCUMENTS).map(cell).collect::<Result<Vec<_>>>()?;
    let stored = store.append_many(cells).await?;
    stored.value.into_iter().map(|cell| cell?.event_id().context("a stored document has no id")).collect()
}
