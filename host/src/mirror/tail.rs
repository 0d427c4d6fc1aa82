//! The guarantee: follows MongoDB's stream of changes, re-reads what changed, and puts that, unless the direct way has brought it.
//!
//! It is the one serialized re-reader of a backend. An event says only that a document changed; what is written is the document
//! as it is when it is read, so an event that comes late or twice does no harm. The checkpoint is moved only behind what is
//! applied and flushed.
//!
//! A copy is written if its stamp is *not older* than the stored one: another program may change a document and leave its
//! revision alone. A refusal means that something newer is there, or something that only looks newer: an insert takes its
//! revision from the clock before it lands, and a tombstone made meanwhile bears a later reading. So what was refused is read
//! once more and put whatever the stamp: if there really was a newer change, its own event follows.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Inner;
use super::checkpoint::{Checkpoint, NotWritten};
use super::feed::Feed;
use super::refill::{self, RefillError, Reread, Sweeper};
use super::repairs::Repair;
use crate::kv::{Backend, Condition, KvError};
use crate::memcell::DocumentKey;
use crate::mongo::{ChangeEvent, ChangesError, Position};

/// Keys re-read in one query. A hot key counts once, however often it changed.
const BATCH: usize = 512;

/// How long a direct write that is on its way has to arrive, before its document is read again; and how often it is looked for.
const DIRECT_GRACE: Duration = Duration::from_millis(8);
const DIRECT_POLL: Duration = Duration::from_millis(1);

/// How often a checkpoint is written while changes come in, and while none do.
const CHECKPOINT_BUSY: Duration = Duration::from_secs(1);
const CHECKPOINT_QUIET: Duration = Duration::from_secs(30);

/// How often a server that several hosts share is asked whether it still has the checkpoint, though there is none to be written.
const LOOKED_FOR_EVERY: Duration = Duration::from_secs(5);

/// Why the tail stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    #[error("{0}")]
    Changes(#[from] ChangesError),
    #[error("{0}")]
    Refill(#[from] RefillError),
    #[error("{0}")]
    Backend(#[from] KvError),
    /// Writes that were answered since the last checkpoint may be gone.
    #[error("{0}")]
    Flush(KvError),
    #[error(
        "the store of the backend was emptied, or lost the record of how far its copies had come (a Redis server must not evict: see its \
         maxmemory-policy); it is filled again"
    )]
    Emptied,
    #[error("{}", super::refill::GONE_BACK)]
    GoneBack,
    #[error("another host has taken over the shared backend")]
    FencedOff,
    #[error(
        "somebody else mirrors to the same store, under another name of the backend or from another mongodb, and keeps this host out again \
         and again: give each a store or a key_prefix of its own, and restart this host"
    )]
    Contested,
}

impl From<NotWritten> for TailError {
    fn from(error: NotWritten) -> Self {
        match error {
            NotWritten::Backend(error) => Self::Flush(error),
            NotWritten::FencedOff => Self::FencedOff,
        }
    }
}

/// The tail of one mirror while its instances stay the same.
pub(super) struct Tail<'a> {
    mirror: &'a Inner,
    backend: &'a Backend,
    /// Where it goes on after a pause: everything before is applied. Moved by nobody else.
    position: &'a mut Option<Position>,
    /// Of a backend that keeps its data: when the last checkpoint was written, and whether anything came since.
    checkpoint: Option<Due>,
}

struct Due {
    written: Instant,
    /// When the last one was looked for.
    looked_for: Instant,
    changes: bool,
    moved: bool,
}

/// What one round works on.
#[derive(Default)]
struct Batch {
    /// What changed, with the revision of the last change. Without one, the document has to be read: a change left its revision
    /// alone or put an older one back, or removed the document, or isn't known well enough.
    changed: HashMap<DocumentKey, Option<u64>>,
    position: Option<Position>,
    oldest_millis: Option<u64>,
    newest_millis: u64,
    quiet_millis: Option<u64>,
    sweep_due: bool,
    ended: bool,
}

impl<'a> Tail<'a> {
    pub(super) fn new(
        mirror: &'a Inner,
        backend: &'a Backend,
        position: &'a mut Option<Position>,
        keeps_checkpoints: bool,
    ) -> Self {
        let now = Instant::now();
        let due = Due { written: now, looked_for: now, changes: true, moved: true };
        Self { mirror, backend, position, checkpoint: keeps_checkpoints.then_some(due) }
    }

