//! Every figure that `/metrics` shows: the one place where each is declared.
//!
//! The comment of a figure is its help text. Registration, the removal of what belongs to a backend, and `docs/metrics.md` are made
//! from these lines. A figure that isn't known has no series: nothing here is ever made up.
//!
//! No label may have values that clients can make up: `LABELS` says of each which there are.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Registry, Unit};

use super::declare::{
    Counter, Declared, Family, FloatCounter, FloatGauge, Gauge, Histogram, Labels, NoLabels, Own, families,
    families_of_backends, labels, register,
};

labels! {
    Build { version: &'static str, rustc: &'static str, wasmtime: &'static str }
    OperationResult { operation: &'static str, result: &'static str }
    Operation { operation: &'static str }
    HttpAnswer { route: Arc<str>, method: &'static str, status: u16 }
    HttpRoute { route: Arc<str>, method: &'static str }
    Backend { backend: Arc<str> }
    BackendKind { backend: Arc<str>, kind: &'static str }
    BackendState { backend: Arc<str>, state: &'static str }
    BackendResult { backend: Arc<str>, result: &'static str }
    Call { backend: Arc<str>, function: &'static str, result: &'static str }
    Function { backend: Arc<str>, function: &'static str }
    Job { backend: Arc<str>, job_kind: &'static str }
    JobResult { backend: Arc<str>, job_kind: &'static str, result: &'static str }
}

/// Each label, and the values that it can have.
#[cfg(test)]
pub(super) const LABELS: &[(&str, &str)] = &[
    ("backend", "the names of the backends in the configuration"),
    ("function", "the functions of the plugin contract, such as `get-many`"),
    ("job_kind", "`backfill`, `verify`, `repair`, `restore`, …: the kinds of `POST /v1/jobs`"),
    ("kind", "words of the host's own; each figure says which"),
    (
        "method",
        "`GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`, and `other` for whatever else clients make up",
    ),
    ("operation", "the operations of the store: `append`, `get`, `update`, `find`, …"),
    ("result", "`ok`, or the kind of the error; each figure says which"),
    (
        "route",
        "the patterns of `/openapi.json`, such as `/v1/memcells/{event_id}`, and `none` for paths that no route has",
    ),
    ("rustc", "the compiler that built the host"),
    ("state", "words of the host's own; each figure says which"),
    ("status", "the HTTP status codes that the host answers with"),
    ("version", "the version of the host"),
    ("wasmtime", "the version of the sandbox"),
];

/// From 50 microseconds to 13 seconds, doubling: operations on MongoDB.
fn operation_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 19))
}

/// From half a millisecond to 12 seconds: few, for there are many routes.
fn request_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.5, 12))
}

/// From 2 microseconds to 8 seconds, doubling: calls of plugins.
fn call_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_002, 2.0, 23))
}

families! {
    /// What there is once in a host.
    HostFamilies, named "memcell" {
        /// Always 1; its labels say what was built, and with what.
        build_info: Gauge[Build],
        /// Operations of the store; `result` is `ok` or the kind of the error.
        operations: Counter[OperationResult],
        /// Time from the call of a store operation to its result.
        operation_duration: Histogram[Operation] in Seconds by operation_buckets,
        /// Answered HTTP requests.
        http_requests: Counter[HttpAnswer],
        /// Time from the head of an HTTP request to the head of its answer.
        http_request_duration: Histogram[HttpRoute] in Seconds by request_buckets,
        /// Connections that clients have open; `http.max_connections` is how many there may be.
        http_connections: Gauge[NoLabels],
        /// Connections that were refused because there were as many as there may be.
        http_connections_refused: Counter[NoLabels],
        /// Whether MongoDB answered when it was last asked, which is done every 5 seconds: 1 or 0.
        mongodb_up: Gauge[NoLabels],
        /// When the oldest change happened that MongoDB's oplog still has; absent where that can't be read (rights,
        /// no oplog).
        mongodb_oplog_first_timestamp: FloatGauge[NoLabels] in Seconds,
    }
}

families! {
    /// What Prometheus shows of any process; absent where there is no `/proc`.
    ProcessFamilies, named "process" {
        /// When the process started, since the Unix epoch.
        start_time: FloatGauge[NoLabels] in Seconds,
        /// Processor time that all threads have used.
        cpu: FloatCounter[NoLabels] in Seconds,
        /// Memory in use, as far as it isn't swapped out.
        resident_memory: Gauge[NoLabels] in Bytes,
        /// Address space in use; sandboxes reserve much more of it than they use.
        virtual_memory: Gauge[NoLabels] in Bytes,
        /// Open file descriptors.
        open_fds: Gauge[NoLabels],
        /// How many file descriptors may be open.
        max_fds: Gauge[NoLabels],
        /// Threads.
        threads: Gauge[NoLabels],
    }
}

