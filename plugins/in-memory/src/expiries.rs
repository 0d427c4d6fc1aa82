//! Which slots expire when.

use std::collections::BTreeSet;

/// The slots that hold something with an expiry, soonest first. Exact: it is told of every change, so that it is never larger
/// than the number of such slots, however often their records are replaced.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    due: BTreeSet<(u64, u32)>,
}

impl Expiries {
    /// The record in `slot` now has the expiry `after` instead of `before`.
    pub(crate) fn change(&mut self, slot: u32, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, slot));
        }
        if let Some(after) = after {
            self.due.insert((after, slot));
        }
    }

    /// The next to expire: when (in Unix milliseconds), and in which slot.
    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        self.due.first().copied()
    }
}
