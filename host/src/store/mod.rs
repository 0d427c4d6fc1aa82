//! The dual-write repository: MongoDB decides, the mirrors follow, reads can be compared. Knows no transport and no WebAssembly.
//!
//! Every write goes to MongoDB first. What MongoDB acknowledged is handed to each mirror without waiting (unless a backend is
//! configured with `ack = "mirrored"`), and what MongoDB refused never reaches one. Whatever state the backends are in, the
//! result of an operation is MongoDB's.

mod mismatches;
mod reads;
mod report;
mod transact;
mod validator;
mod writes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

pub use self::mismatches::Mismatch;
use self::mismatches::Mismatches;
pub use self::report::BackendReport;
pub use self::transact::{Operation, OperationResult};
use self::validator::Validator;
use crate::clock::Clock;
use crate::config::{Config, MongoDbConfig, MongoServer};
use crate::kv::Engine;
use crate::metrics::Metrics;
use crate::mirror::{Mirror, MirrorState};
use crate::mongo::embedded::EmbeddedServer;
use crate::mongo::{ConnectOptions, Repository};
use crate::validation::Outcome;
use crate::{Error, ErrorKind, Result};

/// The first and longest pause between attempts to create the indexes, while MongoDB can't be reached.
const INDEX_RETRY_MIN: Duration = Duration::from_millis(250);
const INDEX_RETRY_MAX: Duration = Duration::from_secs(15);

/// MemCells in MongoDB, mirrored. Cheap to clone; all clones are one store.
///
/// Futures of its operations can be dropped at any time; a write that was begun goes on to its end then, copies included.
#[derive(Clone)]
pub struct MemCellStore {
    inner: Arc<Inner>,
}

struct Inner {
    repository: Repository,
    mirrors: Vec<Arc<Mirror>>,
    validator: Option<Validator>,
    mismatches: Arc<Mismatches>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    /// Taken by whoever closes the store.
    embedded: tokio::sync::Mutex<Option<EmbeddedServer>>,
}

/// The result of a write, and how far its copies got.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// What MongoDB answered.
    pub value: T,
    /// What became of the copies by then.
    pub mirrored: Mirrored,
}

/// What became of the copies of a write when it was answered; with several backends, the worst of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mirrored {
    /// There is no backend, or nothing was changed.
    None,
    /// All backends that were waited for have it.
    Applied,
    /// It is on its way; nobody waited.
    Queued,
    /// A backend that was waited for did not answer within `ack_timeout`. It may still get there.
    TimedOut,
    /// A backend had no room for it, and will read it again from MongoDB.
    Dropped,
    /// A backend failed at it, and will read it again from MongoDB if it can.
    Failed,
}

impl Mirrored {
    /// The word for it in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Applied => "applied",
            Self::Queued => "queued",
            Self::TimedOut => "timeout",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

/// The result of a read, and how it compared.
#[derive(Debug, Clone)]
pub struct Read<T> {
    /// What MongoDB answered.
    pub value: T,
    /// How the copy compared; `None` if nobody asked.
    pub validation: Option<Validation>,
}

/// What came of validating a read. Of many documents: the worst outcome among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// It was done, with this outcome.
    Done(Outcome),
    /// It goes on in the background; a mismatch will be found in the list.
    Deferred,
}

impl Validation {
    /// The word for it in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done(outcome) => outcome.as_str(),
            Self::Deferred => "deferred",
        }
    }
}

/// Whether a read is to be validated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Validate {
    /// As the configuration says for this kind of read.
    #[default]
    Default,
    /// Yes, whatever the sampling ratio is.
    Yes,
    /// No.
    No,
}

