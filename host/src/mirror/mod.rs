//! Keeps one backend converged to MongoDB. Mirrors don't know each other.
//!
//! Acknowledged changes go the *direct* way ([`Mirror::submit`]): fast, never waiting, and allowed to get lost. The *tail* is the
//! guarantee: it follows MongoDB's change stream, reads what changed anew, and puts that, whoever changed it. The *keeper* looks
//! after the backend's instances, copies everything to one that is empty or whose past isn't known, and runs the tail. A
//! backend that keeps its data also keeps the *checkpoint* where its tail goes on.
//!
//! A backend with *two phases* promises the changes of a write before MongoDB commits them ([`Mirror::prepare`]), and is told
//! afterwards. What it has promised when the host ends in between, the keeper settles at the next start (`doubts`).
//!
//! Whatever the way, a copy bears its document's revision as its stamp, and a backend keeps the newer one: so copies may come
//! late, twice and in any order.

mod checkpoint;
mod copies;
mod delivered;
mod direct;
mod doubts;
mod feed;
mod keeper;
mod pending;
mod progress;
mod refill;
mod repairs;
mod state;
mod tail;
mod turn;
mod two_phase;
mod underway;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::checkpoint::Anchor;
use self::copies::Copies;
use self::delivered::Delivered;
pub use self::direct::Delivery;
use self::direct::DirectWrite;
use self::pending::Pending;
pub use self::pending::Ticket;
use self::progress::Progress;
pub use self::refill::{Copied, RefillError};
use self::repairs::Repairs;
pub use self::state::{MirrorState, STATE_NAMES};
use self::turn::Turn;
pub use self::two_phase::NotPrepared;
pub use self::underway::{OpenTransaction, Underway};
use crate::change::Change;
use crate::clock::Clock;
use crate::codec::{Codec, Inventory};
use crate::config::BackendConfig;
use crate::kv::{Backend, BackendLoad, Digest, Engine, Entry, KvError, Page, PendingWrite, ShardState, Usage};
use crate::memcell::{DocumentKey, MemCell};
use crate::metrics::{BackendMetrics, Levels, Metrics};
use crate::mongo::Repository;
use crate::steps::Steps;
use crate::trace::Origin;

/// How much of a key the log repeats, in characters.
const SHOWN_KEY: usize = 1024;

/// While it is the same, nothing that a backend has taken was lost since: by an instance that was replaced, or a flush that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenure {
    generations: Vec<Option<u64>>,
    failed_flushes: u64,
}

/// The handle of a mirror. Its work goes on in the background until [`Mirror::close`].
pub struct Mirror {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

/// What all mirrors of a process have in common.
#[derive(Clone)]
pub struct Surroundings {
    /// A name of this process, or of one mirror in it, that nobody else has.
    pub identity: Arc<str>,
    /// What is mirrored.
    pub repository: Repository,
    /// Where stamps are read.
    pub clock: Arc<Clock>,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// The transactions of this process that are not to be taken for left behind.
    pub underway: Underway,
    /// Who is told of the steps of a write in two phases.
    pub steps: Steps,
}

/// What a mirror is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To keep its backend converged to MongoDB.
    Mirroring,
    /// To read what its backend holds, and to leave it as it is.
    Reading,
}

/// What the handle, the keeper and the writes under way share.
struct Inner {
    config: Arc<BackendConfig>,
    /// A name of this process alone.
    identity: Arc<str>,
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
    /// Whether nobody has told what was deleted since: the sweep is done with care then.
    loss_unexplained: AtomicBool,
    /// Whether MongoDB isn't the one that the backend was mirrored from, or an older state of it: what only the backend has may be
    /// all that is left.
    gone_back: AtomicBool,
    /// Whether it goes on only once somebody has said, or done, what is to become of copies that may be all that is left.
    undecided: AtomicBool,
    /// Whether a call of the plugin goes on and on, and can't be cut off.
    held_up: AtomicBool,
    /// Whether somebody has said that it may remove most of what the backend holds.
    may_remove_most: AtomicBool,
    /// Whether copies that look as if they were current may not be: nobody has told what changed since they were written.
    compare_due: AtomicBool,
    /// An instance of a shared backend gave up since all was filled: a server behind it may have lost its data.
    instances_lost: AtomicBool,
    /// A flush has failed, and since the backend was up to date again, none has succeeded.
    flush_due: AtomicBool,
    /// How many flushes have failed, and of how many of them the tail knows.
    failed_flushes: AtomicU64,
    known_failures: AtomicU64,
    /// Whether the backend holds a checkpoint of this mirror.
    has_checkpoint: AtomicBool,
    /// Of the last checkpoint.
    anchor: Mutex<Anchor>,
    /// Up to when, by this host's clock in Unix milliseconds, it says that everything is in the backend; 0: that isn't known.
    checkpoint_moment: AtomicU64,
    /// What the entries may have been written with, as the next checkpoint says.
    inventory: Mutex<Inventory>,
    /// Whether the backend doesn't know of that yet.
    inventory_due: AtomicBool,
    /// What its record takes in each shard; 0: there is none.
    checkpoint_bytes: AtomicU64,
    state: watch::Sender<MirrorState>,
    pending: Pending,
    delivered: Delivered,
    progress: Progress,
    repairs: Repairs,
    /// Of a shared backend.
    turn: Turn,
    underway: Underway,
    /// Told when the backend may have intents of transactions that have ended.
    doubts: Notify,
    steps: Steps,
    closing: CancellationToken,
    /// Whether the backend is no longer one of the store's.
    retired: AtomicBool,
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
    /// How long ago the oldest change happened that is known and not in the backend; `None` until the backend has followed MongoDB for
    /// the first time, and once it is given up.
    pub lag: Option<Duration>,
    /// The host that has the tail of a shared backend, if it isn't this one.
    pub tailed_by: Option<String>,
}

