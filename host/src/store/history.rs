//! The last minutes in figures: samples at equal intervals, kept in a bounded ring. So whoever looks for the first time sees
//! at once what went before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bson::DateTime;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Inner, MemCellStore};
use crate::metrics::BackendTotals;
use crate::mirror::Mirror;
use crate::validation::Outcome;
use crate::{Error, ErrorKind};

/// How often a sample is taken.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// Samples that are kept: five minutes of them.
pub const MOST_SAMPLES: usize = 150;

/// What happened in one interval, and how the backends were at its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Counts up by one, from 1.
    pub number: u64,
    /// The end of the interval, in ISO 8601.
    #[serde(serialize_with = "crate::memcell::as_time")]
    pub at: DateTime,
    /// How long the interval was: on a busy machine, longer than usual.
    pub seconds: f64,
    /// What the store did in it.
    #[serde(flatten)]
    pub operations: Operations,
    /// In the order of the configuration.
    pub backends: Vec<BackendSample>,
}

/// Operations of the store by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Operations {
    /// Those that only read.
    pub reads: u64,
    /// Those that write.
    pub writes: u64,
    /// Those of both that failed through no fault of the caller.
    pub failed: u64,
}

/// One backend in one interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackendSample {
    /// Its name.
    pub name: String,
    /// Its state at the end.
    pub state: &'static str,
    /// How far it was behind at the end, in seconds; absent until it has followed MongoDB for the first time.
    pub lag_seconds: Option<f64>,
    /// Changes waiting at the end.
    pub queue_depth: usize,
    /// Linear memory of its instances at the end.
    pub memory_bytes: u64,
    /// Entries and removals handed to its plugin.
    pub written: u64,
    /// Keys asked of its plugin.
    pub read: u64,
    /// Validated reads by outcome; those that there were none of are left out.
    pub validations: BTreeMap<&'static str, u64>,
}

/// Counts operations since the start.
#[derive(Debug, Default)]
pub(super) struct OperationCounts {
    reads: AtomicU64,
    writes: AtomicU64,
    failed: AtomicU64,
}

impl OperationCounts {
    /// Counts one, by the name it has in metrics.
    pub(super) fn count(&self, operation: &str, error: Option<&Error>) {
        let is_read = ["get", "get_many", "find", "count", "latest_by_user", "activity_summary"].contains(&operation);
        if is_read { &self.reads } else { &self.writes }.fetch_add(1, Ordering::Relaxed);
        let is_ours = |error: &Error| matches!(error.kind(), ErrorKind::Internal | ErrorKind::Config);
        if error.is_some_and(|error| error.is_retryable() || is_ours(error)) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn totals(&self) -> Operations {
        Operations {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

impl Operations {
    fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(before.reads),
            writes: self.writes.saturating_sub(before.writes),
            failed: self.failed.saturating_sub(before.failed),
        }
    }
}

/// The newest samples.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: Mutex<VecDeque<Sample>>,
}

impl History {
    fn push(&self, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(sample);
        while samples.len() > MOST_SAMPLES {
            samples.pop_front();
        }
    }

    fn after(&self, number: u64) -> Vec<Sample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().filter(|sample| sample.number > number).cloned().collect()
    }
}

impl MemCellStore {
    /// The samples of the last minutes with a higher number than this, the oldest first.
    pub fn history(&self, after: u64) -> Vec<Sample> {
        self.inner.history.after(after)
    }

    /// What the store did since it was opened.
    pub fn operations(&self) -> Operations {
        self.inner.operations.totals()
    }
}

/// Takes samples until the store is gone; it doesn't keep the store.
pub(super) async fn keep(store: Weak<Inner>) {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, and nothing has happened yet.
    let mut before = Reading { at: ticks.tick().await, operations: Operations::default(), backends: HashMap::new() };
    for number in 1.. {
        ticks.tick().await;
        let Some(inner) = store.upgrade() else { return };
        let now = Reading::take(&inner);
        inner.history.push(now.sample(number, &before, &inner));
        before = now;
    }
}

