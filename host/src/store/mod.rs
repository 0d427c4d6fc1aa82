//! The dual-write repository: MongoDB decides, the mirrors follow, reads can be compared. Knows no transport and no WebAssembly.
//!
//! Every write goes to MongoDB first, but for backends with `two_phase`, which promise it before MongoDB commits it. What MongoDB acknowledged is handed to each mirror without waiting (unless a backend is
//! configured with `ack = "mirrored"`), and what MongoDB refused never reaches one. Whatever state the backends are in, the
//! result of an operation is MongoDB's.

mod backends;
mod history;
mod mismatches;
mod reads;
mod reload;
mod repair;
mod report;
mod transact;
mod two_phase;
mod validator;
mod watch;
mod writes;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::backends::{Backends, CurrentBackends, Launcher};
pub use self::history::{BackendSample, MOST_SAMPLES, Operations, SAMPLE_INTERVAL, Sample};
use self::history::{History, OperationCounts};
pub use self::mismatches::Mismatch;
use self::mismatches::Mismatches;
pub use self::reload::ReloadReport;
pub use self::report::{BackendReport, BackendState};
pub use self::transact::{Operation, OperationResult};
use self::validator::Validator;
use crate::clock::Clock;
use crate::config::{Config, HostConfig, MongoDbConfig, MongoServer};
use crate::metrics::Metrics;
use crate::mirror::{Mirror, MirrorState, Purpose, Surroundings, Underway};
use crate::mongo::embedded::EmbeddedServer;
use crate::mongo::{ConnectOptions, Repository};
use crate::steps::Steps;
use crate::validation::Outcome;
use crate::{Error, ErrorKind, Result};

/// How long the end of the sessions at MongoDB may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The first and longest pause between attempts to create the indexes, while MongoDB can't be reached.
const INDEX_RETRY_MIN: Duration = Duration::from_millis(250);
const INDEX_RETRY_MAX: Duration = Duration::from_secs(15);

/// How often the collection is looked at for whether it still has indexes.
const INDEX_PERIOD: Duration = Duration::from_secs(10);

