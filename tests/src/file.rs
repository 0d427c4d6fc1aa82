//! What the tests of the file backend share, in the test's process and in those that it kills.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Backend, Condition, Engine, Entry, KvError, Mark, Outcome, Plugin, ShardState, Write};
use memcell_host::metrics::Metrics;

use crate::host::PATIENCE;
use crate::random::Random;

/// A backend of one shard, without a host around it.
pub struct Shard {
    /// The backend itself.
    pub backend: Backend,
}

impl Shard {
    /// Starts it without waiting for anything.
    ///
    /// # Errors
    /// If the plugin can't be loaded.
    pub fn start(config: BackendConfig) -> Result<Self> {
        let engine = Engine::new(Engine::default_cache_directory())?;
        let plugin = Plugin::load(&engine, crate::artifacts::file_of(&config)?, config.sha256.as_ref())?;
        let metrics = Arc::new(Metrics::new()).backend(&config.name);
        Ok(Self { backend: Backend::start(&plugin, &Arc::new(config), &metrics)? })
    }

    /// Starts it, and waits until its instance is open.
    ///
    /// # Errors
    /// If it is given up, or isn't open in time.
    pub async fn open(config: BackendConfig) -> Result<Self> {
        let shard = Self::start(config)?;
        match shard.state(|state| matches!(state, ShardState::Running { .. } | ShardState::Failed { .. })).await? {
            ShardState::Running { .. } => Ok(shard),
            other => bail!("the shard did not open: {other:?}"),
        }
    }

    /// Waits for a state.
    ///
    /// # Errors
    /// If it isn't reached in time; the text says which one it is in.
    pub async fn state(&self, wanted: impl FnMut(&ShardState) -> bool) -> Result<ShardState> {
        let mut state = self.backend.watch().pop().context("there is no shard")?;
        let reached =
            tokio::time::timeout(PATIENCE, state.wait_for(wanted)).await.map(|found| found.map(|state| state.clone()));
        match reached {
            Ok(found) => Ok(found?),
            Err(_) => bail!("the shard stays in {:?}", self.backend.states()),
        }
    }

    /// Waits until it says why it can't be opened.
    ///
    /// # Errors
    /// If it opens, or says nothing in time.
    pub async fn refusal(&self) -> Result<String> {
        let state = self
            .state(|state| {
                matches!(state, ShardState::Running { .. } | ShardState::Failed { .. } | ShardState::Down { .. })
            })
            .await?;
        match state {
            ShardState::Failed { reason } | ShardState::Down { reason, .. } => Ok(reason),
            other => bail!("it opened: {other:?}"),
        }
    }

    /// Writes what is newer.
    pub async fn write(&self, writes: Vec<Write>) -> Vec<Result<Outcome, KvError>> {
        self.backend.write(writes, Condition::Newer).await
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The backend's.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.backend.get_many(&[key.to_owned()]).await?.pop().flatten().map(|entry| entry.value))
    }

    /// Every entry: its stamp and its value.
    ///
    /// # Errors
    /// The backend's; and if scan, reads and statistics disagree with each other.
    pub async fn contents(&self) -> Result<BTreeMap<String, (u64, Vec<u8>)>> {
        let mut contents = BTreeMap::new();
        let mut cursor = None;
        loop {
            let page = self.backend.scan(0, cursor, 100).await?;
            let keys: Vec<String> = page.marks.iter().map(|mark| mark.key.clone()).collect();
            let entries = self.backend.get_many(&keys).await?;
            for (mark, entry) in page.marks.into_iter().zip(entries) {
                let entry = entry.with_context(|| format!("{} is listed and can't be read", mark.key))?;
                ensure!(entry.stamp == mark.stamp, "{} is listed with another stamp", mark.key);
                contents.insert(mark.key, (entry.stamp, entry.value));
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let usage = self.backend.stats().await?;
        let bytes: usize = contents.iter().map(|(key, (_, value))| key.len() + value.len()).sum();
        ensure!((usage.entries, usage.bytes) == (contents.len() as u64, bytes as u64), "{usage:?}, but {bytes} bytes");
        Ok(contents)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn close(self) -> Result<()> {
        let started = Instant::now();
        ensure!(self.backend.close(PATIENCE).await, "it did not close within {:?}", started.elapsed());
        Ok(())
    }
}

/// A put of a value without expiry.
pub fn put(key: &str, stamp: u64, value: &[u8]) -> Write {
    Write::Put(Entry { key: key.into(), stamp, expires_at: None, value: value.to_vec() })
}

/// A delete whose tombstone stays.
pub fn delete(key: &str, stamp: u64) -> Write {
    Write::Delete(Mark { key: key.into(), stamp, expires_at: None })
}

/// An endless sequence of batches, each a function of the seed and its number, which starts at 1, and all of its writes with
/// that number as their stamp. Every fourth batch deletes some of a few hundred keys; the others put some, and the key
/// [`LAST`].
#[derive(Debug, Clone, Copy)]
pub struct Batches {
    seed: u64,
    next: u64,
}

/// The key whose stamp is the number of the last batch of puts.
pub const LAST: &str = "last";

const KEYS: u64 = 300;
const MAX_VALUE_BYTES: u64 = 6000;

impl Batches {
    /// From number 1 on.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: 1 }
    }

    /// From that number on.
    pub fn skip_to(self, number: u64) -> Self {
        Self { next: number, ..self }
    }

    /// Whether that batch deletes.
    pub fn deletes(number: u64) -> bool {
        number.is_multiple_of(4)
    }

    /// What there is after a number of batches, as [`Shard::contents`] shows it.
    pub fn contents_after(self, number: u64) -> BTreeMap<String, (u64, Vec<u8>)> {
        let mut contents = BTreeMap::new();
        for (_, batch) in self.take(usize::try_from(number).unwrap_or(usize::MAX)) {
            for write in batch {
                match write {
                    Write::Put(Entry { key, stamp, value, .. }) => drop(contents.insert(key, (stamp, value))),
                    Write::Delete(Mark { key, .. }) => drop(contents.remove(&key)),
                }
            }
        }
        contents
    }
}

impl Iterator for Batches {
    type Item = (u64, Vec<Write>);

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next;
        self.next += 1;
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // A batch of puts alone or of deletes alone is one call of the plugin, and so one transaction.
        let mut batch = BTreeMap::new();
        let deletes = Self::deletes(number);
        if !deletes {
            batch.insert(LAST.to_owned(), put(LAST, number, b""));
        }
        for _ in 0..=random.below(20) {
            let key = format!("key {}", random.below(KEYS));
            if deletes {
                batch.insert(key.clone(), delete(&key, number));
                continue;
            }
            let value = vec![
                u8::try_from(number % 251).unwrap_or(0);
                usize::try_from(random.below(MAX_VALUE_BYTES)).unwrap_or(0)
            ];
            batch.insert(key.clone(), put(&key, number, &value));
        }
        Some((number, batch.into_values().collect()))
    }
}
