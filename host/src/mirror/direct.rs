//! The direct way: an acknowledged change, handed to its shard without waiting.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Inner;
use super::pending::Ticket;
use crate::change::Change;
use crate::kv::{KvError, Outcome, PendingWrite, Write};
use crate::trace::Origin;

/// What became of a change in one backend, for a writer that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The backend has it, or something newer.
    Applied,
    /// It was not taken for lack of room; the tail brings it.
    Dropped,
    /// The backend failed; the tail brings it, unless the backend can't ever take it.
    Failed,
}

/// A change on its way to a shard.
pub(super) struct DirectWrite {
    pub(super) mirror: Arc<Inner>,
    pub(super) change: Change,
    pub(super) delivered: Option<oneshot::Sender<Delivery>>,
    pub(super) ticket: Ticket,
    pub(super) origin: Origin,
}

impl PendingWrite for DirectWrite {
    fn key(&self) -> &str {
        self.change.key.as_str()
    }

    fn size(&self) -> usize {
        let document = self.change.document.as_ref().map_or(0, |document| document.as_raw().as_bytes().len());
        self.change.key.as_str().len() + document
    }

    fn is_awaited(&self) -> bool {
        self.delivered.is_some()
    }

    fn origin(&self) -> Origin {
        self.origin.clone()
    }

    fn prepare(&mut self) -> Result<Write, String> {
        let Change { key, stamp, document } = &self.change;
        // Once the value is made, the document has served.
        let write = self.mirror.copies.write(key, *stamp, document.as_ref()).map_err(|error| error.to_string());
        self.change.document = None;
        write
    }

    fn finish(self: Box<Self>, end: Result<Outcome, KvError>) {
        let Self { mirror, change, delivered, ticket, origin: _ } = *self;
        let (label, delivery) = match &end {
            Ok(Outcome::Applied) => ("applied", Delivery::Applied),
            Ok(Outcome::Stale) => ("stale", Delivery::Applied),
            Err(KvError::QueueFull) => ("dropped", Delivery::Dropped),
            Err(error) if error.is_permanent() => ("rejected", Delivery::Failed),
            Err(_) => ("failed", Delivery::Failed),
        };
        mirror.metrics.direct(label);
        match end {
            Ok(Outcome::Applied) => mirror.delivered.note(change.key, change.stamp),
            Ok(Outcome::Stale) => {}
            Err(error) if error.is_permanent() => mirror.report_rejected(&change.key, &error),
            // The tail brings it.
            Err(_) => {}
        }
        drop(ticket);
        if let Some(delivered) = delivered {
            // The writer may have stopped waiting.
            let _ = delivered.send(delivery);
        }
    }
}
