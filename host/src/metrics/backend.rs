//! The figures of one backend: they come with it and go with it.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Metrics;
use super::declare::{Counter, FloatCounter, FloatGauge, Gauge, Own};
use super::families::{
    Backend, BackendKind, BackendResult, BackendState, Call, Function, Job, JobResult, Series as Families,
};
use crate::jobs::{JobKind, JobState};
use crate::validation::Outcome;

/// Counted from zero, so that the first one is seen as an increase: Prometheus knows nothing of a series before it appears.
const MISMATCH_KINDS: [&str; 3] = ["missing", "different", "corrupt"];
const REPAIR_RESULTS: [&str; 3] = ["repaired", "failed", "refused"];
const DIRECT_KINDS: [&str; 5] = ["applied", "stale", "dropped", "failed", "rejected"];

/// The figures of one backend, to be handed to whoever makes them. Cheap to clone.
///
/// When the last one for a backend is dropped, its series disappear from [`Metrics::render`]: a backend that was removed is not
/// shown for ever. A thread of it that hangs keeps them.
#[derive(Clone)]
pub struct BackendMetrics {
    handle: Arc<Handle>,
}

/// What was counted of one backend so far, for those who show it over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendTotals {
    /// Entries and removals handed to the plugin.
    pub written: u64,
    /// Keys asked of the plugin.
    pub read: u64,
    /// Validated reads by outcome, in the order of [`Outcome::ALL`].
    pub validations: [u64; Outcome::ALL.len()],
}

impl BackendTotals {
    /// Whether these can have become `later`: no count of theirs is larger.
    pub fn is_before(&self, later: &Self) -> bool {
        let validations = self.validations.iter().zip(&later.validations);
        self.written <= later.written
            && self.read <= later.read
            && validations.into_iter().all(|(before, later)| before <= later)
    }
}

/// Counted in [`Metrics::backend`] and at its drop, both under one lock: so no series is removed that somebody has just begun to
/// count in.
struct Handle {
    all: Arc<Metrics>,
    series: Arc<Series>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut backends = self.all.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counted) = backends.get_mut(&self.series.backend) else { return };
        counted.handles = counted.handles.saturating_sub(1);
        if counted.handles == 0 {
            counted.series.families.remove_all();
            backends.remove(&self.series.backend);
        }
    }
}

impl Metrics {
    /// The figures of one backend. Whoever else asks for the same name counts in the same series.
    pub fn backend(self: &Arc<Self>, name: &str) -> BackendMetrics {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let backend: Arc<str> = name.into();
        let counted = backends
            .entry(Arc::clone(&backend))
            .or_insert_with(|| Counted { series: Arc::new(Series::new(self, backend)), handles: 0 });
        counted.handles += 1;
        BackendMetrics { handle: Arc::new(Handle { all: Arc::clone(self), series: Arc::clone(&counted.series) }) }
    }
}

/// The figures of one backend, and how many handles there are to them.
pub(super) struct Counted {
    series: Arc<Series>,
    handles: usize,
}

/// Each figure of one backend.
struct Series {
    backend: Arc<str>,
    families: Families,
    /// Looked up once: a validated read of many documents counts each of them.
    outcomes: [(Outcome, Counter); Outcome::ALL.len()],
    /// Likewise: each turn of a shard adds to it.
    cpu: FloatCounter,
}

impl Series {
    fn new(all: &Metrics, backend: Arc<str>) -> Self {
        let families = Families::of(&all.of_backends);
        let kind = |kind| BackendKind { backend: Arc::clone(&backend), kind };
        let label = Backend { backend: Arc::clone(&backend) };
        let outcomes = Outcome::ALL.map(|outcome| (outcome, families.validations.get(&kind(outcome.as_str()))));
        for (family, kinds) in
            [(&families.mismatches_confirmed, &MISMATCH_KINDS[..]), (&families.mirror_direct_writes, &DIRECT_KINDS)]
        {
            kinds.iter().for_each(|word| drop(family.get(&kind(word))));
        }
        for result in REPAIR_RESULTS {
            families.repairs.get(&BackendResult { backend: Arc::clone(&backend), result });
        }
        for family in [
            &families.mirror_tailed_keys,
            &families.mirror_refreshed,
            &families.mirror_history_lost,
            &families.kv_restarts,
        ] {
            family.get(&label);
        }
        for job_kind in JobKind::ALL.map(JobKind::as_str) {
            families.jobs_running.get(&Job { backend: Arc::clone(&backend), job_kind }).set(0);
            for result in JobState::ENDS.map(JobState::as_str) {
                families.jobs_finished.get(&JobResult { backend: Arc::clone(&backend), job_kind, result });
            }
        }
        Self { outcomes, cpu: families.kv_cpu.get(&label), families, backend }
    }
}

