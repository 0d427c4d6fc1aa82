//! What the direct way has brought and the stream of changes has not told of yet: the tail needs not read that again.
//!
//! A revision belongs to one change of a document. So an event that says which one its change gave the document tells of nothing
//! new, if the backend took the direct write of that revision and nobody but the direct way has written under the key since. The
//! tail forgets a key whenever it has written it: with a copy of its own, which may replace any other.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memcell::DocumentKey;

/// How many keys are remembered for certain. What is forgotten is read again.
const REMEMBERED: usize = 4096;

/// The stamps of the last direct writes that the backend took, by key.
#[derive(Debug, Default)]
pub(super) struct Delivered(Mutex<Stamps>);

/// Once the newer ones are [`REMEMBERED`], they are the older ones, and those are forgotten.
#[derive(Debug, Default)]
struct Stamps {
    newer: HashMap<DocumentKey, u64>,
    older: HashMap<DocumentKey, u64>,
}

impl Delivered {
    fn stamps(&self) -> MutexGuard<'_, Stamps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend has taken a direct write. To be said by the thread that wrote it, before it writes anything else.
    pub(super) fn note(&self, key: DocumentKey, stamp: u64) {
        let mut stamps = self.stamps();
        if stamps.newer.len() >= REMEMBERED {
            stamps.older = std::mem::take(&mut stamps.newer);
        }
        stamps.newer.insert(key, stamp);
    }

    /// Whether a direct write of this revision is the last that the backend took under the key.
    pub(super) fn is_last(&self, key: &DocumentKey, revision: u64) -> bool {
        let stamps = self.stamps();
        stamps.newer.get(key).or_else(|| stamps.older.get(key)) == Some(&revision)
    }

    /// Others have written under these keys, or the events that speak of them have come.
    pub(super) fn forget<'k>(&self, keys: impl IntoIterator<Item = &'k DocumentKey>) {
        let mut stamps = self.stamps();
        for key in keys {
            stamps.newer.remove(key);
            stamps.older.remove(key);
        }
    }

    /// What was taken may be gone.
    pub(super) fn forget_all(&self) {
        *self.stamps() = Stamps::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memcell::EventId;

    #[test]
    fn only_the_last_write_counts_until_it_is_forgotten() {
        let delivered = Delivered::default();
        let (key, other) = (DocumentKey::from(EventId::new()), DocumentKey::from(EventId::new()));
        delivered.note(key.clone(), 1);
        delivered.note(key.clone(), 2);
        delivered.note(other.clone(), 3);
        assert!(delivered.is_last(&key, 2) && !delivered.is_last(&key, 1) && !delivered.is_last(&other, 2));
        delivered.forget([&key]);
        assert!(!delivered.is_last(&key, 2) && delivered.is_last(&other, 3));
        delivered.forget_all();
        assert!(!delivered.is_last(&other, 3));
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_an_older_write_never_shows_again() {
        let delivered = Delivered::default();
        let keys: Vec<DocumentKey> = (0..2 * REMEMBERED).map(|_| DocumentKey::from(EventId::new())).collect();
        for (key, stamp) in keys.iter().zip(1..) {
            delivered.note(key.clone(), stamp);
        }
        assert!(delivered.is_last(&keys[0], 1) && delivered.is_last(&keys[REMEMBERED], 1 + REMEMBERED as u64));
        delivered.note(keys[0].clone(), 7);
        assert!(delivered.is_last(&keys[0], 7), "the newer write, not the one remembered from before");
        assert!(delivered.is_last(&keys[REMEMBERED], 1 + REMEMBERED as u64));
        delivered.forget([&keys[0]]);
        assert!(!delivered.is_last(&keys[0], 7) && !delivered.is_last(&keys[0], 1));
    }
}
