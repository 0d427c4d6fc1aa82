//! The transactions that this process is at work on: an intent of one of them is nobody's to decide yet.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Their ids. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Underway(Arc<Mutex<HashSet<String>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OpenTransaction {
    all: Underway,
    id: String,
}

impl Underway {
    fn ids(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this transaction is under way.
    pub fn open(&self, id: &str) -> OpenTransaction {
        self.ids().insert(id.to_owned());
        OpenTransaction { all: self.clone(), id: id.to_owned() }
    }

    /// All of them.
    pub(super) fn all(&self) -> HashSet<String> {
        self.ids().clone()
    }
}

impl OpenTransaction {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        self.all.ids().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_under_way_until_it_is_dropped() {
        let underway = Underway::default();
        let (first, second) = (underway.open("a"), underway.open("b"));
        assert_eq!(underway.all().len(), 2);
        drop(first);
        assert_eq!(underway.all(), HashSet::from([second.id().to_owned()]));
    }
}
