//! What a transaction does to the tables: the records, the expiries and the totals stay in step here.

use memcell_plugin::{Header, Moment, Record, Stats};
use redb::{ReadableTable, Table, WriteTransaction};

use crate::database::{EXPIRIES, RECORDS};
use crate::failure::Failure;
use crate::intents::Intents;

/// The tables within a transaction, and the totals as they would be after it.
pub(crate) struct Changes<'t> {
    transaction: &'t WriteTransaction,
    records: Table<'t, &'static str, &'static [u8]>,
    expiries: Table<'t, (u64, &'static str), u64>,
    totals: Stats,
    has_changed: bool,
    /// The record that is being stored, as bytes.
    encoded: Vec<u8>,
}

impl<'t> Changes<'t> {
    pub(crate) fn new(transaction: &'t WriteTransaction, totals: Stats) -> Result<Self, Failure> {
        let (records, expiries) = (transaction.open_table(RECORDS)?, transaction.open_table(EXPIRIES)?);
        Ok(Self { transaction, records, expiries, totals, has_changed: false, encoded: Vec::new() })
    }

    /// Whether anything has changed, and the totals.
    pub(crate) fn finish(self) -> (bool, Stats) {
        (self.has_changed, self.totals)
    }

    /// The intents. The table can be open once at a time.
    pub(crate) fn intents(&self) -> Result<Intents<'t>, Failure> {
        Intents::new(self.transaction)
    }

    /// Says that something else than the records has changed.
    pub(crate) fn touch(&mut self) {
        self.has_changed = true;
    }

    /// Puts `record` under `key` with the stamp that `judge` gives it, being told what is there; unless it gives none. Answers
    /// whether it did.
    ///
    /// The engine hands out what it replaces, so that the record is put there before it is judged: nearly all are as they should
    /// be, and to look first would be another way down the tree for each.
    pub(crate) fn put(
        &mut self,
        key: &str,
        record: &Record,
        judge: impl FnOnce(Option<Header>) -> Option<u64>,
    ) -> Result<bool, Failure> {
        let offered = record.header();
        self.encode(offered, record);
        let judged = {
            let replaced = self.records.insert(key, self.encoded.as_slice())?;
            let stored = replaced.as_ref().map(|stored| Header::decode(stored.value())).transpose()?;
            judge(stored).map(|stamp| (stored, stamp)).ok_or_else(|| replaced.map(|stored| stored.value().to_vec()))
        };
        let (stored, stamp) = match judged {
            Ok(judged) => judged,
            Err(Some(stored)) => {
                self.records.insert(key, stored.as_slice())?;
                return Ok(false);
            }
            Err(None) => {
                self.records.remove(key)?;
                return Ok(false);
            }
        };
        let header = Header { stamp, ..offered };
        if header != offered {
            self.encode(header, record);
            self.records.insert(key, self.encoded.as_slice())?;
        }
        self.has_changed = true;
        self.count(key, stored, Some(header));
        let before = stored.and_then(|stored| stored.expires_at);
        if let Some(before) = before
            && header.expires_at != Some(before)
        {
            self.expiries.remove((before, key))?;
        }
        if let Some(expires_at) = header.expires_at {
            self.expiries.insert((expires_at, key), counted_bytes(key, header))?;
        }
        Ok(true)
    }

    /// `record`, with `header` as its header. Room made by the engine (`insert_reserve`) would cost an allocation, filled with
    /// zeros, for every record.
    fn encode(&mut self, header: Header, record: &Record) {
        self.encoded.clear();
        self.encoded.extend_from_slice(&header.encode());
        self.encoded.extend_from_slice(record.value.as_deref().unwrap_or_default());
    }

    /// Takes away at most `at_most` records that have expired at `moment`, longest expired first.
    pub(crate) fn clear_expired(&mut self, moment: &Moment, at_most: usize) -> Result<(), Failure> {
        for _ in 0..at_most {
            let Some(key) = self.first_expired(moment)? else { break };
            let removed = self.records.remove(key.as_str())?;
            let stored = removed.map(|stored| Header::decode(stored.value())).transpose()?;
            self.count(&key, stored, None);
            self.has_changed = true;
        }
        Ok(())
    }

    /// The key of the record that expired first, whose place among the expiries is given up.
    fn first_expired(&mut self, moment: &Moment) -> Result<Option<String>, Failure> {
        let (expires_at, key) = match self.expiries.first()? {
            Some((place, _)) => {
                let (expires_at, key) = place.value();
                (expires_at, key.to_owned())
            }
            None => return Ok(None),
        };
        if !moment.has_passed(Some(expires_at)) {
            return Ok(None);
        }
        self.expiries.remove((expires_at, key.as_str()))?;
        Ok(Some(key))
    }

    fn count(&mut self, key: &str, before: Option<Header>, after: Option<Header>) {
        let bytes_of = |header: Option<Header>| header.map_or(0, |header| counted_bytes(key, header));
        let (before, after) = (bytes_of(before), bytes_of(after));
        self.totals.bytes = self.totals.bytes.saturating_sub(before).saturating_add(after);
        self.totals.entries =
            self.totals.entries.saturating_sub(u64::from(before > 0)).saturating_add(u64::from(after > 0));
    }
}

/// What a record counts for: the bytes of key and value of an entry, which are never none, or 0 for a tombstone.
fn counted_bytes(key: &str, header: Header) -> u64 {
    header.value_bytes.map_or(0, |value_bytes| (key.len() + value_bytes) as u64)
}
