//! What others can see of a shard while it works.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
use super::breaker::BreakerState;
use crate::clock::whole_millis;

/// What a shard is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardState {
    /// Its first instance is being opened.
    Opening,
    /// It answers.
    Running {
        /// Counts its instances, from 1: of a backend that isn't persistent, each starts empty.
        generation: u64,
    },
    /// It answers nothing until it has recovered.
    Down {
        /// What it failed of.
        reason: String,
        /// Whether it has failed repeatedly.
        breaker_open: bool,
    },
    /// It has been given up.
    Failed {
        /// Why.
        reason: String,
    },
    /// It was closed.
    Closed,
}

/// Shared between a shard's thread and everybody else.
#[derive(Debug)]
pub(super) struct ShardStatus {
    state: watch::Sender<ShardState>,
    /// Whether it is being asked for its health, to see whether it has recovered.
    probed: AtomicBool,
    capabilities: OnceLock<Capabilities>,
    memory_bytes: AtomicU64,
    restarts: AtomicU64,
    start: Instant,
    /// By when the thread ought to be back from its plugin, in milliseconds since `start`; 0: it isn't there.
    due: AtomicU64,
}

impl ShardStatus {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(ShardState::Opening),
            probed: AtomicBool::new(false),
            capabilities: OnceLock::new(),
            memory_bytes: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            start: Instant::now(),
            due: AtomicU64::new(0),
        }
    }

    /// The thread goes into its plugin, which a deadline brings it back from by then; unless it is the system that doesn't come back.
    pub(super) fn expect_back_within(&self, limit: Duration) {
        self.due.store(whole_millis(self.start.elapsed().saturating_add(limit)).max(1), Ordering::Relaxed);
    }

    pub(super) fn is_back(&self) {
        self.due.store(0, Ordering::Relaxed);
    }

    /// Whether the thread should have been back for so long.
    pub(super) fn is_overdue_for(&self, time: Duration) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        due != 0 && whole_millis(self.start.elapsed()) > due.saturating_add(whole_millis(time))
    }

    pub(super) fn set_state(&self, state: ShardState) {
        self.state.send_replace(state);
    }

    pub(super) fn state(&self) -> ShardState {
        self.state.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<ShardState> {
        self.state.subscribe()
    }

    pub(super) fn set_probed(&self, probed: bool) {
        self.probed.store(probed, Ordering::Relaxed);
    }

    /// The state of its breaker. One that is given up stays open.
    pub(super) fn breaker(&self) -> BreakerState {
        match *self.state.borrow() {
            _ if self.probed.load(Ordering::Relaxed) => BreakerState::HalfOpen,
            ShardState::Down { breaker_open: true, .. } | ShardState::Failed { .. } => BreakerState::Open,
            _ => BreakerState::Closed,
        }
    }

    /// What the first instance said of itself; later ones of the same component say the same.
    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        self.capabilities.get().copied()
    }

    pub(super) fn opened(&self, capabilities: Capabilities) {
        // A second instance finds it set, to the same.
        let _ = self.capabilities.set(capabilities);
    }

    pub(super) fn set_memory_bytes(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_went_in_can_be_overdue() {
        let status = ShardStatus::new();
        assert!(!status.is_overdue_for(Duration::ZERO));
        status.expect_back_within(Duration::MAX);
        assert!(!status.is_overdue_for(Duration::ZERO));
        status.expect_back_within(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(5));
        assert!(status.is_overdue_for(Duration::ZERO) && !status.is_overdue_for(Duration::from_secs(60)));
        status.is_back();
        assert!(!status.is_overdue_for(Duration::ZERO));
    }

    #[test]
    fn the_breaker_is_half_open_only_while_it_is_asked() {
        let status = ShardStatus::new();
        assert_eq!(status.breaker(), BreakerState::Closed);
        status.set_state(ShardState::Down { reason: String::new(), breaker_open: false });
        assert_eq!(status.breaker(), BreakerState::Closed);
        status.set_state(ShardState::Down { reason: String::new(), breaker_open: true });
        assert_eq!(status.breaker(), BreakerState::Open);
        status.set_probed(true);
        assert_eq!(status.breaker(), BreakerState::HalfOpen);
        status.set_probed(false);
        status.set_state(ShardState::Failed { reason: String::new() });
        assert_eq!(status.breaker(), BreakerState::Open);
    }
}
