//! The steps of a write in two phases, and whoever wants to be told of them.
//!
//! A crash can come between any two of them. Tests that make it come just there wait for a step, and let the process go no
//! further; nobody else listens, and then a step costs nothing.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

/// A point that has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// MongoDB's transaction is open, and empty.
    Begun,
    /// Its operations are done, within it.
    Operated,
    /// The intent of this shard is about to be handed over.
    Preparing(u32),
    /// This shard has its intent.
    Prepared(u32),
    /// Every backend that could has prepared.
    PreparedInAll,
    /// The transaction has its marker.
    Marked,
    /// MongoDB has committed.
    Committed,
    /// This shard is about to be told to commit.
    Committing(u32),
    /// This shard has committed.
    CommittedIn(u32),
    /// Every backend that had prepared has committed.
    CommittedInAll,
    /// The marker is gone.
    Forgotten,
    /// A backend was opened, and what was in doubt in it has been decided. Its tail has not begun yet.
    Resolved,
}

/// Wants to be told of steps.
pub trait Observer: Send + Sync {
    /// The transaction of that id has reached that step; whoever reached it goes on when this returns. [`Step::Resolved`] belongs to no
    /// transaction, and comes with an empty id.
    fn reached(&self, step: Step, id: &str) -> BoxFuture<'static, ()>;
}

/// Nobody, or one observer.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<dyn Observer>>);

impl Steps {
    /// Told to this observer.
    pub fn observed_by(observer: Arc<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    pub(crate) async fn reached(&self, step: Step, id: &str) {
        if let Some(observer) = &self.0 {
            observer.reached(step, id).await;
        }
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steps").field(&self.0.is_some()).finish()
    }
}
