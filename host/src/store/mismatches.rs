//! The confirmed mismatches that are still worth knowing: a bounded list, one row per document and backend.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    #[serde(serialize_with = "as_time")]
    pub first_seen: bson::DateTime,
    /// When it was last confirmed, in ISO 8601.
    #[serde(serialize_with = "as_time")]
    pub confirmed_at: bson::DateTime,
}

/// The newest mismatches are kept when there are too many.
#[derive(Debug)]
pub(super) struct Mismatches {
    rows: Mutex<VecDeque<Mismatch>>,
    /// So that the many reads that find nothing wrong needn't take the lock.
    count: AtomicUsize,
    most: usize,
}

impl Mismatches {
    pub(super) fn new(most: usize) -> Self {
        Self { rows: Mutex::default(), count: AtomicUsize::new(0), most }
    }

    fn rows(&self) -> MutexGuard<'_, VecDeque<Mismatch>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a mismatch, or brings its row up to date. Returns whether it is new: another document, or another kind.
    pub(super) fn add(&self, mut mismatch: Mismatch) -> bool {
        let mut rows = self.rows();
        let same = |row: &Mismatch| row.event_id == mismatch.event_id && row.backend == mismatch.backend;
        let known = rows.iter().position(same).and_then(|index| rows.remove(index));
        let is_new = known.as_ref().is_none_or(|known| known.kind != mismatch.kind);
        if let Some(known) = known {
            mismatch.first_seen = known.first_seen;
        }
        rows.push_front(mismatch);
        rows.truncate(self.most);
        self.count.store(rows.len(), Ordering::Relaxed);
        is_new
    }

    /// The copy of this document was found to be right.
    pub(super) fn resolve(&self, key: &DocumentKey, backend: &str) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut rows = self.rows();
        rows.retain(|row| row.event_id != *key || row.backend != backend);
        self.count.store(rows.len(), Ordering::Relaxed);
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

fn as_time<S: Serializer>(time: &bson::DateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = time.try_to_rfc3339_string().map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
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
        assert!(list.add(mismatch(&keys[0], "missing", 1)));
        assert!(!list.add(mismatch(&keys[0], "missing", 2)));
        assert!(list.add(mismatch(&keys[0], "different", 3)));
        let rows = list.list();
        assert_eq!((rows.len(), rows[0].kind, rows[0].first_seen.timestamp_millis()), (1, "different", 1));
        list.add(mismatch(&keys[1], "missing", 4));
        list.add(mismatch(&keys[2], "missing", 5));
        assert_eq!(
            list.list().iter().map(|row| row.event_id.clone()).collect::<Vec<_>>(),
            [keys[2].clone(), keys[1].clone()]
        );
        list.resolve(&keys[2], "other");
        list.resolve(&keys[1], "local");
        assert_eq!(list.list().len(), 1);
    }
}
