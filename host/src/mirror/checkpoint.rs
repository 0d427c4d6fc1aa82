//! What a persistent backend itself remembers of its mirror: how far it had come, and over how many shards its keys are spread.
//!
//! It lies in the backend, beside the entries that it speaks of: whoever removes the one removes the other, and a copy of the
//! backend's data is a copy of both.

use serde::{Deserialize, Serialize};

use super::Inner;
use crate::codec::Inventory;
use crate::kv::{Backend, Condition, Entry, KvError, Outcome, Write};
use crate::mongo::Position;

/// The key of the record in every shard. No document has it: keys of documents are 24 digits or JSON.
pub(super) const KEY: &str = "memcell:checkpoint";

/// The form of a record without an inventory, as versions before there was any wrote it and still can read it.
const FORMAT_WITHOUT_INVENTORY: u32 = 2;

/// The form of a record with one.
const FORMAT: u32 = 3;

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    format: u32,
    /// Number of shards that the keys are spread over.
    pub(super) shards: u32,
    /// The collection that the entries are copies of, `database.collection`.
    pub(super) collection: String,
    /// Everything up to here is applied and flushed; `None`: nothing is known of what the backend holds.
    pub(super) position: Option<String>,
    /// When it was written; Unix milliseconds.
    pub(super) at_millis: u64,
    /// See [`Anchor`].
    pub(super) anchor: Anchor,
    /// What the entries may have been written with.
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    pub(super) inventory: Inventory,
}

/// What MongoDB knows a backend's store by, and how often the store has noted its position: so that each can tell if the other is not
/// the one that it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Anchor {
    pub(super) store: String,
    pub(super) count: u64,
}

impl Anchor {
    /// Of a store that has noted nothing.
    pub(super) fn new() -> Self {
        Self { store: bson::oid::ObjectId::new().to_hex(), count: 0 }
    }
}

/// The checkpoints of a backend.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) found: Found,
    /// Of the key and the value of one record, if there is any.
    pub(super) bytes: usize,
    /// The least advanced record, with the inventory of all; `None` if there is a mismatch, or a shard that has none.
    pub(super) record: Option<Checkpoint>,
    /// What the entries of all shards may have been written with.
    pub(super) inventory: Inventory,
}

/// Why a record was not written.
#[derive(Debug)]
pub(super) enum NotWritten {
    Backend(KvError),
    /// A write under a larger token than ours was there before.
    FencedOff,
}

impl From<KvError> for NotWritten {
    fn from(error: KvError) -> Self {
        Self::Backend(error)
    }
}

/// What a backend's checkpoints come to.
#[derive(Debug)]
pub(super) enum Found {
    /// At least one shard has none: it is empty, or was emptied.
    Nothing,
    /// All shards have one, but one without a position: the backend has not been filled yet, or has to be filled again.
    Unfilled { anchor: Anchor },
    /// The tail goes on here, if MongoDB is still the same.
    Position { position: Position, anchor: Anchor, at_millis: u64 },
    /// The backend belongs to something else than this mirror, or to another number of shards.
    Mismatch(String),
}

impl Checkpoint {
    /// A record of now.
    pub(super) fn new(
        shards: u32,
        collection: &str,
        position: Option<String>,
        anchor: Anchor,
        inventory: Inventory,
    ) -> Self {
        Self {
            format: if inventory.is_empty() { FORMAT_WITHOUT_INVENTORY } else { FORMAT },
            shards,
            collection: collection.to_owned(),
            position,
            at_millis: crate::clock::unix_millis(),
            anchor,
            inventory,
        }
    }

    /// The same, with another inventory.
    pub(super) fn with_inventory(self, inventory: Inventory) -> Self {
        let format = if inventory.is_empty() { FORMAT_WITHOUT_INVENTORY } else { FORMAT };
        Self { format, inventory, ..self }
    }

    /// Writes the record to all shards, and returns once it is durable.
    pub(super) async fn write(&self, mirror: &Inner, backend: &Backend) -> Result<(), NotWritten> {
        let stamp = mirror.clock.now();
        let value = serde_json::to_vec(self).map_err(|error| KvError::Down(error.to_string()))?;
        for shard in 0..backend.shard_count() {
            let entry = Entry { key: KEY.to_owned(), stamp, expires_at: None, value: value.clone() };
            for end in backend.write_to(shard, vec![Write::Put(entry)], Condition::Always).await {
                if end? == Outcome::Stale {
                    return Err(NotWritten::FencedOff);
                }
            }
        }
        mirror.flush(backend).await?;
        mirror.checkpoint_holds(KEY.len() + value.len());
        mirror.turn.wrote(stamp);
        Ok(())
    }

    /// The stamp that the record was last written with, by whomever; `None`: there is none.
    pub(super) async fn stamp(backend: &Backend) -> Result<Option<u64>, KvError> {
        Ok(backend.get_from(0, KEY).await?.map(|entry| entry.stamp))
    }