/// MemCells in MongoDB, mirrored. Cheap to clone; all clones are one store.
///
/// Futures of its operations can be dropped at any time; a write that was begun goes on to its end then, copies included.
#[derive(Clone)]
pub struct MemCellStore {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<str>,
    clock: Arc<Clock>,
    repository: Repository,
    backends: CurrentBackends,
    mismatches: Arc<Mismatches>,
    metrics: Arc<Metrics>,
    /// What the store runs with.
    config: RwLock<Arc<Config>>,
    /// Whoever holds it changes the backends and the configuration.
    launcher: tokio::sync::Mutex<Launcher>,
    opened: (bson::DateTime, Instant),
    operations: OperationCounts,
    history: History,
    /// What is still to be done about backends that came or went.
    successions: TaskTracker,
    /// What is still to be done about writes that were answered.
    conclusions: TaskTracker,
    underway: Underway,
    steps: Steps,
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

/// What became of the copies of a write when it was answered; with several backends, the worst of those that were waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mirrored {
    /// There is no backend, or nothing was changed.
    None,
    /// It is on its way; nobody waited.
    Queued,
    /// All backends that were waited for have it.
    Applied,
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
    /// [`ErrorKind::Config`] for a URI that can't be used, a missing embedded server, or a required backend that can't be used as it is
    /// configured; [`ErrorKind::Unavailable`] for one that can't be used now.
    pub async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        Self::open_for(config, metrics, Purpose::Mirroring, Steps::default()).await
    }

    /// As [`MemCellStore::open`], with somebody who is told of the steps of writes in two phases.
    ///
    /// # Errors
    /// As [`MemCellStore::open`].
    pub async fn open_observed(config: &Config, metrics: Arc<Metrics>, steps: Steps) -> Result<Self> {
        Self::open_for(config, metrics, Purpose::Mirroring, steps).await
    }

    /// As [`MemCellStore::open`], with the backends open to be read, and left as they are: what they hold is to be restored.
    ///
    /// # Errors
    /// As [`MemCellStore::open`].
    pub async fn open_detached(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        Self::open_for(config, metrics, Purpose::Reading, Steps::default()).await
    }

    async fn open_for(config: &Config, metrics: Arc<Metrics>, purpose: Purpose, steps: Steps) -> Result<Self> {
        let (uri, embedded) = match &config.mongodb.server {
            MongoServer::Uri(uri) => (uri.expose().to_owned(), None),
            MongoServer::Embedded { data_directory } => {
                let server = EmbeddedServer::start(data_directory).await?;
                (server.uri(), Some(server))
            }
        };
        let clock = Arc::new(Clock::new());
        let repository = Repository::connect(&connect_options(&config.mongodb, uri), Arc::clone(&clock)).await?;
        let surroundings = Surroundings {
            identity: identity(&config.host),
            repository: repository.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            underway: Underway::default(),
            steps,
        };
        let mut launcher = Launcher::new(surroundings.clone(), purpose);
        let enabled = config.backends.iter().filter(|backend| backend.enabled);
        let mirrors = enabled.map(|backend| launcher.start(backend)).collect::<Result<Vec<_>>>()?;
        if mirrors.is_empty() {
            tracing::info!("no backend is configured, MemCells are kept in MongoDB alone");
        }
        let mismatches = Arc::new(Mismatches::new(config.validation.mismatches));
        let mut backends = Backends::new(mirrors, None);
        let validated = config.validation.backend.as_deref().and_then(|name| backends.mirror(name));
        backends.validator =
            validated.map(|mirror| Validator::new(mirror, &repository, &config.validation, &mismatches));
        let closing = CancellationToken::new();
        tokio::spawn(closing.clone().run_until_cancelled_owned(keep_indexes(repository.clone())));
        tokio::spawn(closing.clone().run_until_cancelled_owned(watch::keep(repository.clone(), Arc::clone(&metrics))));
        let inner = Inner {
            identity: surroundings.identity,
            clock,
            repository,
            backends: CurrentBackends::new(backends),
            mismatches,
            metrics,
            config: RwLock::new(Arc::new(config.clone())),
            launcher: tokio::sync::Mutex::new(launcher),
            opened: (bson::DateTime::now(), Instant::now()),
            operations: OperationCounts::default(),
            history: History::default(),
            successions: TaskTracker::new(),
            conclusions: TaskTracker::new(),
            underway: surroundings.underway,
            steps: surroundings.steps,
            closing,
            embedded: tokio::sync::Mutex::new(embedded),
        };
        let store = Self { inner: Arc::new(inner) };
        let sampling = history::keep(Arc::downgrade(&store.inner));
        tokio::spawn(store.inner.closing.clone().run_until_cancelled_owned(sampling));
        if let Err(error) = await_required(&store.mirrors()).await {
            store.close(config.http.shutdown_grace).await;
            return Err(error);
        }
        Ok(store)
    }

    /// The set of backends for an operation that starts now.
    fn backends_now(&self) -> Arc<Backends> {
        self.inner.backends.get()
    }

    /// The configuration that is in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the store was opened, and how long ago that is by a clock that nobody sets.
    pub fn opened(&self) -> (bson::DateTime, Duration) {
        let (at, since) = self.inner.opened;
        (at, since.elapsed())
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
        self.backends_now().mirrors.iter().for_each(|mirror| mirror.refresh_metrics());
    }

    /// A name of this process alone, by which it is known to other hosts.
    pub(crate) fn process(&self) -> &str {
        &self.inner.identity
    }

    /// The clock that revisions and stamps are read from.
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// MongoDB itself, for work on the collection as a whole.
    pub(crate) fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// The mirrors that there are now, in the order of the configuration. One that a reload takes out is closed soon after,
    /// whoever still has it.
    pub fn mirrors(&self) -> Vec<Arc<Mirror>> {
        self.backends_now().mirrors.clone()
    }

    /// The mirror of the backend of this name.
    pub fn mirror(&self, name: &str) -> Option<Arc<Mirror>> {
        self.backends_now().mirror(name).cloned()
    }

    /// Confirmed mismatches, the newest first; as many as `validation.mismatches` says.
    pub fn mismatches(&self) -> Vec<Mismatch> {
        self.inner.mismatches.list()
    }

    /// How many confirmed mismatches are listed, and a number that grows whenever the list changes.
    pub fn mismatch_count(&self) -> (usize, u64) {
        self.inner.mismatches.count()
    }

    /// Applies what is queued, closes the backends and stops the embedded server. All of it takes `grace` at the most, but for
    /// the server, which is given a few seconds of its own, and for a reload in the middle of handing a directory over, which
    /// takes up to twice as long more. Returns what was left undone, if anything.
    ///
    /// Operations that are still running are given up.
    pub async fn close(&self, grace: Duration) -> Option<String> {
        self.inner.closing.cancel();
        // A reload under way gives up soon, and none comes after it.
        drop(self.inner.launcher.lock().await);
        let started = Instant::now();
        self.inner.conclusions.close();
        // What is left undone is in doubt at the next start, and decided then.
        let _ = tokio::time::timeout(grace, self.inner.conclusions.wait()).await;
        let grace = grace.saturating_sub(started.elapsed());
        let mirrors = self.mirrors();
        let closing = futures::future::join_all(mirrors.iter().map(|mirror| mirror.close(grace)));
        self.inner.successions.close();
        let succeeded = tokio::time::timeout(grace, self.inner.successions.wait());
        let (undone, succeeded) = tokio::join!(closing, succeeded);
        let mut undone: Vec<String> = undone.into_iter().flatten().collect();
        if succeeded.is_err() {
            undone.push(format!("a backend that was removed did not finish within {grace:?}"));
        }
        self.inner.repository.disconnect(DISCONNECT_TIMEOUT).await;
        if let Some(server) = self.inner.embedded.lock().await.take() {
            server.stop().await;
        }
        (!undone.is_empty()).then(|| undone.join("; "))
    }

    /// Counts an operation and passes its result on.
    fn observe<T>(&self, operation: &'static str, started: Instant, result: Result<T>) -> Result<T> {
        let label = result.as_ref().err().map_or("ok", |error| error.kind().label());
        self.inner.metrics.operation(operation, label, started.elapsed());
        self.inner.operations.count(operation, result.as_ref().err());
        result
    }
}

