//! Values that are put together are kept together.
//!
//! A page of the engine holds a single value of a few KiB and is half empty then. So the values of a batch are laid one after the
//! other into packs, each of which fills a run of pages, and `records` only says where they are: a third of the work, and half of
//! the file.
//!
//! - `packs`: number → items, one after the other: length of the key and of the value (4 bytes each, big-endian), key, value
//! - `pack_use`: number → bytes of the items that records point to, bytes in all
//! - `sparse`: number → nothing; the packs whose items are worth being laid elsewhere
//!
//! What is replaced or removed stays in its pack until more than half of that is wasted. Then what is left in it moves to another
//! one, in the same transaction or in that of a later batch: over time, no more is moved than was written. A file of before there were
//! packs has none of these tables, which means the same as empty ones.

use std::collections::BTreeMap;
use std::mem;
use std::ops::RangeInclusive;

use memcell_plugin::{Error, Header, Record};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError, WriteTransaction,
};

use crate::failure::Failure;
use crate::row::{Place, Row};

pub(crate) const PACKS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("packs");
pub(crate) const PACK_USE: TableDefinition<'static, u64, (u32, u32)> = TableDefinition::new("pack_use");
pub(crate) const SPARSE: TableDefinition<'static, u64, ()> = TableDefinition::new("sparse");

/// What a pack holds at the most: with what the engine adds, a run of pages of 16 KiB. Larger ones gain little, and whoever reads
/// one value reads all of its pack.
const PACK_BYTES: usize = 16 * 1024 - 64;

/// The lengths of values that are packed. Shorter ones share a page of the engine as it is, longer ones fill pages of their own.
const PACKED_LENGTHS: RangeInclusive<usize> = 512..=PACK_BYTES / 2;

/// Fewer values than this are not worth a pack.
const MIN_ITEMS: usize = 4;

/// So many packs that are worth clearing are cleared together: their values fill whole packs again, and most writes of single
/// values have nothing to do with it.
const CLEARED_TOGETHER: u64 = 16;

/// How much is moved in one transaction when there is hardly any room.
const MOVED_WHEN_TIGHT: u64 = 512 * 1024;

/// The records as a write transaction changes them.
pub(crate) type Records<'t> = Table<'t, &'static str, &'static [u8]>;

/// Whether so many of a batch's values can be packed that it is worth it.
pub(crate) fn are_worth_packing<'w>(records: impl IntoIterator<Item = &'w Record>) -> bool {
    records.into_iter().filter(|record| is_packable(record)).nth(MIN_ITEMS - 1).is_some()
}

/// Whether a value has a length that packs are made for.
pub(crate) fn is_packable(record: &Record) -> bool {
    record.value.as_ref().is_some_and(|value| PACKED_LENGTHS.contains(&value.len()))
}

/// The packs as a write transaction changes them.
pub(crate) struct Packer<'t> {
    packs: Table<'t, u64, &'static [u8]>,
    uses: Table<'t, u64, (u32, u32)>,
    sparse: Table<'t, u64, ()>,
    /// The number of the pack that is being filled.
    number: u64,
    /// Its items.
    items: Vec<u8>,
    /// Bytes of items that no record points to any more, by pack; the one that is being filled included.
    freed: BTreeMap<u64, u32>,
    /// Bytes of items that no record points to, in all packs that are accounted for.
    wasted: u64,
}

impl<'t> Packer<'t> {
    /// `wasted` is what the transactions before have left.
    pub(crate) fn new(transaction: &'t WriteTransaction, wasted: u64) -> Result<Self, Failure> {
        let packs = transaction.open_table(PACKS)?;
        let number = packs.last()?.map_or(0, |(last, _)| last.value() + 1);
        let (uses, sparse) = (transaction.open_table(PACK_USE)?, transaction.open_table(SPARSE)?);
        Ok(Self { packs, uses, sparse, number, items: Vec::new(), freed: BTreeMap::new(), wasted })
    }

    /// Lays a value into a pack.
    pub(crate) fn lay(&mut self, key: &str, value: &[u8]) -> Result<Place, Failure> {
        if !self.items.is_empty() && self.items.len() + Item::bytes(key, value.len()) > PACK_BYTES {
            self.seal()?;
        }
        Item { key, value }.append_to(&mut self.items);
        let length = value.len();
        let offset = self.items.len() - length;
        // Both are far below what four bytes can count.
        Ok(Place { pack: self.number, offset: offset as u32, length: length as u32 })
    }

