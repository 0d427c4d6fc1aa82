//! What a transaction does to the tables: the records, the expiries and the totals stay in step here.

use memcell_plugin::{Error, HEADER_BYTES, Header, Moment, Record, Stats};
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
}

impl<'t> Changes<'t> {
    pub(crate) fn new(transaction: &'t WriteTransaction, totals: Stats) -> Result<Self, Failure> {
        let (records, expiries) = (transaction.open_table(RECORDS)?, transaction.open_table(EXPIRIES)?);
        Ok(Self { transaction, records, expiries, totals, has_changed: false })
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

    pub(crate) fn header(&self, key: &str) -> Result<Option<Header>, Failure> {
        let Some(found) = self.records.get(key)? else { return Ok(None) };
        Ok(Some(Header::decode(found.value())?))
    }

    /// Puts `record`, with `header` as its header, in the place of the record whose header is `stored`.
    pub(crate) fn store(
        &mut self,
        key: &str,
        stored: Option<Header>,
        header: Header,
        record: &Record,
    ) -> Result<(), Failure> {
        let value = record.value.as_deref().unwrap_or_default();
        {
            let mut place = self.records.insert_reserve(key, HEADER_BYTES + value.len())?;
            let (head, body) = place
                .as_mut()
                .split_first_chunk_mut::<HEADER_BYTES>()
                .ok_or_else(|| Error::other("the engine made too little room for a record"))?;
            *head = header.encode();
            body.copy_from_slice(value);
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
        Ok(())
    }

    /// Takes away at most `at_most` records that have expired at `moment`, longest expired first.
    pub(crate) fn clear_expired(&mut self, moment: &Moment, at_most: usize) -> Result<(), Failure> {
        for _ in 0..at_most {
            let Some(key) = self.first_expired(moment)? else { break };
            let stored = self.header(&key)?;
            self.records.remove(key.as_str())?;
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
