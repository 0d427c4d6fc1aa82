//! The one task of a mirror that looks after its backend, from loading the plugin to noticing that it is live.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::watch;

use super::checkpoint::{Anchor, Checkpoint, Found, NotWritten, Stored};
use super::feed::Feed;
use super::refill::{self, RefillError, Sweeper};
use super::tail::{self, Tail, TailError};
use super::turn::Kept;
use super::{Inner, MirrorState, Purpose, doubts, turn};
use crate::kv::{Backend, Engine, KvError, Plugin, ShardState};
use crate::mongo::{Changes, ChangesError, Position};

/// First and longest pause after something failed.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A store that is emptied again within this time is filled again only after a pause, which grows up to the longest; one that is shorter
/// than a lease.
const EMPTIED_AGAIN: Duration = Duration::from_secs(60);
const EMPTIED_RETRY_MIN: Duration = Duration::from_secs(1);
const EMPTIED_RETRY_MAX: Duration = Duration::from_secs(8);

/// How often somebody looks whether the shards are held up, and how often in a row they have to be, to count as that.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
const HELD_UP_LOOKS: u32 = 3;

/// Pause before a directory that is in use is tried again.
const START_RETRY: Duration = Duration::from_secs(1);

/// First and longest pause before a registry is asked once more.
const FETCH_RETRY_MIN: Duration = Duration::from_secs(1);
const FETCH_RETRY_MAX: Duration = Duration::from_secs(60);

/// Runs until the mirror is closed, or its backend is given up.
pub(super) async fn keep(mirror: Arc<Inner>, engine: Engine, purpose: Purpose) {
    let closing = mirror.closing.clone();
    let mut place = Place::default();
    let work = async {
        match load(&mirror, engine).await {
            Ok(backend) if purpose == Purpose::Reading => hold_open(&mirror, backend).await,
            Ok(backend) => look_after(&mirror, backend, &mut place).await,
            Err(reason) => {
                tracing::error!(backend = %mirror.config.name, reason, "backend can't be used, MongoDB goes on without it");
                mirror.set_state(MirrorState::Failed { reason });
            }
        }
    };
    // Whatever is cut off here can be done again: all of it is idempotent, and the queues are closed by others.
    let watched = async {
        tokio::select! {
            () = work => {}
            () = watch_over(&mirror) => {}
        }
    };
    closing.run_until_cancelled(watched).await;
    mirror.accepts.store(false, Ordering::Release);
    leave(&mirror, place).await;
    turn::give_back(&mirror).await;
}

/// Says so if a call of the plugin doesn't come back, for its shard can't. Never ends.
async fn watch_over(mirror: &Inner) {
    let mut looks = 0_u32;
    loop {
        tokio::time::sleep(WATCH_PERIOD).await;
        let Some(backend) = mirror.backend.get() else { continue };
        // A host that was stopped gives the calls that were under way more time.
        looks = if backend.is_held_up() { looks.saturating_add(1) } else { 0 };
        let is_held_up = looks >= HELD_UP_LOOKS;
        match (mirror.held_up.swap(is_held_up, Ordering::AcqRel), is_held_up) {
            (false, true) => {
                let state = mirror.held_up_state();
                tracing::warn!(backend = %mirror.config.name, reason = state.reason(), "the backend is held up");
                mirror.set_state(state);
            }
            (true, false) => {
                tracing::warn!(backend = %mirror.config.name, "the backend is no longer held up");
                mirror.show_progress();
            }
            _ => {}
        }
    }
}

/// Writes nothing to the backend, and says whether it can be read.
async fn hold_open(mirror: &Inner, backend: &Backend) {
    loop {
        let Some((_, mut changed)) = running(mirror, backend).await else { return };
        match Checkpoint::inventory(backend).await.map(|inventory| inventory.missing_from(mirror.copies.codec())) {
            Ok(None) => mirror.set_state(MirrorState::Detached),
            Ok(Some(reason)) => {
                mirror.set_state(MirrorState::Failed { reason });
                return;
            }
            Err(error) => mirror.set_state(MirrorState::Degraded { reason: error.to_string() }),
        }
        any_change(&mut changed).await;
    }
}

