//! Keeps an insert under a given id apart from this host's other operations on that id.
//!
//! An insert takes its revision from the clock before it lands. An operation that lands in between, and whose revision or
//! deletion is read later, would leave a version behind that is higher than that of the document which replaces it. So an insert
//! of a given id waits until the operations on that id have ended, and those that come meanwhile wait for it. Among each other,
//! operations that find their document there don't wait: MongoDB counts their revisions up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::memcell::EventId;
use crate::{Error, ErrorKind, Result};

/// One lock per id that somebody works on. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyLocks(Arc<Mutex<HashMap<EventId, Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    lock: Arc<RwLock<()>>,
    /// Who holds it or waits for it.
    users: usize,
}

/// The right to work on an id, until it is dropped.
#[derive(Debug)]
pub(super) struct KeyGuard {
    _held: Held,
    _use: Use,
}

#[derive(Debug)]
enum Held {
    Shared(#[expect(dead_code, reason = "held, never looked at")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held, never looked at")] OwnedRwLockWriteGuard<()>),
}

/// Counts one user, also of a wait that is given up.
#[derive(Debug)]
struct Use {
    locks: KeyLocks,
    id: EventId,
}

impl KeyLocks {
    /// For an operation on a document that is there.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if an insert of this id doesn't end within `limit`.
    pub(super) async fn shared(&self, id: EventId, limit: Duration) -> Result<KeyGuard> {
        let (lock, used) = self.enter(id);
        let held = tokio::time::timeout(limit, lock.read_owned()).await.map_err(|_| busy(id))?;
        Ok(KeyGuard { _held: Held::Shared(held), _use: used })
    }

    /// For an insert under this id.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the other operations on this id don't end within `limit`.
    pub(super) async fn alone(&self, id: EventId, limit: Duration) -> Result<KeyGuard> {
        let (lock, used) = self.enter(id);
        let held = tokio::time::timeout(limit, lock.write_owned()).await.map_err(|_| busy(id))?;
        Ok(KeyGuard { _held: Held::Alone(held), _use: used })
    }

    /// For inserts under all of these ids. They are entered in one order, so that two callers never wait for each other.
    ///
    /// # Errors
    /// As [`KeyLocks::alone`], for each.
    pub(super) async fn alone_for_all(&self, mut ids: Vec<EventId>, limit: Duration) -> Result<Vec<KeyGuard>> {
        ids.sort_unstable();
        ids.dedup();
        let mut guards = Vec::with_capacity(ids.len());
        for id in ids {
            guards.push(self.alone(id, limit).await?);
        }
        Ok(guards)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<EventId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: EventId) -> (Arc<RwLock<()>>, Use) {
        let mut entries = self.entries();
        let entry = entries.entry(id).or_default();
        entry.users += 1;
        (Arc::clone(&entry.lock), Use { locks: self.clone(), id })
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut entries = self.locks.entries();
        if let Some(entry) = entries.get_mut(&self.id) {
            entry.users = entry.users.saturating_sub(1);
            if entry.users == 0 {
                entries.remove(&self.id);
            }
        }
    }
}

fn busy(id: EventId) -> Error {
    Error::new(ErrorKind::Timeout, format!("other operations on {id} did not end in time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn an_insert_is_alone_and_others_are_not() {
        let locks = KeyLocks::default();
        let id = EventId::new();
        let first = locks.shared(id, LONG).await.unwrap();
        let second = locks.shared(id, LONG).await.unwrap();
        assert_eq!(locks.alone(id, SHORT).await.unwrap_err().kind(), ErrorKind::Timeout);
        drop((first, second));
        let insert = locks.alone(id, LONG).await.unwrap();
        assert!(locks.shared(id, SHORT).await.is_err() && locks.alone(id, SHORT).await.is_err());
        assert!(locks.alone(EventId::new(), SHORT).await.is_ok(), "another id is another matter");
        drop(insert);
        assert!(locks.shared(id, SHORT).await.is_ok());
        assert!(locks.entries().is_empty(), "nothing is kept of ids that nobody works on");
    }

    #[tokio::test]
    async fn batches_of_the_same_ids_come_one_after_the_other() {
        let locks = KeyLocks::default();
        let (a, b) = (EventId::new(), EventId::new());
        let first = locks.alone_for_all(vec![b, a, b], LONG).await.unwrap();
        assert_eq!(first.len(), 2);
        let waiting = {
            let locks = locks.clone();
            tokio::spawn(async move { locks.alone_for_all(vec![a, b], LONG).await })
        };
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waiting.await.unwrap().unwrap().len(), 2);
    }
}
