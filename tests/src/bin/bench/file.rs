//! The file plugin in its sandbox, beside native `redb` with the same records on the same disk.
//!
//! Compared are the calls themselves: what the shard's thread spends in the component, values handed over included, as the
//! metrics have it, and what a program spends that uses `redb` in the ordinary way: a transaction for each call, one table, the
//! values copied out. Waking the threads of the two isn't in it.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_host::clock::Clock;
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Backend, Condition, Engine, Outcome, Plugin, Write};
use memcell_host::metrics::Metrics;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::file::put;
use memcell_tests::host::file;
use redb::{ReadableDatabase, TableDefinition};
use tempfile::TempDir;
use tokio::sync::oneshot;

const KEYS: usize = 10_000;
const BATCH: usize = 100;
const VALUE_BYTES: usize = 2048;

/// As much as the plugin has unless the operator says otherwise.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

const WRITES: Plan = Plan { pairs: 24, iterations: 8, warm_up: 8 };
const BATCHES: Plan = Plan { pairs: 24, iterations: 60, warm_up: 100 };
const SINGLES: Plan = Plan { pairs: 24, iterations: 400, warm_up: 400 };

pub(crate) async fn run() -> Result<Summary> {
    let directory = TempDir::new()?;
    let mut suite = Suite::new("file");
    let keys: Vec<String> = (0..KEYS).map(|n| format!("{n:024x}")).collect();
    let batches: Vec<&[String]> = keys.chunks(BATCH).collect();
    let singles: Vec<&[String]> = keys.chunks(1).collect();
    // Its readings rise from row to row, so that no write is refused as stale.
    let clock = Clock::new();
    let mut plugin = Sandboxed::start(file(&directory.path().join("plugin"))?)?;
    let native = Native::create(&directory.path().join("native.redb"))?;
    for batch in &batches {
        plugin.put(batch, &clock).await?;
        native.put(batch, redb::Durability::Immediate).await?;
    }
    for (name, parts, put_target) in [("100", &batches, Some(Target::AtMost(1.3))), ("one", &singles, None)] {
        let items = parts.first().map_or(1, |part| part.len());
        let (mut a, mut b) = (0, 0);
        let mut row = suite.row(&format!("durable put of {name}: plugin / redb")).plan(WRITES).items(items);
        if let Some(target) = put_target {
            row = row.target(target);
        }
        row.compare_timed_async(
            async || plugin.put(next(parts, &mut a), &clock).await,
            async || native.put(next(parts, &mut b), redb::Durability::Immediate).await,
        )
        .await?;
        let (mut a, mut b) = (0, 0);
        suite
            .row(&format!("get of {name}: plugin / redb"))
            .plan(if items > 1 { BATCHES } else { SINGLES })
            .items(items)
            .target(Target::AtMost(2.0))
            .compare_timed_async(
                async || plugin.get(next(parts, &mut a)).await,
                async || native.get(next(parts, &mut b)).await,
            )
            .await?;
    }
    plugin.backend.close(Duration::from_secs(10)).await;

    let mut config = file(&directory.path().join("unsynced"))?;
    config.settings = vec![("durability".into(), "flush".into())];
    let mut plugin = Sandboxed::start(config)?;
    let (mut a, mut b) = (0, 0);
    suite
        .row("put of 100, durable later: plugin / redb")
        .plan(WRITES)
        .items(BATCH)
        .compare_timed_async(
            async || plugin.put(next(&batches, &mut a), &clock).await,
            async || native.put(next(&batches, &mut b), redb::Durability::None).await,
        )
        .await?;
    plugin.backend.close(Duration::from_secs(10)).await;
    suite.finish()
}

/// One part after the other, scattered.
fn next<'a>(parts: &[&'a [String]], at: &mut usize) -> &'a [String] {
    *at = (*at + 7919) % parts.len();
    parts.get(*at).copied().unwrap_or_default()
}