/// What is measured when somebody asks for it.
#[derive(Debug, Clone, Default)]
pub struct Levels {
    /// Direct writes waiting.
    pub queue_depth: usize,
    /// Memory that they hold.
    pub queue_bytes: usize,
    /// Linear memory of all instances.
    pub memory_bytes: u64,
    /// Age of the oldest change that is known and not in the backend; `None` if the backend has never followed MongoDB.
    pub lag: Option<Duration>,
    /// How long ago the backend was known to have everything, once it was.
    pub behind: Option<Duration>,
    /// The moment that the newest checkpoint stands for, in Unix milliseconds.
    pub checkpoint_millis: Option<u64>,
    /// Shards by the state of their breaker.
    pub breakers: Vec<(&'static str, usize)>,
}

/// A job that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningJob {
    /// What it does.
    pub job_kind: &'static str,
    /// Documents and entries looked at.
    pub done: u64,
    /// About how many there are.
    pub expected: u64,
}

impl fmt::Debug for BackendMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendMetrics").field("backend", &self.handle.series.backend).finish_non_exhaustive()
    }
}

impl BackendMetrics {
    fn families(&self) -> &Families {
        &self.handle.series.families
    }

    fn backend(&self) -> Arc<str> {
        Arc::clone(&self.handle.series.backend)
    }

    fn label(&self) -> Backend {
        Backend { backend: self.backend() }
    }

    fn kind(&self, kind: &'static str) -> BackendKind {
        BackendKind { backend: self.backend(), kind }
    }

    /// One call of a plugin's function with so many items; `result` is `ok` or the label of its error.
    pub fn kv_call(&self, function: &'static str, result: &'static str, items: usize, elapsed: Duration) {
        let families = self.families();
        families.kv_calls.get(&Call { backend: self.backend(), function, result }).inc();
        let labels = Function { backend: self.backend(), function };
        families.kv_call_duration.get(&labels).observe(elapsed.as_secs_f64());
        families.kv_items.get(&labels).inc_by(items as u64);
    }

    /// What was counted so far.
    pub fn totals(&self) -> BackendTotals {
        let items = |function| self.families().kv_items.get(&Function { backend: self.backend(), function }).get();
        BackendTotals {
            written: items("put-many") + items("delete-many") + items("prepare"),
            read: items("get-many") + items("digest-many"),
            validations: self.handle.series.outcomes.each_ref().map(|(_, counter)| counter.get()),
        }
    }

    /// The threads of the backend have worked for so long.
    pub fn kv_cpu(&self, elapsed: Duration) {
        self.handle.series.cpu.inc_by(elapsed.as_secs_f64());
    }

    /// A plugin wanted what it was not granted.
    pub fn kv_refusal(&self, kind: &'static str) {
        self.families().kv_refusals.get(&self.kind(kind)).inc();
    }

    /// An instance was lost, or could not be had.
    pub fn kv_failure(&self, kind: &'static str) {
        self.families().kv_instance_failures.get(&self.kind(kind)).inc();
    }

    /// A lost instance was replaced.
    pub fn kv_restart(&self) {
        self.families().kv_restarts.get(&self.label()).inc();
    }

    /// What became of a direct write: `applied`, `stale`, `dropped`, `failed`, `rejected`.
    pub fn direct(&self, kind: &'static str) {
        self.families().mirror_direct_writes.get(&self.kind(kind)).inc();
    }

    /// The tail brought so many keys up to date.
    pub fn tailed(&self, keys: u64) {
        self.families().mirror_tailed_keys.get(&self.label()).inc_by(keys);
    }

    /// MongoDB no longer had the changes since the mirror was last complete.
    pub fn history_lost(&self) {
        self.families().mirror_history_lost.get(&self.label()).inc();
    }

    /// Keys were re-read and written again.
    pub fn refreshed(&self, keys: u64) {
        self.families().mirror_refreshed.get(&self.label()).inc_by(keys);
    }

    /// What became of a transaction in this backend: `prepared`, then `committed` or `aborted`; or `failed`, after which the
    /// backend gets its changes as it would without two phases.
    pub fn two_phase(&self, kind: &'static str) {
        self.families().mirror_two_phase.get(&self.kind(kind)).inc();
    }