impl MemCellStore {
    /// Opens the store: starts the embedded server if one is configured, prepares the connection, and starts the mirrors in the
    /// background. A MongoDB that is down is no error: operations and [`MemCellStore::ping`] tell, and the indexes are created
    /// when it comes. A backend that can't be loaded is no error either, unless it is `required`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URI that can't be used or a missing embedded server, [`ErrorKind::Unavailable`] for a required
    /// backend that fails.
    pub async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let (uri, embedded) = match &config.mongodb.server {
            MongoServer::Uri(uri) => (uri.expose().to_owned(), None),
            MongoServer::Embedded { data_directory } => {
                let server = EmbeddedServer::start(data_directory).await?;
                (server.uri(), Some(server))
            }
        };
        let clock = Arc::new(Clock::new());
        let repository = Repository::connect(&connect_options(&config.mongodb, uri), Arc::clone(&clock)).await?;
        let mirrors = start_mirrors(config, &repository, &clock, &metrics)?;
        let mismatches = Arc::new(Mismatches::new(config.validation.mismatches));
        let validated = config.validation.backend.as_deref();
        let validator = mirrors
            .iter()
            .find(|mirror| Some(mirror.config().name.as_str()) == validated)
            .map(|mirror| Validator::new(mirror, &repository, &config.validation, &mismatches));
        let closing = CancellationToken::new();
        tokio::spawn(closing.clone().run_until_cancelled_owned(create_indexes(repository.clone())));
        let inner = Inner {
            repository,
            mirrors,
            validator,
            mismatches,
            metrics,
            closing,
            embedded: tokio::sync::Mutex::new(embedded),
        };
        let store = Self { inner: Arc::new(inner) };
        if let Err(error) = store.await_required().await {
            store.close(config.http.shutdown_grace).await;
            return Err(error);
        }
        Ok(store)
    }

    /// Waits until each required backend has been opened.
    async fn await_required(&self) -> Result<()> {
        for mirror in self.inner.mirrors.iter().filter(|mirror| mirror.config().required) {
            let mut state = mirror.watch_state();
            // The mirror lives as long as the store, so its state can't go away.
            let Ok(state) = state.wait_for(|state| *state != MirrorState::Loading).await.map(|state| state.clone())
            else {
                continue;
            };
            if let MirrorState::Failed { reason } | MirrorState::Degraded { reason } = state {
                let message = format!("the required backend {} can't be used: {reason}", mirror.config().name);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        Ok(())
    }

    /// Whether MongoDB takes operations.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`], within the operation timeout.
    pub async fn ping(&self) -> Result<()> {
        self.inner.repository.ping().await
    }

    /// The figures of this store.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Brings the figures that are only measured when asked for up to date.
    pub fn refresh_metrics(&self) {
        self.inner.mirrors.iter().for_each(|mirror| mirror.refresh_metrics());
    }

    /// The mirrors, in the order of the configuration.
    pub fn mirrors(&self) -> &[Arc<Mirror>] {
        &self.inner.mirrors
    }

    /// Confirmed mismatches, the newest first; as many as `validation.mismatches` says.
    pub fn mismatches(&self) -> Vec<Mismatch> {
        self.inner.mismatches.list()
    }

    /// Applies what is queued, closes the backends and stops the embedded server. All of it takes `grace` at the most, but for
    /// the server, which is given a few seconds of its own. Returns what was left undone, if anything.
    ///
    /// Operations that are still running go on, without copies.
    pub async fn close(&self, grace: Duration) -> Option<String> {
        self.inner.closing.cancel();
        let closing = self.inner.mirrors.iter().map(|mirror| mirror.close(grace));
        let undone: Vec<String> = futures::future::join_all(closing).await.into_iter().flatten().collect();
        if let Some(server) = self.inner.embedded.lock().await.take() {
            server.stop().await;
        }
        (!undone.is_empty()).then(|| undone.join("; "))
    }

    /// Counts an operation and passes its result on.
    fn observe<T>(&self, operation: &'static str, started: Instant, result: Result<T>) -> Result<T> {
        let label = result.as_ref().err().map_or("ok", |error| error.kind().label());
        self.inner.metrics.operation(operation, label, started.elapsed());
        result
    }
}

fn connect_options(config: &MongoDbConfig, uri: String) -> ConnectOptions {
    ConnectOptions {
        uri,
        database: config.database.clone(),
        collection: config.collection.clone(),
        connect_timeout: config.connect_timeout,
        operation_timeout: config.operation_timeout,
    }
}

fn start_mirrors(
    config: &Config,
    repository: &Repository,
    clock: &Arc<Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Arc<Mirror>>> {
    let enabled: Vec<_> = config.backends.iter().filter(|backend| backend.enabled).collect();
    if enabled.is_empty() {
        tracing::info!("no backend is configured, MemCells are kept in MongoDB alone");
        return Ok(Vec::new());
    }
    let engine = Engine::new(Engine::default_cache_directory()).or_else(|error| {
        // A cache that can't be used (a read-only home, say) only costs time.
        tracing::warn!(%error, "compiled plugins are not cached");
        Engine::new(None)
    });
    let engine = engine.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let start = |backend: &crate::config::BackendConfig| {
        let config = Arc::new(backend.clone());
        Arc::new(Mirror::start(config, engine.clone(), repository.clone(), Arc::clone(clock), metrics))
    };
    Ok(enabled.into_iter().map(start).collect())
}

/// Tries until MongoDB has them all.
async fn create_indexes(repository: Repository) {
    let mut pause = INDEX_RETRY_MIN;
    loop {
        match repository.ensure_indexes().await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(?error, "could not create the indexes yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(INDEX_RETRY_MAX);
            }
        }
    }
}
