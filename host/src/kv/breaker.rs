//! When to leave a failing backend alone, for how long, and when to give it up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::SupervisionConfig;

/// Whether a shard is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerState {
    /// It is, or its instance is being replaced.
    Closed,
    /// It is left alone for a while, or for good.
    Open,
    /// A health check is under way that decides.
    HalfOpen,
}

impl BreakerState {
    pub(super) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on with the same instance.
    GoOn,
    /// Call nothing until this moment, then open a new instance (or, if the old one is fine, ask it for its health).
    Pause { until: Instant, open: bool },
    /// Too many new instances were needed: give up until somebody changes something.
    GiveUp,
}

/// Counts failures in a row and new instances within a window. It has no clock of its own.
///
/// The breaker is *open* once `failures_to_open` calls in a row have failed, and until one has succeeded.
#[derive(Debug)]
pub(super) struct Breaker {
    config: SupervisionConfig,
    failures: u32,
    restarts: VecDeque<Instant>,
}

impl Breaker {
    pub(super) fn new(config: &SupervisionConfig) -> Self {
        Self { config: config.clone(), failures: 0, restarts: VecDeque::new() }
    }

    /// A call did what it should.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A call failed, or an instance could not be opened.
    pub(super) fn failed(&mut self, now: Instant, instance_lost: bool) -> Verdict {
        self.failures = self.failures.saturating_add(1);
        let open = self.is_open();
        if instance_lost {
            while self.restarts.front().is_some_and(|first| now.duration_since(*first) > self.config.restart_window) {
                self.restarts.pop_front();
            }
            if self.restarts.len() >= self.config.restart_limit as usize {
                return Verdict::GiveUp;
            }
            self.restarts.push_back(now);
        } else if !open {
            return Verdict::GoOn;
        }
        Verdict::Pause { until: self.retry_at(now), open }
    }

    /// Whether it takes the backend for broken.
    pub(super) fn is_open(&self) -> bool {
        self.failures >= self.config.failures_to_open
    }

    /// When to try again after the failures so far.
    pub(super) fn retry_at(&self, now: Instant) -> Instant {
        now + self.pause()
    }

    /// Doubles with each failure in a row, between the two bounds.
    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(20);
        self.config.backoff_min.saturating_mul(1 << doublings).min(self.config.backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(failures_to_open: u32, restart_limit: u32) -> Breaker {
        Breaker::new(&SupervisionConfig {
            failures_to_open,
            restart_limit,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            restart_window: Duration::from_secs(60),
        })
    }

    #[test]
    fn pauses_double_up_to_the_bound() {
        let mut breaker = breaker(3, 100);
        let now = Instant::now();
        let pauses: Vec<(u64, bool)> = (0..6)
            .map(|_| match breaker.failed(now, true) {
                Verdict::Pause { until, open } => ((until - now).as_millis() as u64, open),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pauses, [(100, false), (200, false), (400, true), (800, true), (1000, true), (1000, true)]);
        breaker.succeeded();
        assert!(!breaker.is_open());
    }

    #[test]
    fn errors_of_a_living_instance_open_it_only_in_a_row() {
        let mut breaker = breaker(2, 100);
        let now = Instant::now();
        assert_eq!(breaker.failed(now, false), Verdict::GoOn);
        breaker.succeeded();
        assert_eq!(breaker.failed(now, false), Verdict::GoOn);
        assert!(matches!(breaker.failed(now, false), Verdict::Pause { open: true, .. }));
    }

    #[test]
    fn gives_up_when_the_window_is_full_and_only_then() {
        let mut breaker = breaker(5, 2);
        let start = Instant::now();
        assert!(matches!(breaker.failed(start, true), Verdict::Pause { .. }));
        assert!(matches!(breaker.failed(start + Duration::from_secs(50), true), Verdict::Pause { .. }));
        assert!(matches!(breaker.failed(start + Duration::from_secs(61), true), Verdict::Pause { .. }));
        assert_eq!(breaker.failed(start + Duration::from_secs(62), true), Verdict::GiveUp);
    }
}