/// The plugin behind its shard, and the metrics that tell how long its calls took.
struct Sandboxed {
    backend: Backend,
    metrics: Arc<Metrics>,
}

impl Sandboxed {
    fn start(mut config: BackendConfig) -> Result<Self> {
        config.queue.batch = BATCH;
        let engine = Engine::new(Engine::default_cache_directory())?;
        let plugin = Plugin::load(&engine, memcell_tests::artifacts::file_of(&config)?, None)?;
        let metrics = Arc::new(Metrics::new());
        let backend = Backend::start(&plugin, &Arc::new(config), &metrics.backend("bench"))?;
        Ok(Self { backend, metrics })
    }

    /// How long all calls of a function have taken so far.
    fn spent(&self, function: &str) -> Result<Duration> {
        let wanted = format!("memcell_kv_call_duration_seconds_sum{{backend=\"bench\",function=\"{function}\"}}");
        let text = self.metrics.render();
        let Some(sum) = text.lines().find_map(|line| line.strip_prefix(&wanted)) else { return Ok(Duration::ZERO) };
        Ok(Duration::from_secs_f64(sum.trim().parse()?))
    }

    async fn put(&mut self, keys: &[String], clock: &Clock) -> Result<Duration> {
        let stamp = clock.now();
        let writes: Vec<Write> = keys.iter().map(|key| put(key, stamp, &[7; VALUE_BYTES])).collect();
        let before = self.spent("put-many")?;
        for end in self.backend.write(writes, Condition::Newer).await {
            ensure!(end? == Outcome::Applied, "a write was stale");
        }
        Ok(self.spent("put-many")?.saturating_sub(before))
    }

    async fn get(&mut self, keys: &[String]) -> Result<Duration> {
        let before = self.spent("get-many")?;
        let found = self.backend.get_many(keys).await?;
        ensure!(found.iter().all(Option::is_some), "an entry is missing");
        Ok(self.spent("get-many")?.saturating_sub(before))
    }
}

const TABLE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");

/// What a program does that has `redb` for itself. It has a thread of its own, too, which is woken for each call: so neither side
/// finds its data in warmer processor caches than the other.
struct Native {
    calls: mpsc::Sender<Call>,
}

type Call = Box<dyn FnOnce(&redb::Database) + Send>;

impl Native {
    fn create(path: &Path) -> Result<Self> {
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
        let (calls, called) = mpsc::channel::<Call>();
        // It ends with the sender.
        std::thread::spawn(move || called.into_iter().for_each(|call| call(&database)));
        Ok(Self { calls })
    }

    /// How long `work` takes on the thread.
    async fn timed(&self, work: impl FnOnce(&redb::Database) -> Result<()> + Send + 'static) -> Result<Duration> {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |database| {
            let started = Instant::now();
            let result = work(database);
            // Whoever asked waits.
            let _ = reply.send(result.map(|()| started.elapsed()));
        });
        self.calls.send(call).map_err(|_| anyhow::anyhow!("the thread of the native database is gone"))?;
        answer.await?
    }

    async fn put(&self, keys: &[String], durability: redb::Durability) -> Result<Duration> {
        let (keys, value) = (keys.to_vec(), vec![7; VALUE_BYTES]);
        self.timed(move |database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(durability)?;
            {
                let mut table = transaction.open_table(TABLE)?;
                for key in &keys {
                    table.insert(key.as_str(), value.as_slice())?;
                }
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    async fn get(&self, keys: &[String]) -> Result<Duration> {
        let keys = keys.to_vec();
        self.timed(move |database| {
            let table = database.begin_read()?.open_table(TABLE)?;
            let mut found = Vec::with_capacity(keys.len());
            for key in &keys {
                found.push(table.get(key.as_str())?.map(|found| found.value().to_vec()));
            }
            ensure!(found.iter().all(Option::is_some), "an entry is missing");
            Ok(())
        })
        .await
    }
}
