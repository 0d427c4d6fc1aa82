//! The file backend: killed at any moment, without room, without leave to write, with a damaged file, and within a whole host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use memcell_host::kv::{KvError, Outcome, ShardState};
use memcell_tests::child::Killed;
use memcell_tests::file::{Batches, LAST, Shard, delete, put};
use memcell_tests::host::{TestHost, eventually, file};
use memcell_tests::random::{Random, seed_of_this_run};
use memcell_tests::sample::Samples;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How often a writer is killed, with each durability.
const KILLS: u32 = 24;

fn probe() -> Command {
    Command::new(env!("CARGO_BIN_EXE_file-probe"))
}

/// Lets a writer write from batch number `from` on, kills it at some moment, and answers the number of the last batch that it
/// reported as flushed.
fn write_and_kill(directory: &Path, seed: u64, from: u64, durability: &str, random: &mut Random) -> Result<u64> {
    let mut command = probe();
    command.args(["write", &directory.display().to_string(), &seed.to_string(), &from.to_string(), durability]);
    command.stdout(Stdio::piped());
    let mut writer = Killed::spawn(command)?;
    let mut lines = BufReader::new(writer.0.stdout.take().context("no output")?).lines();
    // Some are killed while they open the file; the others after some flushes, at any moment of the next one.
    let flushes = random.below(12);
    let mut flushed = 0;
    for _ in 0..flushes {
        let line = lines.next().context("the writer ended by itself")??;
        flushed = line.strip_prefix("flushed ").context("not a report")?.parse()?;
    }
    let delay = if flushes == 0 { random.below(150_000) } else { random.below(20_000) };
    std::thread::sleep(Duration::from_micros(delay));
    writer.0.kill()?;
    writer.0.wait()?;
    for line in lines {
        flushed = line?.strip_prefix("flushed ").context("not a report")?.parse()?;
    }
    Ok(flushed)
}

async fn survives_kills(durability: &str) -> Result<()> {
    let seed = seed_of_this_run()?;
    let mut random = Random::new(seed);
    let directory = TempDir::new()?;
    let (mut done, mut beyond, mut slowest) = (0, 0, Duration::ZERO);
    for kill in 0..KILLS {
        let flushed = write_and_kill(directory.path(), seed, done + 1, durability, &mut random)?.max(done);
        let started = Instant::now();
        let shard = Shard::open(file(directory.path())?).await.with_context(|| format!("seed {seed}, kill {kill}"))?;
        slowest = slowest.max(started.elapsed());
        let contents = shard.contents().await?;
        let last = contents.get(LAST).map_or(0, |(stamp, _)| *stamp);
        // The deletes after the last puts may have been applied too.
        let mut candidates = if Batches::deletes(last + 1) { vec![last + 1, last] } else { vec![last] };
        candidates.retain(|number| *number >= flushed && contents == Batches::new(seed).contents_after(*number));
        done = *candidates.first().with_context(|| {
            format!("seed {seed}, kill {kill}: up to {flushed} was flushed, the last put is {last}, and the contents fit neither")
        })?;
        beyond += done - flushed;
        shard.close().await?;
    }
    eprintln!("{durability}: {done} batches, {beyond} of them unflushed at a kill; slowest opening {slowest:?}");
    ensure!(done > u64::from(KILLS), "the writers hardly wrote: {done} batches");
    Ok(())
}

#[tokio::test]
async fn what_was_flushed_survives_sigkill_with_durability_immediate() -> Result<()> {
    survives_kills("immediate").await
}

#[tokio::test]
async fn what_was_flushed_survives_sigkill_with_durability_flush() -> Result<()> {
    survives_kills("flush").await
}

/// Runs `script` as root of a mount namespace of its own, with `$0` as the probe and `$1` as an empty directory: what it mounts
/// goes with it.
fn in_own_namespace(script: &str) -> Result<()> {
    let directory = TempDir::new()?;
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-euc", script, env!("CARGO_BIN_EXE_file-probe")]).arg(directory.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().context("this test needs `unshare`, of util-linux")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(())
}

/// Runs the probe in this mode, with either durability, on a file system of this size (as `mount` takes it), some of which is taken by
/// a file that the probe may remove.
fn on_a_small_disk(mode: &str, size: &str, taken: &str) -> Result<()> {
    for durability in ["immediate", "flush"] {
        in_own_namespace(&format!(
            "mount -t tmpfs -o size={size} tmpfs \"$1\"
             head -c {taken} /dev/zero > \"$1/room\"
             mkdir \"$1/data\"
             \"$0\" {mode} \"$1/data\" \"$1/room\" {durability}"
        ))
        .context(durability)?;
    }
    Ok(())
}

