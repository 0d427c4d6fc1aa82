//! Which documents a job has come across, so that it needs not ask MongoDB for them once more when it comes across their entries.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::memcell::DocumentKey;

/// How many are remembered at the most: some 16 MiB, however large the collection. The others are asked for.
const REMEMBERED: usize = 900_000;

/// Hashes of their keys. All clones are one.
#[derive(Debug, Clone)]
pub(super) struct Seen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hashes: Mutex<HashSet<u64>>,
    /// How many walks through documents are under way on this host.
    walks: watch::Sender<usize>,
}

/// A walk through documents, until it is dropped.
#[derive(Debug)]
pub(super) struct Walk(Seen);

impl Seen {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner { hashes: Mutex::default(), walks: watch::Sender::new(0) }))
    }

    fn hashes(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A walk through documents begins.
    pub(super) fn walk(&self) -> Walk {
        self.0.walks.send_modify(|walks| *walks += 1);
        Walk(self.clone())
    }

    /// Returns when no walk is under way. Cancellation safe.
    pub(super) async fn complete(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.walks.subscribe().wait_for(|walks| *walks == 0).await;
    }

    /// There is, or was a moment ago, a document of each of these keys.
    pub(super) fn add<'k>(&self, keys: impl IntoIterator<Item = &'k DocumentKey>) {
        let mut hashes = self.hashes();
        for key in keys {
            if hashes.len() >= REMEMBERED {
                return;
            }
            hashes.insert(hash(key));
        }
    }

    /// Those of the keys that nothing is known about.
    pub(super) fn unknown(&self, keys: Vec<DocumentKey>) -> Vec<DocumentKey> {
        let hashes = self.hashes();
        keys.into_iter().filter(|key| !hashes.contains(&hash(key))).collect()
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.0.0.walks.send_modify(|walks| *walks = walks.saturating_sub(1));
    }
}

fn hash(key: &DocumentKey) -> u64 {
    xxh3_64(key.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memcell::EventId;

    #[tokio::test]
    async fn what_was_seen_is_known_once_all_walks_are_over() {
        let seen = Seen::new();
        let keys: Vec<DocumentKey> = (0..3).map(|_| DocumentKey::from(EventId::new())).collect();
        let (first, second) = (seen.walk(), seen.walk());
        seen.add(&keys[..2]);
        drop(first);
        let mut complete = Box::pin(seen.complete());
        assert!(futures::poll!(&mut complete).is_pending());
        drop(second);
        complete.await;
        assert_eq!(seen.unknown(keys.clone()), keys[2..]);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let seen = Seen::new();
        seen.hashes().extend(0..REMEMBERED as u64);
        let key = DocumentKey::from(EventId::new());
        seen.add([&key]);
        assert_eq!(seen.unknown(vec![key]).len(), 1);
        assert_eq!(seen.hashes().len(), REMEMBERED);
    }
}
