//! The remote plugin in its sandbox, beside the `redis` crate called natively with the same commands, on one server.
//!
//! Compared are the calls themselves, made on one thread: that of an instance, values handed over included, and that of the crate's
//! own connection. What the shard around an instance adds is in the row that says «through the queue».

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_host::clock::Clock;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::file::Shard;
use memcell_tests::host::remote;
use memcell_tests::redis::RedisServer;
use redis::{Connection, ConnectionLike, IntoConnectionInfo, Pipeline, Value};
use tokio::runtime::Runtime;

use crate::direct::Direct;

const KEYS: usize = 5000;
const BATCH: usize = 100;
const VALUE_BYTES: usize = 2048;
/// How many writes of this size the plugin puts into one call of its script.
const WRITES_PER_CALL: usize = 26;

const BATCHES: Plan = Plan { pairs: 24, iterations: 30, warm_up: 50 };
const SINGLES: Plan = Plan { pairs: 24, iterations: 300, warm_up: 200 };

pub(crate) fn run() -> Result<Summary> {
    let server = RedisServer::start(&[])?;
    let mut sandboxed = Direct::open(remote(&[server.address()], &[])?)?;
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
        suite.row(&format!("put, {name}: plugin / redis crate")).plan(plan).items(items).target(target).compare_timed(
            || sandboxed.put(next(parts, &mut a), clock.now(), &value),
            || native.put(next(parts, &mut b), clock.now(), &value, WRITES_PER_CALL),
        )?;
        // Each side has stored all that it is going to be asked for.
        for part in parts.iter() {
            sandboxed.put(part, clock.now(), &value)?;
            native.put(part, clock.now(), &value, WRITES_PER_CALL)?;
        }
        let (mut a, mut b) = (0, 0);
        suite
            .row(&format!("get, {name}: plugin / redis crate"))
            .plan(plan)
            .items(items)
            .target(target)
            .compare_timed(|| sandboxed.get(next(parts, &mut a)), || native.get(next(parts, &mut b)))?;
    }
    let (mut a, mut b) = (0, 0);
    suite.row("delete, batches of 100: plugin / redis crate").plan(BATCHES).items(BATCH).compare_timed(
        || sandboxed.delete(next(&batches, &mut a), clock.now()),
        || native.delete(next(&batches, &mut b), clock.now()),
    )?;
    for (name, per_call) in [("1", 1), ("100", 100)] {
        let (mut a, mut b) = (0, 0);
        let other = &mut Native::connect(&server)?;
        suite
            .row(&format!("put, batches of 100, natively: {name} / {WRITES_PER_CALL} writes in a call of the script"))
            .plan(BATCHES)
            .items(BATCH)
            .compare_timed(
                || other.put(next(&batches, &mut a), clock.now(), &value, per_call),
                || native.put(next(&batches, &mut b), clock.now(), &value, WRITES_PER_CALL),
            )?;
    }
    sandboxed.close()?;
    Runtime::new()?.block_on(async {
        let shard = Shard::open(remote(&[server.address()], &[])?).await?;
        let mut n = 0;
        let get = async || Ok(shard.backend.get_many(next(&singles, &mut n)).await?);
        suite.row("get of one key through the queue").plan(SINGLES).report_async(get).await?;
        shard.close().await
    })?;
    suite.finish()
}

fn next<'a>(parts: &[&'a [String]], at: &mut usize) -> &'a [String] {
    *at += 1;
    parts.get(*at % parts.len()).copied().unwrap_or_default()
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
    // The condition, the time, what is written, and no token.
    call.arg("newer").arg("0").arg(kind).arg("")
}

fn entry(answer: Value) -> Option<(u64, Vec<u8>)> {
    let Value::Array(fields) = answer else { return None };
    let [Value::BulkString(stamp), Value::Nil, Value::BulkString(value)] = <[Value; 3]>::try_from(fields).ok()? else {
        return None;
    };
    Some((std::str::from_utf8(&stamp).ok()?.parse().ok()?, value))
}