/// All counters at one moment.
struct Reading {
    at: Instant,
    operations: Operations,
    backends: HashMap<String, BackendTotals>,
}

impl Reading {
    fn take(inner: &Inner) -> Self {
        let totals = |mirror: &Arc<Mirror>| (mirror.config().name.clone(), mirror.metrics().totals());
        Self {
            at: Instant::now(),
            operations: inner.operations.totals(),
            backends: inner.backends.get().mirrors.iter().map(totals).collect(),
        }
    }

    fn sample(&self, number: u64, before: &Self, inner: &Inner) -> Sample {
        let nothing = BackendTotals::default();
        let backend = |mirror: &Arc<Mirror>| {
            let name = &mirror.config().name;
            let now = self.backends.get(name).unwrap_or(&nothing);
            let (load, lag) = mirror.load();
            // The counters of a backend that was replaced may have begun anew.
            let then = before.backends.get(name).filter(|then| then.is_before(now)).unwrap_or(&nothing);
            BackendSample {
                name: name.clone(),
                state: mirror.state().name(),
                lag_seconds: lag.map(|lag| lag.as_secs_f64()),
                queue_depth: load.queue_depth,
                memory_bytes: load.memory_bytes,
                written: now.written - then.written,
                read: now.read - then.read,
                validations: validations(now, then),
            }
        };
        Sample {
            number,
            at: DateTime::now(),
            seconds: self.at.duration_since(before.at).as_secs_f64(),
            operations: self.operations.since(before.operations),
            backends: inner.backends.get().mirrors.iter().map(backend).collect(),
        }
    }
}

fn validations(now: &BackendTotals, then: &BackendTotals) -> BTreeMap<&'static str, u64> {
    let counts = now.validations.iter().zip(then.validations).map(|(now, then)| now - then);
    let named = Outcome::ALL.iter().map(|outcome| outcome.as_str()).zip(counts);
    named.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn sample(number: u64) -> Sample {
        Sample {
            number,
            at: DateTime::from_millis(0),
            seconds: 2.0,
            operations: Operations::default(),
            backends: Vec::new(),
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let history = History::default();
        let most = MOST_SAMPLES as u64;
        (1..=most + 5).for_each(|number| history.push(sample(number)));
        let numbers = |after| history.after(after).iter().map(|sample| sample.number).collect::<Vec<_>>();
        assert_eq!(numbers(0), (6..=most + 5).collect::<Vec<_>>());
        assert_eq!(numbers(most + 3), [most + 4, most + 5]);
        assert!(numbers(most + 5).is_empty());
    }

    #[test]
    fn operations_are_reads_or_writes_and_only_our_failures_count() {
        let counts = OperationCounts::default();
        counts.count("get", None);
        counts.count("find", Some(&Error::new(ErrorKind::Timeout, "x")));
        counts.count("append", Some(&Error::not_found("x")));
        counts.count("transaction", Some(&Error::new(ErrorKind::Internal, "x")));
        let before = counts.totals();
        assert_eq!(before, Operations { reads: 2, writes: 2, failed: 2 });
        counts.count("get", None);
        assert_eq!(counts.totals().since(before), Operations { reads: 1, writes: 0, failed: 0 });
    }

    #[test]
    fn counters_that_begin_anew_are_noticed() {
        let metrics = Arc::new(Metrics::new());
        let backend = metrics.backend("local");
        backend.kv_call("put-many", "ok", 3, Duration::from_micros(5));
        backend.kv_call("delete-many", "ok", 1, Duration::from_micros(5));
        backend.kv_call("get-many", "ok", 7, Duration::from_micros(5));
        backend.validation(Outcome::InFlight);
        let then = backend.totals();
        assert_eq!((then.written, then.read), (4, 7));
        backend.validation(Outcome::InFlight);
        backend.validation(Outcome::Consistent);
        let now = backend.totals();
        assert!(then.is_before(&now) && !now.is_before(&then));
        assert_eq!(validations(&now, &then), BTreeMap::from([("consistent", 1), ("in-flight", 1)]));
    }
}