    /// Takes back what was laid last, which no record has pointed to.
    pub(crate) fn take_back(&mut self, key: &str, place: Place) {
        let bytes = Item::bytes(key, place.length as usize);
        self.items.truncate(self.items.len().saturating_sub(bytes));
    }

    /// The record that pointed to `place` doesn't any more.
    pub(crate) fn free(&mut self, key: &str, place: Place) {
        let freed = self.freed.entry(place.pack).or_default();
        *freed = freed.saturating_add(Item::bytes(key, place.length as usize) as u32);
    }

    /// Writes what is left to be written, and moves values out of packs that are mostly wasted. Answers how many bytes it moved, and
    /// how many are wasted in all.
    ///
    /// With `is_tight`, for when the disk is full, packs are cleared that are less wasted, and less is moved at a time.
    pub(crate) fn settle(mut self, records: &mut Records<'_>, is_tight: bool) -> Result<(u64, u64), Failure> {
        self.seal()?;
        let freed = self.account(is_tight)?;
        let is_due = is_tight || self.sparse.len()? >= CLEARED_TOGETHER;
        // No more is moved out of packs that are half wasted than was freed in them, so that this keeps up.
        let budget = if is_tight { MOVED_WHEN_TIGHT } else { freed + CLEARED_TOGETHER * PACK_BYTES as u64 };
        let moved_bytes = if is_due { self.clear(budget, records)? } else { 0 };
        self.seal()?;
        Ok((moved_bytes, self.wasted))
    }

    /// Removes packs that are worth it, and lays what is left in them into others, until that comes to more than `budget` bytes.
    /// Answers to how many it did.
    fn clear(&mut self, budget: u64, records: &mut Records<'_>) -> Result<u64, Failure> {
        let mut left = Vec::new();
        let mut bytes = 0;
        while bytes < budget {
            let Some(number) = self.first_sparse()? else { break };
            bytes += self.take_out(number, records, &mut left)?;
        }
        let are_packed = left.len() >= MIN_ITEMS;
        let mut row = Vec::new();
        for Moved { key, header, value } in left {
            let moved = match are_packed {
                true => Row::Packed(header, self.lay(&key, &value)?),
                false => Row::Whole(header, &value),
            };
            moved.encode(&mut row);
            records.insert(key.as_str(), row.as_slice())?;
        }
        Ok(bytes)
    }

    /// The first pack that is worth clearing.
    fn first_sparse(&self) -> Result<Option<u64>, Failure> {
        Ok(self.sparse.first()?.map(|(number, _)| number.value()))
    }

    /// Stores the pack that is being filled, and begins another one.
    fn seal(&mut self) -> Result<(), Failure> {
        if self.items.is_empty() {
            return Ok(());
        }
        let bytes = self.items.len() as u32;
        self.packs.insert(self.number, self.items.as_slice())?;
        self.uses.insert(self.number, (bytes, bytes))?;
        self.items.clear();
        self.number += 1;
        Ok(())
    }

    /// Takes what was freed off the use of the packs that it is in. Answers how many bytes that is.
    fn account(&mut self, is_tight: bool) -> Result<u64, Failure> {
        let mut all = 0;
        for (number, freed) in mem::take(&mut self.freed) {
            let (used, bytes) = self.use_of(number)?;
            let used = used.checked_sub(freed).ok_or_else(|| contradicts(number))?;
            all += u64::from(freed);
            self.wasted += u64::from(freed);
            self.uses.insert(number, (used, bytes))?;
            if used == 0 {
                self.remove(number)?;
                continue;
            }
            let worthwhile = if is_tight { bytes - bytes / 10 } else { bytes / 2 };
            if used < worthwhile {
                self.sparse.insert(number, ())?;
            }
        }
        Ok(all)
    }

    /// Removes a pack, and adds what is left in it to `left`. Answers how many bytes that is.
    fn take_out(&mut self, number: u64, records: &Records<'_>, left: &mut Vec<Moved>) -> Result<u64, Failure> {
        let (pack, used) = self.remove(number)?;
        for item in items(number, pack.value()) {
            let (Item { key, value }, offset) = item?;
            let Some(row) = records.get(key)? else { continue };
            if let Row::Packed(header, place) = Row::decode(row.value())?
                && (place.pack, place.offset) == (number, offset)
            {
                left.push(Moved { key: key.to_owned(), header, value: value.to_vec() });
            }
        }
        Ok(u64::from(used))
    }

