//! What a transaction does to the tables: the records, the expiries and the totals stay in step here.

use memcell_plugin::{Header, Moment, Record, Stats};
use redb::{ReadableTable, Table, WriteTransaction};

use crate::database::{EXPIRIES, RECORDS};
use crate::failure::Failure;
use crate::intents::Intents;
use crate::packs::{self, Packer, Records};
use crate::row::{Place, Row};

/// The tables within a transaction, and the totals as they would be after it.
pub(crate) struct Changes<'t> {
    transaction: &'t WriteTransaction,
    records: Records<'t>,
    expiries: Table<'t, (u64, &'static str), u64>,
    /// Since they were first needed.
    packs: Option<Packer<'t>>,
    /// Whether values that are put go into packs.
    packing: bool,
    totals: Totals,
    has_changed: bool,
    /// The row of the record that is being stored.
    row: Vec<u8>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Expired entries that are not cleared away included.
    pub(crate) entries: Stats,
    /// Bytes in packs that no record needs.
    pub(crate) wasted_bytes: u64,
    /// Whether there may be packs.
    pub(crate) has_packs: bool,
}

/// What a transaction comes to.
pub(crate) struct Settled {
    pub(crate) has_changed: bool,
    pub(crate) totals: Totals,
    /// Bytes of values that were moved to other packs.
    pub(crate) moved_bytes: u64,
}

impl<'t> Changes<'t> {
    pub(crate) fn new(transaction: &'t WriteTransaction, totals: Totals) -> Result<Self, Failure> {
        let (records, expiries) = (transaction.open_table(RECORDS)?, transaction.open_table(EXPIRIES)?);
        let row = Vec::new();
        Ok(Self { transaction, records, expiries, packs: None, packing: false, totals, has_changed: false, row })
    }

    /// Values of the lengths that packs are for go into packs from here on.
    pub(crate) fn pack(&mut self) {
        self.packing = true;
    }

    /// Completes the packs, unless nothing has changed. `is_tight`: see [`Packer::settle`].
    pub(crate) fn finish(mut self, is_tight: bool) -> Result<Settled, Failure> {
        let mut moved_bytes = 0;
        if let Some(packs) = self.packs.take()
            && self.has_changed
        {
            (moved_bytes, self.totals.wasted_bytes) = packs.settle(&mut self.records, is_tight)?;
            self.totals.has_packs = true;
        }
        Ok(Settled { has_changed: self.has_changed, totals: self.totals, moved_bytes })
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
        let value = record.value.as_deref().unwrap_or_default();
        let place = match self.packing && packs::is_packable(record) {
            true => Some(self.packs()?.lay(key, value)?),
            false => None,
        };
        self.encode(offered, value, place);
        let judged = {
            let replaced = self.records.insert(key, self.row.as_slice())?;
            let parts = |row: &redb::AccessGuard<'_, &[u8]>| Row::decode(row.value()).map(|row| row.parts());
            let stored = replaced.as_ref().map(parts).transpose()?;
            judge(stored.map(|(header, _)| header))
                .map(|stamp| (stored, stamp))
                .ok_or_else(|| replaced.map(|stored| stored.value().to_vec()))
        };
        let (stored, stamp) = match judged {
            Ok(judged) => judged,
            Err(stored) => {
                match stored {
                    Some(stored) => drop(self.records.insert(key, stored.as_slice())?),
                    None => drop(self.records.remove(key)?),
                }
                if let (Some(packs), Some(place)) = (&mut self.packs, place) {
                    packs.take_back(key, place);
                }
                return Ok(false);
            }
        };
        let header = Header { stamp, ..offered };
        if header != offered {
            self.encode(header, value, place);
            self.records.insert(key, self.row.as_slice())?;
        }
        let (stored, place) = stored.unzip();
        if let Some(place) = place.flatten() {
            self.packs()?.free(key, place);
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

    /// The row of a record. Room made by the engine (`insert_reserve`) would cost an allocation, filled with zeros, for every
    /// record.
    fn encode(&mut self, header: Header, value: &[u8], place: Option<Place>) {
        let row = place.map_or(Row::Whole(header, value), |place| Row::Packed(header, place));
        row.encode(&mut self.row);
    }

    fn packs(&mut self) -> Result<&mut Packer<'t>, Failure> {
        let packs = match self.packs.take() {
            Some(packs) => packs,
            None => Packer::new(self.transaction, self.totals.wasted_bytes)?,
        };
        Ok(self.packs.insert(packs))
    }

    /// Takes away at most `at_most` records that have expired at `moment`, longest expired first.
    pub(crate) fn clear_expired(&mut self, moment: &Moment, at_most: usize) -> Result<(), Failure> {
        for _ in 0..at_most {
            let Some(key) = self.first_expired(moment)? else { break };
            let removed = self.records.remove(key.as_str())?;
            let stored = removed.map(|stored| Row::decode(stored.value()).map(|row| row.parts())).transpose()?;
            let (stored, place) = stored.unzip();
            self.count(&key, stored, None);
            if let Some(place) = place.flatten() {
                self.packs()?.free(&key, place);
            }
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
        let Stats { entries, bytes } = &mut self.totals.entries;
        *bytes = bytes.saturating_sub(before).saturating_add(after);
        *entries = entries.saturating_sub(u64::from(before > 0)).saturating_add(u64::from(after > 0));
    }
}

/// What a record counts for: the bytes of key and value of an entry, which are never none, or 0 for a tombstone.
fn counted_bytes(key: &str, header: Header) -> u64 {
    header.value_bytes.map_or(0, |value_bytes| (key.len() + value_bytes) as u64)
}
