//! Every figure that `/metrics` shows, declared once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::validation::Outcome;

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From 50 microseconds to 13 seconds, doubling: operations on MongoDB.
fn operation_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 19))
}

/// From 2 microseconds to 8 seconds, doubling: calls of plugins.
fn call_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_002, 2.0, 23))
}

/// A counter of time.
type Seconds = Counter<f64, AtomicU64>;

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabel {
    backend: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendKindLabels {
    backend: Arc<str>,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendStateLabels {
    backend: Arc<str>,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    backend: Arc<str>,
    function: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabels {
    backend: Arc<str>,
    function: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

/// The figures of one process.
pub struct Metrics {
    registry: Registry,
    operations: Family<OperationLabels, Counter>,
    operation_duration: Histograms<OperationLabel>,
    http_requests: Family<HttpLabels, Counter>,
    validations: Family<BackendKindLabels, Counter>,
    confirmed: Family<BackendKindLabels, Counter>,
    queue_depth: Family<BackendLabel, Gauge>,
    queue_bytes: Family<BackendLabel, Gauge>,
    lag: Family<BackendLabel, Gauge<f64, AtomicU64>>,
    tailed: Family<BackendLabel, Counter>,
    history_lost: Family<BackendLabel, Counter>,
    memory_bytes: Family<BackendLabel, Gauge>,
    mirror_state: Family<BackendStateLabels, Gauge>,
    direct: Family<BackendKindLabels, Counter>,
    refreshed: Family<BackendLabel, Counter>,
    kv_calls: Family<CallLabels, Counter>,
    kv_duration: Histograms<FunctionLabels>,
    kv_items: Family<FunctionLabels, Counter>,
    kv_failures: Family<BackendKindLabels, Counter>,
    kv_restarts: Family<BackendLabel, Counter>,
    kv_refusals: Family<BackendKindLabels, Counter>,
    kv_cpu: Family<BackendLabel, Seconds>,
}

impl Metrics {
    /// All figures at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("memcell");
        registry.register(
            "build",
            "The version of the running host",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let operations = Family::default();
        registry.register("operations", "Operations of the store by result", operations.clone());
        let operation_duration = Histograms::new_with_constructor(operation_buckets as fn() -> Histogram);
        registry.register_with_unit(
            "operation_duration",
            "Time from the call of a store operation to its result",
            Unit::Seconds,
            operation_duration.clone(),
        );
        let http_requests = Family::default();
        registry.register("http_requests", "Answered HTTP requests by route and status", http_requests.clone());
        let validations = Family::default();
        registry.register("validations", "Validated reads by outcome (kind)", validations.clone());
        let confirmed = Family::default();
        registry.register(
            "mismatches_confirmed",
            "Differences that persisted, both revisions unchanged, when looked at again",
            confirmed.clone(),
        );
        let queue_depth = Family::default();
        registry.register("mirror_queue_depth", "Direct writes waiting in the shard queues", queue_depth.clone());
        let queue_bytes = Family::default();
        registry.register_with_unit(
            "mirror_queue",
            "Memory held by direct writes waiting in the shard queues",
            Unit::Bytes,
            queue_bytes.clone(),
        );
        let lag = Family::default();
        registry.register_with_unit(
            "mirror_lag",
            "Age of the oldest change that is known and not in the backend",
            Unit::Seconds,
            lag.clone(),
        );
        let tailed = Family::default();
        registry.register("mirror_tailed_keys", "Keys brought up to date by the tail", tailed.clone());
        let history_lost = Family::default();
        registry.register(
            "mirror_history_lost",
            "Times that MongoDB no longer had the changes since the mirror was complete",
            history_lost.clone(),
        );
        let memory_bytes = Family::default();
        registry.register_with_unit(
            "kv_memory",
            "Linear memory of all instances of a backend",
            Unit::Bytes,
            memory_bytes.clone(),
        );
        let mirror_state = Family::default();
        registry.register("mirror_state", "1 for the state a mirror is in, 0 for the others", mirror_state.clone());
        let direct = Family::default();
        registry.register("mirror_direct_writes", "Direct writes by what became of them (kind)", direct.clone());
        let refreshed = Family::default();
        registry.register(
            "mirror_refreshed",
            "Keys re-read from MongoDB and written again by backfills and after lost writes",
            refreshed.clone(),
        );
        let kv_calls = Family::default();
        registry.register("kv_calls", "Calls of a plugin's functions by result", kv_calls.clone());
        let kv_duration = Histograms::new_with_constructor(call_buckets as fn() -> Histogram);
        registry.register_with_unit(
            "kv_call_duration",
            "Time spent in a plugin's function, batches as one",
            Unit::Seconds,
            kv_duration.clone(),
        );
        let kv_items = Family::default();
        registry.register(
            "kv_items",
            "Keys and entries handed over in calls of a plugin's functions",
            kv_items.clone(),
        );
        let kv_failures = Family::default();
        registry.register(
            "kv_instance_failures",
            "Instances lost or not to be had, by reason (kind); what a plugin could not be loaded for begins with load_",
            kv_failures.clone(),
        );
        let kv_restarts = Family::default();
        registry.register("kv_restarts", "Instances opened to replace a lost one", kv_restarts.clone());
        let kv_refusals = Family::default();
        registry.register(
            "kv_refusals",
            "What a plugin wanted and was not granted: file, socket, connect, bind, name (kind)",
            kv_refusals.clone(),
        );
        let kv_cpu = Family::default();
        registry.register_with_unit(
            "kv_cpu",
            "Processor time of a backend's threads: its plugin's, and that of encoding and copying for it",
            Unit::Seconds,
            kv_cpu.clone(),
        );
        Self {
            registry,
            operations,
            operation_duration,
            http_requests,
            validations,
            confirmed,
            queue_depth,
            queue_bytes,
            lag,
            tailed,
            history_lost,
            memory_bytes,
            mirror_state,
            direct,
            refreshed,
            kv_calls,
            kv_duration,
            kv_items,
            kv_failures,
            kv_restarts,
            kv_refusals,
            kv_cpu,
        }
    }

    /// All figures in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// One finished operation of the store; `result` is `ok` or the kind of its error.
    pub fn operation(&self, operation: &'static str, result: &'static str, elapsed: Duration) {
        self.operations.get_or_create(&OperationLabels { operation, result }).inc();
        self.operation_duration.get_or_create(&OperationLabel { operation }).observe(elapsed.as_secs_f64());
    }

    /// One answered HTTP request; `route` is the pattern, never the path.
    pub fn http_request(&self, route: &str, method: &'static str, status: u16) {
        self.http_requests.get_or_create(&HttpLabels { route: route.into(), method, status }).inc();
    }

    /// The figures of one backend.
    pub fn backend(self: &Arc<Self>, name: &str) -> BackendMetrics {
        let backend: Arc<str> = name.into();
        let counter = |outcome: Outcome| {
            let labels = BackendKindLabels { backend: Arc::clone(&backend), kind: outcome.as_str() };
            (outcome, self.validations.get_or_create_owned(&labels))
        };
        let validations = Outcome::ALL.map(counter);
        let kv_cpu = self.kv_cpu.get_or_create_owned(&BackendLabel { backend: Arc::clone(&backend) });
        BackendMetrics { all: Arc::clone(self), backend, validations, kv_cpu }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The figures of one backend, to be handed to whoever makes them.
#[derive(Clone)]
pub struct BackendMetrics {
    all: Arc<Metrics>,
    backend: Arc<str>,
    /// Looked up once: a validated read of many documents counts each of them.
    validations: [(Outcome, Counter); Outcome::ALL.len()],
    /// Likewise: each turn of a shard adds to it.
    kv_cpu: Seconds,
}

impl fmt::Debug for BackendMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendMetrics").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl BackendMetrics {
    fn label(&self) -> BackendLabel {
        BackendLabel { backend: Arc::clone(&self.backend) }
    }

    fn kind(&self, kind: &'static str) -> BackendKindLabels {
        BackendKindLabels { backend: Arc::clone(&self.backend), kind }
    }

    /// One call of a plugin's function with so many items; `result` is `ok` or the label of its error.
    pub fn kv_call(&self, function: &'static str, result: &'static str, items: usize, elapsed: Duration) {
        let labels = CallLabels { backend: Arc::clone(&self.backend), function, result };
        self.all.kv_calls.get_or_create(&labels).inc();
        let labels = FunctionLabels { backend: Arc::clone(&self.backend), function };
        self.all.kv_duration.get_or_create(&labels).observe(elapsed.as_secs_f64());
        self.all.kv_items.get_or_create(&labels).inc_by(items as u64);
    }

    /// The threads of the backend have worked for so long.
    pub fn kv_cpu(&self, elapsed: Duration) {
        self.kv_cpu.inc_by(elapsed.as_secs_f64());
    }

    /// A plugin wanted what it was not granted.
    pub fn kv_refusal(&self, kind: &'static str) {
        self.all.kv_refusals.get_or_create(&self.kind(kind)).inc();
    }

    /// An instance was lost, or could not be had.
    pub fn kv_failure(&self, kind: &'static str) {
        self.all.kv_failures.get_or_create(&self.kind(kind)).inc();
    }

    /// A lost instance was replaced.
    pub fn kv_restart(&self) {
        self.all.kv_restarts.get_or_create(&self.label()).inc();
    }

    /// What became of a direct write: `applied`, `stale`, `dropped`, `failed`, `rejected`.
    pub fn direct(&self, kind: &'static str) {
        self.all.direct.get_or_create(&self.kind(kind)).inc();
    }

    /// The tail brought so many keys up to date.
    pub fn tailed(&self, keys: u64) {
        self.all.tailed.get_or_create(&self.label()).inc_by(keys);
    }

    /// MongoDB no longer had the changes since the mirror was last complete.
    pub fn history_lost(&self) {
        self.all.history_lost.get_or_create(&self.label()).inc();
    }

    /// Keys were re-read and written again.
    pub fn refreshed(&self, keys: u64) {
        self.all.refreshed.get_or_create(&self.label()).inc_by(keys);
    }

    /// One validated read.
    pub fn validation(&self, outcome: Outcome) {
        if let Some((_, counter)) = self.validations.iter().find(|(known, _)| *known == outcome) {
            counter.inc();
        }
    }

    /// One confirmed mismatch.
    pub fn confirmed(&self, kind: &'static str) {
        self.all.confirmed.get_or_create(&self.kind(kind)).inc();
    }

    /// The levels that are measured when somebody asks for them.
    pub fn levels(&self, queue_depth: usize, queue_bytes: usize, lag: Duration, memory_bytes: u64) {
        let set = |family: &Family<BackendLabel, Gauge>, value: u64| {
            family.get_or_create(&self.label()).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.all.queue_depth, queue_depth as u64);
        set(&self.all.queue_bytes, queue_bytes as u64);
        self.all.lag.get_or_create(&self.label()).set(lag.as_secs_f64());
        set(&self.all.memory_bytes, memory_bytes);
    }

    /// The state of the mirror, out of `all_states`.
    pub fn state(&self, state: &'static str, all_states: &[&'static str]) {
        for candidate in all_states {
            let labels = BackendStateLabels { backend: Arc::clone(&self.backend), state: candidate };
            self.all.mirror_state.get_or_create(&labels).set(i64::from(*candidate == state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rendered_with_their_labels() {
        let metrics = Arc::new(Metrics::new());
        metrics.operation("append", "ok", Duration::from_millis(1));
        let backend = metrics.backend("local");
        backend.kv_call("get-many", "ok", 3, Duration::from_micros(5));
        backend.kv_cpu(Duration::from_millis(1500));
        backend.kv_refusal("connect");
        backend.state("live", &["loading", "live"]);
        let text = metrics.render();
        for line in [
            "memcell_operations_total{operation=\"append\",result=\"ok\"} 1",
            "memcell_kv_items_total{backend=\"local\",function=\"get-many\"} 3",
            "memcell_mirror_state{backend=\"local\",state=\"live\"} 1",
            "memcell_mirror_state{backend=\"local\",state=\"loading\"} 0",
            "memcell_kv_cpu_seconds_total{backend=\"local\"} 1.5",
            "memcell_kv_refusals_total{backend=\"local\",kind=\"connect\"} 1",
            "memcell_kv_call_duration_seconds_count{backend=\"local\",function=\"get-many\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