    /// Removes a pack. Answers what it consists of, and how many bytes of that are in use.
    fn remove(&mut self, number: u64) -> Result<(AccessGuard<'_, &'static [u8]>, u32), Failure> {
        let (used, bytes) = self.use_of(number)?;
        self.uses.remove(number)?;
        self.sparse.remove(number)?;
        self.wasted = self.wasted.saturating_sub(u64::from(bytes.saturating_sub(used)));
        Ok((self.packs.remove(number)?.ok_or_else(|| missing(number))?, used))
    }

    /// How many bytes of a pack are in use, and how many it has.
    fn use_of(&self, number: u64) -> Result<(u32, u32), Failure> {
        Ok(self.uses.get(number)?.ok_or_else(|| missing(number))?.value())
    }
}

/// A value that is taken out of its pack.
struct Moved {
    key: String,
    header: Header,
    value: Vec<u8>,
}

/// The packs as a read transaction sees them.
pub(crate) struct Packs {
    /// `None` while nothing was ever packed.
    table: Option<ReadOnlyTable<u64, &'static [u8]>>,
    /// The one that was read last: neighbours are often wanted one after the other.
    last: Option<(u64, AccessGuard<'static, &'static [u8]>)>,
}

impl Packs {
    pub(crate) fn new(transaction: &ReadTransaction) -> Result<Self, Failure> {
        let table = match transaction.open_table(PACKS) {
            Ok(table) => Some(table),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { table, last: None })
    }

    /// The value at `place`.
    pub(crate) fn value(&mut self, place: Place) -> Result<&[u8], Failure> {
        let pack = match self.last.take() {
            Some((number, pack)) if number == place.pack => pack,
            _ => {
                let table = self.table.as_ref().ok_or_else(|| missing(place.pack))?;
                table.get(place.pack)?.ok_or_else(|| missing(place.pack))?
            }
        };
        let (_, pack) = self.last.insert((place.pack, pack));
        let (start, length) = (place.offset as usize, place.length as usize);
        let value = start.checked_add(length).and_then(|end| pack.value().get(start..end));
        value.ok_or_else(|| contradicts(place.pack))
    }
}

/// What a pack consists of.
struct Item<'p> {
    key: &'p str,
    value: &'p [u8],
}

/// The lengths of the key and of the value come before them.
const LENGTH_BYTES: usize = 4;

impl<'p> Item<'p> {
    /// What an item takes in its pack.
    fn bytes(key: &str, value_bytes: usize) -> usize {
        2 * LENGTH_BYTES + key.len() + value_bytes
    }

    fn append_to(&self, pack: &mut Vec<u8>) {
        // Both have been checked to be far shorter than what four bytes can count.
        pack.extend_from_slice(&(self.key.len() as u32).to_be_bytes());
        pack.extend_from_slice(&(self.value.len() as u32).to_be_bytes());
        pack.extend_from_slice(self.key.as_bytes());
        pack.extend_from_slice(self.value);
    }

    /// The item that `pack` begins with, and what comes after it.
    fn split(pack: &'p [u8]) -> Option<(Self, &'p [u8])> {
        let (key_bytes, rest) = pack.split_first_chunk::<LENGTH_BYTES>()?;
        let (value_bytes, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*key_bytes) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_bytes) as usize)?;
        Some((Self { key: str::from_utf8(key).ok()?, value }, rest))
    }
}

/// The items of a pack, and at which offset the value of each is.
fn items(number: u64, pack: &[u8]) -> impl Iterator<Item = Result<(Item<'_>, u32), Failure>> {
    let mut rest = pack;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((item, after)) = Item::split(rest) else {
            rest = &[];
            return Some(Err(contradicts(number)));
        };
        rest = after;
        let offset = pack.len() - after.len() - item.value.len();
        Some(Ok((item, offset as u32)))
    })
}

fn missing(number: u64) -> Failure {
    Error::corrupt(format!("pack {number} is missing")).into()
}

fn contradicts(number: u64) -> Failure {
    Error::corrupt(format!("what is known of pack {number} contradicts itself")).into()
}
