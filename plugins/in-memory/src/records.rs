//! Records by key, in slots that never move: what a scan can walk along while they come and go.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use memcell_plugin::{Header, Moment, Record, Stats};

use crate::expiries::Expiries;

/// What a record takes besides its key and value, about: its slot, its place in the hash table, its expiry, and what the
/// allocator adds.
pub const OVERHEAD_BYTES: u64 = 128;

/// A hash table of slot numbers beside the slots themselves. A slot that falls empty is used again before a new one is made.
#[derive(Debug, Default)]
pub struct Records {
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    slots: Vec<Option<Occupied>>,
    empty: Vec<u32>,
    expiries: Expiries,
    live: Stats,
    held_bytes: u64,
}

#[derive(Debug)]
struct Occupied {
    hash: u64,
    key: String,
    record: Record,
}

/// Where a key is, or would be. Good until the next change.
#[derive(Debug)]
pub struct Slot {
    hash: u64,
    occupied: Option<u32>,
}

impl Records {
    /// Where `key` is, or would be.
    pub fn find(&self, key: &str) -> Slot {
        let hash = self.hasher.hash_one(key);
        let occupied = self.table.find(hash, |&slot| self.occupied(slot).is_some_and(|occupied| occupied.key == key));
        Slot { hash, occupied: occupied.copied() }
    }

    /// The header of the record in a slot.
    pub fn header(&self, slot: &Slot) -> Option<Header> {
        Some(self.occupied(slot.occupied?)?.record.header())
    }

    /// The record of `key`.
    pub fn get(&self, key: &str) -> Option<&Record> {
        Some(&self.occupied(self.find(key).occupied?)?.record)
    }

    /// How many slots there are, empty ones included. Never becomes less.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What is in the slot at `position`.
    pub fn at(&self, position: usize) -> Option<(&str, &Record)> {
        self.slots.get(position)?.as_ref().map(|occupied| (occupied.key.as_str(), &occupied.record))
    }

    /// Puts `record` where [`Records::find`] found the place of `key`, with no change in between.
    pub fn store(&mut self, slot: Slot, key: String, record: Record) {
        self.held_bytes = self.held_bytes_after(&slot, &key, &record);
        count(&mut self.live, &key, &record, true);
        if let Some(number) = slot.occupied
            && let Some(Some(occupied)) = self.slots.get_mut(number as usize)
        {
            count(&mut self.live, &occupied.key, &occupied.record, false);
            self.expiries.change(number, occupied.record.expires_at, record.expires_at);
            replace(&mut occupied.record, record);
            return;
        }
        let expires_at = record.expires_at;
        let number = self.fill(Occupied { hash: slot.hash, key, record });
        self.expiries.change(number, None, expires_at);
        let slots = &self.slots;
        self.table.insert_unique(slot.hash, number, |&number| {
            // A number in the table always leads to a record; were it not so, the key would be lost, and nothing else.
            slots.get(number as usize).and_then(Option::as_ref).map_or(0, |occupied| occupied.hash)
        });
    }

    /// Takes the record of `key` away.
    pub fn remove(&mut self, key: &str) {
        if let Some(number) = self.find(key).occupied {
            self.vacate(number);
        }
    }

    /// Takes away at most `at_most` records that have expired at `moment`, longest expired first.
    pub fn clear_expired(&mut self, moment: &Moment, at_most: usize) {
        for _ in 0..at_most {
            match self.expiries.first() {
                Some((expires_at, number)) if moment.has_passed(Some(expires_at)) => self.vacate(number),
                _ => return,
            }
        }
    }

    /// The entries held, expired ones that are not cleared yet included.
    pub fn stats(&self) -> Stats {
        self.live
    }

    /// Bytes of all keys and values, plus [`OVERHEAD_BYTES`] for each record.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// What [`Records::held_bytes`] would be after [`Records::store`].
    pub fn held_bytes_after(&self, slot: &Slot, key: &str, record: &Record) -> u64 {
        let replaced = slot.occupied.and_then(|number| self.occupied(number));
        let freed = replaced.map_or(0, |occupied| size(&occupied.key, &occupied.record));
        self.held_bytes - freed + size(key, record)
    }

    fn occupied(&self, number: u32) -> Option<&Occupied> {
        self.slots.get(number as usize)?.as_ref()
    }

    fn fill(&mut self, occupied: Occupied) -> u32 {
        if let Some(number) = self.empty.pop()
            && let Some(slot) = self.slots.get_mut(number as usize)
        {
            *slot = Some(occupied);
            return number;
        }
        // A component's memory of 4 GiB can't hold as many slots as a u32 can count.
        let number = self.slots.len() as u32;
        self.slots.push(Some(occupied));
        number
    }

    fn vacate(&mut self, number: u32) {
        let Some(Occupied { hash, key, record }) = self.slots.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        if let Ok(place) = self.table.find_entry(hash, |&other| other == number) {
            place.remove();
        }
        self.expiries.change(number, record.expires_at, None);
        self.held_bytes -= size(&key, &record);
        count(&mut self.live, &key, &record, false);
        self.empty.push(number);
    }
}

/// Puts `new` in the place of `old`, into the same memory if it fits there without wasting much. Values come in blocks that the
/// batch before has just given back, which the processor's cache still has; to keep them there, and the old values where they
/// are, costs less than the allocator's way through memory that nobody has looked at for long.
fn replace(old: &mut Record, new: Record) {
    let Record { stamp, expires_at, value } = new;
    (old.stamp, old.expires_at) = (stamp, expires_at);
    match (&mut old.value, value) {
        (Some(room), Some(value)) if value.len() <= room.capacity() && room.capacity() / 2 <= value.len() => {
            room.clear();
            room.extend_from_slice(&value);
        }
        (place, value) => *place = value,
    }
}

/// What a record counts for in [`Records::held_bytes`].
pub(crate) fn size(key: &str, record: &Record) -> u64 {
    OVERHEAD_BYTES + (key.len() + record.value.as_ref().map_or(0, Vec::len)) as u64
}

fn count(live: &mut Stats, key: &str, record: &Record, comes: bool) {
    let Some(value) = &record.value else { return };
    let bytes = (key.len() + value.len()) as u64;
    if comes {
        live.entries += 1;
        live.bytes += bytes;
    } else {
        live.entries -= 1;
        live.bytes -= bytes;
    }
}
