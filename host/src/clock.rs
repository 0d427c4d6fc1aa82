//! The hybrid logical clock that revisions and stamps are read from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many bits of a reading lie below its millisecond.
pub const SUB_MILLISECOND_BITS: u32 = 20;

/// The farthest that a revision can be ahead of the wall clock and still be believed: a day.
pub const MAX_AHEAD_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// How long a change may be under way, and how far the clocks of hosts may be apart, at the very most.
const LONGEST_CHANGE_MILLIS: u64 = 10 * 60 * 1000;

/// Readings are `unix_milliseconds << 20`, counted up within a millisecond: no two readings of one process agree, each is
/// larger than the one before it, and each is larger than every revision that [`Clock::observe`] was shown before.
///
/// It can run ahead of the wall clock (by one millisecond per million readings), and it never goes back when the wall clock does.
#[derive(Debug, Default)]
pub struct Clock {
    last: AtomicU64,
    /// The readings of inserts that have not landed.
    open_inserts: Mutex<BTreeSet<u64>>,
}

/// An insert under way: from before its revision is read until it has landed, or never will.
#[derive(Debug)]
pub struct OpenInsert {
    clock: Arc<Clock>,
    reading: u64,
}

impl OpenInsert {
    /// The reading that it started with: its revision, or below it.
    pub fn reading(&self) -> u64 {
        self.reading
    }
}

impl Drop for OpenInsert {
    fn drop(&mut self) {
        self.clock.open_inserts().remove(&self.reading);
    }
}

impl Clock {
    /// A clock that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next reading.
    pub fn now(&self) -> u64 {
        let wall = unix_millis() << SUB_MILLISECOND_BITS;
        let next = |last: u64| wall.max(last.saturating_add(1));
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }

    /// Notes that an insert with a given id is under way.
    pub fn open_insert(self: &Arc<Self>) -> OpenInsert {
        let mut open = self.open_inserts();
        let reading = self.now();
        open.insert(reading);
        OpenInsert { clock: Arc::clone(self), reading }
    }

    /// A reading for what is about to be looked up: below the revision of every insert that is under way, for what is found
    /// (a document without a revision, or none) was there before that lands.
    pub fn now_before_inserts(&self) -> u64 {
        let open = self.open_inserts();
        let now = self.now();
        open.first().map_or(now, |first| first.saturating_sub(1))
    }

    /// A reading below the revision of every change that is under way, whoever makes it: the stamp of documents without a revision
    /// that are copied beside the tail. By the time that such a copy is written, the tail may have brought a change that took its
    /// revision before, and landed after, the document was read.
    pub fn before_changes(&self) -> u64 {
        self.now_before_inserts().saturating_sub(LONGEST_CHANGE_MILLIS << SUB_MILLISECOND_BITS)
    }

    fn open_inserts(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.open_inserts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes the clock past a revision that somebody else made, unless that one is more than [`MAX_AHEAD_MILLIS`] ahead of the
    /// wall clock: then it isn't a reading of anybody's clock, and following it could use up the range of revisions.
    pub fn observe(&self, revision: u64) {
        if millis_of(revision) <= unix_millis().saturating_add(MAX_AHEAD_MILLIS) {
            self.last.fetch_max(revision, Ordering::Relaxed);
        }
    }
}

/// Milliseconds since the Unix epoch; 0 for a system clock before it.
pub fn unix_millis() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    whole_millis(since_epoch)
}

/// A duration in whole milliseconds, rounded down.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall-clock millisecond that a revision or stamp was read in.
pub fn millis_of(reading: u64) -> u64 {
    reading >> SUB_MILLISECOND_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_increase_and_pass_what_was_observed() {
        let clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second > first);
        let ahead = second + (5000 << SUB_MILLISECOND_BITS);
        clock.observe(ahead);
        assert_eq!(clock.now(), ahead + 1);
        clock.observe(first);
        assert_eq!(clock.now(), ahead + 2);
    }

    #[test]
    fn a_look_up_is_older_than_the_inserts_under_way() {
        let clock = Arc::new(Clock::new());
        let first = clock.open_insert();
        let second = clock.open_insert();
        assert!(clock.now_before_inserts() < first.reading() && first.reading() < second.reading());
        drop(first);
        assert!(clock.now_before_inserts() < second.reading());
        let last = second.reading();
        drop(second);
        assert!(clock.now_before_inserts() > last);
    }

    #[test]
    fn what_is_copied_beside_the_tail_is_older_than_any_change_under_way() {
        let clock = Arc::new(Clock::new());
        let change = clock.now();
        assert!(clock.before_changes() < change);
        let others = Clock::new().now();
        assert!(clock.before_changes() < others);
        let insert = clock.open_insert();
        assert!(clock.before_changes() < insert.reading());
    }

    #[test]
    fn an_absurd_revision_is_not_followed() {
        let clock = Clock::new();
        clock.observe(i64::MAX as u64);
        assert!(millis_of(clock.now()) <= unix_millis() + MAX_AHEAD_MILLIS);
    }

    #[test]
    fn a_reading_tells_its_millisecond() {
        let before = unix_millis();
        let reading = Clock::new().now();
        assert!((before..=unix_millis()).contains(&millis_of(reading)));
    }

    #[test]
    fn concurrent_readings_never_agree() {
        let clock = Clock::new();
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..10_000).map(|_| clock.now()).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
