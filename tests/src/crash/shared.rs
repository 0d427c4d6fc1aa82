//! What the workers and the one who kills know of each other: how far the work has come, and whether MongoDB is there.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the workers and the one who kills know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Operations that have ended.
    pub(super) finished: AtomicU64,
    /// How often MongoDB was killed or came back: odd while it is gone.
    mongodb: AtomicU64,
}

impl Shared {
    /// MongoDB is about to be killed.
    pub(super) fn mongodb_is_gone(&self) {
        // From even to odd; one that is killed before it has come back stays gone.
        self.mongodb.fetch_or(1, Ordering::SeqCst);
    }

    /// MongoDB takes writes.
    pub(super) fn mongodb_is_back(&self) {
        if self.mongodb() % 2 == 1 {
            self.mongodb.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Its count, to be asked before an operation, for [`Shared::was_disturbed_since`].
    pub(super) fn mongodb(&self) -> u64 {
        self.mongodb.load(Ordering::SeqCst)
    }

    /// Whether MongoDB was killed since `before`, or was gone then. The driver sends what broke off once more, and a server that
    /// has forgotten in the crash that it had done so already answers about its own doing: that an id is taken, that nothing
    /// was there to be changed.
    pub(super) fn was_disturbed_since(&self, before: u64) -> bool {
        before % 2 == 1 || self.mongodb() != before
    }
}