/// The last checkpoint of a backend that keeps its data: what comes after it is read again at the next start.
async fn leave(mirror: &Inner, place: Place) {
    let (Some(backend), Some(position)) = (mirror.backend.get(), place.position) else { return };
    let is_current = mirror.keeps_data() && mirror.is_complete() && place.generations == generations(&backend.states());
    if is_current && let Err(error) = tail::write_checkpoint(mirror, backend, &position).await {
        tracing::warn!(backend = %mirror.config.name, %error, "the last checkpoint could not be written");
    }
}

async fn load(mirror: &Inner, engine: Engine) -> Result<&Backend, String> {
    let plugin = obtain(mirror, &engine).await?;
    if mirror.config.two_phase && !plugin.has_two_phase() {
        return Err("`two_phase` is true, but the plugin doesn't export two-phase".to_owned());
    }
    if let Some(key) = &mirror.config.encryption_key {
        tracing::info!(backend = %mirror.config.name, key = key.name(), id = %key.id(), "values are encrypted");
    }
    let backend = start(mirror, &plugin).await?;
    let filled = (0..backend.shard_count()).map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
    // Nobody else sets these.
    let _ = mirror.plugin_digest.set(plugin.sha256().to_owned());
    let _ = mirror.filled.set(filled);
    Ok(mirror.backend.get_or_init(|| backend))
}

