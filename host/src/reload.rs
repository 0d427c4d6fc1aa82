//! Reading the configuration file again, and taking it over into the running host: on a signal, or on request.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, ConfigError};
use crate::security::Security;
use crate::store::{MemCellStore, ReloadReport};
use crate::trace::carried;
use crate::{Error, ErrorKind};

/// Takes the configuration file of a host over into its store. Clones are one.
#[derive(Clone)]
pub struct Reloader {
    inner: Arc<Inner>,
}

struct Inner {
    /// As it was given at the start. Made absolute it would mean the same file, and yet another plugin for each backend: their
    /// paths are taken from this one's folder.
    path: PathBuf,
    store: MemCellStore,
    security: Security,
    set_log_level: Option<SetLogLevel>,
    /// From reading the file to having taken it over: else an older reading could be taken over after a newer one.
    one_at_a_time: tokio::sync::Mutex<()>,
}

/// What brings the directives of a new `log.level` into effect.
pub type SetLogLevel = Box<dyn Fn(&str) + Send + Sync>;

/// Why a configuration was not taken over. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file can't be read, or is wrong; or a token or the certificate that it names is.
    #[error("{0}")]
    Invalid(#[from] ConfigError),
    /// The store refuses it; see [`MemCellStore::reload`].
    #[error("{0}")]
    Refused(#[from] Error),
}

impl Reloader {
    /// For the store that was opened with the file at `path`, and what was read for it. `set_log_level` is told of each new `log.level`; without it, a
    /// new one waits for the next start.
    pub fn new(path: PathBuf, store: MemCellStore, security: Security, set_log_level: Option<SetLogLevel>) -> Self {
        let one_at_a_time = tokio::sync::Mutex::default();
        Self { inner: Arc::new(Inner { path, store, security, set_log_level, one_at_a_time }) }
    }

    /// Reads the file and takes it over, and logs each change. Once begun it goes on to its end, also if the future is dropped.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        let inner = Arc::clone(&self.inner);
        let reload = async move { Box::pin(inner.reload()).await };
        tokio::spawn(carried(reload)).await.unwrap_or_else(|error| Err(ended_early(error)))
    }
}

impl Inner {
    async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        let _one = self.one_at_a_time.lock().await;
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || Config::load_with(&path, Security::prepare));
        let (config, prepared) = reading.await.map_err(ended_early)??;
        let mut report = self.store.reload(&config).await?;
        // Nothing can be refused any more.
        for change in self.security.install(prepared) {
            if !report.changes.contains(&change) {
                tracing::info!(key = change.key, change = change.kind.as_str(), "configuration changed");
                report.changes.push(change);
            }
        }
        if report.changes.iter().any(|change| change.key == "log.level") {
            match &self.set_log_level {
                Some(set) => set(&config.log.level),
                None => tracing::warn!("log.level has changed, but something else decides what this host logs"),
            }
        }
        tracing::info!(file = %self.path.display(), changes = report.changes.len(), "configuration reloaded");
        Ok(report)
    }
}

fn ended_early(error: tokio::task::JoinError) -> ReloadError {
    ReloadError::Refused(Error::new(ErrorKind::Internal, "the reload did not come to its end").with_source(error))
}