#[test]
fn a_full_disk_stops_puts_and_nothing_else() -> Result<()> {
    on_a_small_disk("full", "28m", "8m")
}

/// What a backend had taken and not made durable is lost with that, which it says once.
#[test]
fn what_was_lost_on_a_full_disk_is_mirrored_again() -> Result<()> {
    on_a_small_disk("mirror", "64m", "48m")
}

/// What is replaced takes room until what replaces it is on the disk.
#[test]
fn a_small_disk_is_enough_to_catch_up() -> Result<()> {
    on_a_small_disk("catch-up", "25m", "1m")
}

#[test]
fn a_read_only_file_system_is_refused() -> Result<()> {
    in_own_namespace(
        "mount -t tmpfs tmpfs \"$1\"
         mkdir \"$1/data\"
         mount -o remount,ro \"$1\"
         \"$0\" read-only \"$1/data\"",
    )
}

#[tokio::test]
async fn a_missing_or_read_only_grant_is_refused_for_good() -> Result<()> {
    let directory = TempDir::new()?;
    let mut config = file(directory.path())?;
    config.grants.read_only = true;
    let shard = Shard::start(config)?;
    let state = shard.state(|state| !matches!(state, ShardState::Opening)).await?;
    let ShardState::Failed { reason } = state else { bail!("{state:?}") };
    assert!(reason.contains("shard-0.redb") && reason.contains("read_only = false"), "{reason}");
    assert_eq!(fs::read_dir(directory.path())?.count(), 0);

    let mut config = file(directory.path())?;
    config.grants.directory = None;
    let reason = Shard::start(config)?.refusal().await?;
    assert!(reason.contains("`directory` in `[backends.NAME.grants]`"), "{reason}");
    Ok(())
}

/// A file in which bytes were altered, at some places: it may go unnoticed (the host has checksums of its own for what it
/// reads), but what is noticed is reported, the instances don't crash one after the other, and moving the file away helps.
#[tokio::test]
async fn a_damaged_file_is_reported_and_can_be_moved_away() -> Result<()> {
    let seed = seed_of_this_run()?;
    let mut random = Random::new(seed);
    let directory = TempDir::new()?;
    let path = directory.path().join("shard-0.redb");
    let shard = Shard::open(file(directory.path())?).await?;
    let mut contents = BTreeMap::new();
    for stamp in 1..=20 {
        let batch = (0..100).map(|n| (format!("key {n}"), vec![7; 100 + 40 * n]));
        let batch: Vec<(String, Vec<u8>)> = batch.collect();
        shard.write(batch.iter().map(|(key, value)| put(key, stamp, value)).collect()).await;
        contents = batch.into_iter().collect();
    }
    shard.close().await?;
    let whole = fs::read(&path)?;
    let mut noticed = 0;
    for round in 0..24 {
        let mut damaged = whole.clone();
        match round % 3 {
            0 => damaged.truncate(random.index(whole.len())),
            1 => {
                let at = random.index(whole.len() / 4096) * 4096;
                damaged[at..at + 4096].fill(u8::try_from(random.below(256))?);
            }
            _ => {
                for _ in 0..20 {
                    // Mostly in the beginnings of pages, where the engine keeps its own.
                    let at = random.index(whole.len() / 4096) * 4096 + random.index(64);
                    damaged[at] = u8::try_from(random.below(256))?;
                }
            }
        }
        fs::write(&path, &damaged)?;
        let mut config = file(directory.path())?;
        config.supervision.backoff_max = Duration::from_millis(200);
        let shard = Shard::start(config)?;
        let state = shard.state(|state| !matches!(state, ShardState::Opening)).await?;
        let mut errors = Vec::new();
        match &state {
            ShardState::Running { .. } => {
                for (key, value) in &contents {
                    match shard.get(key).await {
                        Ok(found) if found.as_ref() == Some(value) => {}
                        Ok(found) => errors.push(format!("{key}: {:?} bytes", found.map(|found| found.len()))),
                        Err(error) => errors.push(error.to_string()),
                    }
                }
                errors.extend(shard.backend.scan(0, None, 1000).await.err().map(|error| error.to_string()));
                errors.extend(
                    shard
                        .write(vec![put("new", 1, b"x")])
                        .await
                        .into_iter()
                        .filter_map(Result::err)
                        .map(|error| error.to_string()),
                );
            }
            ShardState::Down { reason, .. } | ShardState::Failed { reason } => errors.push(reason.clone()),
            other => bail!("{other:?}"),
        }
        noticed += u32::from(!errors.is_empty());
        eprintln!(
            "round {round}: {:?}, {} errors, first {:?}",
            shard.backend.states()[0],
            errors.len(),
            errors.first()
        );
        // Where it can't be lived with, the reason ends up where operators look, and says what to do.
        if !matches!(shard.backend.states()[0], ShardState::Running { .. }) {
            eventually("the reason is clear", async || {
                Ok(matches!(&shard.backend.states()[0], ShardState::Running { .. })
                    || matches!(&shard.backend.states()[0], ShardState::Down { reason, .. } if reason.contains("Move it away")))
            })
            .await
            .with_context(|| format!("seed {seed}, round {round}: {:?}, {errors:?}", shard.backend.states()))?;
        }
        fs::remove_file(&path)?;
        eventually("a new file is made", async || {
            let end = shard.write(vec![put("after", 1, b"x")]).await.pop();
            // An instance that lives on has the file open still.
            let is_new = path.exists() && shard.get("key 1").await.is_ok_and(|found| found.is_none());
            let is_alive = matches!(&shard.backend.states()[0], ShardState::Running { .. });
            Ok((end == Some(Ok(Outcome::Applied)) || end == Some(Ok(Outcome::Stale))) && (is_new || is_alive))
        })
        .await
        .with_context(|| format!("seed {seed}, round {round}: {:?}, {errors:?}", shard.backend.states()))?;
        assert!(shard.backend.load().restarts <= 4, "seed {seed}, round {round}: {errors:?}");
        shard.close().await?;
        for file in fs::read_dir(directory.path())? {
            fs::remove_file(file?.path())?;
        }
    }
    assert!(noticed > 8, "only {noticed} of 24 damages were noticed");
    Ok(())
}