impl Mirror {
    /// Starts loading the plugin in the background; until it works, changes are only noted.
    pub fn start(config: Arc<BackendConfig>, engine: Engine, surroundings: &Surroundings, purpose: Purpose) -> Self {
        let Surroundings { identity, repository, clock, metrics, underway, steps } = surroundings.clone();
        let inner = Arc::new(Inner {
            copies: Copies::new(&config),
            metrics: metrics.backend(&config.name),
            identity,
            config,
            clock,
            repository,
            backend: OnceLock::new(),
            plugin_digest: OnceLock::new(),
            filled: OnceLock::new(),
            state: watch::Sender::new(MirrorState::Loading),
            accepts: AtomicBool::new(false),
            sweep_due: AtomicBool::new(false),
            loss_unexplained: AtomicBool::new(false),
            gone_back: AtomicBool::new(false),
            undecided: AtomicBool::new(false),
            held_up: AtomicBool::new(false),
            may_remove_most: AtomicBool::new(false),
            compare_due: AtomicBool::new(false),
            instances_lost: AtomicBool::new(false),
            flush_due: AtomicBool::new(false),
            failed_flushes: AtomicU64::new(0),
            known_failures: AtomicU64::new(0),
            has_checkpoint: AtomicBool::new(false),
            anchor: Mutex::new(Anchor::new()),
            checkpoint_moment: AtomicU64::new(0),
            inventory: Mutex::default(),
            inventory_due: AtomicBool::new(false),
            checkpoint_bytes: AtomicU64::new(0),
            pending: Pending::default(),
            delivered: Delivered::default(),
            progress: Progress::default(),
            repairs: Repairs::default(),
            turn: Turn::default(),
            underway,
            doubts: Notify::new(),
            steps,
            closing: CancellationToken::new(),
            retired: AtomicBool::new(false),
        });
        inner.metrics.state(MirrorState::Loading.name(), &STATE_NAMES);
        let tasks = TaskTracker::new();
        tasks.spawn(keeper::keep(Arc::clone(&inner), engine, purpose));
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
        let origin = Origin::current();
        let write = Box::new(DirectWrite { mirror: Arc::clone(inner), change, delivered, ticket, origin });
        match inner.backend.get().filter(|_| inner.accepts()) {
            None => write.finish(Err(KvError::Down("the backend is not ready".to_owned()))),
            Some(backend) => {
                if let Err((write, error)) = backend.submit(write) {
                    write.finish(Err(error));
                }
            }
        }
    }

