//! How a document becomes an entry of a backend, and its absence a tombstone.

use std::time::Duration;

use crate::Result;
use crate::clock::{millis_of, unix_millis};
use crate::codec::{self, Format};
use crate::config::{BackendConfig, ValueFormat};
use crate::kv::{Entry, Mark, Write};
use crate::memcell::{DocumentKey, MemCell};

/// The rules of one backend.
#[derive(Debug, Clone)]
pub(super) struct Copies {
    format: Format,
    ttl: Option<Duration>,
    tombstone_ttl: Duration,
}

impl Copies {
    pub(super) fn new(config: &BackendConfig) -> Self {
        let format = match config.format {
            ValueFormat::Json => Format::Json,
            ValueFormat::Bson => Format::Bson,
        };
        Self { format, ttl: config.ttl, tombstone_ttl: config.tombstone_ttl }
    }

    /// The write that makes a change true in the backend.
    pub(super) fn write(&self, key: &DocumentKey, stamp: u64, document: Option<&MemCell>) -> Result<Write> {
        let key = key.as_str().to_owned();
        match document {
            Some(document) => {
                let value = codec::encode(self.format, document)?;
                Ok(Write::Put(Entry { key, stamp, expires_at: self.expires_at(stamp), value }))
            }
            None => {
                let expires_at = Some(unix_millis().saturating_add(millis(self.tombstone_ttl)));
                Ok(Write::Delete(Mark { key, stamp, expires_at }))
            }
        }
    }

    /// A time to live counts from the document's last change, which its stamp tells. So it doesn't matter when, how often or
    /// by whom a copy is written, and a reader can tell an expired copy from a missing one.
    fn expires_at(&self, stamp: u64) -> Option<u64> {
        self.ttl.map(|ttl| millis_of(stamp).saturating_add(millis(ttl)))
    }

    /// Whether the copy of a document with this revision has lived its time.
    pub(super) fn has_expired(&self, revision: Option<u64>) -> bool {
        let expires_at = revision.and_then(|revision| self.expires_at(revision));
        expires_at.is_some_and(|expires_at| expires_at <= unix_millis())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
