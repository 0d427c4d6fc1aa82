//! Whose turn it is to tail a backend that several hosts share.
//!
//! The host that holds the lease has the tail, and fills, sweeps, repairs and writes checkpoints. The others stand by: their direct
//! writes go to the backend all the same (they are *newer* or nothing), and from what the holder says of its progress they know
//! how far copies can be relied on. When the holder gives the lease back, or is gone for as long as it lasts, one of them goes on
//! from the checkpoint in the backend.
//!
//! A holder that was paused may write on before it notices. So whatever a tail writes bears the lease's token, and a backend with
//! *fencing* refuses a write over one with a larger token. Without fencing there is only the clock: a tail ends before its lease
//! does, but a write that was on its way then can't be called back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::checkpoint::{Checkpoint, Found};
use super::refill::RefillError;
use super::tail::TailError;
use super::{Inner, MirrorState};
use crate::kv::{Backend, GuestError, KvError};
use crate::mongo::{Claim, Holder, Lease, LeaseNote, Sighting};

/// How long a lease lasts without a sign of life.
const LENGTH: Duration = Duration::from_secs(10);

/// How often the holder gives one, and the others look.
const PERIOD: Duration = Duration::from_secs(1);

/// How long before its end a lease that can't be renewed counts as lost.
const MARGIN: Duration = Duration::from_secs(2);

/// How often another one who writes to the same store is outbid, before it is left to him.
const MOST_CONTESTS: u32 = 3;

/// Whose turn it is, as far as this host knows.
#[derive(Default)]
pub(super) struct Turn {
    held: Mutex<Option<Lease>>,
    /// One that could not be kept. Nobody else may have got it.
    lapsed: Mutex<Option<Lease>>,
    /// Who has it, if it isn't this host.
    other: Mutex<Option<String>>,
    /// The stamp of the checkpoint that was last written under the token of the lease.
    wrote: Mutex<Option<u64>>,
    /// How often somebody without a lease of ours has written over that.
    contests: AtomicU32,
    sighting: tokio::sync::Mutex<Sighting>,
    /// There is something that others ought to know at once.
    news: Notify,
}