#[tokio::test]
async fn a_second_host_on_the_same_directory_is_told_so() -> Result<()> {
    let directory = TempDir::new()?;
    let first = Shard::open(file(directory.path())?).await?;
    assert_eq!(first.write(vec![put("k", 1, b"v")]).await, [Ok(Outcome::Applied)]);
    // The second one is a process of its own: what it reports would be on its standard output.
    let second = probe().args(["write", &directory.path().display().to_string(), "1", "1", "immediate"]).output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("in use by another"), "{said}");
    assert!(second.stdout.is_empty());
    assert_eq!(first.get("k").await?.as_deref(), Some(b"v".as_slice()));
    first.close().await?;
    let third = Shard::open(file(directory.path())?).await?;
    assert_eq!(third.get("k").await?.as_deref(), Some(b"v".as_slice()));
    Ok(())
}

#[tokio::test]
async fn large_values_and_batches_fit_or_are_refused_cleanly() -> Result<()> {
    let directory = TempDir::new()?;
    let mut config = file(directory.path())?;
    config.limits.call_timeout = Duration::from_secs(20);
    config.limits.cpu = config.limits.call_timeout;
    let shard = Shard::open(config).await?;
    let megabyte = vec![6; 1024 * 1024];
    let keys: Vec<String> = (0..64).map(|n| format!("{n:02}")).collect();
    for end in shard.write(keys.iter().map(|key| put(key, 1, &megabyte)).collect()).await {
        assert_eq!(end, Ok(Outcome::Applied));
    }
    let found = shard.backend.get_many(&keys).await?;
    assert!(found.iter().all(|entry| entry.as_ref().is_some_and(|entry| entry.value == megabyte)));
    let most = 32 * 1024 * 1024 - 64 * 1024;
    let end = shard.write(vec![put("larger", 1, &vec![5; most + 1])]).await.pop();
    assert_eq!(end.and_then(Result::err).as_ref().map(KvError::label), Some("too_large"));
    let value = vec![5; most];
    assert_eq!(shard.write(vec![put("large", 1, &value)]).await, [Ok(Outcome::Applied)]);
    assert!(shard.get("large").await? == Some(value), "another value");
    assert_eq!(shard.backend.generation(0), Some(1));
    shard.close().await
}

