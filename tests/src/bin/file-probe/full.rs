//! A file system without room.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{KvError, Outcome};
use memcell_tests::file::{Shard, delete, put};
use memcell_tests::host::eventually;

const VALUE_BYTES: usize = 30_000;

/// Far more puts than the file systems of these tests have room for.
const ENDLESS: u64 = 10_000;

type Values = BTreeMap<String, Vec<u8>>;

/// Checks that no step of the way there, on the brim and back damages anything or costs the instance.
pub(crate) async fn run(directory: &Path, room: &Path, durability: &str) -> Result<()> {
    let mut config = memcell_tests::host::file(directory)?;
    config.settings = vec![("durability".into(), durability.into())];
    // How fast a machine is that does other things as well is not the question here.
    config.limits.call_timeout = Duration::from_secs(20);
    config.limits.cpu = config.limits.call_timeout;
    let shard = Shard::open(config.clone()).await?;
    let mut values = Values::new();
    let written = fill(&shard, &mut values, 1).await.context("the first time")?;
    ensure!(written > 20, "only {written} puts before the disk was full");
    settle(&shard, &mut values).await?;
    reads_go_on(&shard, &values).await?;

    // Deletes work, all of them, and make room for puts.
    let keys: Vec<String> = values.keys().cloned().collect();
    for (number, key) in keys.iter().enumerate().take(keys.len() / 4 * 3) {
        ensure_applied(&shard.write(vec![delete(key, 10)]).await).with_context(|| format!("delete number {number}"))?;
        values.remove(key);
    }
    shard.backend.flush().await.context("flush after deletes")?;
    reads_go_on(&shard, &values).await?;
    let written = fill(&shard, &mut values, 20).await.context("after deletes")?;
    ensure!(written > 2, "only {written} puts after {} deletes", keys.len() / 4 * 3);
    settle(&shard, &mut values).await?;

    // What is on the disk opens again without any room.
    shard.close().await?;
    let shard = reopened(&config).await.context("on a full disk")?;
    reads_go_on(&shard, &values).await?;

    // Room that comes back is noticed.
    std::fs::remove_file(room)?;
    eventually("puts are accepted again", async || {
        Ok(shard.write(vec![put("room again", 30, &[3; VALUE_BYTES])]).await == [Ok(Outcome::Applied)])
    })
    .await?;
    values.insert("room again".into(), vec![3; VALUE_BYTES]);
    let written = fill(&shard, &mut values, 40).await.context("the last time")?;
    ensure!(written > 20, "only {written} more puts once there was room");
    settle(&shard, &mut values).await?;
    reads_go_on(&shard, &values).await?;
    ensure!(shard.backend.generation(0) == Some(1), "an instance was lost: {:?}", shard.backend.states());
    shard.close().await?;
    let shard = reopened(&config).await?;
    reads_go_on(&shard, &values).await?;
    shard.close().await
}

/// Opens it with every page verified.
async fn reopened(config: &BackendConfig) -> Result<Shard> {
    let mut config = config.clone();
    config.settings.push(("check_on_open".into(), "true".into()));
    Shard::open(config).await
}

/// Puts until there is no room, several at a time, with a flush now and then, and notes what was applied.
async fn fill(shard: &Shard, values: &mut Values, stamp: u64) -> Result<u64> {
    for number in 0..ENDLESS {
        let batch: Vec<(String, Vec<u8>)> = (0..3)
            .map(|part| {
                (format!("key {stamp} {number} {part}"), vec![u8::try_from(number % 251).unwrap_or(0); VALUE_BYTES])
            })
            .collect();
        let ends = shard.write(batch.iter().map(|(key, value)| put(key, stamp, value)).collect()).await;
        let mut refused = 0;
        for ((key, value), end) in batch.into_iter().zip(ends) {
            match end {
                Ok(outcome) => {
                    ensure!(outcome == Outcome::Applied, "{key} is stale");
                    values.insert(key, value);
                }
                Err(error) => {
                    refused += 1;
                    ensure_full(&error).with_context(|| key)?;
                }
            }
        }
        if refused == 3 {
            return Ok(number * 3);
        }
        if number % 5 == 4
            && let Err(error) = shard.backend.flush().await
        {
            ensure_full(&error).context("flush")?;
            return Ok(number * 3);
        }
    }
    bail!("{ENDLESS} puts did not fill it")
}

/// Flushes. What was not flushed before may be lost, which has to be said.
async fn settle(shard: &Shard, values: &mut Values) -> Result<()> {
    let flushed = shard.backend.flush().await;
    let mut lost = Vec::new();
    for key in values.keys() {
        if shard.get(key).await?.is_none() {
            lost.push(key.clone());
        }
    }
    match flushed {
        Ok(()) => ensure!(lost.is_empty(), "{} writes are lost, and flush didn't say so", lost.len()),
        Err(error) => ensure_full(&error).context("flush")?,
    }
    for key in lost {
        values.remove(&key);
    }
    shard.backend.flush().await.context("the second flush")
}

async fn reads_go_on(shard: &Shard, values: &Values) -> Result<()> {
    let contents = shard.contents().await?;
    ensure!(contents.len() == values.len(), "{} entries are there instead of {}", contents.len(), values.len());
    for (key, value) in values {
        ensure!(contents.get(key).map(|(_, found)| found) == Some(value), "{key} has another value");
    }
    Ok(())
}

/// Puts are refused for want of room, or until a flush has told that it cost what was not flushed.
fn ensure_full(error: &KvError) -> Result<()> {
    let text = error.to_string();
    let is_clear = match error.label() {
        "quota_exceeded" => text.contains("is full"),
        "unavailable" => text.contains("are lost") && text.contains("is full"),
        _ => false,
    };
    ensure!(is_clear, "{text}");
    Ok(())
}

fn ensure_applied(ends: &[Result<Outcome, KvError>]) -> Result<()> {
    ensure!(ends.iter().all(|end| *end == Ok(Outcome::Applied)), "{ends:?}");
    Ok(())
}
