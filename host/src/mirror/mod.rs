//! Keeps one backend converged to MongoDB. Mirrors don't know each other.
//!
//! Acknowledged changes go the *direct* way ([`Mirror::submit`]): fast, never waiting, and allowed to get lost. What gets lost
//! is noted as a *dirty* key (or, beyond a bound, as «everything»), and the mirror's *keeper* re-reads it from MongoDB when the
//! backend is well again. The keeper also copies everything to a backend that is empty or whose past isn't known: at the
//! start, and whenever an instance was replaced: what that one had not made durable is gone.
//!
//! Whatever the way, a copy bears its document's revision as its stamp, and a backend keeps the newer one: so copies may come
//! late, twice and in any order.

mod copies;
mod direct;
mod dirty;
mod keeper;
mod pending;
mod refill;
mod state;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::copies::Copies;
pub use self::direct::Delivery;
use self::direct::DirectWrite;
use self::dirty::DirtyKeys;
use self::pending::Pending;
pub use self::pending::Ticket;
pub use self::state::{MirrorState, STATE_NAMES};
use crate::change::Change;
use crate::clock::Clock;
use crate::config::BackendConfig;
use crate::kv::{Backend, BackendLoad, Engine, Entry, KvError, PendingWrite, ShardState, Usage};
use crate::memcell::DocumentKey;
use crate::metrics::{BackendMetrics, Metrics};
use crate::mongo::Repository;

/// The handle of a mirror. Its work goes on in the background until [`Mirror::close`].
pub struct Mirror {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

/// What the handle, the keeper and the writes under way share.
struct Inner {
    config: Arc<BackendConfig>,
    copies: Copies,
    clock: Arc<Clock>,
    repository: Repository,
    metrics: BackendMetrics,
    /// Empty while the plugin is loading, and for good if it can't be loaded.
    backend: OnceLock<Backend>,
    plugin_digest: OnceLock<String>,
    /// Per shard, the generation of the instance that has been filled completely; 0: none has.
    filled: OnceLock<Vec<std::sync::atomic::AtomicU64>>,
    state: watch::Sender<MirrorState>,
    pending: Pending,
    dirty: DirtyKeys,
    closing: CancellationToken,
}

/// How a mirror is doing, in figures.
#[derive(Debug, Clone)]
pub struct MirrorReport {
    /// See [`MirrorState`].
    pub state: MirrorState,
    /// The digest of the plugin, once it is loaded.
    pub plugin_sha256: Option<String>,
    /// What the backend holds, if it answered in time.
    pub usage: Option<Usage>,
    /// What waits and what is in use.
    pub load: BackendLoad,
    /// Keys that wait to be read again.
    pub dirty_keys: usize,
    /// For how long the change that waits longest has been waiting.
    pub lag: Duration,
}

impl Mirror {
    /// Starts loading the plugin in the background; until it works, changes are only noted.
    pub fn start(
        config: Arc<BackendConfig>,
        engine: Engine,
        repository: Repository,
        clock: Arc<Clock>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let inner = Arc::new(Inner {
            copies: Copies::new(&config),
            metrics: metrics.backend(&config.name),
            config,
            clock,
            repository,
            backend: OnceLock::new(),
            plugin_digest: OnceLock::new(),
            filled: OnceLock::new(),
            state: watch::Sender::new(MirrorState::Loading),
            pending: Pending::default(),
            dirty: DirtyKeys::default(),
            closing: CancellationToken::new(),
        });
        inner.metrics.state(MirrorState::Loading.name(), &STATE_NAMES);
        let tasks = TaskTracker::new();
        tasks.spawn(keeper::keep(Arc::clone(&inner), engine));
        tasks.close();
        Self { inner, tasks }
    }

    /// The configuration of its backend.
    pub fn config(&self) -> &BackendConfig {
        &self.inner.config
    }

    /// The figures of its backend.
    pub fn metrics(&self) -> &BackendMetrics {
        &self.inner.metrics
    }

    /// The state right now.
    pub fn state(&self) -> MirrorState {
        self.inner.state.borrow().clone()
    }

    /// The state, to be waited on.
    pub fn watch_state(&self) -> watch::Receiver<MirrorState> {
        self.inner.state.subscribe()
    }

    /// Says that a change of this key is about to be made in MongoDB. Hold the ticket until the change is submitted.
    pub fn announce(&self, key: DocumentKey) -> Ticket {
        self.inner.pending.open(key)
    }

    /// Says that changes of any keys are about to be made in MongoDB.
    pub fn announce_any(&self) -> Ticket {
        self.inner.pending.open_any()
    }

    /// Hands over a change that MongoDB has acknowledged. Never waits and never fails: what can't be delivered now is
    /// remembered. `delivered`, if given, is told how it ended.
    pub fn submit(&self, change: Change, delivered: Option<oneshot::Sender<Delivery>>) {
        let inner = &self.inner;
        let ticket = inner.pending.open(change.key.clone());
        let write = Box::new(DirectWrite { mirror: Arc::clone(inner), change, delivered, ticket });
        match inner.backend.get() {
            None => write.finish(Err(KvError::Down("the plugin is not loaded".to_owned()))),
            Some(backend) => {
                if let Err((write, error)) = backend.submit(write) {
                    write.finish(Err(error));
                }
            }
        }
    }

