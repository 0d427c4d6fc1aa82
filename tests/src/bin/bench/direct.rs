//! A plugin whose calls are made directly, on the benchmark's own thread, as the native side makes its own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Condition, Entry, Mark, Outcome, Trial};
use memcell_tests::artifacts::trials;
use memcell_tests::host::PATIENCE;

/// One instance. What is handed over and what comes back, copies included, is in the times; making it up isn't.
pub(crate) struct Direct(Trial);

impl Direct {
    pub(crate) fn open(mut config: BackendConfig) -> Result<Self> {
        config.limits.call_timeout = PATIENCE;
        Ok(Self(trials(config)?.open(0)?))
    }

    /// Every key gets the same value.
    pub(crate) fn put(&mut self, keys: &[String], stamp: u64, value: &[u8]) -> Result<Duration> {
        let entry = |key: &String| Entry { key: key.clone(), stamp, expires_at: None, value: value.to_vec() };
        let entries: Vec<Entry> = keys.iter().map(entry).collect();
        let started = Instant::now();
        let outcomes = self.0.put_many(&entries, Condition::Newer)?;
        let elapsed = started.elapsed();
        ensure!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "a write was stale");
        Ok(elapsed)
    }

    pub(crate) fn delete(&mut self, keys: &[String], stamp: u64) -> Result<Duration> {
        let marks: Vec<Mark> = keys.iter().map(|key| Mark { key: key.clone(), stamp, expires_at: None }).collect();
        let started = Instant::now();
        let outcomes = self.0.delete_many(&marks, Condition::Newer)?;
        let elapsed = started.elapsed();
        ensure!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "a delete was stale");
        Ok(elapsed)
    }

    pub(crate) fn get(&mut self, keys: &[String]) -> Result<Duration> {
        let started = Instant::now();
        let found = self.0.get_many(keys)?;
        let elapsed = started.elapsed();
        ensure!(found.iter().all(Option::is_some), "an entry is missing");
        Ok(elapsed)
    }

    /// What it was granted is free again then.
    pub(crate) fn close(mut self) -> Result<()> {
        Ok(self.0.close()?)
    }
}
