//! What a persistent backend itself remembers of its mirror: how far it had come, and over how many shards its keys are spread.
//!
//! It lies in the backend, beside the entries that it speaks of: whoever removes the one removes the other, and a copy of the
//! backend's data is a copy of both.

use serde::{Deserialize, Serialize};

use crate::kv::{Backend, Condition, Entry, KvError, Write};
use crate::mongo::Position;

/// The key of the record in every shard. No document has it: keys of documents are 24 digits or JSON.
pub(super) const KEY: &str = "memcell:checkpoint";

/// The form of the record that this version writes, and the only one it reads.
const FORMAT: u32 = 1;

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
}

/// What a backend's checkpoints come to.
#[derive(Debug)]
pub(super) enum Found {
    /// At least one shard has none: it is empty, or was emptied.
    Nothing,
    /// All shards have one, but one without a position: the backend has not been filled yet.
    Unfilled,
    /// The tail goes on here.
    Position(Position),
    /// The backend belongs to something else than this mirror, or to another number of shards.
    Mismatch(String),
}

impl Checkpoint {
    /// A record of now.
    pub(super) fn new(shards: u32, collection: &str, position: Option<String>) -> Self {
        Self {
            format: FORMAT,
            shards,
            collection: collection.to_owned(),
            position,
            at_millis: crate::clock::unix_millis(),
        }
    }

    /// Writes the record to all shards, and returns once it is durable. Answers the bytes of its key and value.
    pub(super) async fn write(&self, backend: &Backend, stamp: u64) -> Result<usize, KvError> {
        let value = serde_json::to_vec(self).map_err(|error| KvError::Down(error.to_string()))?;
        for shard in 0..backend.shard_count() {
            let entry = Entry { key: KEY.to_owned(), stamp, expires_at: None, value: value.clone() };
            for end in backend.write_to(shard, vec![Write::Put(entry)], Condition::Always).await {
                end?;
            }
        }
        backend.flush().await?;
        Ok(KEY.len() + value.len())
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

    /// Reads the records of all shards, and decides what they mean for a mirror of `collection`. The least advanced counts. Also
    /// answers the bytes of the key and value of one record, if there is any.
    pub(super) async fn read(backend: &Backend, collection: &str) -> Result<(Found, usize), KvError> {
        let mut oldest: Option<Self> = None;
        let mut any_missing = false;
        let mut bytes = 0;
        for shard in 0..backend.shard_count() {
            let Some(entry) = backend.get_from(shard, KEY).await? else {
                any_missing = true;
                continue;
            };
            bytes = KEY.len() + entry.value.len();
            let record = match Self::parse(&entry.value) {
                Ok(record) => record,
                Err(reason) => return Ok((Found::Mismatch(reason), bytes)),
            };
            if let Some(reason) = record.mismatch(backend.shard_count(), collection) {
                return Ok((Found::Mismatch(reason), bytes));
            }
            let older = |oldest: &Self| {
                oldest.position.is_some() && (record.position.is_none() || record.at_millis < oldest.at_millis)
            };
            if oldest.as_ref().is_none_or(older) {
                oldest = Some(record);
            }
        }
        if any_missing {
            return Ok((Found::Nothing, bytes));
        }
        let position = oldest.and_then(|record| record.position);
        // A position that can't be read is as good as none: the backend is filled again.
        let position = position.and_then(|text| Position::from_text(&text).ok());
        Ok((position.map_or(Found::Unfilled, Found::Position), bytes))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        let header: Header = serde_json::from_slice(bytes)
            .map_err(|_| format!("its entry {KEY:?} is not a checkpoint; give this backend a store of its own"))?;
        if header.format != FORMAT {
            return Err(format!(
                "its checkpoint has the format {}, this version reads {FORMAT}; use the version that wrote it, or start \
                 with an empty store",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_names_what_does_not_fit() {
        let record = Checkpoint::new(2, "memcell.memcells", Some("{}".into()));
        let bytes = serde_json::to_vec(&record).unwrap();
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
        assert!(Checkpoint::parse(br#"{"format":2,"new":1}"#).unwrap_err().contains("format 2"));
    }

    #[test]
    fn no_document_has_its_key() {
        assert!(crate::memcell::DocumentKey::from_backend(KEY.to_owned()).to_bson().is_err());
    }
}
