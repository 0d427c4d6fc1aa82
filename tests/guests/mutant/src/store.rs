//! Records sorted by key, and the rules as they should be.

use std::collections::BTreeMap;
use std::ops::Bound;

use memcell_plugin::guest::bindings::exports::memcell::kv::store::{Entry, Mark, Outcome};
use memcell_plugin::unix_millis;

/// An entry, or a tombstone, of some key.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) stamp: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Record {
    pub(crate) fn entry(stamp: u64, expires_at: Option<u64>, value: Vec<u8>) -> Self {
        Self { stamp, expires_at, value: Some(value) }
    }

    pub(crate) fn tombstone(stamp: u64, expires_at: Option<u64>) -> Self {
        Self { stamp, expires_at, value: None }
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= unix_millis())
    }

    pub(crate) fn to_entry(&self, key: &str) -> Option<Entry> {
        let value = self.value.clone()?;
        Some(Entry { key: key.to_owned(), stamp: self.stamp, expires_at: self.expires_at, value })
    }
}

/// How a write is judged: as the contract has it, and in two ways that it doesn't.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judge {
    Newer,
    NotOlder,
    Always,
    /// Whatever is stored, and with the stamp given.
    Overwrite,
    /// By stamps as signed numbers.
    NewerSigned,
}

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    pub(crate) records: BTreeMap<String, Record>,
    /// What is prepared, by transaction.
    pub(crate) intents: BTreeMap<String, Vec<(String, Record)>>,
}

impl Sorted {
    /// The record of a key, unless it has expired.
    pub(crate) fn live(&self, key: &str) -> Option<&Record> {
        self.records.get(key).filter(|record| !record.is_expired())
    }

    /// The stamp to write with; `None`: the write is stale.
    pub(crate) fn judge(&self, key: &str, stamp: u64, judge: Judge) -> Option<u64> {
        let Some(stored) = self.live(key).map(|record| record.stamp) else { return Some(stamp) };
        match judge {
            Judge::Newer => (stamp > stored).then_some(stamp),
            Judge::NotOlder => (stamp >= stored).then_some(stamp),
            Judge::Always => Some(stamp.max(stored)),
            Judge::Overwrite => Some(stamp),
            Judge::NewerSigned => (stamp.cast_signed() > stored.cast_signed()).then_some(stamp),
        }
    }

    /// Writes a record, if it may.
    pub(crate) fn write(&mut self, key: String, record: Record, judge: Judge) -> Outcome {
        match self.judge(&key, record.stamp, judge) {
            Some(stamp) => {
                self.records.insert(key, Record { stamp, ..record });
                Outcome::Applied
            }
            None => Outcome::Stale,
        }
    }

    /// Carries out what is prepared for a transaction.
    pub(crate) fn carry_out(&mut self, transaction: &str, judge: Judge) {
        for (key, record) in self.intents.remove(transaction).unwrap_or_default() {
            self.write(key, record, judge);
        }
    }

    /// Marks from behind a key on, and the key to go on behind, if there is more.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        tombstones: bool,
        expired: bool,
    ) -> (Vec<Mark>, Option<String>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.records.range::<str, _>((from, Bound::Unbounded));
        let mut marks = Vec::new();
        let mut last = None;
        for (key, record) in rest.by_ref().take(limit) {
            last = Some(key.clone());
            if (tombstones || record.value.is_some()) && (expired || !record.is_expired()) {
                marks.push(Mark { key: key.clone(), stamp: record.stamp, expires_at: record.expires_at });
            }
        }
        let more = rest.next().is_some();
        (marks, last.filter(|_| more))
    }
}