/// The plugin. A registry that is away is asked again, as long as it takes.
async fn obtain(mirror: &Inner, engine: &Engine) -> Result<Plugin, String> {
    let mut pause = FETCH_RETRY_MIN;
    loop {
        match Box::pin(Plugin::load_for(engine, &mirror.config, &mirror.metrics)).await {
            Ok(plugin) => return Ok(plugin),
            Err(error) if error.is_passing() => {
                tracing::error!(backend = %mirror.config.name, %error, "backend can't be loaded yet");
                mirror.set_state(MirrorState::Degraded { reason: error.to_string() });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(FETCH_RETRY_MAX);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Starts the backend. Another process that holds its directory may be a host that is about to end: it is waited for.
async fn start(mirror: &Inner, plugin: &Plugin) -> Result<Backend, String> {
    loop {
        let (plugin, config, metrics) = (plugin.clone(), Arc::clone(&mirror.config), mirror.metrics.clone());
        let starting = tokio::task::spawn_blocking(move || Backend::start(&plugin, &config, &metrics));
        match starting.await.map_err(|error| error.to_string())? {
            Ok(backend) => return Ok(backend),
            Err(error) if error.is_passing() => {
                tracing::error!(backend = %mirror.config.name, %error, "backend can't be started yet");
                mirror.set_state(MirrorState::Degraded { reason: error.to_string() });
                tokio::time::sleep(START_RETRY).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// How far the mirror has come.
#[derive(Default)]
struct Place {
    /// Everything before is applied; `None` before the first session.
    position: Option<Position>,
    /// The instances that it is applied in.
    generations: Vec<Option<u64>>,
}

/// How often a store is emptied. To fill it is to read all of MongoDB.
#[derive(Default)]
struct Losses {
    last: Option<Instant>,
    pause: Duration,
}

impl Losses {
    /// It was, and this long is to be waited before it is filled again.
    fn one_more(&mut self) -> Duration {
        let is_again = self.last.is_some_and(|last| last.elapsed() < EMPTIED_AGAIN);
        self.last = Some(Instant::now());
        self.pause = match is_again {
            true => (self.pause * 2).clamp(EMPTIED_RETRY_MIN, EMPTIED_RETRY_MAX),
            false => Duration::ZERO,
        };
        self.pause
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    /// What the backend holds is not this mirror's.
    #[error("{0}")]
    Mismatch(String),
    /// It can't do what it is configured for.
    #[error("{0}")]
    Unfit(String),
    #[error("{0}")]
    Passing(#[from] TailError),
}

impl From<KvError> for SessionError {
    fn from(error: KvError) -> Self {
        Self::Passing(error.into())
    }
}

impl From<NotWritten> for SessionError {
    fn from(error: NotWritten) -> Self {
        Self::Passing(error.into())
    }
}

impl From<RefillError> for SessionError {
    fn from(error: RefillError) -> Self {
        Self::Passing(error.into())
    }
}

/// From session to session: each lasts as long as the instances stay the same and nothing fails.
async fn look_after(mirror: &Inner, backend: &Backend, place: &mut Place) {
    let mut retry = RETRY_MIN;
    let mut losses = Losses::default();
    let mut known: Option<Vec<Option<u64>>> = None;
    loop {
        let Some((states, mut changed)) = running(mirror, backend).await else { return };
        let instances = generations(&states);
        if mirror.is_shared() && known.as_ref().is_some_and(|known| *known != instances) {
            mirror.instances_lost.store(true, Ordering::Release);
            turn::note_loss(mirror, true).await;
        }
        known = Some(instances.clone());
        let come_to = mirror.progress.newest_applied();
        let end = tokio::select! {
            // First of all: a host that was paused has to notice what it lost before it goes on.
            biased;
            () = any_change(&mut changed) => None,
            end = Box::pin(take_turn(mirror, backend, &instances, place, &mut retry)) => Some(end),
        };
        match end {
            None => {}
            Some(Ok(())) => {
                mirror.progress.nothing_in_hand();
                // A stream that ends as soon as it is opened, which that of a dropped database does for a while, isn't opened
                // without a pause.
                tokio::time::sleep(RETRY_MIN).await;
            }
            Some(Err(SessionError::Mismatch(reason) | SessionError::Unfit(reason))) => {
                tracing::error!(backend = %mirror.config.name, reason, "backend can't be used, MongoDB goes on without it");
                mirror.set_state(MirrorState::Failed { reason });
                return;
            }
            Some(Err(SessionError::Passing(error))) => {
                if matches!(error, TailError::Flush(_)) {
                    // What the last checkpoint says is all that is certain.
                    place.generations.clear();
                    mirror.flush_due.store(true, Ordering::Release);
                }
                tracing::warn!(backend = %mirror.config.name, %error, "the mirror could not go on, it will try again");
                let asks =
                    matches!(error, TailError::Refill(RefillError::Suspicious { .. } | RefillError::GoneBack { .. }));
                mirror.undecided.store(asks, Ordering::Release);
                mirror.set_state(MirrorState::Degraded { reason: error.to_string() });
                // What only an operator can decide isn't asked for again and again.
                if !asks && mirror.progress.newest_applied() > come_to {
                    retry = RETRY_MIN;
                }
                if matches!(error, TailError::Emptied) {
                    retry = retry.max(losses.one_more());
                }
                if !asks && turn::is_outlasted_by(retry) {
                    // Another host may have more luck meanwhile.
                    turn::give_back(mirror).await;
                    turn::is_over(mirror);
                }
                tokio::select! {
                    () = tokio::time::sleep(retry) => {}
                    () = any_change(&mut changed) => {}
                }
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Waits until all shards have an instance that answers. `None`: they never will.
async fn running(mirror: &Inner, backend: &Backend) -> Option<(Vec<ShardState>, Vec<watch::Receiver<ShardState>>)> {
    loop {
        let mut changed = backend.watch();
        changed.iter_mut().for_each(|state| state.mark_unchanged());
        let states = backend.states();
        match waiting_for(&states) {
            None => return Some((states, changed)),
            Some(MirrorState::Closed) => return None,
            Some(state @ MirrorState::Failed { .. }) => {
                mirror.set_state(state);
                return None;
            }
            Some(state) => mirror.set_state(state),
        }
        any_change(&mut changed).await;
    }
}

/// The state of a mirror whose shards don't all run; `None` if they do.
fn waiting_for(states: &[ShardState]) -> Option<MirrorState> {
    let failed = states.iter().find_map(|state| match state {
        ShardState::Failed { reason } => Some(MirrorState::Failed { reason: reason.clone() }),
        _ => None,
    });
    let waiting = states.iter().find_map(|state| match state {
        ShardState::Running { .. } => None,
        ShardState::Opening => Some(MirrorState::Loading),
        ShardState::Down { reason, .. } | ShardState::Failed { reason } => {
            Some(MirrorState::Degraded { reason: reason.clone() })
        }
        ShardState::Closed => Some(MirrorState::Closed),
    });
    failed.or(waiting)
}

async fn any_change(states: &mut [watch::Receiver<ShardState>]) {
    // A sender that is gone is a backend that is gone.
    select_all(states.iter_mut().map(|state| async move { drop(state.changed().await) }.boxed())).await;
}

pub(super) fn generations(states: &[ShardState]) -> Vec<Option<u64>> {
    let generation = |state: &ShardState| match state {
        ShardState::Running { generation } => Some(*generation),
        _ => None,
    };
    states.iter().map(generation).collect()
}

/// A session; of a shared backend, when it is this host's turn and for as long as it is.
async fn take_turn(
    mirror: &Inner,
    backend: &Backend,
    generations: &[Option<u64>],
    place: &mut Place,
    retry: &mut Duration,
) -> Result<(), SessionError> {
    if !mirror.is_shared() {
        return session(mirror, backend, generations, place, retry).await;
    }
    if !mirror.turn.is_held() {
        turn::wait(mirror, backend, generations).await.map_err(SessionError::Mismatch)?;
        // Others may have been at it meanwhile: the checkpoint in the backend is all that counts.
        *place = Place::default();
    }
    let end = tokio::select! {
        biased;
        kept = turn::keep(mirror) => Err(kept),
        end = session(mirror, backend, generations, place, retry) => Ok(end),
    };
    match end {
        Err(Kept::ToFill) => {
            tracing::warn!(backend = %mirror.config.name, "another host has noticed that the shared backend may have lost data");
        }
        Err(Kept::NoLonger) => {
            turn::lapsed(mirror);
            tracing::warn!(
                backend = %mirror.config.name,
                "this host could not keep its turn at the shared backend: another one may mirror to it now"
            );
        }
        Ok(Err(SessionError::Passing(TailError::FencedOff))) if turn::outbid(mirror, backend).await? => {}
        Ok(Err(SessionError::Passing(TailError::FencedOff))) => {
            turn::give_back(mirror).await;
            turn::is_over(mirror);
            tracing::warn!(backend = %mirror.config.name, "another host mirrors to the shared backend now");
        }
        Ok(end) => return end,
    }
    *place = Place::default();
    Ok(())
}

/// Follows MongoDB with these instances, and fills those that have not been filled meanwhile. `Ok`: the collection came to an
/// end, and a new session is due.
async fn session(
    mirror: &Inner,
    backend: &Backend,
    generations: &[Option<u64>],
    place: &mut Place,
    retry: &mut Duration,
) -> Result<(), SessionError> {
    let persistent = mirror.keeps_data();
    // Of other instances, perhaps.
    mirror.delivered.forget_all();
    if let Some(reason) = doubts::unfit(mirror, backend).await? {
        return Err(SessionError::Unfit(reason));
    }
    if persistent {
        // The backend may have lost what it took since it was last asked, and refuse everything until it has said so.
        tail::flush(mirror, backend).await?;
        resume(mirror, backend, generations, place).await?;
        if mirror.gone_back.load(Ordering::Acquire) {
            refill::check_gone_back(mirror, backend).await?;
        }
    }
    let in_doubt = doubts::resolve_first(mirror, backend).await?;
    place.generations = generations.to_vec();
    mirror.accept();
    let changes = open(mirror, place).await?;
    // Every change that isn't visible yet is in the stream, so what is copied now can only be overtaken by it.
    place.position = changes.position().or(place.position.take());
    let unfilled: Vec<u32> = (0..backend.shard_count()).filter(|shard| !mirror.is_shard_filled(*shard)).collect();
    let mut feed = Feed::start(changes);
    let mut tail = Tail::new(mirror, backend, &mut place.position, persistent);
    let follow = tail.follow(&mut feed);
    let fill = fill(mirror, backend, generations, &unfilled);
    let doubts = doubts::watch(mirror, backend, in_doubt);
    tokio::pin!(follow, fill, doubts);
    let end = tokio::select! {
        end = &mut follow => end,
        error = &mut doubts => Err(error.into()),
        filled = &mut fill => {
            filled?;
            if !unfilled.is_empty() {
                *retry = RETRY_MIN;
            }
            tokio::select! {
                end = follow => end,
                error = doubts => Err(error.into()),
            }
        }
    };
    if end.is_ok() {
        tracing::warn!(backend = %mirror.config.name, "the collection was dropped or renamed, its copies are compared anew");
        mirror.must_be_compared();
    }
    Ok(end?)
}

/// Where a backend that keeps its data was, as it says itself.
async fn resume(
    mirror: &Inner,
    backend: &Backend,
    generations: &[Option<u64>],
    place: &mut Place,
) -> Result<(), SessionError> {
    let collection = mirror.repository.namespace();
    let Stored { found, bytes, record, inventory } = Checkpoint::read(backend, &collection).await?;
    mirror.checkpoint_holds(bytes);
    if let Some(reason) = inventory.missing_from(mirror.copies.codec()) {
        return Err(SessionError::Mismatch(reason));
    }
    // The backend is to know what it takes to read an entry before there is such an entry.
    let needed = inventory.clone().with(&mirror.copies.codec().writes());
    mirror.set_inventory(needed.clone());
    // At the beginning of a turn, a record of a later one is met here, before anything else is done.
    let is_new_turn = mirror.is_shared() && place.position.is_none();
    if let Some(record) = record
        && (needed != inventory || is_new_turn)
    {
        record.with_inventory(needed.clone()).write(mirror, backend).await?;
    }
    if let Found::Position { anchor, .. } | Found::Unfilled { anchor } = &found {
        mirror.set_anchor(anchor.clone());
        if has_gone_back(mirror).await? {
            lose_track(mirror, refill::GONE_BACK);
            place.position = None;
            return Ok(());
        }
    }
    match found {
        Found::Mismatch(reason) => return Err(SessionError::Mismatch(reason)),
        // The same instances as before, and the same store under them: the mirror knows better.
        Found::Position { .. } | Found::Unfilled { .. } if place.generations == generations => {}
        // An instance that gave up may have noticed that a server behind it has lost its data; the checkpoint may lie on another one.
        // Said there as well, for whoever goes on if this host can't.
        Found::Position { position, .. } if mirror.instances_lost.load(Ordering::Acquire) => {
            mirror.must_be_filled();
            let record = Checkpoint::new(backend.shard_count(), &collection, None, mirror.anchor(), needed);
            record.write(mirror, backend).await?;
            place.position = Some(position);
        }
        // What the instances before had applied since their last flush may be gone.
        Found::Position { position, at_millis, .. } => {
            mirror.all_are_filled(generations);
            mirror.checkpoint_written();
            mirror.set_checkpoint_moment(at_millis);
            mirror.progress.fall_back(at_millis);
            place.position = Some(position);
        }
        Found::Unfilled { .. } => {
            mirror.has_lost_track();
            place.position = None;
        }
        Found::Nothing => {
            // Said before anything else is written: whose the store is, and over how many shards.
            let anchor = Anchor::new();
            mirror.set_anchor(anchor.clone());
            let record = Checkpoint::new(backend.shard_count(), &collection, None, anchor, needed);
            record.write(mirror, backend).await?;
            mirror.has_lost_track();
            place.position = None;
        }
    }
    if mirror.instances_lost.load(Ordering::Acquire) {
        // The backend itself says by now that it has to be filled.
        turn::note_loss(mirror, false).await;
    }
    Ok(())
}

/// Opens the stream of changes where the mirror was; or, if nobody knows any more what happened since, from now on, with
/// everything to be compared anew.
async fn open(mirror: &Inner, place: &mut Place) -> Result<Changes, SessionError> {
    match mirror.repository.changes(place.position.as_ref()).await {
        Ok(changes) => Ok(changes),
        Err(ChangesError::HistoryLost(error)) if place.position.is_some() => {
            tracing::debug!(backend = %mirror.config.name, ?error, "the position is of no use");
            if mirror.keeps_data() && has_gone_back(mirror).await? {
                return Err(TailError::GoneBack.into());
            }
            lose_track(
                mirror,
                "mongodb no longer has the changes since this mirror was last complete; a larger oplog keeps more",
            );
            place.position = None;
            Ok(mirror.repository.changes(None).await.map_err(TailError::from)?)
        }
        Err(error) => Err(TailError::from(error).into()),
    }
}

/// Whether MongoDB knows of fewer checkpoints than the backend.
async fn has_gone_back(mirror: &Inner) -> Result<bool, SessionError> {
    let anchor = mirror.anchor();
    let known = mirror.repository.anchor(&anchor.store).await.map_err(RefillError::from)?;
    let has_gone_back = known < anchor.count;
    if has_gone_back {
        // What the backend holds is left alone until somebody has said, or it was found, that nothing is lost with it.
        mirror.accepts.store(false, Ordering::Release);
        mirror.gone_back.store(true, Ordering::Release);
    }
    Ok(has_gone_back)
}

/// What happened since the last position is not to be known any more.
fn lose_track(mirror: &Inner, reason: &str) {
    // Not once more each time that it is tried again to make up for it.
    if mirror.has_lost_track() {
        tracing::error!(backend = %mirror.config.name, reason, "history lost, everything is copied and compared anew");
        mirror.metrics.history_lost();
    }
}

/// Copies everything to these shards, if any, and removes what MongoDB doesn't have if they may hold such.
async fn fill(
    mirror: &Inner,
    backend: &Backend,
    generations: &[Option<u64>],
    shards: &[u32],
) -> Result<(), SessionError> {
    if shards.is_empty() {
        return Ok(());
    }
    let sweep = mirror.sweep_due.load(Ordering::Acquire);
    let was_empty = sweep && refill::are_empty(backend, shards).await?;
    if was_empty {
        // All that it will hold is of this MongoDB, and of a time whose deletions are told.
        mirror.loss_unexplained.store(false, Ordering::Release);
    }
    // An instance that holds nothing yet refuses nothing but what is newer.
    refill::copy_all(mirror, backend, shards, sweep && mirror.compare_due.load(Ordering::Acquire)).await?;
    if sweep {
        if mirror.loss_unexplained.load(Ordering::Acquire) {
            refill::check_loss(mirror, backend).await?;
        }
        // Nobody else writes to a backend of this host's own, and what it has written since, the tail removes again where it has to.
        if !was_empty || mirror.is_shared() {
            refill::sweep(mirror, backend, shards, Sweeper::Other).await?;
        }
        mirror.has_swept();
    }
    for shard in shards {
        let generation = generations.get(*shard as usize).copied().flatten();
        mirror.set_filled(*shard, generation.unwrap_or(0));
    }
    mirror.instances_lost.store(false, Ordering::Release);
    // The tail has followed all the while: whoever waits need not wait for the next that it hears of.
    mirror.show_progress();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_keeps_being_emptied_is_filled_less_and_less_often() {
        let mut losses = Losses::default();
        let pauses: Vec<u64> = (0..6).map(|_| losses.one_more().as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 8]);
        losses.last = Instant::now().checked_sub(EMPTIED_AGAIN);
        assert_eq!(losses.one_more(), Duration::ZERO);
    }
}
