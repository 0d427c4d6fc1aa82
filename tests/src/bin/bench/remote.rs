//! The remote plugin in its sandbox, beside the `redis` crate called natively with the same commands, on one server.
//!
//! Compared are the calls themselves: what the shard's thread spends in the component, values handed over included, as the
//! metrics have it, and what the crate's own connection spends. Waking the shard's thread isn't in it: the crate needs none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::clock::Clock;
use memcell_host::kv::{Backend, Condition, Engine, Entry, Mark, Outcome, Plugin, ShardState, Write};
use memcell_host::metrics::Metrics;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::host::{PATIENCE, remote};
use memcell_tests::redis::RedisServer;
use redis::{Connection, ConnectionLike, IntoConnectionInfo, Pipeline, Value};

const KEYS: usize = 5000;
const BATCH: usize = 100;
const VALUE_BYTES: usize = 2048;
/// How many writes of this size the plugin puts into one call of its script.
const WRITES_PER_CALL: usize = 26;

const BATCHES: Plan = Plan { pairs: 24, iterations: 30, warm_up: 50 };
const SINGLES: Plan = Plan { pairs: 24, iterations: 300, warm_up: 200 };

pub(crate) async fn run() -> Result<Summary> {
    let server = RedisServer::start(&[])?;
    let mut sandboxed = Sandboxed::start(&server).await?;
    let mut native = Native::connect(&server)?;
    // Its readings rise from row to row, so that no write is refused as stale.
    let clock = Clock::new();
    let keys: Vec<String> = (0..KEYS).map(|n| format!("{n:024x}")).collect();
    let batches: Vec<&[String]> = keys.chunks(BATCH).collect();
    let singles: Vec<&[String]> = keys.chunks(1).collect();
    let value = vec![7; VALUE_BYTES];
    let mut suite = Suite::new("remote");

    for (name, parts, plan, target) in [
        ("batches of 100", &batches, BATCHES, Target::AtMost(1.1)),
        ("singles", &singles, SINGLES, Target::AtMost(1.3)),
    ] {
        let items = parts.first().map_or(1, |part| part.len());
        let (mut a, mut b) = (0, 0);
        suite
            .row(&format!("put, {name}: plugin / redis crate"))
            .plan(plan)
            .items(items)
            .target(target)
            .compare_timed_async(
                async || sandboxed.put(next(parts, &mut a), clock.now(), &value).await,
                async || native.put(next(parts, &mut b), clock.now(), &value, WRITES_PER_CALL),
            )
            .await?;
        // Each side has stored all that it is going to be asked for.
        for part in parts.iter() {
            sandboxed.put(part, clock.now(), &value).await?;
            native.put(part, clock.now(), &value, WRITES_PER_CALL)?;
        }
        let (mut a, mut b) = (0, 0);
        suite
            .row(&format!("get, {name}: plugin / redis crate"))
            .plan(plan)
            .items(items)
            .target(target)
            .compare_timed_async(
                async || sandboxed.get(next(parts, &mut a)).await,
                async || native.get(next(parts, &mut b)),
            )
            .await?;
    }
    let (mut a, mut b) = (0, 0);
    suite
        .row("delete, batches of 100: plugin / redis crate")
        .plan(BATCHES)
        .items(BATCH)
        .compare_timed_async(
            async || sandboxed.delete(next(&batches, &mut a), clock.now()).await,
            async || native.delete(next(&batches, &mut b), clock.now()),
        )
        .await?;
    for (name, per_call) in [("1", 1), ("100", 100)] {
        let (mut a, mut b) = (0, 0);
        let other = &mut Native::connect(&server)?;
        suite
            .row(&format!("put, batches of 100, natively: {name} / {WRITES_PER_CALL} writes in a call of the script"))
            .plan(BATCHES)
            .items(BATCH)
            .compare_timed_async(
                async || other.put(next(&batches, &mut a), clock.now(), &value, per_call),
                async || native.put(next(&batches, &mut b), clock.now(), &value, WRITES_PER_CALL),
            )
            .await?;
    }
    let mut n = 0;
    suite
        .row("get of one key through the queue")
        .plan(SINGLES)
        .report_async(async || Ok(sandboxed.backend.get_many(next(&singles, &mut n)).await?))
        .await?;
    suite.finish()
}

fn next<'a>(parts: &[&'a [String]], at: &mut usize) -> &'a [String] {
    *at += 1;
    parts.get(*at % parts.len()).copied().unwrap_or_default()
}

/// The plugin behind its shard, and the metrics that tell how long its calls took.
struct Sandboxed {
    backend: Backend,
    metrics: Arc<Metrics>,
}

impl Sandboxed {
    async fn start(server: &RedisServer) -> Result<Self> {
        let mut config = remote(&[server.address()], &[])?;
        config.queue.batch = BATCH;
        let engine = Engine::new(Engine::default_cache_directory())?;
        let plugin = Plugin::load(&engine, memcell_tests::artifacts::file_of(&config)?, None)?;
        let metrics = Arc::new(Metrics::new());
        let backend = Backend::start(&plugin, &Arc::new(config), &metrics.backend("bench"))?;
        for mut state in backend.watch() {
            let running = state.wait_for(|state| matches!(state, ShardState::Running { .. }));
            tokio::time::timeout(PATIENCE, running).await.context("no instance was opened")??;
        }
        Ok(Self { backend, metrics })
    }

