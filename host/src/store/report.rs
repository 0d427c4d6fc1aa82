//! How each backend is doing, for operators.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::MemCellStore;
use crate::config::ValueFormat;
use crate::mirror::Mirror;

/// How long a backend may take to count what it holds before the report goes without.
const COUNT_BUDGET: Duration = Duration::from_millis(250);

/// One backend.
#[derive(Debug, Clone, Serialize)]
pub struct BackendReport {
    /// Its name in the configuration.
    pub name: String,
    /// The plugin's file.
    pub plugin: String,
    /// The SHA-256 digest of the plugin's file, once it is loaded.
    pub sha256: Option<String>,
    /// `loading`, `backfilling`, `catching-up`, `live`, `degraded`, `failed` or `closed`.
    pub state: &'static str,
    /// More about the state, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many instances share its keys.
    pub shards: u32,
    /// How documents are encoded in it: `json` or `bson`.
    pub format: &'static str,
    /// Whether reads are compared with this backend.
    pub validates: bool,
    /// Live entries; absent while the backend doesn't answer.
    pub entries: Option<u64>,
    /// Bytes of their keys and values.
    pub bytes: Option<u64>,
    /// Changes waiting in its queues.
    pub queue_depth: usize,
    /// Bytes that they keep in memory.
    pub queue_bytes: usize,
    /// Linear memory of all its instances.
    pub memory_bytes: u64,
    /// Instances that were opened in place of lost ones.
    pub restarts: u64,
    /// How long ago the oldest change happened that is known and not in the backend, in seconds; absent until the backend has followed
    /// MongoDB for the first time.
    pub lag_seconds: Option<f64>,
    /// The host that keeps a shared backend converged, if it isn't this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tailed_by: Option<String>,
}

/// The state of one backend.
#[derive(Debug, Clone, Serialize)]
pub struct BackendState {
    /// Its name in the configuration.
    pub name: String,
    /// As in [`BackendReport::state`].
    pub state: &'static str,
}

impl MemCellStore {
    /// The states of all backends, in the order of the configuration. Asks nobody for them.
    pub fn backend_states(&self) -> Vec<BackendState> {
        let mirrors = &self.backends_now().mirrors;
        let state =
            |mirror: &Arc<Mirror>| BackendState { name: mirror.config().name.clone(), state: mirror.state().name() };
        mirrors.iter().map(state).collect()
    }

    /// All backends, in the order of the configuration. Takes a fraction of a second at the most.
    pub async fn backends(&self) -> Vec<BackendReport> {
        let backends = self.backends_now();
        let validated = backends.validator.as_ref().map(|validator| validator.mirror());
        let reports = backends.mirrors.iter().map(|mirror| async {
            let report = mirror.report(COUNT_BUDGET).await;
            let config = mirror.config();
            BackendReport {
                name: config.name.clone(),
                plugin: config.plugin.to_string(),
                sha256: report.plugin_sha256,
                state: report.state.name(),
                reason: report.state.reason(),
                shards: config.shards,
                format: match config.format {
                    ValueFormat::Json => "json",
                    ValueFormat::Bson => "bson",
                },
                validates: validated.is_some_and(|validated| Arc::ptr_eq(validated, mirror)),
                entries: report.usage.map(|usage| usage.entries),
                bytes: report.usage.map(|usage| usage.bytes),
                queue_depth: report.load.queue_depth,
                queue_bytes: report.load.queue_bytes,
                memory_bytes: report.load.memory_bytes,
                restarts: report.load.restarts,
                lag_seconds: report.lag.map(|lag| lag.as_secs_f64()),
                tailed_by: report.tailed_by,
            }
        });
        futures::future::join_all(reports).await
    }
}
