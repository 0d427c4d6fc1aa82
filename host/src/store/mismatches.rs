//! The confirmed mismatches that are still worth knowing: a bounded list, one row per document and backend. Those of a backend
//! go with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};

use crate::memcell::DocumentKey;
use crate::validation::{Difference, Outcome};

/// A difference that persisted.
#[derive(Debug, Clone, Serialize)]
pub struct Mismatch {
    /// The document.
    #[serde(serialize_with = "as_text")]
    pub event_id: DocumentKey,
    /// The backend whose copy is wrong.
    pub backend: String,
    /// `missing`, `different` or `corrupt`.
    pub kind: &'static str,
    /// What differs, field by field; empty for a copy that is missing.
    pub differences: Vec<Difference>,
    /// When it was first seen, in ISO 8601.
    #[serde(serialize_with = "crate::memcell::as_time")]
    pub first_seen: bson::DateTime,
    /// When it was last confirmed, in ISO 8601.
    #[serde(serialize_with = "crate::memcell::as_time")]
    pub confirmed_at: bson::DateTime,
}

/// The newest mismatches are kept when there are too many.
#[derive(Debug)]
pub(super) struct Mismatches {
    rows: Mutex<VecDeque<Mismatch>>,
    /// So that the many reads that find nothing wrong needn't take the lock.
    count: AtomicUsize,
    /// Grows with every change.
    version: AtomicU64,
    most: AtomicUsize,
}

impl Mismatches {
    pub(super) fn new(most: usize) -> Self {
        Self {
            rows: Mutex::default(),
            count: AtomicUsize::new(0),
            version: AtomicU64::new(0),
            most: AtomicUsize::new(most),
        }
    }

    fn rows(&self) -> MutexGuard<'_, VecDeque<Mismatch>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called after each change, under the lock.
    fn changed(&self, rows: &VecDeque<Mismatch>) {
        self.count.store(rows.len(), Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there are, and a number that grows with every change.
    pub(super) fn count(&self) -> (usize, u64) {
        let _rows = self.rows();
        (self.count.load(Ordering::Relaxed), self.version.load(Ordering::Relaxed))
    }

    /// The document that a row is about.
    pub(super) fn find(&self, backend: &str, event_id: &str) -> Option<DocumentKey> {
        let rows = self.rows();
        let mut found = rows.iter().filter(|row| row.backend == backend && row.event_id.as_str() == event_id);
        found.next().map(|row| row.event_id.clone())
    }

    /// Adds a mismatch, or brings its row up to date. Returns whether it is new: another document, or another kind.
    ///
    /// `is_wanted` is asked when no row can be removed any more: what is found out about a backend after its rows were removed must
    /// not bring one back.
    pub(super) fn add(&self, mut mismatch: Mismatch, is_wanted: impl FnOnce() -> bool) -> bool {
        let mut rows = self.rows();
        if !is_wanted() {
            return false;
        }
        let same = |row: &Mismatch| row.event_id == mismatch.event_id && row.backend == mismatch.backend;
        let known = rows.iter().position(same).and_then(|index| rows.remove(index));
        let is_new = known.as_ref().is_none_or(|known| known.kind != mismatch.kind);
        if let Some(known) = known {
            mismatch.first_seen = known.first_seen;
        }
        rows.push_front(mismatch);
        rows.truncate(self.most.load(Ordering::Relaxed));
        self.changed(&rows);
        is_new
    }

    /// Removes the rows of a backend.
    pub(super) fn forget(&self, backend: &str) {
        let mut rows = self.rows();
        rows.retain(|row| row.backend != backend);
        self.changed(&rows);
    }

    /// Keeps so many rows at the most from now on.
    pub(super) fn keep(&self, most: usize) {
        let mut rows = self.rows();
        self.most.store(most, Ordering::Relaxed);
        rows.truncate(most);
        self.changed(&rows);
    }

    /// The copy of this document was found to be right.
    pub(super) fn resolve(&self, key: &DocumentKey, backend: &str) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut rows = self.rows();
        let before = rows.len();
        rows.retain(|row| row.event_id != *key || row.backend != backend);
        // A list with rows of other documents is asked by every consistent read.
        if rows.len() != before {
            self.changed(&rows);
        }
    }

    pub(super) fn list(&self) -> Vec<Mismatch> {
        self.rows().iter().cloned().collect()
    }
}

/// The kind that a bad outcome is listed under.
pub(super) fn kind(outcome: Outcome) -> Option<&'static str> {
    matches!(outcome, Outcome::Missing | Outcome::Different | Outcome::Corrupt).then(|| outcome.as_str())
}

fn as_text<S: Serializer>(key: &DocumentKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memcell::EventId;

    fn mismatch(key: &DocumentKey, kind: &'static str, at: i64) -> Mismatch {
        Mismatch {
            event_id: key.clone(),
            backend: "local".into(),
            kind,
            differences: Vec::new(),
            first_seen: bson::DateTime::from_millis(at),
            confirmed_at: bson::DateTime::from_millis(at),
        }
    }

    #[test]
    fn one_row_per_document_bounded_and_resolved() {
        let list = Mismatches::new(2);
        let keys: Vec<DocumentKey> = (0..3).map(|_| EventId::new().into()).collect();
        assert!(list.add(mismatch(&keys[0], "missing", 1), || true));
        assert!(!list.add(mismatch(&keys[0], "missing", 2), || true));
        assert!(list.add(mismatch(&keys[0], "different", 3), || true));
        let rows = list.list();
        assert_eq!((rows.len(), rows[0].kind, rows[0].first_seen.timestamp_millis()), (1, "different", 1));
        list.add(mismatch(&keys[1], "missing", 4), || true);
        list.add(mismatch(&keys[2], "missing", 5), || true);
        assert_eq!(
            list.list().iter().map(|row| row.event_id.clone()).collect::<Vec<_>>(),
            [keys[2].clone(), keys[1].clone()]
        );
        let version = list.count().1;
        list.resolve(&keys[2], "other");
        assert_eq!(list.count(), (2, version), "nothing has changed");
        list.resolve(&keys[1], "local");
        assert_eq!((list.list().len(), list.count()), (1, (1, version + 1)));
        assert_eq!(list.find("local", keys[2].as_str()), Some(keys[2].clone()));
        assert_eq!((list.find("other", keys[2].as_str()), list.find("local", keys[1].as_str())), (None, None));
    }

    #[test]
    fn the_rows_of_a_backend_go_with_it() {
        let list = Mismatches::new(5);
        let keys: Vec<DocumentKey> = (0..3).map(|_| EventId::new().into()).collect();
        for (key, backend) in keys.iter().zip(["local", "other", "local"]) {
            list.add(Mismatch { backend: backend.into(), ..mismatch(key, "missing", 1) }, || true);
        }
        list.forget("local");
        assert!(!list.add(mismatch(&keys[0], "missing", 2), || false));
        let left = list.list();
        assert_eq!((left.len(), left[0].backend.as_str()), (1, "other"));
        list.add(mismatch(&keys[0], "missing", 3), || true);
        list.keep(1);
        list.add(mismatch(&keys[2], "missing", 4), || true);
        assert_eq!((list.list().len(), &list.list()[0].event_id), (1, &keys[2]));
    }
}