    /// Reads these documents anew and makes the backend agree, whatever its stamps say. Done by the tail, in its own order, so
    /// that it can't undo a concurrent change. Returns when it is done; bring a deadline. Answers the keys of documents that the backend
    /// doesn't take: there is no copy of them now.
    ///
    /// # Errors
    /// [`KvError::QueueFull`] if too many are waiting; what the backend answered; [`KvError::Down`] if MongoDB can't be read or
    /// the mirror stopped meanwhile, after which nothing was changed or all of it can be asked for again.
    pub async fn repair(&self, keys: Vec<DocumentKey>) -> Result<Vec<DocumentKey>, KvError> {
        if !self.is_tailing() {
            self.inner.metrics.repairs("refused", keys.len());
            return Err(KvError::Down("another host mirrors to this backend, and is the one to repair it".to_owned()));
        }
        let count = keys.len();
        let refused = |_: &KvError| self.inner.metrics.repairs("refused", count);
        let done = self.inner.repairs.add(keys).inspect_err(refused)?;
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
    pub async fn read(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Entry>>, KvError> {
        self.backend()?.get_many(keys).await
    }

    /// Whether the backend is shared with other hosts, as far as is known: before it is loaded, it counts as this host's own.
    pub fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    /// Whether entries that are written stay, also when the host has gone, as far as is known.
    pub fn keeps_data(&self) -> bool {
        self.inner.keeps_data()
    }

    /// Whether the tail of this backend is this host's to run, as that of every backend of its own is.
    pub fn is_tailing(&self) -> bool {
        !self.is_shared() || self.inner.turn.is_held()
    }

    /// The shards whose scans together list everything that the backend holds: all, or one that is as good as all.
    pub fn scanned_shards(&self) -> Range<u32> {
        self.inner.scanned_shards()
    }

    /// Who answers for a shard: cursors of its scans are of use for as long as this stays the same. `None`: nobody.
    pub fn instance(&self, shard: u32) -> Option<String> {
        let generation = self.inner.backend.get()?.generation(shard)?;
        let process = &self.inner.identity;
        Some(if self.inner.keeps_data() { "kept".to_owned() } else { format!("{process}/{generation}") })
    }

    /// About how many entries the backend holds, if it says so.
    pub async fn entries(&self) -> Option<u64> {
        let backend = self.inner.backend.get().filter(|_| self.inner.running())?;
        let usage = backend.stats().await.ok()?;
        Some(self.inner.without_checkpoint(backend, usage).entries)
    }

    /// Whether an entry is the mirror's own, and no document's.
    pub fn is_own(&self, key: &DocumentKey) -> bool {
        key.as_str() == checkpoint::KEY
    }

    /// One page of the entries of a shard.
    ///
    /// # Errors
    /// What the backend answered, or became of the call.
    pub async fn scan(&self, shard: u32, cursor: Option<String>, limit: u32) -> Result<Page, KvError> {
        self.backend()?.scan(shard, cursor, limit).await
    }

    /// Whether [`Mirror::digests`] is to be had.
    pub fn has_digests(&self) -> bool {
        self.inner.backend.get().is_some_and(Backend::has_digests)
    }

    /// As [`Mirror::read`], with only the first `head_bytes` of each value and a hash of the rest.
    ///
    /// # Errors
    /// As [`Mirror::scan`].
    pub async fn digests(&self, keys: &[impl AsRef<str>], head_bytes: u32) -> Result<Vec<Option<Digest>>, KvError> {
        self.backend()?.digest_many(keys, head_bytes).await
    }

    /// Copies documents that were just read; what is newer in the backend stays. `reading` is the stamp of those without a
    /// revision: [`before_changes`](crate::clock::Clock::before_changes), from before they were read.
    ///
    /// # Errors
    /// After the first that could not be written. Copying them again does no harm.
    pub async fn copy(&self, documents: Vec<MemCell>, reading: u64) -> Result<Copied, RefillError> {
        refill::copy(&self.inner, self.backend()?, documents, reading).await
    }

    /// Makes durable what was handed over before.
    ///
    /// # Errors
    /// If some of it may be lost.
    pub async fn flush(&self) -> Result<(), KvError> {
        self.inner.flush(self.backend()?).await
    }

    /// What a flush can speak for: all that was written since this was the same.
    pub(crate) fn tenure(&self) -> Tenure {
        let generations = self.inner.backend.get().map(|backend| keeper::generations(&backend.states()));
        Tenure {
            generations: generations.unwrap_or_default(),
            failed_flushes: self.inner.failed_flushes.load(Ordering::Acquire),
        }
    }

    /// Whether it is degraded since somebody has to decide what is to become of copies that may be all that is left.
    pub fn is_undecided(&self) -> bool {
        self.inner.undecided.load(Ordering::Acquire)
    }

    /// Says that it is right if a sweep removes most of what the backend holds, since most documents were deleted.
    pub fn allow_removals(&self) {
        self.inner.may_remove_most.store(true, Ordering::Release);
    }

    /// As [`Mirror::passed`], if there is a tail that can pass anything.
    pub async fn passed_if_tailed(&self, moment: u64) {
        let mut state = self.watch_state();
        let untailed = state.wait_for(|state| matches!(state, MirrorState::Detached | MirrorState::Failed { .. }));
        tokio::select! {
            _ = untailed => {}
            () = self.passed(moment) => {}
        }
    }

    fn backend(&self) -> Result<&Backend, KvError> {
        self.inner.backend.get().ok_or_else(|| KvError::Down("the plugin is not loaded".to_owned()))
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

    /// How the backend's values are written and read.
    pub fn codec(&self) -> &Codec {
        self.inner.copies.codec()
    }

    /// Whether the copy of this document has outlived the backend's time to live, or the document's own.
    pub fn has_expired(&self, document: &MemCell) -> bool {
        self.inner.copies.has_expired(document)
    }

    /// Says that all entries were looked at, and none needs another key or dictionary than those whose ids are among these, or than
    /// those that are written with now. Answers whether the backend itself knows of that: ask again until it does.
    pub fn needs_only(&self, keys: impl Fn(&str) -> bool, dictionaries: impl Fn(&str) -> bool) -> bool {
        if !self.inner.keeps_data() {
            return true;
        }
        let mut inventory = self.inner.inventory.lock().unwrap_or_else(PoisonError::into_inner);
        let left = inventory.clone().only(keys, dictionaries).with(&self.codec().writes());
        if *inventory != left {
            *inventory = left;
            self.inner.inventory_due.store(true, Ordering::Release);
        }
        !self.inner.inventory_due.load(Ordering::Acquire)
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
            tailed_by: self.inner.turn.other(),
        }
    }

    /// What waits and what is in use, and how far the backend is behind, as [`MirrorReport`] has them. Asks nothing of the plugin.
    pub fn load(&self) -> (BackendLoad, Option<Duration>) {
        (self.inner.backend.get().map(Backend::load).unwrap_or_default(), self.inner.lag())
    }

    /// Brings the figures that are only measured when asked for up to date.
    pub fn refresh_metrics(&self) {
        let inner = &self.inner;
        let (load, lag) = self.load();
        let checkpoint = inner.checkpoint_moment.load(Ordering::Relaxed);
        inner.metrics.levels(&Levels {
            queue_depth: load.queue_depth,
            queue_bytes: load.queue_bytes,
            memory_bytes: load.memory_bytes,
            lag,
            behind: inner.progress.known_behind().filter(|_| inner.is_complete()),
            checkpoint_millis: (checkpoint > 0 && inner.has_checkpoint()).then_some(checkpoint),
            breakers: inner.backend.get().map(Backend::breakers).unwrap_or_default(),
        });
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
                // What of the direct way is still under way is no news any more; a failure is the tail's to deal with.
                let _ = self.inner.flush(backend).await;
            }
        };
        tokio::select! {
            _ = hopeless => {}
            () = settled => {}
        }
    }