fn memcell(text: &str) -> Value {
    json!({ "user_id": "ann", "timestamp": "2025-06-26T00:03:30.123Z", "summary": text, "note": { "n": 1, "x": null } })
}

/// Every operation reaches the files, and a host that starts again finds them.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_file_backend_keeps_its_copies() -> Result<()> {
    let directory = TempDir::new()?;
    let backend = || -> Result<_> {
        let mut config = file(directory.path())?;
        config.shards = 2;
        Ok(config)
    };
    let mut host = TestHost::start(vec![backend()?]).await?;
    host.live().await?;
    let mut ids = Vec::new();
    for memcell in Samples::new(11).take(40) {
        ids.push(host.append(&memcell).await?);
    }
    let answer = host.json("PATCH", &format!("/v1/memcells/{}", ids[0]), &json!({ "summary": "changed" })).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    host.request("DELETE", &format!("/v1/memcells/{}", ids[1])).await?;
    host.request("DELETE", &format!("/v1/memcells/{}", ids[2])).await?;
    host.request("POST", &format!("/v1/memcells/{}/restore", ids[2])).await?;
    host.request("DELETE", &format!("/v1/memcells/{}?hard=true", ids[3])).await?;
    let batch = host.json("POST", "/v1/memcells/batch", &json!([memcell("b"), memcell("c")])).await?;
    for item in batch.body["items"].as_array().context("no items")? {
        ids.push(item["event_id"].as_str().context("no id")?.to_owned());
    }
    consistent(&host, &ids).await?;
    let report = host.request("GET", "/v1/backends").await?.body["items"][0].clone();
    assert_eq!((&report["state"], &report["entries"]), (&json!("live"), &json!(40)), "{report}");

    host.restart(vec![backend()?]).await?;
    host.live().await?;
    consistent(&host, &ids).await?;
    host.json("PATCH", &format!("/v1/memcells/{}", ids[0]), &json!({ "summary": "changed again" })).await?;
    consistent(&host, &ids).await?;
    assert_eq!(host.stop().await?, None);

    // Without any host, the copies are there.
    let mut config = backend()?;
    config.shards = 1;
    let shard = Shard::open(config).await?;
    let entries = shard.contents().await?.len();
    assert!((1..40).contains(&entries), "{entries} of 40 entries in one of two shards");
    shard.close().await
}

/// Both sides agree on each of these ids, and validated reads say so.
async fn consistent(host: &TestHost, ids: &[String]) -> Result<()> {
    host.settled().await?;
    for id in ids {
        let (stored, mirrored) = (host.stored(id).await?, host.mirrored(id).await?);
        let live = stored.filter(|document| document.get("deleted_at").is_none_or(Value::is_null));
        ensure!(live == mirrored, "{id}: mongodb has {live:?}, the backend {mirrored:?}");
        if live.is_some() {
            let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
            ensure!((read.status, read.header("x-memcell-validation")) == (200, "consistent"), "{id}: {read:?}");
        }
    }
    ensure!(host.store.mismatches().is_empty(), "{:?}", host.store.mismatches());
    Ok(())
}

/// Tombstones and expired entries don't stay.
#[tokio::test]
async fn deleted_and_expired_entries_leave_the_file() -> Result<()> {
    let directory = TempDir::new()?;
    let shard = Shard::open(file(directory.path())?).await?;
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    for round in 0..40_u64 {
        let writes: Vec<_> = (0..50_u64).map(|n| put(&format!("{round} {n}"), 1, &[1; 20_000])).collect();
        shard.write(writes).await;
        let marks = (0..50).map(|n| format!("{round} {n}")).map(|key| match delete(&key, 2) {
            memcell_host::kv::Write::Delete(mark) => {
                memcell_host::kv::Write::Delete(memcell_host::kv::Mark { expires_at: Some(now), ..mark })
            }
            other => other,
        });
        shard.write(marks.collect()).await;
    }
    shard.write(vec![put("stays", 1, b"v")]).await;
    assert_eq!(shard.contents().await?.len(), 1);
    // 40 MB went through it.
    let length = fs::metadata(directory.path().join("shard-0.redb"))?.len();
    assert!(length < 16_000_000, "{length} bytes");
    shard.close().await?;
    let length = fs::metadata(directory.path().join("shard-0.redb"))?.len();
    assert!(length < 4_000_000, "{length} bytes after closing");
    Ok(())
}
