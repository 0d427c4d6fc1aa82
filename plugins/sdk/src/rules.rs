//! When a write takes place, and when a record is as good as gone.

use std::cell::OnceCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::record::Header;

/// When a write takes place, judged against the stamp stored for its key, be it an entry's or a tombstone's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// If its stamp is larger than the stored one.
    Newer,
    /// If its stamp is larger than the stored one or equal to it.
    NotOlder,
    /// Whatever the stored stamp is. Afterwards the stored stamp is the larger of the two.
    Always,
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It took place.
    Applied,
    /// The stored stamp forbade it; nothing changed.
    Stale,
}

/// The time of one call. The clock is asked at the first need of it, which many calls don't have, and not again: all items of
/// a batch are judged at one time.
#[derive(Debug)]
pub struct Moment {
    clock: fn() -> u64,
    read: OnceCell<u64>,
}

impl Moment {
    /// A moment that `clock`, which tells Unix milliseconds, is yet to be asked for.
    pub fn new(clock: fn() -> u64) -> Self {
        Self { clock, read: OnceCell::new() }
    }

    /// Unix milliseconds.
    pub fn millis(&self) -> u64 {
        *self.read.get_or_init(self.clock)
    }

    /// Whether that expiry has been reached. `None` never is.
    pub fn has_passed(&self, expires_at: Option<u64>) -> bool {
        expires_at.is_some_and(|expires_at| expires_at <= self.millis())
    }
}

/// How to judge the writes of one call.
#[derive(Debug)]
pub struct Rule {
    condition: Condition,
    moment: Moment,
}

impl Rule {
    /// Judges by `condition` at `moment`.
    pub fn new(condition: Condition, moment: Moment) -> Self {
        Self { condition, moment }
    }

    /// For stores that judge by themselves, in their own language.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// The time of the call.
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// The stamp that a write offering `stamp` is to be stored with; `None`: it is stale and must change nothing.
    ///
    /// `stored` is what the key has now. An expired record counts as none: whether it still lies there is chance.
    pub fn judge(&self, stored: Option<Header>, stamp: u64) -> Option<u64> {
        let Some(stored) = stored.filter(|stored| !self.moment.has_passed(stored.expires_at)) else {
            return Some(stamp);
        };
        match self.condition {
            Condition::Newer => (stamp > stored.stamp).then_some(stamp),
            Condition::NotOlder => (stamp >= stored.stamp).then_some(stamp),
            Condition::Always => Some(stamp.max(stored.stamp)),
        }
    }
}

/// Milliseconds since the Unix epoch; 0 for a system clock before it.
pub fn unix_millis() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(condition: Condition, stored: Option<(u64, Option<u64>)>, stamp: u64, expect: Option<u64>) {
        let rule = Rule::new(condition, Moment::new(|| 1000));
        for value_bytes in [None, Some(3)] {
            let stored = stored.map(|(stamp, expires_at)| Header { stamp, expires_at, value_bytes });
            assert_eq!(rule.judge(stored, stamp), expect, "{condition:?} {stored:?} {stamp}");
        }
    }

    #[test]
    fn stamps_decide() {
        check(Condition::Newer, Some((5, None)), 6, Some(6));
        check(Condition::Newer, Some((5, None)), 5, None);
        check(Condition::Newer, Some((5, None)), 4, None);
        check(Condition::NotOlder, Some((5, None)), 6, Some(6));
        check(Condition::NotOlder, Some((5, None)), 5, Some(5));
        check(Condition::NotOlder, Some((5, None)), 4, None);
        check(Condition::Always, Some((5, None)), 6, Some(6));
        check(Condition::Always, Some((5, None)), 4, Some(5));
    }

    #[test]
    fn a_key_without_a_record_takes_every_write() {
        for condition in [Condition::Newer, Condition::NotOlder, Condition::Always] {
            check(condition, None, 0, Some(0));
            check(condition, Some((5, Some(1000))), 4, Some(4));
            check(condition, Some((5, Some(1001))), 9, Some(9));
        }
        check(Condition::Newer, Some((5, Some(1001))), 4, None);
    }

    #[test]
    fn the_clock_is_asked_only_when_needed() {
        let moment = Moment::new(|| panic!("nobody needs the time"));
        assert!(!moment.has_passed(None));
        assert_eq!(Rule::new(Condition::Newer, moment).judge(None, 1), Some(1));
    }
}