    /// Follows until the collection ends (`Ok`), or something fails. Cancellation safe: what was cut off is done again.
    pub(super) async fn follow(&mut self, feed: &mut Feed) -> Result<(), TailError> {
        loop {
            let first = tokio::select! {
                biased;
                repairs = self.mirror.repairs.take() => {
                    self.repair(repairs).await?;
                    continue;
                }
                event = feed.next() => event,
            };
            let mut batch = Batch::default();
            // A feed ends after an error or the end of the collection, both of which return from here.
            let Some(first) = first else { return Ok(()) };
            batch.add(first?);
            while batch.changed.len() < BATCH
                && !batch.ended
                && let Some(event) = feed.ready()
            {
                batch.add(event?);
            }
            let (ended, sweep_due) = (batch.ended, batch.sweep_due);
            let count = self.apply(batch).await?;
            feed.set_calm(count == 0);
            if sweep_due {
                refill::check_loss(self.mirror, self.backend).await?;
                let shards: Vec<u32> = self.mirror.scanned_shards().collect();
                refill::sweep(self.mirror, self.backend, &shards, Sweeper::Tail).await?;
            }
            if ended {
                return Ok(());
            }
            self.write_checkpoint().await?;
        }
    }

    /// Answers how many documents had to be read.
    async fn apply(&mut self, batch: Batch) -> Result<usize, TailError> {
        let Batch { changed, position, oldest_millis, newest_millis, quiet_millis, .. } = batch;
        let progress = &self.mirror.progress;
        let mut read = 0;
        if let Some(oldest) = oldest_millis {
            progress.working_on(oldest);
            let count = changed.len() as u64;
            let keys = self.to_be_read(changed).await;
            read = keys.len();
            if read > 0 {
                self.reread(&keys).await?;
            }
            progress.applied_up_to(newest_millis);
            self.mirror.metrics.tailed(count);
        }
        if let Some(asked) = quiet_millis {
            progress.quiet_since(asked);
        }
        if position.is_some() {
            *self.position = position;
        }
        if let Some(due) = &mut self.checkpoint {
            due.changes |= oldest_millis.is_some();
            due.moved = true;
        }
        self.mirror.show_progress();
        Ok(read)
    }

    /// What the direct way has not brought, and isn't just about to bring.
    async fn to_be_read(&self, mut changed: HashMap<DocumentKey, Option<u64>>) -> Vec<DocumentKey> {
        let Inner { delivered, pending, .. } = self.mirror;
        let begun = Instant::now();
        loop {
            let told: Vec<DocumentKey> = changed
                .extract_if(|key, revision| revision.is_some_and(|revision| delivered.is_last(key, revision)))
                .map(|(key, _)| key)
                .collect();
            delivered.forget(&told);
            let is_coming = changed.iter().any(|(key, revision)| revision.is_some() && pending.contains(key));
            if !is_coming || begun.elapsed() >= DIRECT_GRACE {
                return changed.into_keys().collect();
            }
            tokio::time::sleep(DIRECT_POLL).await;
        }
    }

    async fn reread(&self, keys: &[DocumentKey]) -> Result<(), TailError> {
        // Until its copy is there, a reader has to take each of these for unfinished.
        let tickets: Vec<_> = keys.iter().map(|key| self.mirror.pending.open(key.clone())).collect();
        let stale = refill::reread(self.mirror, self.backend, keys, Condition::NotOlder).await?.stale;
        if !stale.is_empty() {
            let refused = refill::reread(self.mirror, self.backend, &stale, Condition::Always).await?.stale;
            // Nothing but a larger token forbids such a write.
            if !refused.is_empty() {
                return Err(TailError::FencedOff);
            }
        }
        self.mirror.delivered.forget(keys);
        drop(tickets);
        Ok(())
    }

    async fn repair(&mut self, repairs: Vec<Repair>) -> Result<(), TailError> {
        for Repair { keys, done } in repairs {
            let tickets: Vec<_> = keys.iter().map(|key| self.mirror.pending.open(key.clone())).collect();
            let result = refill::reread(self.mirror, self.backend, &keys, Condition::Always).await;
            self.mirror.delivered.forget(&keys);
            drop(tickets);
            let result = result.map_err(TailError::from).and_then(|Reread { stale, rejected }| match stale[..] {
                [] => Ok(rejected),
                [..] => Err(TailError::FencedOff),
            });
            let failed = result.as_ref().map_or(keys.len(), Vec::len);
            self.mirror.metrics.repairs("repaired", keys.len() - failed);
            self.mirror.metrics.repairs("failed", failed);
            let (told, ended) = match result {
                Ok(rejected) => (Ok(rejected), Ok(())),
                Err(TailError::Refill(RefillError::Backend(error))) => (Err(error.clone()), Err(error.into())),
                Err(error) => (Err(KvError::Down(error.to_string())), Err(error)),
            };
            // Whoever asked may have given up waiting.
            let _ = done.send(told);
            ended?;
        }
        Ok(())
    }

