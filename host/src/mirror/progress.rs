//! How far a mirror's tail has come, by the clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::unix_millis;

/// How far the clocks of this host and of MongoDB may be apart (NTP keeps them within milliseconds). An event's time is
/// believed to be this much earlier on this host's clock than it says.
const CLOCK_SKEW_MILLIS: u64 = 5_000;

/// How far behind a mirror may be and still count as live: a few stretched batches, much less than an operator cares about.
const CURRENT_MILLIS: u64 = 5_000;

/// Shared by the tail, which moves it, and by those who wait for it.
#[derive(Debug)]
pub(super) struct Progress {
    /// Everything that happened before this moment, by this host's clock, is in the backend. Unix milliseconds.
    passed: watch::Sender<u64>,
    /// When the oldest change happened that is known and not applied yet, in Unix milliseconds; 0: there is none.
    oldest_unapplied: AtomicU64,
    /// When the newest applied change happened, or when the server was last asked and had nothing new.
    newest_applied: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { passed: watch::Sender::new(0), oldest_unapplied: AtomicU64::new(0), newest_applied: AtomicU64::new(0) }
    }
}

impl Progress {
    /// Changes are about to be applied, the oldest of which happened then (server time).
    pub(super) fn working_on(&self, oldest_millis: u64) {
        self.oldest_unapplied.store(oldest_millis, Ordering::Relaxed);
    }

    /// All changes up to one that happened then (server time) are applied.
    pub(super) fn applied_up_to(&self, at_millis: u64) {
        self.newest_applied.fetch_max(at_millis, Ordering::Relaxed);
        // What comes after one of long ago is about as old, until the server says that nothing does.
        let next = if self.is_current() { 0 } else { at_millis };
        self.oldest_unapplied.store(next, Ordering::Relaxed);
        self.pass(at_millis.saturating_sub(CLOCK_SKEW_MILLIS));
    }

    /// The backend may have lost what was applied after this moment (this host's clock).
    pub(super) fn fall_back(&self, millis: u64) {
        if self.newest_applied.load(Ordering::Relaxed) > millis {
            self.newest_applied.store(millis, Ordering::Relaxed);
            self.oldest_unapplied.store(millis, Ordering::Relaxed);
            self.passed.send_if_modified(|passed| {
                let is_later = *passed > millis;
                *passed = (*passed).min(millis);
                is_later
            });
        }
    }

    /// Nothing was left to apply when the server was asked (this host's time).
    pub(super) fn quiet_since(&self, asked_millis: u64) {
        self.newest_applied.fetch_max(asked_millis, Ordering::Relaxed);
        self.oldest_unapplied.store(0, Ordering::Relaxed);
        self.pass(asked_millis);
    }

    /// Another host, which has the tail, has come so far (by its clock), and `newest` is when the newest change that it has applied
    /// happened.
    pub(super) fn others_passed(&self, millis: u64, newest: u64) {
        self.newest_applied.fetch_max(newest, Ordering::Relaxed);
        self.pass(millis.saturating_sub(CLOCK_SKEW_MILLIS));
    }

    /// Everything that happened before this moment (this host's clock, Unix milliseconds) is in the backend.
    pub(super) fn has_come_to(&self) -> u64 {
        *self.passed.borrow()
    }

    fn pass(&self, millis: u64) {
        self.passed.send_if_modified(|passed| {
            let later = millis > *passed;
            *passed = (*passed).max(millis);
            later
        });
    }

    /// What the tail had in hand is of no concern any more: another host has the tail, or everything is compared anew. A tail that
    /// only stops, because the backend is in trouble, still has it.
    pub(super) fn nothing_in_hand(&self) {
        self.oldest_unapplied.store(0, Ordering::Relaxed);
    }

    /// See the field.
    pub(super) fn newest_applied(&self) -> u64 {
        self.newest_applied.load(Ordering::Relaxed)
    }

    /// Returns once everything that happened before `moment` (this host's clock, Unix milliseconds) is in the backend. No bound.
    pub(super) async fn passed(&self, moment: u64) {
        // The sender lives as long as `self`.
        let _ = self.passed.subscribe().wait_for(|passed| *passed >= moment).await;
    }

    /// Whether everything that happened before `moment` is in the backend. See [`Progress::passed`].
    pub(super) fn has_passed(&self, moment: u64) -> bool {
        *self.passed.borrow() >= moment
    }

    /// Whether the backend is about as new as MongoDB.
    pub(super) fn is_current(&self) -> bool {
        self.newest_applied.load(Ordering::Relaxed).saturating_add(CURRENT_MILLIS) >= unix_millis()
    }

    /// How long ago the oldest change happened that is known and not applied; zero if there is none.
    pub(super) fn lag(&self) -> Duration {
        match self.oldest_unapplied.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            millis => Duration::from_millis(unix_millis().saturating_sub(millis)),
        }
    }

    /// As [`Progress::behind`], once anything is known.
    pub(super) fn known_behind(&self) -> Option<Duration> {
        (self.newest_applied.load(Ordering::Relaxed) > 0).then(|| self.behind())
    }

    /// How long ago the mirror was last known to be complete up to some change.
    pub(super) fn behind(&self) -> Duration {
        Duration::from_millis(unix_millis().saturating_sub(self.newest_applied.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_passed_only_grows() {
        let progress = Progress::default();
        progress.quiet_since(10_000);
        progress.quiet_since(9_000);
        tokio::time::timeout(Duration::from_secs(5), progress.passed(10_000)).await.unwrap();
        progress.applied_up_to(12_000);
        let early = tokio::time::timeout(Duration::from_millis(20), progress.passed(11_000)).await;
        assert!(early.is_err(), "an event's own time is not trusted to the second");
        progress.applied_up_to(11_000 + CLOCK_SKEW_MILLIS);
        tokio::time::timeout(Duration::from_secs(5), progress.passed(11_000)).await.unwrap();
    }

    #[test]
    fn what_was_lost_has_not_passed() {
        let (progress, now) = (Progress::default(), unix_millis());
        progress.quiet_since(now);
        assert!(progress.is_current() && progress.has_passed(now));
        progress.fall_back(now + 1);
        assert!(progress.is_current() && progress.has_passed(now), "nothing is lost");
        let before = now - 60_000;
        progress.fall_back(before);
        assert!(!progress.is_current() && progress.has_passed(before) && !progress.has_passed(before + 1));
        assert!(progress.lag() >= Duration::from_secs(60));
        progress.working_on(before + 1000);
        progress.applied_up_to(before + 2000);
        assert!(!progress.is_current(), "there is more to come");
        assert!(progress.lag() >= Duration::from_secs(58));
        progress.quiet_since(now);
        assert!(progress.is_current() && progress.has_passed(now));
        assert_eq!(progress.lag(), Duration::ZERO);
    }

    #[test]
    fn lag_is_that_of_what_is_in_hand() {
        let progress = Progress::default();
        assert!(!progress.is_current());
        progress.working_on(unix_millis() - 1000);
        assert!(progress.lag() >= Duration::from_secs(1));
        let before = progress.newest_applied();
        progress.quiet_since(unix_millis());
        assert_eq!(progress.lag(), Duration::ZERO);
        assert!(progress.is_current() && progress.newest_applied() > before);
        progress.working_on(unix_millis() - 1000);
        progress.nothing_in_hand();
        assert_eq!(progress.lag(), Duration::ZERO);
    }
}
