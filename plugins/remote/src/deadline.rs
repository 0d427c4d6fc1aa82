//! How long a call may still take.

use std::time::{Duration, Instant};

/// The end of one call of the plugin, whatever round trips it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(timeout).unwrap_or(now))
    }

    /// What is left; `None` when it has passed.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// When it passes.
    #[cfg(target_family = "wasm")]
    pub(crate) fn instant(self) -> Instant {
        self.0
    }

    /// This one, or the moment that comes first.
    pub(crate) fn at_most(self, timeout: Duration) -> Self {
        Self(self.0.min(Self::after(timeout).0))
    }
}
