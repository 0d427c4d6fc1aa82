//! The in-memory plugin through the queue of its shard, beside a native map that is called directly.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::try_join_all;
use memcell_host::clock::Clock;
use memcell_host::kv::{Backend, Condition, Engine, Entry, KvError, Outcome, PendingWrite, Plugin, Write};
use memcell_host::metrics::Metrics;
use memcell_host::trace::Origin;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::host::in_memory;
use tokio::sync::Notify;

const KEYS: usize = 10_000;
const BATCH: usize = 100;
const VALUE_BYTES: usize = 2048;
/// Batches under way at a time: what a mirror under load keeps in a queue.
const IN_FLIGHT: usize = 16;

const PLAN: Plan = Plan { pairs: 24, iterations: 40, warm_up: 20 };

pub(crate) async fn run() -> anyhow::Result<Summary> {
    let mut config = in_memory()?;
    config.queue.batch = BATCH;
    let config = Arc::new(config);
    let engine = Engine::new(Engine::default_cache_directory())?;
    let plugin = Plugin::load(&engine, memcell_tests::artifacts::file_of(&config)?, None)?;
    let backend = Backend::start(&plugin, &config, &Arc::new(Metrics::new()).backend("bench"))?;
    // Its readings rise from row to row, so that no write is refused as stale.
    let clock = Clock::new();
    let mut native: HashMap<String, (u64, Vec<u8>)> = HashMap::new();
    let keys: Vec<String> = (0..KEYS).map(|n| format!("{n:024x}")).collect();
    let batches: Vec<&[String]> = keys.chunks(BATCH).collect();
    let value: Arc<[u8]> = vec![7; VALUE_BYTES].into();
    let mut suite = Suite::new("backend");

    let (mut a, mut b) = (0, 0);
    suite
        .row("direct writes in batches of 100: plugin / HashMap")
        .plan(PLAN)
        .items(BATCH * IN_FLIGHT)
        .target(Target::AtMost(2.5))
        .compare_async(
            async || {
                let stamp = clock.now();
                let counter = Arc::new(Counter::new(BATCH * IN_FLIGHT));
                for _ in 0..IN_FLIGHT {
                    for key in batch(&batches, &mut a) {
                        submit(&backend, key, stamp, &value, &counter)?;
                    }
                }
                counter.done.notified().await;
                Ok(())
            },
            async || {
                for _ in 0..IN_FLIGHT {
                    insert(&mut native, batch(&batches, &mut b), &value);
                }
                Ok(())
            },
        )
        .await?;
    let (mut a, mut b) = (0, 0);
    suite
        .row("get in batches of 100, 16 under way: plugin / HashMap")
        .plan(PLAN)
        .items(BATCH * IN_FLIGHT)
        .target(Target::AtMost(2.5))
        .compare_async(
            async || {
                let reads = (0..IN_FLIGHT).map(|_| backend.get_many(batch(&batches, &mut a)));
                Ok(try_join_all(reads).await?)
            },
            async || {
                let mut found = Vec::with_capacity(BATCH * IN_FLIGHT);
                for _ in 0..IN_FLIGHT {
                    found.extend(batch(&batches, &mut b).iter().map(|key| native.get(key).cloned()));
                }
                Ok(found)
            },
        )
        .await?;
    let (mut a, mut b) = (0, 0);
    suite
        .row("put, one batch of 100 at a time: plugin / HashMap")
        .plan(PLAN)
        .items(BATCH)
        .compare_async(
            async || Ok(backend.write(writes(batch(&batches, &mut a), clock.now(), &value), Condition::Newer).await),
            async || {
                insert(&mut native, batch(&batches, &mut b), &value);
                Ok(())
            },
        )
        .await?;
    let (mut a, mut b) = (0, 0);
    suite
        .row("get, one batch of 100 at a time: plugin / HashMap")
        .plan(PLAN)
        .items(BATCH)
        .compare_async(
            async || Ok(backend.get_many(batch(&batches, &mut a)).await?),
            async || Ok(batch(&batches, &mut b).iter().map(|key| native.get(key).cloned()).collect::<Vec<_>>()),
        )
        .await?;
    let mut n = 0;
    let single = Plan { pairs: 20, iterations: 500, warm_up: 100 };
    suite
        .row("get of one key through the queue")
        .plan(single)
        .report_async(async || {
            n += 1;
            Ok(backend.get_many(keys.get(n % KEYS..).and_then(|keys| keys.get(..1)).unwrap_or_default()).await?)
        })
        .await?;
    suite
        .row("put of one entry through the queue")
        .plan(single)
        .report_async(async || {
            n += 1;
            Ok(backend
                .write(
                    writes(
                        keys.get(n % KEYS..).and_then(|keys| keys.get(..1)).unwrap_or_default(),
                        clock.now(),
                        &value,
                    ),
                    Condition::Newer,
                )
                .await)
        })
        .await?;
    suite.finish()
}

/// What the plugin is compared with: a copy of each value, with a stamp beside it.
fn insert(native: &mut HashMap<String, (u64, Vec<u8>)>, keys: &[String], value: &[u8]) {
    for key in keys {
        native.insert(key.clone(), (0, value.to_vec()));
    }
}

/// Tells when all of a number of direct writes have come to their end.
struct Counter {
    left: AtomicUsize,
    done: Notify,
}

impl Counter {
    fn new(writes: usize) -> Self {
        Self { left: AtomicUsize::new(writes), done: Notify::new() }
    }
}

/// A direct write as the mirror makes them: its value is made by the shard.
struct Direct {
    key: String,
    stamp: u64,
    value: Arc<[u8]>,
    counter: Arc<Counter>,
}

impl PendingWrite for Direct {
    fn key(&self) -> &str {
        &self.key
    }

    fn size(&self) -> usize {
        self.value.len()
    }

    fn is_awaited(&self) -> bool {
        false
    }

    fn origin(&self) -> Origin {
        Origin::current()
    }

    fn prepare(&mut self) -> Result<Write, String> {
        let (key, value) = (self.key.clone(), self.value.to_vec());
        Ok(Write::Put(Entry { key, stamp: self.stamp, expires_at: None, value }))
    }

    fn finish(self: Box<Self>, end: Result<Outcome, KvError>) {
        // A failure is never counted, and shows as a benchmark that doesn't end.
        if end.is_ok() && self.counter.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.counter.done.notify_one();
        }
    }
}

fn submit(backend: &Backend, key: &str, stamp: u64, value: &Arc<[u8]>, counter: &Arc<Counter>) -> anyhow::Result<()> {
    let (value, counter) = (Arc::clone(value), Arc::clone(counter));
    let write = Box::new(Direct { key: key.to_owned(), stamp, value, counter });
    backend.submit(write).map_err(|(_, error)| error.into())
}

fn batch<'a>(batches: &[&'a [String]], next: &mut usize) -> &'a [String] {
    *next += 1;
    batches.get(*next % batches.len()).copied().unwrap_or_default()
}

fn writes(keys: &[String], stamp: u64, value: &[u8]) -> Vec<Write> {
    let put = |key: &String| Write::Put(Entry { key: key.clone(), stamp, expires_at: None, value: value.to_vec() });
    keys.iter().map(put).collect()
}