    /// How long all calls of a function have taken so far.
    fn spent(&self, function: &str) -> Result<Duration> {
        let wanted = format!("memcell_kv_call_duration_seconds_sum{{backend=\"bench\",function=\"{function}\"}}");
        let text = self.metrics.render();
        let Some(sum) = text.lines().find_map(|line| line.strip_prefix(&wanted)) else { return Ok(Duration::ZERO) };
        Ok(Duration::from_secs_f64(sum.trim().parse()?))
    }

    async fn put(&mut self, keys: &[String], stamp: u64, value: &[u8]) -> Result<Duration> {
        let put = |key: &String| Write::Put(Entry { key: key.clone(), stamp, expires_at: None, value: value.to_vec() });
        self.write("put-many", keys.iter().map(put).collect()).await
    }

    async fn delete(&mut self, keys: &[String], stamp: u64) -> Result<Duration> {
        let delete = |key: &String| Write::Delete(Mark { key: key.clone(), stamp, expires_at: None });
        self.write("delete-many", keys.iter().map(delete).collect()).await
    }

    async fn write(&mut self, function: &str, writes: Vec<Write>) -> Result<Duration> {
        let before = self.spent(function)?;
        for end in self.backend.write(writes, Condition::Newer).await {
            ensure!(end? == Outcome::Applied, "a write was stale");
        }
        Ok(self.spent(function)?.saturating_sub(before))
    }

    async fn get(&mut self, keys: &[String]) -> Result<Duration> {
        let before = self.spent("get-many")?;
        let found = self.backend.get_many(keys).await?;
        ensure!(found.iter().all(Option::is_some), "an entry is missing");
        Ok(self.spent("get-many")?.saturating_sub(before))
    }
}

/// The `redis` crate's own connection.
struct Native {
    connection: Connection,
    put: String,
    delete: String,
}

impl Native {
    fn connect(server: &RedisServer) -> Result<Self> {
        let info = server.address().as_str().parse::<std::net::SocketAddr>()?;
        let info = (info.ip().to_string(), info.port()).into_connection_info()?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let mut connection = redis::Client::open(info.set_tcp_settings(tcp))?.get_connection()?;
        let mut load = |flags: &str| -> Result<String> {
            let source = format!("#!lua{flags}\n{}", include_str!("../../../../plugins/remote/src/write.lua"));
            Ok(redis::cmd("SCRIPT").arg("LOAD").arg(source).query(&mut connection)?)
        };
        let (put, delete) = (load("")?, load(" flags=allow-oom")?);
        Ok(Self { connection, put, delete })
    }

    fn put(&mut self, keys: &[String], stamp: u64, value: &[u8], per_call: usize) -> Result<Duration> {
        let started = Instant::now();
        let mut pipeline = Pipeline::new();
        for keys in keys.chunks(per_call) {
            let call = script(&mut pipeline, &self.put, keys, "put");
            for _ in keys {
                call.arg(format!("{stamp:020}")).arg("").arg(value);
            }
        }
        self.run(&pipeline, started)
    }

    fn delete(&mut self, keys: &[String], stamp: u64) -> Result<Duration> {
        let started = Instant::now();
        let mut pipeline = Pipeline::new();
        for keys in keys.chunks(WRITES_PER_CALL) {
            let call = script(&mut pipeline, &self.delete, keys, "delete");
            for _ in keys {
                call.arg(format!("{stamp:020}")).arg("");
            }
        }
        self.run(&pipeline, started)
    }

    fn run(&mut self, pipeline: &Pipeline, started: Instant) -> Result<Duration> {
        let outcomes: Vec<String> = pipeline.query(&mut self.connection)?;
        let elapsed = started.elapsed();
        ensure!(outcomes.iter().all(|outcomes| !outcomes.contains('0')), "a write was stale");
        Ok(elapsed)
    }

    fn get(&mut self, keys: &[String]) -> Result<Duration> {
        let started = Instant::now();
        let mut pipeline = Pipeline::new();
        for key in keys {
            pipeline.cmd("HMGET").arg(format!("native:{key}")).arg("stamp").arg("expires").arg("value");
        }
        let answers = self.connection.req_packed_commands(&pipeline.get_packed_pipeline(), 0, keys.len())?.into_iter();
        let entries: Vec<Option<(u64, Vec<u8>)>> = answers.map(entry).collect();
        let elapsed = started.elapsed();
        ensure!(entries.iter().all(Option::is_some), "an entry is missing");
        Ok(elapsed)
    }
}

fn script<'p>(pipeline: &'p mut Pipeline, digest: &str, keys: &[String], kind: &str) -> &'p mut Pipeline {
    let call = pipeline.cmd("EVALSHA").arg(digest).arg(keys.len());
    for key in keys {
        call.arg(format!("native:{key}"));
    }
    call.arg("newer").arg("0").arg(kind)
}

fn entry(answer: Value) -> Option<(u64, Vec<u8>)> {
    let Value::Array(fields) = answer else { return None };
    let [Value::BulkString(stamp), Value::Nil, Value::BulkString(value)] = <[Value; 3]>::try_from(fields).ok()? else {
        return None;
    };
    Some((std::str::from_utf8(&stamp).ok()?.parse().ok()?, value))
}