    /// Writes the checkpoint if it is due. Only of a complete backend: until then it would speak of what isn't there.
    async fn write_checkpoint(&mut self) -> Result<(), TailError> {
        let complete = self.mirror.is_complete();
        let flush_due = self.mirror.flush_due.load(Ordering::Acquire) && self.mirror.progress.is_current();
        let (Some(due), Some(position)) = (&mut self.checkpoint, &*self.position) else { return Ok(()) };
        let interval = if due.changes { CHECKPOINT_BUSY } else { CHECKPOINT_QUIET };
        let is_due = !self.mirror.has_checkpoint()
            || due.written.elapsed() >= interval
            || flush_due
            || self.mirror.inventory_due.load(Ordering::Acquire);
        let writes = due.moved && is_due;
        let looks = self.mirror.is_shared() && due.looked_for.elapsed() >= LOOKED_FOR_EVERY;
        if !complete || !(writes || looks) {
            return Ok(());
        }
        // There is one from before anything else was written, and so also while the backend is filled for the first time.
        if !Checkpoint::is_everywhere(self.backend).await? {
            return Err(TailError::Emptied);
        }
        due.looked_for = Instant::now();
        if !writes {
            return Ok(());
        }
        write_checkpoint(self.mirror, self.backend, position).await?;
        let now = Instant::now();
        *due = Due { written: now, looked_for: now, changes: false, moved: false };
        if flush_due {
            self.mirror.flush_due.store(false, Ordering::Release);
            self.mirror.show_progress();
        }
        Ok(())
    }
}

/// Makes durable what was handed over before. An error means that some of it may be lost.
pub(super) async fn flush(mirror: &Inner, backend: &Backend) -> Result<(), TailError> {
    let flushed = mirror.flush(backend).await;
    let failed = mirror.failed_flushes.load(Ordering::Acquire);
    let known = mirror.known_failures.swap(failed, Ordering::AcqRel);
    match flushed {
        Ok(()) if failed != known => Err(TailError::Flush(KvError::Down("an earlier flush failed".to_owned()))),
        flushed => flushed.map_err(TailError::Flush),
    }
}

/// Makes durable what is applied, and then that it is: the record must not survive a crash that its entries don't.
pub(super) async fn write_checkpoint(mirror: &Inner, backend: &Backend, position: &Position) -> Result<(), TailError> {
    let text = position.to_text().map_err(RefillError::Mongo)?;
    let moment = mirror.progress.has_come_to();
    flush(mirror, backend).await?;
    let mut anchor = mirror.anchor();
    anchor.count += 1;
    if !mirror.repository.raise_anchor(&anchor.store, anchor.count).await.map_err(RefillError::Mongo)? {
        return Err(TailError::GoneBack);
    }
    mirror.set_anchor(anchor.clone());
    let inventory = mirror.inventory();
    let record =
        Checkpoint::new(backend.shard_count(), &mirror.repository.namespace(), Some(text), anchor, inventory.clone());
    record.write(mirror, backend).await?;
    mirror.inventory_written(&inventory);
    mirror.checkpoint_written();
    mirror.set_checkpoint_moment(moment);
    Ok(())
}

impl Batch {
    fn add(&mut self, event: ChangeEvent) {
        match event {
            ChangeEvent::Changed { key, position, at_millis, revision } => {
                self.position = Some(position);
                self.oldest_millis.get_or_insert(at_millis);
                self.newest_millis = self.newest_millis.max(at_millis);
                self.quiet_millis = None;
                let is_newer = |last: &u64| revision.is_some_and(|revision| revision > *last);
                self.changed
                    .entry(key)
                    .and_modify(|last| *last = last.filter(is_newer).and(revision))
                    .or_insert(revision);
            }
            ChangeEvent::Quiet { asked_millis, position } => {
                self.position = position.or(self.position.take());
                self.quiet_millis = Some(asked_millis);
            }
            ChangeEvent::SweepDue => self.sweep_due = true,
            ChangeEvent::Ended { position } => {
                self.position = Some(position);
                self.ended = true;
            }
        }
    }
}
