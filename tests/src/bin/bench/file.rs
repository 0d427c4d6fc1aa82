//! The file plugin in its sandbox, beside native `redb` with the same records on the same disk.
//!
//! Compared are the calls themselves, made on one thread: that of an instance, values handed over included, and what a program does
//! that uses `redb` in the ordinary way: a transaction for each call, one table, the values copied out. What the shard around an
//! instance adds, waking its thread most of all, is in the rows that say «through the queue».

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_host::clock::Clock;
use memcell_host::kv::{Condition, Outcome};
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::file::{Shard, put};
use memcell_tests::host::file;
use redb::{ReadableDatabase, TableDefinition};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::direct::Direct;

const KEYS: usize = 10_000;
const BATCH: usize = 100;
const VALUE: [u8; 2048] = [7; 2048];

/// As much as the plugin has unless the operator says otherwise.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

const WRITES: Plan = Plan { pairs: 24, iterations: 8, warm_up: 8 };
const BATCHES: Plan = Plan { pairs: 24, iterations: 60, warm_up: 100 };
const SINGLES: Plan = Plan { pairs: 24, iterations: 400, warm_up: 400 };

pub(crate) fn run() -> Result<Summary> {
    let directory = TempDir::new()?;
    let mut suite = Suite::new("file");
    let keys: Vec<String> = (0..KEYS).map(|n| format!("{n:024x}")).collect();
    let batches: Vec<&[String]> = keys.chunks(BATCH).collect();
    let singles: Vec<&[String]> = keys.chunks(1).collect();
    // Its readings rise from row to row, so that no write is refused as stale.
    let clock = Clock::new();
    let mut config = file(&directory.path().join("plugin"))?;
    config.settings = immediate();
    let mut plugin = Direct::open(config)?;
    let native = Native::create(&directory.path().join("native.redb"))?;
    for batch in &batches {
        plugin.put(batch, clock.now(), &VALUE)?;
        native.put(batch, redb::Durability::Immediate)?;
    }
    for (name, parts, put_target) in [("100", &batches, Some(Target::AtMost(1.3))), ("one", &singles, None)] {
        let items = parts.first().map_or(1, |part| part.len());
        let (mut a, mut b) = (0, 0);
        let mut row = suite.row(&format!("durable put of {name}: plugin / redb")).plan(WRITES).items(items);
        if let Some(target) = put_target {
            row = row.target(target);
        }
        row.compare_timed(
            || plugin.put(next(parts, &mut a), clock.now(), &VALUE),
            || native.put(next(parts, &mut b), redb::Durability::Immediate),
        )?;
        let (mut a, mut b) = (0, 0);
        suite
            .row(&format!("get of {name}: plugin / redb"))
            .plan(if items > 1 { BATCHES } else { SINGLES })
            .items(items)
            .target(Target::AtMost(2.0))
            .compare_timed(|| plugin.get(next(parts, &mut a)), || native.get(next(parts, &mut b)))?;
    }
    plugin.close()?;

    let mut plugin = Direct::open(file(&directory.path().join("unsynced"))?)?;
    let (mut a, mut b) = (0, 0);
    suite.row("put of 100, durable later: plugin / redb").plan(WRITES).items(BATCH).compare_timed(
        || plugin.put(next(&batches, &mut a), clock.now(), &VALUE),
        || native.put(next(&batches, &mut b), redb::Durability::None),
    )?;
    plugin.close()?;

    let runtime = Runtime::new()?;
    runtime.block_on(through_the_queue(&mut suite, &directory.path().join("plugin"), &singles, &clock))?;
    suite.finish()
}

async fn through_the_queue(suite: &mut Suite, directory: &Path, singles: &[&[String]], clock: &Clock) -> Result<()> {
    let mut config = file(directory)?;
    config.settings = immediate();
    let shard = Shard::open(config).await?;
    let mut n = 0;
    let get = async || Ok(shard.backend.get_many(next(singles, &mut n)).await?);
    suite.row("get of one key through the queue").plan(SINGLES).report_async(get).await?;
    let mut n = 0;
    let put = async || {
        let writes = next(singles, &mut n).iter().map(|key| put(key, clock.now(), &VALUE)).collect();
        for end in shard.backend.write(writes, Condition::Newer).await {
            ensure!(end? == Outcome::Applied, "a write was stale");
        }
        Ok(())
    };
    suite.row("durable put of one entry through the queue").plan(WRITES).report_async(put).await?;
    shard.close().await
}

/// Each batch is on the disk when it is answered.
fn immediate() -> Vec<(String, String)> {
    vec![("durability".into(), "immediate".into())]
}

/// One part after the other, scattered.
fn next<'a>(parts: &[&'a [String]], at: &mut usize) -> &'a [String] {
    *at = (*at + 7919) % parts.len();
    parts.get(*at).copied().unwrap_or_default()
}

const TABLE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");

/// What a program does that has `redb` for itself.
struct Native(redb::Database);

impl Native {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self(redb::Builder::new().set_cache_size(CACHE_BYTES).create(path)?))
    }

    fn put(&self, keys: &[String], durability: redb::Durability) -> Result<Duration> {
        let started = Instant::now();
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for key in keys {
                table.insert(key.as_str(), VALUE.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(started.elapsed())
    }

    fn get(&self, keys: &[String]) -> Result<Duration> {
        let started = Instant::now();
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(table.get(key.as_str())?.map(|found| found.value().to_vec()));
        }
        let elapsed = started.elapsed();
        ensure!(found.iter().all(Option::is_some), "an entry is missing");
        Ok(elapsed)
    }
}
