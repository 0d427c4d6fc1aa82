//! Keeps one backend converged to MongoDB. Mirrors don't know each other.
//!
//! Acknowledged changes go the *direct* way ([`Mirror::submit`]): fast, never waiting, and allowed to get lost. The *tail* is the
//! guarantee: it follows MongoDB's change stream, reads what changed anew, and puts that, whoever changed it. The *keeper* looks
//! after the backend's instances, copies everything to one that is empty or whose past isn't known, and runs the tail. A
//! backend that keeps its data also keeps the *checkpoint* where its tail goes on.
//!
//! Whatever the way, a copy bears its document's revision as its stamp, and a backend keeps the newer one: so copies may come
//! late, twice and in any order.

mod checkpoint;
mod copies;
mod direct;
mod feed;
mod keeper;
mod pending;
mod progress;
mod refill;
mod repairs;
mod state;
mod tail;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::copies::Copies;
pub use self::direct::Delivery;
use self::direct::DirectWrite;
use self::pending::Pending;
pub use self::pending::Ticket;
use self::progress::Progress;
use self::repairs::Repairs;
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
    filled: OnceLock<Vec<AtomicU64>>,
    /// Whether direct writes may go to the backend: only once it is known to be this mirror's.
    accepts: AtomicBool,
    /// Whether the backend may hold entries of documents that are gone from MongoDB.
    sweep_due: AtomicBool,
    /// Whether the backend holds a checkpoint of this mirror.
    has_checkpoint: AtomicBool,
    /// What its record takes in each shard; 0: there is none.
    checkpoint_bytes: AtomicU64,
    state: watch::Sender<MirrorState>,
    pending: Pending,
    progress: Progress,
    repairs: Repairs,
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
    /// How long ago the oldest change happened that is known and not in the backend.
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
            accepts: AtomicBool::new(false),
            sweep_due: AtomicBool::new(false),
            has_checkpoint: AtomicBool::new(false),
            checkpoint_bytes: AtomicU64::new(0),
            pending: Pending::default(),
            progress: Progress::default(),
            repairs: Repairs::default(),
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

    /// Hands over a change that MongoDB has acknowledged. Never waits and never fails: what can't be delivered now, the tail
    /// brings. `delivered`, if given, is told how it ended.
    pub fn submit(&self, change: Change, delivered: Option<oneshot::Sender<Delivery>>) {
        let inner = &self.inner;
        let ticket = inner.pending.open(change.key.clone());
        let write = Box::new(DirectWrite { mirror: Arc::clone(inner), change, delivered, ticket });
        match inner.backend.get().filter(|_| inner.accepts.load(Ordering::Acquire)) {
            None => write.finish(Err(KvError::Down("the backend is not ready".to_owned()))),
            Some(backend) => {
                if let Err((write, error)) = backend.submit(write) {
                    write.finish(Err(error));
                }
            }
        }
    }

    /// Reads these documents anew and makes the backend agree, whatever its stamps say. Done by the tail, in its own order, so
    /// that it can't undo a concurrent change. Returns when it is done; bring a deadline.
    ///
    /// # Errors
    /// [`KvError::QueueFull`] if too many are waiting; what the backend answered; [`KvError::Down`] if MongoDB can't be read or
    /// the mirror stopped meanwhile, after which nothing was changed or all of it can be asked for again.
    pub async fn repair(&self, keys: Vec<DocumentKey>) -> Result<(), KvError> {
        let done = self.inner.repairs.add(keys)?;
        done.await.unwrap_or_else(|_| Err(KvError::Down("the mirror stopped before the repair was done".to_owned())))
    }

    /// Whether everything that happened in MongoDB before `moment` (Unix milliseconds of this host's clock) is in the backend.
    pub fn has_passed(&self, moment: u64) -> bool {
        self.inner.progress.has_passed(moment)
    }

    /// Returns once everything that happened in MongoDB before `moment` (Unix milliseconds of this host's clock) is in the
    /// backend, as far as its plugin takes it. Bring a deadline.
    pub async fn passed(&self, moment: u64) {
        self.inner.progress.passed(moment).await;
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
        self.inner.pending.contains(key)
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
                let usage = tokio::time::timeout(budget, backend.stats()).await.ok().and_then(Result::ok);
                usage.map(|usage| self.inner.without_checkpoint(backend, usage))
            }
            _ => None,
        };
        MirrorReport {
            state: self.state(),
            plugin_sha256: self.inner.plugin_digest.get().cloned(),
            usage,
            load: backend.map(Backend::load).unwrap_or_default(),
            lag: self.inner.lag(),
        }
    }

    /// Brings the figures that are only measured when asked for up to date.
    pub fn refresh_metrics(&self) {
        let load = self.inner.backend.get().map(Backend::load).unwrap_or_default();
        self.inner.metrics.levels(load.queue_depth, load.queue_bytes, self.inner.lag(), load.memory_bytes);
    }

    /// Waits until everything that happened in MongoDB so far is in the backend, or it is given up; for tests and for an orderly
    /// end.
    pub async fn settle(&self) {
        let moment = crate::clock::unix_millis() + 1;
        let mut state = self.watch_state();
        let hopeless = state.wait_for(|state| matches!(state, MirrorState::Failed { .. } | MirrorState::Closed));
        let settled = async {
            self.passed(moment).await;
            // The sender lives as long as `self`.
            let _ = self.watch_state().wait_for(|state| *state == MirrorState::Live).await;
            if let Some(backend) = self.inner.backend.get() {
                // What of the direct way is still under way is no news any more; a failure is the tail's to notice.
                let _ = backend.flush().await;
            }
        };
        tokio::select! {
            _ = hopeless => {}
            () = settled => {}
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
        None
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
        self.backend.get().is_some_and(|backend| self.is_shard_filled(backend.shard_of(key.as_str())))
    }

    /// Whether the instance of this shard has been filled completely.
    fn is_shard_filled(&self, shard: u32) -> bool {
        let (Some(backend), Some(filled)) = (self.backend.get(), self.filled.get()) else { return false };
        let generation = filled.get(shard as usize).map(|generation| generation.load(Ordering::Acquire));
        backend.generation(shard).is_some_and(|current| Some(current) == generation)
    }

    /// Whether all instances have been filled completely.
    fn is_complete(&self) -> bool {
        self.backend.get().is_some_and(|backend| (0..backend.shard_count()).all(|shard| self.is_shard_filled(shard)))
    }

    fn set_filled(&self, shard: u32, generation: u64) {
        if let Some(filled) = self.filled.get().and_then(|filled| filled.get(shard as usize)) {
            filled.store(generation, Ordering::Release);
        }
    }

    fn all_are_filled(&self, generations: &[Option<u64>]) {
        generations.iter().zip(0..).for_each(|(generation, shard)| self.set_filled(shard, generation.unwrap_or(0)));
    }

    /// Nothing counts as filled any more, and what is there may be gone from MongoDB.
    fn must_be_filled(&self) {
        self.sweep_due.store(true, Ordering::Release);
        self.filled.get().into_iter().flatten().for_each(|filled| filled.store(0, Ordering::Release));
        self.has_checkpoint.store(false, Ordering::Release);
    }

    /// Whether what the backend holds outlives its instances.
    fn keeps_data(&self) -> bool {
        self.backend.get().and_then(Backend::capabilities).is_some_and(|capabilities| capabilities.persistent)
    }

    /// Whether other instances, also of other hosts, see the same entries.
    fn is_shared(&self) -> bool {
        self.backend.get().and_then(Backend::capabilities).is_some_and(|capabilities| capabilities.shared)
    }

    fn has_checkpoint(&self) -> bool {
        self.has_checkpoint.load(Ordering::Acquire)
    }

    fn checkpoint_holds(&self, bytes: usize) {
        self.checkpoint_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// What the backend holds of documents.
    fn without_checkpoint(&self, backend: &Backend, usage: Usage) -> Usage {
        let bytes = self.checkpoint_bytes.load(Ordering::Relaxed);
        let records = match bytes {
            0 => 0,
            _ if self.is_shared() => 1,
            _ => u64::from(backend.shard_count()),
        };
        Usage {
            entries: usage.entries.saturating_sub(records),
            bytes: usage.bytes.saturating_sub(records.saturating_mul(bytes)),
        }
    }

    fn checkpoint_written(&self) {
        self.has_checkpoint.store(true, Ordering::Release);
    }

    /// How long ago the oldest change happened that is known and not in the backend.
    fn lag(&self) -> Duration {
        self.progress.lag().max(self.pending.oldest().unwrap_or_default())
    }

    /// A value that the backend will never take is told once, loudly, and not tried again.
    fn report_rejected(&self, key: &DocumentKey, error: &KvError) {
        tracing::warn!(
            backend = %self.config.name, event_id = %key, %error,
            "the backend does not take this document, it stays without a copy"
        );
    }
}
