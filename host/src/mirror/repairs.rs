//! Keys that somebody found wrong, on their way to the tail: the only one that may replace a copy whatever its stamp.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::kv::KvError;
use crate::memcell::DocumentKey;

/// How many keys may wait. Whoever finds more wrong than that waits for these first.
const MAX_KEYS: usize = 10_000;

/// Some keys, and who waits for them.
pub(super) struct Repair {
    pub(super) keys: Vec<DocumentKey>,
    /// Told how it ended. Nobody may be there any more.
    pub(super) done: oneshot::Sender<Ended>,
}

/// How a repair ended: the keys whose documents the backend doesn't take, or why nothing is known of any.
pub(super) type Ended = Result<Vec<DocumentKey>, KvError>;

/// The bounded queue.
#[derive(Default)]
pub(super) struct Repairs {
    waiting: Mutex<Vec<Repair>>,
    added: Notify,
}

impl Repairs {
    fn waiting(&self) -> MutexGuard<'_, Vec<Repair>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts keys in; the receiver is told when the backend agrees with MongoDB about them.
    pub(super) fn add(&self, keys: Vec<DocumentKey>) -> Result<oneshot::Receiver<Ended>, KvError> {
        let mut waiting = self.waiting();
        let count: usize = waiting.iter().map(|repair| repair.keys.len()).sum();
        if count > 0 && count + keys.len() > MAX_KEYS {
            return Err(KvError::QueueFull);
        }
        let (done, receiver) = oneshot::channel();
        waiting.push(Repair { keys, done });
        drop(waiting);
        self.added.notify_one();
        Ok(receiver)
    }

    /// Takes all there are; waits for the first. Cancellation safe.
    pub(super) async fn take(&self) -> Vec<Repair> {
        loop {
            let added = self.added.notified();
            let taken = std::mem::take(&mut *self.waiting());
            if !taken.is_empty() {
                return taken;
            }
            added.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memcell::EventId;

    #[tokio::test]
    async fn bounded_and_taken_all_at_once() {
        let repairs = Repairs::default();
        let keys = |count: usize| (0..count).map(|_| DocumentKey::from(EventId::new())).collect::<Vec<_>>();
        let first = repairs.add(keys(MAX_KEYS)).unwrap();
        assert_eq!(repairs.add(keys(1)).unwrap_err(), KvError::QueueFull);
        let taken = repairs.take().await;
        assert_eq!(taken.len(), 1);
        drop(taken);
        assert!(first.await.is_err(), "whoever waits learns that nobody works on it");
        assert!(repairs.add(keys(MAX_KEYS + 1)).is_ok(), "alone, any number passes");
    }
}
