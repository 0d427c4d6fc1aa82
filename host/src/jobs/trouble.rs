//! Why a job does not get on just now, as far as this host knows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by the workers on a job and by those who ask about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// A worker can't go on, or has to wait.
    pub(super) fn is(&self, reason: String) {
        *self.reason() = Some(reason);
    }

    /// A worker got on.
    pub(super) fn is_over(&self) {
        *self.reason() = None;
    }

    /// What it is, if there is any.
    pub(super) fn now(&self) -> Option<String> {
        self.reason().clone()
    }

    fn reason(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
