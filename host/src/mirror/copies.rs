//! How a document becomes an entry of a backend, and its absence a tombstone.

use std::time::Duration;

use crate::Result;
use crate::clock::{millis_of, unix_millis};
use crate::codec::Codec;
use crate::config::BackendConfig;
use crate::kv::{Entry, Mark, Write};
use crate::memcell::{DocumentKey, MemCell};

/// The rules of one backend.
#[derive(Debug, Clone)]
pub(super) struct Copies {
    codec: Codec,
    ttl: Option<Duration>,
    tombstone_ttl: Duration,
}

impl Copies {
    pub(super) fn new(config: &BackendConfig) -> Self {
        Self { codec: config.codec(), ttl: config.ttl, tombstone_ttl: config.tombstone_ttl }
    }

    /// How values are written and read.
    pub(super) fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The write that makes a change true in the backend.
    pub(super) fn write(&self, key: &DocumentKey, stamp: u64, document: Option<&MemCell>) -> Result<Write> {
        let key = key.as_str().to_owned();
        match document {
            Some(document) => {
                let value = self.codec.encode(&key, document)?;
                let expires_at = self.expires_at(stamp, document);
                Ok(Write::Put(Entry { key, stamp, expires_at, value }))
            }
            None => {
                let expires_at = Some(unix_millis().saturating_add(millis(self.tombstone_ttl)));
                Ok(Write::Delete(Mark { key, stamp, expires_at }))
            }
        }
    }

    /// The backend's time to live counts from the document's last change, which its stamp tells. So it doesn't matter when, how
    /// often or by whom a copy is written, and a reader can tell an expired copy from a missing one. Of a document without a revision,
    /// whose last change isn't known, it counts from now. A document that says itself when it expires does so then, if that is
    /// earlier.
    fn expires_at(&self, stamp: u64, document: &MemCell) -> Option<u64> {
        let changed_at = || document.revision().map_or_else(unix_millis, |_| millis_of(stamp));
        let of_backend = self.ttl.map(|ttl| changed_at().saturating_add(millis(ttl)));
        // What expired before 1970 has expired as well.
        let own = document.expires_at().map(|at| u64::try_from(at.timestamp_millis()).unwrap_or(0).max(1));
        of_backend.into_iter().chain(own).min()
    }

    /// Whether the copy of this document has lived its time.
    pub(super) fn has_expired(&self, document: &MemCell) -> bool {
        // Of one without a revision, the stamp isn't known: only its own expiry counts.
        let own = document.expires_at().map(|at| u64::try_from(at.timestamp_millis()).unwrap_or(0));
        let expires_at = document.revision().and_then(|revision| self.expires_at(revision, document)).or(own);
        expires_at.is_some_and(|expires_at| expires_at <= unix_millis())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bson::{DateTime, RawDocumentBuf, doc};

    use super::*;

    fn expiry(ttl: Option<Duration>, document: &bson::Document) -> (Option<u64>, bool) {
        let config = BackendConfig { ttl, ..BackendConfig::new("local", "x.wasm".into()) };
        let document = MemCell::from_raw(RawDocumentBuf::try_from(document).unwrap());
        let copies = Copies::new(&config);
        let stamp = document.revision().unwrap_or(0);
        (copies.expires_at(stamp, &document), copies.has_expired(&document))
    }

    #[test]
    fn the_earlier_expiry_counts() {
        let minute = Some(Duration::from_secs(60));
        let now = unix_millis();
        let revision = i64::try_from(now << 20).unwrap();
        let at = |millis: u64| DateTime::from_millis(i64::try_from(millis).unwrap());
        assert_eq!(expiry(None, &doc! { "revision": revision }), (None, false));
        assert_eq!(expiry(minute, &doc! { "revision": revision }), (Some(now + 60_000), false));
        let sooner = doc! { "revision": revision, "expires_at": at(now + 30_000) };
        assert_eq!(expiry(minute, &sooner), (Some(now + 30_000), false));
        assert_eq!(expiry(None, &sooner), (Some(now + 30_000), false));
        let later = doc! { "revision": revision, "expires_at": at(now + 90_000) };
        assert_eq!(expiry(minute, &later), (Some(now + 60_000), false));
        let over = doc! { "revision": revision, "expires_at": at(now - 1) };
        assert_eq!(expiry(minute, &over), (Some(now - 1), true));
        assert_eq!(expiry(None, &doc! { "expires_at": DateTime::from_millis(-5) }), (Some(1), true));
        // As MongoDB sees it: of several the earliest, and of what is no time none.
        let several = doc! { "revision": revision, "expires_at": [at(now + 5000), "x", at(now + 3000)] };
        assert_eq!(expiry(None, &several), (Some(now + 3000), false));
        for none in [bson::Bson::Null, "2020-01-01".into(), 5.into(), bson::Bson::Array(vec![])] {
            assert_eq!(expiry(None, &doc! { "revision": revision, "expires_at": none }), (None, false));
        }
    }
}
