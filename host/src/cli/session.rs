//! What commands that work on documents share: a runtime, an open store, and a proper end.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::{Exit, Failure};
use crate::config::{BackendConfig, Config};
use crate::kv::{Engine, LoadError, Plugin};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::MemCellStore;

/// The runtime of a command.
///
/// # Errors
/// If the operating system has no threads left.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::io("the runtime", &error))
}

/// The plugin of a backend, compiled as a host would have it, with the same cache.
///
/// # Errors
/// What is wrong with its file, or with the system.
pub(super) async fn plugin(backend: &BackendConfig) -> Result<Plugin, LoadError> {
    let engine = Engine::new(Engine::default_cache_directory())?;
    Box::pin(Plugin::obtain(&engine, backend)).await
}

/// The configuration for a command that works on MongoDB alone: without backends, which belong to the host that serves.
pub(super) fn without_backends(mut config: Config) -> Config {
    config.backends.clear();
    config.validation.backend = None;
    config
}

/// Opens the store, does the work, and closes the store however the work ended. The work is told of signals, and has to end soon then.
///
/// # Errors
/// Those of the work, or of opening the store.
pub(super) fn with_store<F>(config: &Config, work: F) -> Result<Exit, Failure>
where
    F: AsyncFnOnce(&MemCellStore, &Shutdown) -> Result<Exit, Failure>,
{
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(|error| Failure::io("signals", &error))?;
        let store = Box::pin(MemCellStore::open(config, Arc::new(Metrics::new()))).await?;
        let outcome = Box::pin(work(&store, &shutdown)).await;
        if let Some(left) = store.close(config.http.shutdown_grace).await {
            tracing::warn!(%left, "the store was not closed cleanly");
        }
        outcome
    });
    // A thread that reads a terminal or a pipe can't be made to stop; it must not keep the process.
    runtime.shutdown_background();
    outcome
}