    /// Whether all shards still have a record: one that doesn't has lost everything else, too.
    pub(super) async fn is_everywhere(backend: &Backend) -> Result<bool, KvError> {
        for shard in 0..backend.shard_count() {
            if backend.get_from(shard, KEY).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the records of all shards say that entries were written with, whosever they are. Records that can't be read say nothing.
    pub(super) async fn inventory(backend: &Backend) -> Result<Inventory, KvError> {
        let mut inventory = Inventory::default();
        for shard in 0..backend.shard_count() {
            let entry = backend.get_from(shard, KEY).await?;
            if let Some(Ok(record)) = entry.map(|entry| Self::parse(&entry.value)) {
                inventory = inventory.with(&record.inventory);
            }
        }
        Ok(inventory)
    }

    /// Reads the records of all shards, and decides what they mean for a mirror of `collection`. The least advanced counts.
    pub(super) async fn read(backend: &Backend, collection: &str) -> Result<Stored, KvError> {
        let mut oldest: Option<Self> = None;
        let mut any_missing = false;
        let mut bytes = 0;
        let mut inventory = Inventory::default();
        for shard in 0..backend.shard_count() {
            let Some(entry) = backend.get_from(shard, KEY).await? else {
                any_missing = true;
                continue;
            };
            bytes = KEY.len() + entry.value.len();
            let record = match Self::parse(&entry.value) {
                Ok(record) => record,
                Err(reason) => return Ok(Stored::mismatch(reason, bytes)),
            };
            if let Some(reason) = record.mismatch(backend.shard_count(), collection) {
                return Ok(Stored::mismatch(reason, bytes));
            }
            inventory = inventory.with(&record.inventory);
            let older = |oldest: &Self| {
                oldest.position.is_some() && (record.position.is_none() || record.at_millis < oldest.at_millis)
            };
            if oldest.as_ref().is_none_or(older) {
                oldest = Some(record);
            }
        }
        if any_missing {
            return Ok(Stored { found: Found::Nothing, bytes, record: None, inventory });
        }
        // A position that can't be read is as good as none: the backend is filled again.
        let record = oldest.map(|record| record.with_inventory(inventory.clone()));
        let found = record.as_ref().map_or(Found::Nothing, |record| {
            let position = record.position.as_ref().and_then(|text| Position::from_text(text).ok());
            let (anchor, at_millis) = (record.anchor.clone(), record.at_millis);
            match position {
                Some(position) => Found::Position { position, anchor, at_millis },
                None => Found::Unfilled { anchor },
            }
        });
        Ok(Stored { found, bytes, record, inventory })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        let header: Header = serde_json::from_slice(bytes)
            .map_err(|_| format!("its entry {KEY:?} is not a checkpoint; give this backend a store of its own"))?;
        if ![FORMAT_WITHOUT_INVENTORY, FORMAT].contains(&header.format) {
            return Err(format!(
                "its checkpoint has the format {}, this version reads {FORMAT_WITHOUT_INVENTORY} and {FORMAT}; use the version that \
                 wrote it, or start with an empty store",
                header.format
            ));
        }
        serde_json::from_slice(bytes).map_err(|error| format!("its checkpoint can't be read: {error}"))
    }

    fn mismatch(&self, shards: u32, collection: &str) -> Option<String> {
        if self.collection != collection {
            return Some(format!(
                "it holds copies of the collection {}, not of {collection}; give this backend a store of its own",
                self.collection
            ));
        }
        (self.shards != shards).then(|| {
            format!(
                "its keys are spread over {} shards, but `shards` is {shards}; set it back to {}, or start with an empty \
                 store, which is filled from MongoDB",
                self.shards, self.shards
            )
        })
    }
}

impl Stored {
    fn mismatch(reason: String, bytes: usize) -> Self {
        Self { found: Found::Mismatch(reason), bytes, record: None, inventory: Inventory::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, EncryptionKey, Format};

    #[test]
    fn a_record_comes_back_and_names_what_does_not_fit() {
        let record = Checkpoint::new(2, "memcell.memcells", Some("{}".into()), Anchor::new(), Inventory::default());
        let bytes = serde_json::to_vec(&record).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains("\"format\":2") && !text.contains("inventory"), "older versions still read it: {text}");
        let key = EncryptionKey::parse("a", &[b'1'; 64]).unwrap();
        let encrypted = record.clone().with_inventory(Codec::plain(Format::Json).encrypting(key).writes());
        let encrypted_bytes = serde_json::to_vec(&encrypted).unwrap();
        assert!(String::from_utf8_lossy(&encrypted_bytes).contains("\"format\":3"));
        assert_eq!(Checkpoint::parse(&encrypted_bytes), Ok(encrypted));
        assert_eq!(Checkpoint::parse(&bytes), Ok(record.clone()));
        assert_eq!(record.mismatch(2, "memcell.memcells"), None);
        let shards = record.mismatch(3, "memcell.memcells").unwrap();
        assert!(shards.contains("over 2 shards, but `shards` is 3"), "{shards}");
        let collection = record.mismatch(2, "other.memcells").unwrap();
        assert!(collection.contains("memcell.memcells, not of other.memcells"), "{collection}");
    }

    #[test]
    fn what_is_no_record_of_this_version() {
        assert!(Checkpoint::parse(b"\xff").unwrap_err().contains("not a checkpoint"));
        assert!(Checkpoint::parse(br#"{"format":9,"new":1}"#).unwrap_err().contains("format 9"));
    }

    #[test]
    fn no_document_has_its_key() {
        assert!(crate::memcell::DocumentKey::from_backend(KEY.to_owned()).to_bson().is_err());
    }
}
