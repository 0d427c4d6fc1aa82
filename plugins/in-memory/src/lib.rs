//! A backend that keeps everything in its own memory: the fastest there is, and empty at every start.
//!
//! Settings: `max_bytes` (a size such as `64MiB`; default: no limit but the sandbox's, which costs the instance when it is
//! reached). It bounds the keys, values and tombstones held, and what is prepared, at [`records::OVERHEAD_BYTES`] more apiece; puts beyond it are
//! `quota-exceeded`, deletes still work.

mod expiries;
mod intents;
pub mod records;

use memcell_plugin::{
    Backend, Digest, Error, Found, Header, Limits, Moment, Outcome, Record, Result, Rule, Settings, Stats, Step, Write,
};

use intents::Intents;
use records::{Records, Slot};

/// How many expired records a write clears away, on top of its own work. More than one, so that they can't pile up.
const CLEARED_PER_WRITE: usize = 2;

/// How many empty slots and tombstones one step of a scan passes over, per record wanted, before it answers with fewer.
const PASSED_PER_WANTED: usize = 8;

/// See the module documentation.
#[derive(Debug)]
pub struct InMemory {
    records: Records,
    intents: Intents,
    max_bytes: Option<u64>,
}

impl Backend for InMemory {
    fn open(_shard: u32, settings: &mut Settings) -> Result<Self> {
        Ok(Self { records: Records::default(), intents: Intents::default(), max_bytes: settings.bytes("max_bytes")? })
    }

    fn limits(&self) -> Limits {
        Limits { max_batch: 4096, ..Limits::default() }
    }

    fn read(&mut self, key: &str) -> Result<Option<Record>> {
        Ok(self.records.get(key).cloned())
    }

    fn header(&mut self, key: &str) -> Result<Option<Header>> {
        Ok(self.records.get(key).map(Record::header))
    }

    fn write(&mut self, key: String, record: Record) -> Result<()> {
        let slot = self.records.find(&key);
        self.check_room(&slot, &key, &record)?;
        self.records.store(slot, key, record);
        Ok(())
    }

    fn forget(&mut self, key: &str, seen: &Header) -> Result<()> {
        if self.records.get(key).is_some_and(|record| record.header() == *seen) {
            self.records.remove(key);
        }
        Ok(())
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
        let slots = self.records.slots();
        let start = cursor.map_or(Ok(0), |cursor| position(cursor, slots))?;
        let end = start.saturating_add(limit.saturating_mul(PASSED_PER_WANTED)).min(slots);
        let mut found = Vec::with_capacity(limit.min(end - start));
        let mut at = start;
        while at < end && found.len() < limit {
            if let Some((key, record)) = self.records.at(at)
                && record.value.is_some()
            {
                found.push(Found { key: key.to_owned(), header: record.header() });
            }
            at += 1;
        }
        Ok(Step { found, next: (at < slots).then(|| format!("{CURSOR}{at}")) })
    }

    /// As the default, but for looking up each key only once.
    fn apply(&mut self, writes: Vec<Write>, rule: &Rule) -> Result<Vec<Outcome>> {
        self.records.clear_expired(rule.moment(), writes.len().saturating_mul(CLEARED_PER_WRITE));
        let mut outcomes = Vec::with_capacity(writes.len());
        for Write { key, mut record } in writes {
            let mut slot = self.records.find(&key);
            let Some(stamp) = rule.judge(self.records.header(&slot), record.stamp) else {
                outcomes.push(Outcome::Stale);
                continue;
            };
            record.stamp = stamp;
            if self.check_room(&slot, &key, &record).is_err() {
                self.records.clear_expired(rule.moment(), usize::MAX);
                slot = self.records.find(&key);
                self.check_room(&slot, &key, &record)?;
            }
            self.records.store(slot, key, record);
            outcomes.push(Outcome::Applied);
        }
        Ok(outcomes)
    }

    fn prepare(&mut self, transaction: String, writes: Vec<Write>) -> Result<()> {
        let has_puts = writes.iter().any(|write| write.record.value.is_some());
        let before = self.held_bytes();
        let after = before + intents::size(&writes) - self.intents.size_of(&transaction);
        if has_puts
            && after > before
            && let Some(max_bytes) = self.max_bytes.filter(|max_bytes| after > *max_bytes)
        {
            return Err(full(before, max_bytes));
        }
        self.intents.keep(transaction, writes);
        Ok(())
    }

    /// There is room: the intent has had it.
    fn commit(&mut self, transaction: &str, rule: &Rule) -> Result<()> {
        for Write { key, mut record } in self.intents.take(transaction) {
            let slot = self.records.find(&key);
            if let Some(stamp) = rule.judge(self.records.header(&slot), record.stamp) {
                record.stamp = stamp;
                self.records.store(slot, key, record);
            }
        }
        Ok(())
    }

    fn abort(&mut self, transaction: &str) -> Result<()> {
        drop(self.intents.take(transaction));
        Ok(())
    }

    fn in_doubt(&mut self) -> Result<Vec<String>> {
        Ok(self.intents.all())
    }

    /// As the default, but for copying the values.
    fn digest_many(&mut self, keys: &[String], head_bytes: usize, moment: &Moment) -> Result<Vec<Option<Digest>>> {
        Ok(keys.iter().map(|key| Digest::of(self.records.get(key)?, head_bytes, moment)).collect())
    }

    fn stats(&mut self, moment: &Moment) -> Result<Stats> {
        self.records.clear_expired(moment, usize::MAX);
        Ok(self.records.stats())
    }
}

impl InMemory {
    fn check_room(&self, slot: &Slot, key: &str, record: &Record) -> Result<()> {
        let Some(max_bytes) = self.max_bytes else { return Ok(()) };
        let before = self.held_bytes();
        let after = self.records.held_bytes_after(slot, key, record) + self.intents.held_bytes();
        // What makes things no worse passes: a deletion, and a smaller value in place of a larger one.
        if after > max_bytes && after > before && record.value.is_some() {
            return Err(full(before, max_bytes));
        }
        Ok(())
    }

    fn held_bytes(&self) -> u64 {
        self.records.held_bytes() + self.intents.held_bytes()
    }
}

fn full(in_use: u64, max_bytes: u64) -> Error {
    Error::quota_exceeded(format!("{in_use} of max_bytes = {max_bytes} bytes are in use"))
}

const CURSOR: &str = "slot:";

/// The slot that a cursor stands for. Slots are never given back, so a cursor that was good stays good.
fn position(cursor: &str, slots: usize) -> Result<usize> {
    let digits = cursor.strip_prefix(CURSOR).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let position = digits.and_then(|digits| digits.parse().ok()).filter(|position| *position < slots);
    position.ok_or_else(|| Error::invalid_argument("the cursor is not one of this backend's"))
}

memcell_plugin::export!(InMemory);

#[cfg(test)]
mod tests;