families_of_backends! {
    /// What there is once per backend.
    BackendFamilies, named "memcell", each Series {
        /// Validated reads; `kind` is the outcome: consistent, in-flight, missing, different, corrupt, unavailable,
        /// skipped.
        validations: Counter[BackendKind],
        /// Differences that persisted, both revisions unchanged, when looked at again; `kind` is missing, different
        /// or corrupt.
        mismatches_confirmed: Counter[BackendKind],
        /// Copies that were to be mended; `result` is repaired, failed, or refused (too many waiting, or another
        /// host's to mend).
        repairs: Counter[BackendResult],

        /// 1 for the state a mirror is in, 0 for the others: loading, backfilling, catching-up, live, degraded,
        /// failed, detached, closed.
        mirror_state: Gauge[BackendState],
        /// Age of the oldest change that is known and not in the backend; 0 if there is none, absent until the backend has followed MongoDB for the first time.
        mirror_lag: FloatGauge[Backend] in Seconds,
        /// How long ago the moment is up to which the backend is known to have everything; absent until it is for the
        /// first time.
        mirror_behind: FloatGauge[Backend] in Seconds,
        /// Direct writes waiting in the shard queues.
        mirror_queue_depth: Gauge[Backend],
        /// Memory held by direct writes waiting in the shard queues.
        mirror_queue: Gauge[Backend] in Bytes,
        /// Direct writes; `kind` is what became of them: applied, stale, dropped, failed, rejected.
        mirror_direct_writes: Counter[BackendKind],
        /// Keys brought up to date by the tail.
        mirror_tailed_keys: Counter[Backend],
        /// Keys re-read from MongoDB and written again by backfills and after lost writes.
        mirror_refreshed: Counter[Backend],
        /// Transactions in a backend with two phases; `kind` is what became of them: prepared, committed, aborted,
        /// failed.
        mirror_two_phase: Counter[BackendKind],
        /// The moment up to which the newest checkpoint says that everything is in the backend, durably; absent
        /// without one.
        mirror_checkpoint_timestamp: FloatGauge[Backend] in Seconds,
        /// How much older than the checkpoint the oldest change is that MongoDB still has: what is left before
        /// history is lost; absent if either isn't known.
        mirror_oplog_headroom: FloatGauge[Backend] in Seconds,
        /// Times that MongoDB no longer had the changes since the mirror was complete, and everything was copied anew.
        mirror_history_lost: Counter[Backend],

        /// Calls of a plugin's functions; `result` is ok or the error's kind, such as unavailable, trap, deadline,
        /// cpu, memory.
        kv_calls: Counter[Call],
        /// Time spent in a plugin's function, batches as one.
        kv_call_duration: Histogram[Function] in Seconds by call_buckets,
        /// Keys and entries handed over in calls of a plugin's functions.
        kv_items: Counter[Function],
        /// Instances lost or not to be had; `kind` is the reason: trap, deadline, cpu, memory, contract, …, and
        /// load_… if the plugin could not be loaded.
        kv_instance_failures: Counter[BackendKind],
        /// Instances opened to replace a lost one.
        kv_restarts: Counter[Backend],
        /// Shards whose breaker is in this state: closed, open (calls pause, or the shard was given up), half-open (a
        /// health check decides).
        kv_breakers: Gauge[BackendState],
        /// What a plugin wanted and was not granted; `kind` is file, socket, connect, bind or name.
        kv_refusals: Counter[BackendKind],
        /// Linear memory of all instances.
        kv_memory: Gauge[Backend] in Bytes,
        /// Processor time of the threads of a backend: its plugin's, and that of encoding and copying for it.
        kv_cpu: FloatCounter[Backend] in Seconds,

        /// Jobs that have not ended, as MongoDB has them: one on a shared backend is shown by all its hosts.
        jobs_running: Gauge[Job],
        /// Documents and entries that the running jobs have looked at, on all hosts; absent while none runs.
        job_done_items: Gauge[Job],
        /// About how many documents and entries the running jobs have to look at; absent while none runs.
        job_expected_items: Gauge[Job],
        /// Documents and entries looked at by this host; its rate is the pace of a job.
        job_items: Counter[Job],
        /// Jobs that ended, counted by the host that noted it; `result` is done, failed or cancelled.
        jobs_finished: Counter[JobResult],
        /// Differences that jobs of this host found; `kind` is missing, stale, different, corrupt, resurrected or
        /// extra.
        job_differences: Counter[BackendKind],
        /// When the newest verify or repair that came to its end did so; absent without one.
        verify_last_success_timestamp: FloatGauge[Backend] in Seconds,
        /// Differences that the newest verify or repair left as they were; absent without one.
        verify_differences_left: Gauge[Backend],
    }
}

/// Everything that was declared, in the order of `docs/metrics.md`.
pub fn declared() -> Vec<Declared> {
    [HostFamilies::declared(), BackendFamilies::declared(), ProcessFamilies::declared()].concat()
}