    /// Says that the backend is no longer one of the store's: what is still found out about it is of no interest. It works on until
    /// it is closed.
    pub fn retire(&self) {
        self.inner.retired.store(true, Ordering::Release);
    }

    /// Whether [`Mirror::retire`] was called.
    pub fn is_retired(&self) -> bool {
        self.inner.retired.load(Ordering::Acquire)
    }

    /// Returns once the mirror is closed. No bound.
    pub async fn closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.watch_state().wait_for(|state| *state == MirrorState::Closed).await;
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
        let passes =
            matches!(state, MirrorState::Live | MirrorState::CatchingUp { .. } | MirrorState::Backfilling { .. });
        let state = if passes && self.held_up.load(Ordering::Acquire) { self.held_up_state() } else { state };
        if !matches!(state, MirrorState::Degraded { .. }) {
            self.undecided.store(false, Ordering::Release);
        }
        let mut changed = false;
        // Of the same state for another reason, those who wait for it want to know as well.
        self.state.send_if_modified(|current| {
            if *current == MirrorState::Closed || *current == state {
                return false;
            }
            changed = current.name() != state.name();
            *current = state.clone();
            true
        });
        if changed {
            self.metrics.state(state.name(), &STATE_NAMES);
            let (backend, state, reason) = (&self.config.name, state.name(), state.reason());
            tracing::info!(backend, state, reason, "mirror state changed");
        }
    }

    fn held_up_state(&self) -> MirrorState {
        let reason = format!(
            "a call of the plugin has gone on for more than {:?}, and the system doesn't let it be cut off: see whether the file system of \
             its directory answers",
            self.config.limits.call_timeout
        );
        MirrorState::Degraded { reason }
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

    /// Whether direct writes may go to the backend.
    fn accepts(&self) -> bool {
        self.accepts.load(Ordering::Acquire)
    }

    fn accept(&self) {
        self.accepts.store(true, Ordering::Release);
    }

    /// Says how near to MongoDB a complete backend is.
    fn show_progress(&self) {
        if self.is_complete() {
            // What can't be made durable is as good as lost.
            self.set_state(if self.progress.is_current() && !self.flush_due.load(Ordering::Acquire) {
                MirrorState::Live
            } else {
                MirrorState::CatchingUp { behind: self.progress.behind() }
            });
        }
    }

    fn all_are_filled(&self, generations: &[Option<u64>]) {
        generations.iter().zip(0..).for_each(|(generation, shard)| self.set_filled(shard, generation.unwrap_or(0)));
    }

    /// As [`Inner::must_be_compared`], and nobody has told what was deleted. Answers whether that is news.
    fn has_lost_track(&self) -> bool {
        self.must_be_compared();
        !self.loss_unexplained.swap(true, Ordering::AcqRel)
    }

    /// Everything is copied, and nothing left that MongoDB doesn't have.
    fn has_swept(&self) {
        for flag in [&self.sweep_due, &self.compare_due, &self.loss_unexplained, &self.may_remove_most] {
            flag.store(false, Ordering::Release);
        }
        if self.gone_back.swap(false, Ordering::AcqRel) {
            // From now on it is this MongoDB's, whatever the one before was told.
            self.set_anchor(Anchor::new());
        }
    }

    /// As [`Inner::must_be_filled`], and what is there may be other than it looks.
    fn must_be_compared(&self) {
        self.compare_due.store(true, Ordering::Release);
        self.must_be_filled();
    }

    /// Nothing counts as filled any more, and what is there may be gone from MongoDB.
    fn must_be_filled(&self) {
        self.sweep_due.store(true, Ordering::Release);
        self.filled.get().into_iter().flatten().for_each(|filled| filled.store(0, Ordering::Release));
        self.has_checkpoint.store(false, Ordering::Release);
        self.turn.tell_soon();
    }

    /// Makes durable what was handed over before. A backend says only once that some of that is lost: others who have written learn of
    /// it by the count.
    async fn flush(&self, backend: &Backend) -> Result<(), KvError> {
        let flushed = backend.flush().await;
        if flushed.is_err() {
            self.failed_flushes.fetch_add(1, Ordering::AcqRel);
        }
        flushed
    }

    /// Whether what the backend holds outlives its instances.
    fn keeps_data(&self) -> bool {
        self.backend.get().and_then(Backend::capabilities).is_some_and(|capabilities| capabilities.persistent)
    }

    /// Whether other instances, also of other hosts, see the same entries.
    fn is_shared(&self) -> bool {
        self.backend.get().and_then(Backend::capabilities).is_some_and(|capabilities| capabilities.shared)
    }

    fn scanned_shards(&self) -> Range<u32> {
        let all = self.backend.get().map_or(0, Backend::shard_count);
        if self.is_shared() { 0..all.min(1) } else { 0..all }
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

    fn set_anchor(&self, anchor: Anchor) {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = anchor;
    }

    /// That of the last checkpoint.
    fn anchor(&self) -> Anchor {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_checkpoint_moment(&self, millis: u64) {
        self.checkpoint_moment.store(millis, Ordering::Relaxed);
    }

    /// What the entries may have been written with.
    fn inventory(&self) -> Inventory {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_inventory(&self, inventory: Inventory) {
        *self.inventory.lock().unwrap_or_else(PoisonError::into_inner) = inventory;
    }

    /// The backend knows of this inventory.
    fn inventory_written(&self, written: &Inventory) {
        let inventory = self.inventory.lock().unwrap_or_else(PoisonError::into_inner);
        if *inventory == *written {
            self.inventory_due.store(false, Ordering::Release);
        }
    }

    fn checkpoint_written(&self) {
        self.has_checkpoint.store(true, Ordering::Release);
    }

    /// As in [`MirrorReport::lag`].
    fn lag(&self) -> Option<Duration> {
        let is_given_up = matches!(*self.state.borrow(), MirrorState::Failed { .. } | MirrorState::Closed);
        let follows = self.progress.newest_applied() > 0 && !is_given_up;
        follows.then(|| self.progress.lag().max(self.pending.oldest().unwrap_or_default()))
    }

    /// A value that the backend will never take is told once, loudly, and not tried again.
    fn report_rejected(&self, key: &DocumentKey, error: &KvError) {
        // It may be the key that is too long.
        let event_id: String = key.as_str().chars().take(SHOWN_KEY).collect();
        tracing::warn!(
            backend = %self.config.name, event_id, %error,
            "the backend does not take this document, it stays without a copy"
        );
    }
}