    /// A change of this key may have taken place without anybody knowing: it is read again.
    pub fn suspect(&self, key: DocumentKey) {
        self.inner.dirty.add(key);
    }

    /// Changes of unknown keys may have taken place: everything is read again.
    pub fn suspect_all(&self) {
        self.inner.dirty.mark_overflowed();
    }

    /// The entries of these keys, in their order. Bring a deadline. Cancellation safe.
    pub async fn read(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, KvError> {
        match self.inner.backend.get() {
            Some(backend) => backend.get_many(keys).await,
            None => Err(KvError::Down("the plugin is not loaded".to_owned())),
        }
    }

    /// Whether what was just read for this key can be held against the mirror: it is live, and the instance that answers for
    /// the key has everything. To be asked after the read.
    pub fn vouches_for(&self, key: &DocumentKey) -> bool {
        matches!(*self.inner.state.borrow(), MirrorState::Live) && self.inner.is_filled(key)
    }

    /// Whether the backend may not have seen the latest change of this key yet.
    pub fn is_pending(&self, key: &DocumentKey) -> bool {
        self.inner.pending.contains(key) || self.inner.dirty.contains(key)
    }

    /// Whether the copy of a document with this revision has outlived the backend's time to live.
    pub fn has_expired(&self, revision: Option<u64>) -> bool {
        self.inner.copies.has_expired(revision)
    }

    /// How it is doing. Waits for the backend's own figures no longer than `budget`.
    pub async fn report(&self, budget: Duration) -> MirrorReport {
        let backend = self.inner.backend.get();
        let usage = match backend {
            Some(backend) if self.inner.running() => {
                tokio::time::timeout(budget, backend.stats()).await.ok().and_then(Result::ok)
            }
            _ => None,
        };
        MirrorReport {
            state: self.state(),
            plugin_sha256: self.inner.plugin_digest.get().cloned(),
            usage,
            load: backend.map(Backend::load).unwrap_or_default(),
            dirty_keys: self.inner.dirty.len(),
            lag: self.inner.pending.oldest().unwrap_or_default(),
        }
    }

    /// Brings the figures that are only measured when asked for up to date.
    pub fn refresh_metrics(&self) {
        let load = self.inner.backend.get().map(Backend::load).unwrap_or_default();
        self.inner.metrics.levels(load.queue_depth, load.queue_bytes, self.inner.dirty.len(), load.memory_bytes);
    }

    /// Waits until every change submitted so far has been applied or given up; for tests and for an orderly end.
    pub async fn settle(&self) {
        loop {
            if let Some(backend) = self.inner.backend.get() {
                // A backend that is down has nothing under way; what it lost is among the dirty keys.
                let _ = backend.flush().await;
            }
            let at_rest = self.inner.dirty.len() == 0 && !self.inner.dirty.overflowed();
            let hopeless = matches!(self.state(), MirrorState::Failed { .. } | MirrorState::Closed);
            if hopeless || (at_rest && self.state() == MirrorState::Live && self.inner.pending.oldest().is_none()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Applies what is queued and closes the backend, within `grace`. Returns what was left undone, if anything.
    pub async fn close(&self, grace: Duration) -> Option<String> {
        let started = std::time::Instant::now();
        self.inner.closing.cancel();
        let stopped = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        let drained = match self.inner.backend.get() {
            Some(backend) => backend.close(grace.saturating_sub(started.elapsed())).await,
            None => true,
        };
        self.inner.set_state(MirrorState::Closed);
        let name = &self.inner.config.name;
        if !stopped || !drained {
            return Some(format!("backend {name} did not finish within {grace:?}"));
        }
        let persistent = self
            .inner
            .backend
            .get()
            .and_then(Backend::capabilities)
            .is_some_and(|capabilities| capabilities.persistent);
        let dirty = self.inner.dirty.len();
        (persistent && dirty > 0).then(|| format!("backend {name} misses {dirty} changes until the next start"))
    }
}

impl Inner {
    fn set_state(&self, state: MirrorState) {
        let changed = self.state.send_if_modified(|current| {
            let changed = current.name() != state.name();
            if *current == MirrorState::Closed {
                return false;
            }
            *current = state.clone();
            changed
        });
        if changed {
            self.metrics.state(state.name(), &STATE_NAMES);
            let (backend, state, reason) = (&self.config.name, state.name(), state.reason());
            tracing::info!(backend, state, reason, "mirror state changed");
        }
    }

    /// Whether all shards have an instance that answers.
    fn running(&self) -> bool {
        let backend = self.backend.get();
        backend.is_some_and(|backend| backend.states().iter().all(|state| matches!(state, ShardState::Running { .. })))
    }

    /// Whether the instance that answers for this key has been filled completely.
    fn is_filled(&self, key: &DocumentKey) -> bool {
        let (Some(backend), Some(filled)) = (self.backend.get(), self.filled.get()) else { return false };
        let shard = backend.shard_of(key.as_str());
        let generation =
            filled.get(shard as usize).map(|generation| generation.load(std::sync::atomic::Ordering::Acquire));
        backend.generation(shard).is_some_and(|current| Some(current) == generation)
    }

    /// A value that the backend will never take is told once, loudly, and not tried again.
    fn report_rejected(&self, key: &DocumentKey, error: &KvError) {
        tracing::warn!(
            backend = %self.config.name, event_id = %key, %error,
            "the backend does not take this document, it stays without a copy"
        );
    }
}
