//! What `/metrics` shows. Each figure is declared once, in `families`; everybody else only counts.

mod backend;
mod declare;
mod families;
mod format;
mod process;
#[cfg(test)]
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use self::backend::Counted;
pub use self::backend::{BackendMetrics, BackendTotals, Levels, RunningJob};
pub use self::declare::Declared;
pub use self::families::declared;
use self::families::{
    BackendFamilies, Build, HostFamilies, HttpAnswer, HttpRoute, Operation, OperationResult, ProcessFamilies,
};
pub use self::format::Format;
use self::process::Process;

/// The `Content-Type` of `/metrics` for those who ask for nothing else.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The figures of one process.
pub struct Metrics {
    registry: Registry,
    host: HostFamilies,
    of_backends: BackendFamilies,
    process: Process,
    /// The backends that somebody counts something for.
    backends: Mutex<HashMap<Arc<str>, Counted>>,
}

impl Metrics {
    /// All figures at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let host = HostFamilies::register(&mut registry);
        let of_backends = BackendFamilies::register(&mut registry);
        let process = Process::new(ProcessFamilies::register(&mut registry));
        let build = Build {
            version: env!("CARGO_PKG_VERSION"),
            rustc: env!("MEMCELL_RUSTC_VERSION"),
            wasmtime: env!("MEMCELL_WASMTIME_VERSION"),
        };
        host.build_info.get_or_create(&build).set(1);
        Self { registry, host, of_backends, process, backends: Mutex::default() }
    }

    /// All figures, for the default `accept` header.
    pub fn render(&self) -> String {
        self.render_as(Format::Text)
    }

    /// All figures in this format.
    pub fn render_as(&self, format: Format) -> String {
        self.process.refresh();
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        // The library writes an empty set of labels where there are none.
        let text = text.replace("{} ", " ");
        match format {
            Format::OpenMetrics => text,
            Format::Text => format::to_text(&text),
        }
    }

    /// One finished operation of the store; `result` is `ok` or the kind of its error.
    pub fn operation(&self, operation: &'static str, result: &'static str, elapsed: Duration) {
        self.host.operations.get_or_create(&OperationResult { operation, result }).inc();
        self.host.operation_duration.get_or_create(&Operation { operation }).observe(elapsed.as_secs_f64());
    }

    /// One answered HTTP request; `route` is the pattern, never the path.
    pub fn http_request(&self, route: &str, method: &'static str, status: u16, elapsed: Duration) {
        let route: Arc<str> = route.into();
        self.host.http_requests.get_or_create(&HttpAnswer { route: Arc::clone(&route), method, status }).inc();
        self.host.http_request_duration.get_or_create(&HttpRoute { route, method }).observe(elapsed.as_secs_f64());
    }

    /// How many connections clients have open.
    pub fn http_connections(&self, open: usize) {
        self.host.http_connections.get_or_create(&[]).set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Connections that there was no room for, none included: what hasn't been counted yet is there to be compared with.
    pub fn http_refusals(&self, refused: u64) {
        self.host.http_connections_refused.get_or_create(&[]).inc_by(refused);
    }

    /// Whether MongoDB answered when it was asked just now.
    pub fn mongodb_up(&self, up: bool) {
        self.host.mongodb_up.get_or_create(&[]).set(i64::from(up));
    }

    /// When the oldest change happened that the oplog still has, in seconds since the Unix epoch; `None`: that isn't known.
    pub fn oplog_first(&self, seconds: Option<f64>) {
        let family = &self.host.mongodb_oplog_first_timestamp;
        match seconds {
            Some(seconds) => drop(family.get_or_create(&[]).set(seconds)),
            None => drop(family.remove(&[])),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rendered_with_their_labels() {
        let metrics = Arc::new(Metrics::new());
        metrics.operation("append", "ok", Duration::from_millis(1));
        metrics.mongodb_up(true);
        let backend = metrics.backend("local");
        backend.kv_call("get-many", "ok", 3, Duration::from_micros(5));
        backend.kv_cpu(Duration::from_millis(1500));
        backend.kv_refusal("connect");
        backend.state("live", &["loading", "live"]);
        let text = metrics.render();
        for line in [
            "memcell_operations_total{operation=\"append\",result=\"ok\"} 1\n",
            "memcell_mongodb_up 1\n",
            "memcell_kv_items_total{backend=\"local\",function=\"get-many\"} 3\n",
            "memcell_mirror_state{backend=\"local\",state=\"live\"} 1\n",
            "memcell_mirror_state{backend=\"local\",state=\"loading\"} 0\n",
            "memcell_kv_cpu_seconds_total{backend=\"local\"} 1.5\n",
            "memcell_kv_refusals_total{backend=\"local\",kind=\"connect\"} 1\n",
            "memcell_kv_call_duration_seconds_count{backend=\"local\",function=\"get-many\"} 1\n",
            "# TYPE memcell_operations_total counter\n",
            "# TYPE process_open_fds gauge\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("process_open_fds 0") && !text.contains("oplog"), "{text}");
        let open_metrics = metrics.render_as(Format::OpenMetrics);
        assert!(open_metrics.contains("# TYPE memcell_operations counter\n") && open_metrics.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_not_known_any_more_is_not_shown() {
        let metrics = Metrics::new();
        metrics.oplog_first(Some(1.5));
        assert!(metrics.render().contains("memcell_mongodb_oplog_first_timestamp_seconds 1.5\n"));
        metrics.oplog_first(None);
        assert!(!metrics.render().contains("oplog_first"));
    }
}