    /// What became of copies that were to be mended: `repaired`, `failed`, `refused`.
    pub fn repairs(&self, result: &'static str, keys: usize) {
        self.families().repairs.get(&BackendResult { backend: self.backend(), result }).inc_by(keys as u64);
    }

    /// One validated read.
    pub fn validation(&self, outcome: Outcome) {
        if let Some((_, counter)) = self.handle.series.outcomes.iter().find(|(known, _)| *known == outcome) {
            counter.inc();
        }
    }

    /// One confirmed mismatch.
    pub fn confirmed(&self, kind: &'static str) {
        self.families().mismatches_confirmed.get(&self.kind(kind)).inc();
    }

    /// A job of this host has looked at so many documents or entries.
    pub fn job_items(&self, job_kind: &'static str, items: u64) {
        self.families().job_items.get(&Job { backend: self.backend(), job_kind }).inc_by(items);
    }

    /// A job of this host found a difference.
    pub fn job_difference(&self, kind: &'static str) {
        self.families().job_differences.get(&self.kind(kind)).inc();
    }

    /// This host noted the end of a job: `done`, `failed` or `cancelled`.
    pub fn job_finished(&self, job_kind: &'static str, result: &'static str) {
        self.families().jobs_finished.get(&JobResult { backend: self.backend(), job_kind, result }).inc();
    }

    /// All jobs of the backend that have not ended. Of each kind there is one at the most.
    pub fn jobs_running(&self, running: &[RunningJob]) {
        let families = self.families();
        let runs = |labels: &Job| running.iter().any(|running| running.job_kind == labels.job_kind);
        families.jobs_running.each(|labels, gauge| {
            if !runs(labels) {
                gauge.set(0);
            }
        });
        families.job_done_items.retain(runs);
        families.job_expected_items.retain(runs);
        for RunningJob { job_kind, done, expected } in running {
            let labels = Job { backend: self.backend(), job_kind };
            families.jobs_running.get(&labels).set(1);
            families.job_done_items.get(&labels).set(signed(*done));
            families.job_expected_items.get(&labels).set(signed(*expected));
        }
    }

    /// When the newest verify or repair that came to its end did so, in Unix milliseconds, and the differences that it left.
    pub fn verified(&self, millis: i64, left: u64) {
        self.families().verify_last_success_timestamp.get(&self.label()).set(millis as f64 / 1e3);
        self.families().verify_differences_left.get(&self.label()).set(signed(left));
    }

    /// The levels that are measured when somebody asks for them.
    pub fn levels(&self, levels: &Levels) {
        let (families, label) = (self.families(), self.label());
        let set = |own: &Own<Backend, Gauge>, value: u64| own.get(&label).set(signed(value));
        set(&families.mirror_queue_depth, levels.queue_depth as u64);
        set(&families.mirror_queue, levels.queue_bytes as u64);
        set(&families.kv_memory, levels.memory_bytes);
        for (state, shards) in &levels.breakers {
            let labels = BackendState { backend: self.backend(), state };
            families.kv_breakers.get(&labels).set(signed(*shards as u64));
        }
        let set_if_known = |own: &Own<Backend, FloatGauge>, value: Option<f64>| match value {
            Some(value) => drop(own.get(&label).set(value)),
            None => own.remove(&label),
        };
        let checkpoint = levels.checkpoint_millis.map(|millis| millis as f64 / 1e3);
        let oldest = self.handle.all.host.mongodb_oplog_first_timestamp.get(&[]).map(|oldest| oldest.get());
        set_if_known(&families.mirror_lag, levels.lag.map(|lag| lag.as_secs_f64()));
        set_if_known(&families.mirror_behind, levels.behind.map(|behind| behind.as_secs_f64()));
        set_if_known(&families.mirror_checkpoint_timestamp, checkpoint);
        let headroom = checkpoint.zip(oldest).map(|(checkpoint, oldest)| checkpoint - oldest);
        set_if_known(&families.mirror_oplog_headroom, headroom);
    }

    /// The state of the mirror, out of `all_states`.
    pub fn state(&self, state: &'static str, all_states: &[&'static str]) {
        for candidate in all_states {
            let labels = BackendState { backend: self.backend(), state: candidate };
            self.families().mirror_state.get(&labels).set(i64::from(*candidate == state));
        }
    }
}

