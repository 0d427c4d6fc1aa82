//! What a backend in another language costs, and one that is a plain `wasi:keyvalue` component: beside the in-memory plugin,
//! through the queue of one shard.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use memcell_host::clock::Clock;
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Backend, Condition, Engine, Entry, Plugin, Write};
use memcell_host::metrics::Metrics;
use memcell_tests::artifacts;
use memcell_tests::bench::{Plan, Suite, Summary};
use memcell_tests::host::in_memory;

/// As many as the slowest keeps within its memory limit.
const KEYS: usize = 5_000;
const BATCH: usize = 100;
const VALUE_BYTES: usize = 2048;

const LOADS: Plan = Plan { pairs: 8, iterations: 2, warm_up: 1 };
const SINGLES: Plan = Plan { pairs: 20, iterations: 200, warm_up: 100 };
const BATCHES: Plan = Plan { pairs: 20, iterations: 20, warm_up: 50 };

pub(crate) async fn run() -> Result<Summary> {
    let subjects = [
        ("Python", artifacts::example("python")?),
        ("JavaScript", artifacts::example("javascript")?),
        ("wasi:keyvalue", artifacts::guest("keyvalue")?),
    ];
    let native = Bench::start(in_memory()?)?;
    let mut suite = Suite::new("examples");
    for (name, file) in subjects {
        let size = fs::metadata(&file)?.len();
        let cache = tempfile::tempdir()?;
        let engine = Engine::new(Some(cache.path().to_path_buf()))?;
        let began = Instant::now();
        Plugin::load(&engine, &file, None)?;
        let cold = began.elapsed();
        writeln!(std::io::stdout(), "{name}: {size} bytes, compiled in {:.1} s", cold.as_secs_f64())?;
        let config = BackendConfig::new("bench", file);
        let other = in_memory()?;
        suite.row(&format!("{name}: load from the compile cache / in-memory")).plan(LOADS).compare(
            || Ok(Plugin::load(&engine, artifacts::file_of(&config)?, None)?),
            || Ok(Plugin::load(&engine, artifacts::file_of(&other)?, None)?),
        )?;
        let subject = Bench::start(config)?;
        subject.fill().await?;
        native.fill().await?;
        for (what, items, plan) in [("one key", 1, SINGLES), ("batches of 100", BATCH, BATCHES)] {
            suite
                .row(&format!("{name}: get, {what} / in-memory"))
                .plan(plan)
                .items(items)
                .compare_async(async || subject.get(items).await, async || native.get(items).await)
                .await?;
            suite
                .row(&format!("{name}: put, {what} / in-memory"))
                .plan(plan)
                .items(items)
                .compare_async(async || subject.put(items).await, async || native.put(items).await)
                .await?;
        }
    }
    suite.finish()
}

/// One backend and what is done with it.
struct Bench {
    backend: Backend,
    clock: Clock,
    keys: Vec<String>,
    next: std::cell::Cell<usize>,
}

impl Bench {
    fn start(config: BackendConfig) -> Result<Self> {
        let mut config = config;
        config.queue.batch = BATCH;
        let plugin =
            Plugin::load(&Engine::new(Engine::default_cache_directory())?, artifacts::file_of(&config)?, None)?;
        let backend = Backend::start(&plugin, &Arc::new(config), &Arc::new(Metrics::new()).backend("bench"))?;
        let keys = (0..KEYS).map(|n| format!("{n:024x}")).collect();
        Ok(Self { backend, clock: Clock::new(), keys, next: std::cell::Cell::new(0) })
    }

    async fn fill(&self) -> Result<()> {
        for _ in 0..KEYS / BATCH {
            self.put(BATCH).await?;
        }
        Ok(())
    }

    async fn get(&self, items: usize) -> Result<usize> {
        let found = self.backend.get_many(self.some_keys(items)).await?;
        ensure!(found.iter().all(Option::is_some), "an entry is missing");
        Ok(found.len())
    }

    async fn put(&self, items: usize) -> Result<usize> {
        let stamp = self.clock.now();
        let put =
            |key: &String| Write::Put(Entry { key: key.clone(), stamp, expires_at: None, value: vec![7; VALUE_BYTES] });
        let writes = self.some_keys(items).iter().map(put).collect();
        let ends = self.backend.write(writes, Condition::Newer).await;
        ends.into_iter().collect::<Result<Vec<_>, _>>().context("a write failed").map(|outcomes| outcomes.len())
    }

    /// The next so many keys, round and round.
    fn some_keys(&self, items: usize) -> &[String] {
        let start = self.next.get();
        self.next.set((start + items) % KEYS);
        self.keys.get(start..start + items).unwrap_or_default()
    }
}
