//! The database of one shard: its tables, and a transaction for each batch.
//!
//! - `records`: key → record, entries and tombstones alike; see `row`
//! - `packs` and its companions: values that were put together; see `packs`
//! - `intents`: see `intents`
//! - `expiries`: (expiry, key) → what the record counts for in the statistics; every record that expires, soonest first
//! - `meta`: the format, the shard's number, and the totals, which change in the transaction that changes the records

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memcell_plugin::{
    AnswerBytes, Digest, Found, Header, Moment, Outcome, Record, Rule, Stats, Step, Write, after_cursor, key_of_cursor,
};
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use crate::changes::{Changes, Settled, Totals};
use crate::disk::{Disk, Length};
use crate::failure::Failure;
use crate::intents;
use crate::options::{Durability, Options};
use crate::packs::{self, Packs};
use crate::row::Row;

pub(crate) const RECORDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");
pub(crate) const EXPIRIES: TableDefinition<'static, (u64, &str), u64> = TableDefinition::new("expiries");
pub(crate) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

const FORMAT: &str = "format";
const SHARD: &str = "shard";
const ENTRIES: &str = "entries";
const BYTES: &str = "bytes";
const WASTED: &str = "wasted";

/// The meaning of the tables. Another number is another layout.
const FORMAT_VERSION: u64 = 2;

/// The format of before there were packs. Files of it are used as they are, until there is a pack in them.
const FORMAT_WITHOUT_PACKS: u64 = 1;

/// How many expired records a batch clears away for each of its writes. More than one, so that they can't pile up.
const CLEARED_PER_WRITE: usize = 2;

/// How many expired records are cleared away when statistics are asked for.
const CLEARED_PER_STATS: usize = 4096;

/// How many tombstones one step of a scan passes over, per record wanted, before it answers with fewer.
const PASSED_PER_WANTED: usize = 8;

/// With durability `flush`, a batch is made durable without being asked once this much has been written since the last time, and a
/// quarter of what is in the file: until then, nothing that was replaced can be used again, and the file grows.
const MAX_UNFLUSHED_BYTES: u64 = 32 * 1024 * 1024;
const MIN_UNFLUSHED_BYTES: u64 = 4 * 1024 * 1024;

/// About what a record takes in the file besides its key and value.
const OVERHEAD_BYTES: u64 = 64;

/// Below this, a file isn't worth compacting.
const MIN_COMPACTED_BYTES: u64 = 8 * 1024 * 1024;

/// The records as they were after the last write, to be read from until the next one.
struct Reader {
    records: ReadOnlyTable<&'static str, &'static [u8]>,
    packs: Packs,
}

/// An open database. After a [`Failure::Engine`] it is to be dropped and opened again.
pub(crate) struct Database {
    engine: redb::Database,
    options: Options,
    length: Length,
    totals: Totals,
    reader: Option<Reader>,
    /// Bytes written since the last durable commit.
    unflushed_bytes: u64,
    /// How many that may be at the most.
    most_unflushed_bytes: u64,
    /// Whether there is hardly any room on the disk.
    is_tight: bool,
    /// Whether opening it took reading all of it.
    #[cfg(test)]
    was_verified: bool,
}

impl Database {
    /// Opens what is on `disk`, or makes a new database if it is empty. With `checked`, every page is verified first.
    pub(crate) fn open(disk: Disk, shard: u32, options: Options, checked: bool) -> Result<Self, Failure> {
        let length = disk.length();
        let mut builder = redb::Builder::new();
        builder.set_cache_size(options.cache_bytes).set_check_integrity_on_open(checked);
        let was_verified = Arc::new(AtomicBool::new(checked));
        let is_verified = Arc::clone(&was_verified);
        builder.set_repair_callback(move |_| {
            if !is_verified.swap(true, Ordering::Relaxed) {
                eprintln!("the database of shard {shard} was not closed in order; its pages are verified");
            }
        });
        let engine = builder.create_with_backend(disk)?;
        let totals = match read_meta(&engine, shard)? {
            Some(totals) => totals,
            None => create(&engine, shard)?,
        };
        Ok(Self {
            engine,
            options,
            length,
            totals,
            reader: None,
            unflushed_bytes: 0,
            most_unflushed_bytes: MAX_UNFLUSHED_BYTES,
            is_tight: false,
            #[cfg(test)]
            was_verified: was_verified.load(Ordering::Relaxed),
        })
    }

    /// Whether there is hardly any room on the disk, so that little may be written that can wait; and how much may be written at the
    /// most before it is made durable.
    pub(crate) fn set_room(&mut self, is_tight: bool, most_unflushed_bytes: u64) {
        self.is_tight = is_tight;
        self.most_unflushed_bytes = most_unflushed_bytes;
    }