impl Turn {
    fn held(&self) -> MutexGuard<'_, Option<Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lapsed(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lapsed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_wrote(&self) -> MutexGuard<'_, Option<u64>> {
        self.wrote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A checkpoint with this stamp was written under the token of this host's lease.
    pub(super) fn wrote(&self, stamp: u64) {
        *self.last_wrote() = Some(stamp);
    }

    /// Has the turn under a token that nothing was written under yet.
    fn begin(&self, lease: Lease) {
        *self.last_wrote() = None;
        *self.held() = Some(lease);
    }

    /// Whether it is this host's.
    pub(super) fn is_held(&self) -> bool {
        self.held().is_some()
    }

    /// The name of the host whose it is instead.
    pub(super) fn other(&self) -> Option<String> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the next sign of life given at once.
    pub(super) fn tell_soon(&self) {
        self.news.notify_one();
    }

    fn set_other(&self, name: Option<String>) {
        *self.other.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

/// Stands by until it is this host's turn. Cancellation safe.
///
/// # Errors
/// If the backend turns out to be another mirror's.
pub(super) async fn wait(mirror: &Inner, backend: &Backend, generations: &[Option<u64>]) -> Result<(), String> {
    let mut sighting = mirror.turn.sighting.lock().await;
    loop {
        let asked = match renew_lapsed(mirror).await {
            Ok(Some(lease)) => Ok(Claim::Held(lease)),
            Ok(None) => mirror.repository.acquire_lease(&name(mirror), &mirror.identity, LENGTH, &mut sighting).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(Claim::Held(lease)) => match hold(mirror, backend, &lease).await {
                Ok(()) => {
                    tracing::info!(backend = %mirror.config.name, token = lease.token(), "this host mirrors to the shared backend");
                    mirror.turn.set_other(None);
                    if lease.loss_noted() {
                        mirror.instances_lost.store(true, Ordering::Release);
                    }
                    mirror.turn.begin(lease);
                    return Ok(());
                }
                Err(error) => {
                    mirror.set_state(MirrorState::Degraded { reason: error.to_string() });
                    // Others may have more luck; if this can't be told to MongoDB, it ends by itself.
                    let _ = mirror.repository.release_lease(&lease).await;
                }
            },
            Ok(Claim::Taken(holder)) => stand_by(mirror, backend, generations, &holder).await?,
            Err(error) => mirror.set_state(MirrorState::Degraded { reason: error.to_string() }),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// The lease that this host could not keep, if nobody has had it since.
async fn renew_lapsed(mirror: &Inner) -> crate::Result<Option<Lease>> {
    let lapsed = mirror.turn.lapsed().clone();
    let Some(lease) = lapsed else { return Ok(None) };
    let renewed = mirror.repository.renew_lease(&lease, LENGTH, LeaseNote { complete: false, ..note(mirror) }).await?;
    *mirror.turn.lapsed() = None;
    Ok(renewed)
}

/// Makes the backend keep everybody out who had the turn before.
async fn hold(mirror: &Inner, backend: &Backend, lease: &Lease) -> Result<(), KvError> {
    match backend.hold(lease.token()).await {
        Err(KvError::Refused(GuestError::Unsupported(_))) => {
            tracing::warn!(
                backend = %mirror.config.name,
                "the plugin has no fencing: a host that is paused at the wrong moment can put an older copy over a newer one"
            );
            Ok(())
        }
        end => end,
    }
}

/// What can be known of the backend from what the holder says.
async fn stand_by(
    mirror: &Inner,
    backend: &Backend,
    generations: &[Option<u64>],
    holder: &Holder,
) -> Result<(), String> {
    let name = host_of(&holder.name);
    mirror.turn.set_other(Some(name.to_owned()));
    let LeaseNote { passed_millis, newest_millis, complete, store } = &holder.note;
    if !complete {
        let reason = if name.is_empty() {
            "it is not known to be complete, and no host mirrors to it yet".to_owned()
        } else if name == host_of(&mirror.identity) {
            format!(
                "an earlier run of {name}, or another host of that name, was copying to the shared backend; this one goes on when \
                 nothing was heard of it for {} s",
                LENGTH.as_secs()
            )
        } else {
            format!("{name} is copying to the shared backend")
        };
        mirror.set_state(MirrorState::Degraded { reason });
        return Ok(());
    }
    // The holder's may have become another one, by a change of its settings or after a loss.
    if mirror.accepts() && !store.is_empty() && mirror.anchor().store != *store {
        mirror.accepts.store(false, Ordering::Release);
    }
    if !mirror.accepts() {
        let Ok(stored) = Checkpoint::read(backend, &mirror.repository.namespace()).await else { return Ok(()) };
        if let Some(reason) = stored.inventory.missing_from(mirror.copies.codec()) {
            return Err(reason);
        }
        let its_store = match &stored.found {
            Found::Position { anchor, .. } | Found::Unfilled { anchor } => anchor.store.as_str(),
            Found::Nothing | Found::Mismatch(_) => "",
        };
        match stored.found {
            Found::Mismatch(reason) => return Err(reason),
            _ if its_store != store && !store.is_empty() => {
                let reason = format!(
                    "{name} mirrors this backend to another store than this host's: its settings, such as the address and the key_prefix, \
                     have to lead to the same store on all hosts"
                );
                mirror.set_state(MirrorState::Degraded { reason });
                return Ok(());
            }
            Found::Position { anchor, .. } => {
                mirror.set_anchor(anchor);
                mirror.checkpoint_holds(stored.bytes);
                mirror.accept();
            }
            Found::Nothing | Found::Unfilled { .. } => return Ok(()),
        }
    }
    mirror.all_are_filled(generations);
    mirror.progress.others_passed(*passed_millis, *newest_millis);
    mirror.show_progress();
    Ok(())
}

/// The name of the host, of the identity of one of its mirrors.
fn host_of(identity: &str) -> &str {
    identity.split('#').next().unwrap_or_default()
}

/// Why a turn is not just kept on.
pub(super) enum Kept {
    /// It is lost, or can't be relied on any more.
    NoLonger,
    /// Another host has noticed that the backend has lost data.
    ToFill,
}

/// Keeps the lease, until there is another thing to do.
pub(super) async fn keep(mirror: &Inner) -> Kept {
    loop {
        let Some(lease) = mirror.turn.held().clone() else { return Kept::NoLonger };
        let last_moment = lease.valid_until().checked_sub(MARGIN).unwrap_or_else(Instant::now);
        let renewing = mirror.repository.renew_lease(&lease, LENGTH, note(mirror));
        let renewed = tokio::time::timeout_at(last_moment.into(), renewing);
        match renewed.await {
            Ok(Ok(Some(renewed))) => {
                let loss_noted = renewed.loss_noted();
                *mirror.turn.held() = Some(renewed);
                if loss_noted && !mirror.instances_lost.swap(true, Ordering::AcqRel) {
                    return Kept::ToFill;
                }
            }
            Ok(Ok(None)) | Err(_) => return Kept::NoLonger,
            Ok(Err(error)) => {
                tracing::debug!(backend = %mirror.config.name, %error, "the lease of a shared backend could not be renewed");
                if Instant::now() >= last_moment {
                    return Kept::NoLonger;
                }
            }
        }
        let pause = tokio::time::timeout(PERIOD, mirror.turn.news.notified());
        // News or not, the next one is due.
        let _ = pause.await;
    }
}

/// What others are to know of how far this host is.
fn note(mirror: &Inner) -> LeaseNote {
    LeaseNote {
        passed_millis: mirror.progress.has_come_to(),
        newest_millis: mirror.progress.newest_applied(),
        complete: mirror.is_complete(),
        store: if mirror.accepts() && mirror.keeps_data() { mirror.anchor().store } else { String::new() },
    }
}

/// The backend has refused what was written under this host's token, since it knows of larger ones. They are those of another host; or, if
/// nobody else has the lease, of a MongoDB that is gone, and this host makes its own larger. Answers whether it could.
///
/// # Errors
/// If MongoDB or the backend is away; [`TailError::Contested`] if somebody who has no lease of ours does the same.
pub(super) async fn outbid(mirror: &Inner, backend: &Backend) -> Result<bool, TailError> {
    let Some(lease) = mirror.turn.held().clone() else { return Ok(false) };
    let is_written_over = is_written_over(mirror, backend).await?;
    let renewed = mirror.repository.renew_lease(&lease, LENGTH, note(mirror)).await.map_err(RefillError::from)?;
    let Some(lease) = renewed else {
        *mirror.turn.held() = None;
        return Ok(false);
    };
    // Not by another host under the same lease: nobody has had it meanwhile.
    let contests = mirror.turn.contests.fetch_add(u32::from(is_written_over), Ordering::Relaxed);
    if contests + u32::from(is_written_over) >= MOST_CONTESTS {
        return Err(TailError::Contested);
    }
    let Some(token) = lease.doubled_token() else {
        return Err(KvError::Down(format!(
            "the turns of this backend can't be counted any further: stop all hosts, empty its store, and delete the lease tail:{} from mongodb",
            mirror.config.name
        ))
        .into());
    };
    let raised = mirror.repository.raise_lease(&lease, token, LENGTH).await.map_err(RefillError::from)?;
    let Some(raised) = raised else {
        *mirror.turn.held() = None;
        return Ok(false);
    };
    mirror.turn.begin(raised.clone());
    hold(mirror, backend, &raised).await?;
    tracing::warn!(
        backend = %mirror.config.name,
        token,
        "the shared backend has entries of later turns than mongodb knows of, of a mongodb that has gone back to an older state, or of somebody \
         else who mirrors to the same store: this turn counts as a later one now"
    );
    Ok(true)
}

/// Whether somebody has written over what was written in this turn. Two who outbid each other, each with a lease of his own, would go
/// on as long as there are larger tokens.
async fn is_written_over(mirror: &Inner, backend: &Backend) -> Result<bool, KvError> {
    let wrote = *mirror.turn.last_wrote();
    Ok(wrote.is_some() && Checkpoint::stamp(backend).await? != wrote)
}

/// Whether a pause is too long for the lease to be kept over it.
pub(super) fn is_outlasted_by(pause: Duration) -> bool {
    pause > LENGTH - MARGIN
}

/// Tells whoever has the turn, or will have it, that the backend may have lost data; or that this is seen to. If MongoDB is away, nobody
/// but this host knows.
pub(super) async fn note_loss(mirror: &Inner, has_lost: bool) {
    let name = name(mirror);
    let noted = tokio::time::timeout(PERIOD, mirror.repository.note_loss(&name, has_lost)).await;
    if !matches!(noted, Ok(Ok(()))) {
        tracing::warn!(backend = %mirror.config.name, has_lost, "that a shared backend may have lost data could not be noted for other hosts");
    }
}

/// It may no longer be this host's turn: its lease could not be renewed.
pub(super) fn lapsed(mirror: &Inner) {
    let lease = mirror.turn.held().take();
    *mirror.turn.lapsed() = lease;
    is_over(mirror);
}

/// It is no longer this host's turn, whose lease is given back or lost.
pub(super) fn is_over(mirror: &Inner) {
    // Others move it now, and flush what they write.
    mirror.set_checkpoint_moment(0);
    mirror.flush_due.store(false, Ordering::Release);
}

/// Lets others have their turn at once.
pub(super) async fn give_back(mirror: &Inner) {
    let Some(lease) = mirror.turn.held().take() else { return };
    if let Err(error) = mirror.repository.release_lease(&lease).await {
        tracing::debug!(backend = %mirror.config.name, %error, "the lease of a shared backend could not be given back");
    }
}

fn name(mirror: &Inner) -> String {
    format!("tail:{}", mirror.config.name)
}