/// Gauges are signed.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::declared;

    /// Something of everything that a backend has.
    fn count_all(backend: &BackendMetrics) {
        backend.kv_call("get-many", "ok", 3, Duration::from_micros(5));
        backend.kv_call("put-many", "trap", 3, Duration::from_micros(5));
        backend.kv_cpu(Duration::from_millis(5));
        backend.kv_refusal("connect");
        backend.kv_failure("trap");
        backend.kv_restart();
        backend.direct("applied");
        backend.tailed(1);
        backend.history_lost();
        backend.refreshed(1);
        backend.two_phase("prepared");
        backend.validation(Outcome::Missing);
        backend.confirmed("missing");
        backend.repairs("repaired", 2);
        backend.job_items("verify", 3);
        backend.job_difference("stale");
        backend.job_finished("verify", "done");
        backend.jobs_running(&[RunningJob { job_kind: "verify", done: 1, expected: 2 }]);
        backend.verified(1, 0);
        backend.levels(&levels());
        backend.state("live", &["loading", "live"]);
    }

    fn levels() -> Levels {
        Levels {
            lag: Some(Duration::ZERO),
            behind: Some(Duration::from_secs(1)),
            checkpoint_millis: Some(60_000),
            breakers: vec![("closed", 1), ("open", 1)],
            ..Levels::default()
        }
    }

    #[test]
    fn the_series_of_a_backend_go_with_its_last_user() {
        let metrics = Arc::new(Metrics::new());
        metrics.oplog_first(Some(10.0));
        let (first, other) = (metrics.backend("local"), metrics.backend("other"));
        let second = metrics.backend("local");
        count_all(&first);
        count_all(&other);
        let shown = metrics.render();
        for figure in declared().into_iter().filter(|figure| figure.labels.contains(&"backend")) {
            let name = figure.series().pop().unwrap();
            assert!(shown.contains(&format!("\n{name}{{backend=\"local\"")), "nothing counts {name}:\n{shown}");
        }
        let lines = |backend: &str| {
            let label = format!("backend=\"{backend}\"");
            metrics.render().lines().filter(|line| line.contains(&label)).count()
        };
        let all = lines("local");
        drop(first.clone());
        drop(first);
        assert_eq!(lines("local"), all);
        second.direct("dropped");
        drop(second);
        assert_eq!((lines("local"), lines("other")), (0, all));
        metrics.backend("local").tailed(1);
        assert_eq!(lines("local"), 0);
    }

    #[test]
    fn what_is_not_known_has_no_series() {
        let metrics = Arc::new(Metrics::new());
        let backend = metrics.backend("local");
        backend.levels(&levels());
        assert!(metrics.render().contains("memcell_mirror_checkpoint_timestamp_seconds{backend=\"local\"} 60.0\n"));
        assert!(!metrics.render().contains("headroom"), "nobody knows the oplog");
        metrics.oplog_first(Some(20.0));
        backend.levels(&levels());
        assert!(metrics.render().contains("memcell_mirror_oplog_headroom_seconds{backend=\"local\"} 40.0\n"));
        backend.levels(&Levels::default());
        let text = metrics.render();
        for name in ["checkpoint_timestamp", "headroom", "mirror_behind"] {
            assert!(!text.contains(name), "{name} is in\n{text}");
        }
    }

    #[test]
    fn jobs_that_have_ended_are_shown_as_none() {
        let metrics = Arc::new(Metrics::new());
        let backend = metrics.backend("local");
        backend.jobs_running(&[RunningJob { job_kind: "verify", done: 1, expected: 2 }]);
        assert!(metrics.render().contains("memcell_job_done_items{backend=\"local\",job_kind=\"verify\"} 1\n"));
        backend.jobs_running(&[]);
        let text = metrics.render();
        assert!(text.contains("memcell_jobs_running{backend=\"local\",job_kind=\"verify\"} 0\n"), "{text}");
        assert!(!text.contains("memcell_job_done_items"), "{text}");
    }

    #[test]
    fn what_alerts_look_for_is_counted_from_zero() {
        let metrics = Arc::new(Metrics::new());
        let _backend = metrics.backend("local");
        let text = metrics.render();
        for line in [
            "memcell_mirror_history_lost_total{backend=\"local\"} 0\n",
            "memcell_mismatches_confirmed_total{backend=\"local\",kind=\"missing\"} 0\n",
            "memcell_mirror_direct_writes_total{backend=\"local\",kind=\"dropped\"} 0\n",
            "memcell_kv_restarts_total{backend=\"local\"} 0\n",
            "memcell_jobs_finished_total{backend=\"local\",job_kind=\"verify\",result=\"failed\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