pub(crate) fn connect_options(config: &MongoDbConfig, uri: String) -> ConnectOptions {
    ConnectOptions {
        uri,
        database: config.database.clone(),
        collection: config.collection.clone(),
        connect_timeout: config.connect_timeout,
        operation_timeout: config.operation_timeout,
    }
}

/// Waits until each required backend among these has been opened.
///
/// # Errors
/// Which one can't be used, and why: [`ErrorKind::Config`] if that stays so, else [`ErrorKind::Unavailable`].
async fn await_required(mirrors: &[Arc<Mirror>]) -> Result<()> {
    for mirror in mirrors.iter().filter(|mirror| mirror.config().required) {
        let mut state = mirror.watch_state();
        // The sender lives as long as the mirror.
        let Ok(state) = state.wait_for(|state| *state != MirrorState::Loading).await.map(|state| state.clone()) else {
            continue;
        };
        let (kind, reason) = match state {
            MirrorState::Failed { reason } => (ErrorKind::Config, reason),
            MirrorState::Degraded { reason } => (ErrorKind::Unavailable, reason),
            _ => continue,
        };
        return Err(Error::new(kind, unusable(&mirror.config().name, &reason)));
    }
    Ok(())
}

fn unusable(backend: &str, reason: &str) -> String {
    format!("the required backend {backend} can't be used: {reason}")
}

/// The name of the host, with something that no other process of that name has.
fn identity(host: &HostConfig) -> Arc<str> {
    format!("{}#{}", host.name, bson::oid::ObjectId::new().to_hex()).into()
}

/// Tries until MongoDB has all indexes, and sees to it that a collection that replaces this one gets them as well.
async fn keep_indexes(repository: Repository) {
    let mut pause = INDEX_RETRY_MIN;
    while let Err(error) = repository.ensure_indexes().await {
        tracing::warn!(?error, "could not create the indexes yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(INDEX_RETRY_MAX);
    }
    loop {
        tokio::time::sleep(INDEX_PERIOD).await;
        match repository.restore_indexes().await {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the collection was replaced by one without indexes, which were created anew"),
            Err(error) => tracing::debug!(?error, "the indexes could not be looked at"),
        }
    }
}