    /// The record of each key.
    pub(crate) fn read_many<'k>(
        &mut self,
        keys: impl ExactSizeIterator<Item = &'k str>,
    ) -> Result<Vec<Option<Record>>, Failure> {
        let Reader { records, packs } = self.reader()?;
        let mut answer = AnswerBytes::default();
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(row) = records.get(key)? else {
                found.push(None);
                continue;
            };
            let (header, value) = whole(row.value(), packs)?;
            answer.add(value.len())?;
            found.push(Some(Record {
                stamp: header.stamp,
                expires_at: header.expires_at,
                value: (!header.is_tombstone()).then(|| value.to_vec()),
            }));
        }
        Ok(found)
    }

    /// The digest of each key's entry that has not expired at `moment`.
    pub(crate) fn digest_many(
        &mut self,
        keys: &[String],
        head_bytes: usize,
        moment: &Moment,
    ) -> Result<Vec<Option<Digest>>, Failure> {
        let Reader { records, packs } = self.reader()?;
        let digest = |key: &String| -> Result<Option<Digest>, Failure> {
            let Some(row) = records.get(key.as_str())? else { return Ok(None) };
            let (header, value) = whole(row.value(), packs)?;
            Ok(Digest::of_value(&header, value, head_bytes, moment))
        };
        keys.iter().map(digest).collect()
    }

    /// The header of a key's record.
    pub(crate) fn header(&mut self, key: &str) -> Result<Option<Header>, Failure> {
        let Some(row) = self.reader()?.records.get(key)? else { return Ok(None) };
        Ok(Some(Row::decode(row.value())?.parts().0))
    }

    /// Carries out a batch in one transaction. Nothing of it is done if it fails.
    pub(crate) fn apply(&mut self, writes: &[Write], rule: &Rule) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::with_capacity(writes.len());
        self.change(|changes| apply_to(changes, writes, rule, &mut outcomes))?;
        Ok(outcomes)
    }

    /// Keeps the intent of a transaction, durably, in the place of the one that it may have.
    pub(crate) fn prepare(&mut self, transaction: &str, writes: &[Write]) -> Result<(), Failure> {
        self.change_durably(|changes| {
            let mut intents = changes.intents()?;
            let replaces = intents.drop_of(transaction)?;
            let written_bytes = intents.keep(transaction, writes)?;
            drop(intents);
            if replaces || !writes.is_empty() {
                changes.touch();
            }
            Ok(written_bytes)
        })
    }

    /// Carries out the intent of a transaction and removes it, durably.
    pub(crate) fn commit(&mut self, transaction: &str, rule: &Rule) -> Result<(), Failure> {
        self.change_durably(|changes| {
            let writes = changes.intents()?.take(transaction)?;
            if writes.is_empty() {
                return Ok(0);
            }
            changes.touch();
            apply_to(changes, &writes, rule, &mut Vec::with_capacity(writes.len()))
        })
    }

    /// Removes the intent of a transaction. What a crash brings back of it is in doubt again, and aborted again.
    pub(crate) fn abort(&mut self, transaction: &str) -> Result<(), Failure> {
        self.change(|changes| {
            if changes.intents()?.drop_of(transaction)? {
                changes.touch();
            }
            Ok(0)
        })
    }

    /// The transactions that have an intent.
    pub(crate) fn in_doubt(&self) -> Result<Vec<String>, Failure> {
        intents::all(&self.engine)
    }

    /// Stores a record, whatever is there.
    pub(crate) fn write(&mut self, key: &str, record: &Record) -> Result<(), Failure> {
        self.change(|changes| {
            changes.put(key, record, |_| Some(record.stamp))?;
            Ok((key.len() + record.value.as_ref().map_or(0, Vec::len)) as u64)
        })
    }

    /// Entries and tombstones after `cursor`, in the order of their keys; tombstones are passed over.
    pub(crate) fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step, Failure> {
        let from = cursor.map(key_of_cursor).transpose()?;
        let start = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let records = self.reader()?.records.range::<&str>((start, std::ops::Bound::Unbounded))?;
        let most = limit.saturating_mul(PASSED_PER_WANTED);
        let mut step = Step::default();
        for (passed, record) in records.enumerate() {
            let (key, row) = record?;
            let (header, _) = Row::decode(row.value())?.parts();
            if !header.is_tombstone() {
                step.found.push(Found { key: key.value().to_owned(), header });
            }
            if step.found.len() == limit || passed + 1 == most {
                step.next = Some(after_cursor(key.value()));
                break;
            }
        }
        Ok(step)
    }

    /// Clears away some of what has expired, so that [`Database::stats`] has less to look at.
    pub(crate) fn clear_expired(&mut self, moment: &Moment) -> Result<(), Failure> {
        self.change(|changes| changes.clear_expired(moment, CLEARED_PER_STATS).map(|()| 0))
    }

    /// Entries that have not expired. Looks at each expired record that has not been cleared away.
    pub(crate) fn stats(&mut self, moment: &Moment) -> Result<Stats, Failure> {
        let transaction = self.engine.begin_read()?;
        let expiries = transaction.open_table(EXPIRIES)?;
        let mut live = self.totals.entries;
        for expiry in expiries.iter()? {
            let (place, bytes) = expiry?;
            if !moment.has_passed(Some(place.value().0)) {
                break;
            }
            if bytes.value() > 0 {
                live.entries = live.entries.saturating_sub(1);
                live.bytes = live.bytes.saturating_sub(bytes.value());
            }
        }
        Ok(live)
    }

    /// Bytes of the keys and values of all entries, and of what is kept beside them: expired ones that are not cleared away, and what
    /// is wasted in packs.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.totals.entries.bytes.saturating_add(self.totals.wasted_bytes)
    }

    /// Bytes that were answered and that a crash would take back.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes
    }

    /// Makes everything durable.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if self.unflushed_bytes == 0 {
            return Ok(());
        }
        let mut transaction = self.engine.begin_write()?;
        transaction.set_quick_repair(self.wants_quick_recovery());
        transaction.commit()?;
        self.unflushed_bytes = 0;
        Ok(())
    }

    /// Whether opening it took reading all of it.
    #[cfg(test)]
    pub(crate) fn was_verified(&self) -> bool {
        self.was_verified
    }

    /// The engine itself, for tests that look behind this.
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &redb::Database {
        &self.engine
    }

    /// Whether the engine still answers.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let transaction = self.engine.begin_read()?;
        let meta = transaction.open_table(META)?;
        meta.get(FORMAT)?;
        Ok(())
    }

    /// Makes everything durable, gives back free space if there is much of it and little to move, and closes the file so
    /// that it opens at once.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        self.reader = None;
        if self.is_worth_compacting()? {
            self.engine.compact()?;
        }
        Ok(self.engine.close()?)
    }

    fn is_worth_compacting(&self) -> Result<bool, Failure> {
        let length = self.length.bytes();
        if length < MIN_COMPACTED_BYTES {
            return Ok(false);
        }
        let transaction = self.engine.begin_write()?;
        let records = transaction.open_table(RECORDS)?.len()?;
        let held = self.held_bytes().saturating_add(records.saturating_mul(OVERHEAD_BYTES));
        let is_little = held <= self.options.compact_limit;
        // Only now: this looks at every page.
        let is_worth_it = is_little && {
            let stats = transaction.stats()?;
            stats.allocated_pages().saturating_mul(stats.page_size() as u64) < length / 2
        };
        transaction.abort()?;
        Ok(is_worth_it)
    }

    fn reader(&mut self) -> Result<&mut Reader, Failure> {
        if self.reader.is_none() {
            let transaction = self.engine.begin_read()?;
            let (records, packs) = (transaction.open_table(RECORDS)?, Packs::new(&transaction)?);
            self.reader = Some(Reader { records, packs });
        }
        self.reader.as_mut().ok_or_else(|| memcell_plugin::Error::other("there is no view of the records").into())
    }

    /// Runs `work`, which says how many bytes it wrote, in a transaction, and commits it if anything has changed.
    fn change(&mut self, work: impl FnOnce(&mut Changes<'_>) -> Result<u64, Failure>) -> Result<(), Failure> {
        self.change_lasting(self.options.durability == Durability::Immediate, work)
    }

    /// As [`Database::change`], on the disk when it returns, whatever the options say.
    fn change_durably(&mut self, work: impl FnOnce(&mut Changes<'_>) -> Result<u64, Failure>) -> Result<(), Failure> {
        self.change_lasting(true, work)
    }

    fn change_lasting(
        &mut self,
        at_once: bool,
        work: impl FnOnce(&mut Changes<'_>) -> Result<u64, Failure>,
    ) -> Result<(), Failure> {
        // A view in use would keep the pages that the transaction replaces.
        self.reader = None;
        let mut transaction = self.engine.begin_write()?;
        let mut changes = Changes::new(&transaction, self.totals)?;
        let written_bytes = work(&mut changes)?;
        let Settled { has_changed, totals, moved_bytes } = changes.finish(self.is_tight)?;
        if !has_changed {
            return Ok(transaction.abort()?);
        }
        write_totals(&transaction, totals)?;
        let unflushed_bytes = self.unflushed_bytes.saturating_add(written_bytes).saturating_add(moved_bytes).max(1);
        let is_durable = at_once || self.is_tight || unflushed_bytes >= self.unflushed_limit();
        if is_durable {
            transaction.set_quick_repair(self.wants_quick_recovery());
        } else {
            transaction.set_durability(redb::Durability::None)?;
        }
        transaction.commit()?;
        self.totals = totals;
        self.unflushed_bytes = if is_durable { 0 } else { unflushed_bytes };
        Ok(())
    }

    fn unflushed_limit(&self) -> u64 {
        (self.length.bytes() / 4).clamp(MIN_UNFLUSHED_BYTES, MAX_UNFLUSHED_BYTES).min(self.most_unflushed_bytes)
    }

    fn wants_quick_recovery(&self) -> bool {
        self.length.bytes() >= self.options.quick_recovery_from_bytes
    }
}

/// Carries out writes, each if `rule` allows. Answers how many bytes were written.
fn apply_to(
    changes: &mut Changes<'_>,
    writes: &[Write],
    rule: &Rule,
    outcomes: &mut Vec<Outcome>,
) -> Result<u64, Failure> {
    let mut written_bytes = 0;
    if packs::are_worth_packing(writes.iter().map(|write| &write.record)) {
        changes.pack();
    }
    changes.clear_expired(rule.moment(), writes.len().saturating_mul(CLEARED_PER_WRITE))?;
    for write in writes {
        let Write { key, record } = write;
        outcomes.push(if changes.put(key, record, |stored| rule.judge(stored, record.stamp))? {
            written_bytes += (key.len() + record.value.as_ref().map_or(0, Vec::len)) as u64;
            Outcome::Applied
        } else {
            Outcome::Stale
        });
    }
    Ok(written_bytes)
}

/// A row's header and value, which may be in a pack; that of a tombstone is empty.
fn whole<'v>(row: &'v [u8], packs: &'v mut Packs) -> Result<(Header, &'v [u8]), Failure> {
    Ok(match Row::decode(row)? {
        Row::Whole(header, value) => (header, value),
        Row::Packed(header, place) => (header, packs.value(place)?),
    })
}

/// The totals of a database of ours; `None` if it is new.
fn read_meta(engine: &redb::Database, shard: u32) -> Result<Option<Totals>, Failure> {
    let transaction = engine.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) if transaction.list_tables()?.next().is_none() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let number = |name: &str| -> Result<u64, Failure> {
        let found = meta.get(name)?.map(|found| found.value());
        found.ok_or_else(|| redb::StorageError::Corrupted(format!("{name:?} is missing in its table \"meta\"")).into())
    };
    let format = number(FORMAT)?;
    if ![FORMAT_WITHOUT_PACKS, FORMAT_VERSION].contains(&format) {
        let text = format!(
            "its format is {format}, but this plugin knows only {FORMAT_VERSION}: another version of it wrote it"
        );
        return Err(redb::StorageError::Corrupted(text).into());
    }
    let is_of = number(SHARD)?;
    if is_of != u64::from(shard) {
        return Err(redb::StorageError::Corrupted(format!("it is the file of shard {is_of}")).into());
    }
    let has_packs = format != FORMAT_WITHOUT_PACKS;
    Ok(Some(Totals {
        entries: Stats { entries: number(ENTRIES)?, bytes: number(BYTES)? },
        wasted_bytes: if has_packs { number(WASTED)? } else { 0 },
        has_packs,
    }))
}

fn create(engine: &redb::Database, shard: u32) -> Result<Totals, Failure> {
    let transaction = engine.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(EXPIRIES)?;
    transaction.open_table(META)?.insert(SHARD, u64::from(shard))?;
    let totals = Totals::default();
    write_totals(&transaction, totals)?;
    transaction.commit()?;
    Ok(totals)
}

fn write_totals(transaction: &WriteTransaction, totals: Totals) -> Result<(), Failure> {
    let Totals { entries: Stats { entries, bytes }, wasted_bytes, has_packs } = totals;
    let mut meta = transaction.open_table(META)?;
    meta.insert(ENTRIES, entries)?;
    meta.insert(BYTES, bytes)?;
    if has_packs {
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(WASTED, wasted_bytes)?;
    } else {
        meta.insert(FORMAT, FORMAT_WITHOUT_PACKS)?;
    }
    Ok(())
}
