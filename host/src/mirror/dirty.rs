//! The keys whose changes were lost on the direct way, and have to be read again.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::memcell::DocumentKey;

/// How many keys are remembered. Beyond that it is cheaper, and bounded, to copy everything again.
const MAX_KEYS: usize = 65_536;

/// A bounded set of keys, and whether it was too small.
#[derive(Debug, Default)]
pub(super) struct DirtyKeys {
    set: Mutex<Set>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Set {
    keys: HashSet<DocumentKey>,
    overflowed: bool,
}

impl DirtyKeys {
    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, key: DocumentKey) {
        let mut set = self.set();
        if set.keys.len() < MAX_KEYS {
            set.keys.insert(key);
        } else if !set.keys.contains(&key) {
            set.overflowed = true;
        }
        drop(set);
        self.added.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.set().keys.len()
    }

    /// Whether this key, or any key for all that is known, has to be read again.
    pub(super) fn contains(&self, key: &DocumentKey) -> bool {
        let set = self.set();
        set.overflowed || set.keys.contains(key)
    }

    pub(super) fn overflowed(&self) -> bool {
        self.set().overflowed
    }

    /// Everything is about to be copied: nothing has to be remembered from before.
    pub(super) fn clear(&self) {
        *self.set() = Set::default();
    }

    /// Everything has to be copied after all.
    pub(super) fn mark_overflowed(&self) {
        self.set().overflowed = true;
        self.added.notify_one();
    }

    /// Takes up to `most` keys out, guarding each by `open` before it is gone from the set.
    pub(super) fn take<T>(&self, most: usize, open: impl Fn(DocumentKey) -> T) -> Vec<(DocumentKey, T)> {
        let mut set = self.set();
        let keys: Vec<DocumentKey> = set.keys.iter().take(most).cloned().collect();
        let taken: Vec<_> = keys.into_iter().map(|key| (key.clone(), open(key))).collect();
        for (key, _) in &taken {
            set.keys.remove(key);
        }
        taken
    }

    /// Returns when a key has been added since the last time; may return early.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memcell::EventId;

    #[test]
    fn overflow_makes_every_key_dirty() {
        let dirty = DirtyKeys::default();
        for _ in 0..=MAX_KEYS {
            dirty.add(EventId::new().into());
        }
        assert_eq!(dirty.len(), MAX_KEYS);
        assert!(dirty.overflowed() && dirty.contains(&EventId::new().into()));
        dirty.clear();
        assert!(!dirty.contains(&EventId::new().into()));
    }

    #[test]
    fn taken_keys_are_out() {
        let dirty = DirtyKeys::default();
        let key = DocumentKey::from(EventId::new());
        dirty.add(key.clone());
        dirty.add(key.clone());
        let taken = dirty.take(10, |key| key);
        assert_eq!(taken, [(key.clone(), key.clone())]);
        assert!(!dirty.contains(&key));
    }
}
