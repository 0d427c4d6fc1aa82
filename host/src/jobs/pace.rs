//! Keeping to a rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far work may fall behind its rate and still be made up for.
const BURST: Duration = Duration::from_secs(1);

/// So many items a second, on average. Clones keep to it together.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// Unless it is as fast as can be.
    limit: Option<Arc<Mutex<Limit>>>,
}

impl Pace {
    /// `None`: as fast as can be.
    pub(super) fn new(rate: Option<u32>) -> Self {
        Self { limit: rate.map(|rate| Arc::new(Mutex::new(Limit::new(rate, Instant::now())))) }
    }

    /// Waits until so many more items are due.
    pub(super) async fn take(&self, items: usize) {
        if let Some(due) = self.due(Instant::now(), items) {
            tokio::time::sleep_until(due).await;
        }
    }

    fn due(&self, now: Instant, items: usize) -> Option<Instant> {
        let limit = self.limit.as_ref()?;
        Some(limit.lock().unwrap_or_else(PoisonError::into_inner).due(now, items))
    }
}

#[derive(Debug)]
struct Limit {
    per_item: Duration,
    /// When all that was asked for is due.
    next: Instant,
}

impl Limit {
    fn new(rate: u32, now: Instant) -> Self {
        Self { per_item: Duration::from_secs(1) / rate.max(1), next: now }
    }

    fn due(&mut self, now: Instant, items: usize) -> Instant {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.next = self.next.max(earliest) + self.per_item * u32::try_from(items).unwrap_or(u32::MAX);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn work_takes_the_time_that_it_may() {
        let started = Instant::now();
        let mut limit = Limit::new(100, started);
        let mut now = started;
        for _ in 0..10 {
            now = limit.due(now, 50);
        }
        assert_eq!(now, started + 5 * SECOND);
    }

    #[test]
    fn a_long_rest_is_not_made_up_for() {
        let started = Instant::now();
        let mut limit = Limit::new(10, started);
        let now = started + 60 * SECOND;
        assert_eq!(limit.due(now, 30), now + 2 * SECOND);
    }

    #[test]
    fn workers_on_one_job_share_its_rate() {
        let pace = Pace::new(Some(100));
        let now = Instant::now();
        let workers = [pace.clone(), pace.clone(), pace];
        let due = workers.iter().filter_map(|worker| worker.due(now, 200)).max();
        let expected = 5 * SECOND..7 * SECOND;
        assert!(due.is_some_and(|due| expected.contains(&(due - now))), "{due:?}");
        assert_eq!(Pace::new(None).due(now, 1_000_000), None);
    }
}
