//! The one task of a mirror that looks after its backend, from loading the plugin to noticing that it is live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;

use super::refill::{self, RefillError};
use super::{Inner, MirrorState};
use crate::kv::{Backend, Engine, LoadError, Plugin, ShardState};

/// Dirty keys re-read in one go.
const REFRESH_BATCH: usize = 256;

/// First and longest pause after a refill that failed.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Pause before a directory that is in use is tried again.
const START_RETRY: Duration = Duration::from_secs(1);

/// Runs until the mirror is closed, or its backend is given up.
pub(super) async fn keep(mirror: Arc<Inner>, engine: Engine) {
    let closing = mirror.closing.clone();
    let work = async {
        match load(&mirror, engine).await {
            Ok(backend) => look_after(&mirror, backend).await,
            Err(reason) => {
                tracing::error!(backend = %mirror.config.name, reason, "backend can't be used, MongoDB goes on without it");
                mirror.set_state(MirrorState::Failed { reason });
            }
        }
    };
    // Whatever is cut off here can be done again: refills are idempotent, and the queues are closed by others.
    closing.run_until_cancelled(work).await;
}

async fn load(mirror: &Inner, engine: Engine) -> Result<&Backend, String> {
    let config = Arc::clone(&mirror.config);
    // Reading and compiling block for up to seconds.
    let metrics = mirror.metrics.clone();
    let loading = tokio::task::spawn_blocking(move || Plugin::load_for(&engine, &config, &metrics));
    let plugin: Result<Plugin, LoadError> = loading.await.map_err(|error| error.to_string())?;
    let plugin = plugin.map_err(|error| error.to_string())?;
    let backend = start(mirror, &plugin).await?;
    let filled = (0..backend.shard_count()).map(|_| AtomicU64::new(0)).collect();
    // Nobody else sets these.
    let _ = mirror.plugin_digest.set(plugin.sha256().to_owned());
    let _ = mirror.filled.set(filled);
    Ok(mirror.backend.get_or_init(|| backend))
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

/// Compares how things are with how they should be, does the next step, and looks again.
async fn look_after(mirror: &Inner, backend: &Backend) {
    let mut retry = RETRY_MIN;
    loop {
        let states = backend.states();
        if let Some(reason) = states.iter().find_map(failure) {
            mirror.set_state(MirrorState::Failed { reason });
            // Shards never come back from this.
            return;
        }
        let mut changed = backend.watch();
        changed.iter_mut().for_each(|state| state.mark_unchanged());
        if backend.states() != states {
            continue;
        }
        let shard_changed = || {
            select_all(
                changed.clone().into_iter().map(|mut state| async move { state.changed().await.is_ok() }.boxed()),
            )
        };
        let step = match next_step(mirror, backend, &states) {
            Step::Wait(state) => {
                mirror.set_state(state);
                shard_changed().await;
                continue;
            }
            Step::Rest => {
                mirror.set_state(MirrorState::Live);
                retry = RETRY_MIN;
                tokio::select! {
                    _ = shard_changed() => {}
                    () = mirror.dirty.added() => {}
                }
                continue;
            }
            Step::Fill { shards, sweep } => fill(mirror, backend, &states, &shards, sweep).await,
            Step::Refresh => catch_up(mirror, backend).await,
        };
        match step {
            Ok(()) => retry = RETRY_MIN,
            Err(error) => {
                tracing::warn!(backend = %mirror.config.name, %error, "the mirror could not catch up, it will try again");
                mirror.set_state(MirrorState::Degraded { reason: error.to_string() });
                tokio::select! {
                    () = tokio::time::sleep(retry) => {}
                    _ = shard_changed() => {}
                }
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

/// What to do next.
enum Step {
    /// Nothing can be done until a shard changes.
    Wait(MirrorState),
    /// Copy everything to these shards; they may hold what is gone.
    Fill { shards: Vec<u32>, sweep: bool },
    /// Re-read the dirty keys.
    Refresh,
    /// All is well.
    Rest,
}

fn next_step(mirror: &Inner, backend: &Backend, states: &[ShardState]) -> Step {
    for state in states {
        match state {
            ShardState::Opening => return Step::Wait(MirrorState::Loading),
            ShardState::Down { reason, .. } => return Step::Wait(MirrorState::Degraded { reason: reason.clone() }),
            ShardState::Closed | ShardState::Failed { .. } => return Step::Wait(MirrorState::Closed),
            ShardState::Running { .. } => {}
        }
    }
    if mirror.dirty.overflowed() {
        return Step::Fill { shards: (0..backend.shard_count()).collect(), sweep: true };
    }
    let persistent = backend.capabilities().is_some_and(|capabilities| capabilities.persistent);
    let unfilled: Vec<u32> = states
        .iter()
        .zip(mirror.filled.get().into_iter().flatten())
        .zip(0..)
        // Also the next instance of a persistent backend: what the one before it had not flushed may be gone.
        .filter(|((state, filled), _)| Some(filled.load(Ordering::Acquire)) != generation(state))
        .map(|(_, shard)| shard)
        .collect();
    if !unfilled.is_empty() {
        return Step::Fill { shards: unfilled, sweep: persistent };
    }
    if mirror.dirty.len() > 0 { Step::Refresh } else { Step::Rest }
}

async fn fill(
    mirror: &Inner,
    backend: &Backend,
    states: &[ShardState],
    shards: &[u32],
    sweep: bool,
) -> Result<(), RefillError> {
    if mirror.dirty.overflowed() {
        // What gets lost from here on is noted anew.
        mirror.dirty.clear();
    }
    let filled = async {
        refill::copy_all(mirror, backend, shards).await?;
        if sweep {
            refill::sweep(mirror, backend, shards).await?;
        }
        Ok(())
    };
    if let Err(error) = filled.await {
        if sweep {
            mirror.dirty.mark_overflowed();
        }
        return Err(error);
    }
    let generations = mirror.filled.get().into_iter().flatten().zip(states).zip(0..);
    for ((filled, state), shard) in generations {
        if shards.contains(&shard) {
            filled.store(generation(state).unwrap_or(0), Ordering::Release);
        }
    }
    Ok(())
}

async fn catch_up(mirror: &Inner, backend: &Backend) -> Result<(), RefillError> {
    mirror.set_state(MirrorState::CatchingUp { keys: mirror.dirty.len() });
    let taken = mirror.dirty.take(REFRESH_BATCH, |key| mirror.pending.open(key));
    let (keys, tickets): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
    let result = refill::refresh(mirror, backend, &keys).await;
    if result.is_err() {
        keys.into_iter().for_each(|key| mirror.dirty.add(key));
    }
    // Only now: until here a reader must take these keys for unfinished.
    drop(tickets);
    result
}

fn generation(state: &ShardState) -> Option<u64> {
    match state {
        ShardState::Running { generation } => Some(*generation),
        _ => None,
    }
}

fn failure(state: &ShardState) -> Option<String> {
    match state {
        ShardState::Failed { reason } => Some(reason.clone()),
        _ => None,
    }
}
