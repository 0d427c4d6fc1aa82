//! Which keys have changes that the backend may not have seen yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::memcell::DocumentKey;

/// Counts, per key, the changes that are under way. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    keys: HashMap<DocumentKey, (u32, Instant)>,
    /// Changes of keys that aren't known beforehand.
    any: u32,
}

/// One change under way, until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    pending: Pending,
    key: Option<DocumentKey>,
}

impl Pending {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change of this key is under way.
    pub(super) fn open(&self, key: DocumentKey) -> Ticket {
        self.counts().keys.entry(key.clone()).or_insert_with(|| (0, Instant::now())).0 += 1;
        Ticket { pending: self.clone(), key: Some(key) }
    }

    /// A change of any number of unknown keys is under way.
    pub(super) fn open_any(&self) -> Ticket {
        self.counts().any += 1;
        Ticket { pending: self.clone(), key: None }
    }

    pub(super) fn contains(&self, key: &DocumentKey) -> bool {
        let counts = self.counts();
        counts.any > 0 || counts.keys.contains_key(key)
    }

    /// How long the key that waits longest has had something under way without a pause.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.counts().keys.values().map(|(_, since)| since.elapsed()).max()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.pending.counts();
        let Some(key) = &self.key else {
            counts.any = counts.any.saturating_sub(1);
            return;
        };
        if let Some((count, _)) = counts.keys.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.keys.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memcell::EventId;

    #[test]
    fn a_key_is_pending_until_its_last_ticket_is_gone() {
        let pending = Pending::default();
        let (key, other) = (DocumentKey::from(EventId::new()), DocumentKey::from(EventId::new()));
        let first = pending.open(key.clone());
        let second = pending.open(key.clone());
        assert!(pending.contains(&key) && !pending.contains(&other));
        drop(first);
        assert!(pending.contains(&key) && pending.oldest().is_some());
        drop(second);
        assert!(!pending.contains(&key) && pending.oldest().is_none());
        let any = pending.open_any();
        assert!(pending.contains(&other));
        drop(any);
        assert!(!pending.contains(&other));
    }
}
