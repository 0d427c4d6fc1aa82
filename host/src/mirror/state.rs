//! What a mirror is doing, as operators and readers see it.

use std::time::Duration;

/// The states of a mirror. Only a live one is compared with MongoDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorState {
    /// The plugin is being loaded, or its instances opened.
    Loading,
    /// All documents are being copied, for the backend is empty or may have missed anything.
    Backfilling {
        /// Documents copied so far.
        copied: u64,
    },
    /// The backend has everything up to some time ago, and is being brought up to date.
    CatchingUp {
        /// How long ago.
        behind: Duration,
    },
    /// The backend has everything, but for what the last moments brought.
    Live,
    /// The backend, or MongoDB under the mirror's own reads, is in trouble; it is tried again.
    Degraded {
        /// What the trouble is.
        reason: String,
    },
    /// Given up until the host is started again, or its configuration reloaded.
    Failed {
        /// Why, and how to mend it.
        reason: String,
    },
    /// The backend is open to be read, and nothing is mirrored to it: what it holds is to be restored from.
    Detached,
    /// Closed in order.
    Closed,
}

/// The words for all states.
pub const STATE_NAMES: [&str; 8] =
    ["loading", "backfilling", "catching-up", "live", "degraded", "failed", "detached", "closed"];

impl MirrorState {
    /// The word for it, one of [`STATE_NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Backfilling { .. } => "backfilling",
            Self::CatchingUp { .. } => "catching-up",
            Self::Live => "live",
            Self::Degraded { .. } => "degraded",
            Self::Failed { .. } => "failed",
            Self::Detached => "detached",
            Self::Closed => "closed",
        }
    }

    /// Whether copies can be handed over: instances answer, and a tail follows what changes meanwhile.
    pub fn takes_copies(&self) -> bool {
        matches!(self, Self::Backfilling { .. } | Self::CatchingUp { .. } | Self::Live)
    }

    /// Whether the backend can be read, be it up to date or not.
    pub fn can_be_read(&self) -> bool {
        self.takes_copies() || *self == Self::Detached
    }

    /// Why it isn't better, where there is more to say than the word.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Backfilling { copied } => Some(format!("{copied} documents copied so far")),
            Self::CatchingUp { behind } => Some(format!("{} s behind mongodb", behind.as_secs())),
            Self::Degraded { reason } | Self::Failed { reason } => Some(reason.clone()),
            Self::Loading | Self::Live | Self::Detached | Self::Closed => None,
        }
    }
}
