//! Reading MongoDB again, and making the backend agree: for a few keys, or for all.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};

use super::{Inner, MirrorState};
use crate::Error;
use crate::begun::Begun;
use crate::change::Change;
use crate::kv::{Backend, Condition, KvError, Mark, Outcome, Write};
use crate::memcell::{DocumentKey, MemCell};

/// Documents written in one go, and about how many bytes of them.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Keys listed in one page of a scan, and looked up in one query.
const SCAN_PAGE: u32 = 512;

/// How often it is tried again to hand keys to a tail that has too many.
const REPAIRS_POLL: Duration = Duration::from_millis(50);

/// Why a refill did not come to its end. It can be started again.
#[derive(Debug, thiserror::Error)]
pub enum RefillError {
    /// MongoDB can't be read.
    #[error("can't read from MongoDB: {0}")]
    Mongo(#[from] Error),
    /// The backend failed.
    #[error("{0}")]
    Backend(#[from] KvError),
    /// More would be removed than anybody can have meant, without knowing what happened.
    #[error(
        "the backend has {entries} entries and mongodb {documents} documents, and what happened in between is not known: nothing \
         is removed. If mongodb has lost data, stop all hosts and run `memcell restore`; if all is well, run `memcell backfill \
         --sweep`"
    )]
    Suspicious {
        /// How many the backend has.
        entries: u64,
        /// About how many MongoDB has.
        documents: u64,
    },
    /// Copies would be removed or replaced that may be all that is left of what MongoDB has lost.
    #[error(
        "{GONE_BACK}, and the backend has copies that would be lost if it were made the same: at least {missing} of documents that \
         mongodb doesn't have, and {newer} that are newer than mongodb's. Nothing is removed or replaced. To have the documents back \
         that are missing, stop all hosts and run `memcell restore`; to have the backend follow mongodb as it is, run `memcell backfill --sweep`"
    )]
    GoneBack {
        /// Copies without a document.
        missing: u64,
        /// Copies of later revisions than their documents have.
        newer: u64,
    },
}

/// Why a position is worth nothing, and copies may be.
pub(super) const GONE_BACK: &str =
    "mongodb is not the one that this backend was mirrored from, or has gone back to an older state";

/// What came of copying documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Copies and tombstones handed over, those included that the backend knew something newer than.
    pub written: u64,
    /// Documents that the backend will never take.
    pub rejected: u64,
}

/// Copies documents that were just read, and the tombstones of those that are deleted.
pub(super) async fn copy(
    mirror: &Inner,
    backend: &Backend,
    documents: Vec<MemCell>,
    reading: u64,
) -> Result<Copied, RefillError> {
    let mut writer = Writer::new(mirror, backend, Condition::Newer);
    for document in documents {
        let change = writer.found(document, reading)?;
        writer.push(change).await?;
    }
    writer.write_all().await?;
    let rejected = writer.rejected.len() as u64;
    Ok(Copied { written: writer.written - rejected, rejected })
}

/// What came of keys that were read anew, but for those that are as they should be.
#[derive(Debug)]
pub(super) struct Reread {
    /// Whose write was refused as stale.
    pub(super) stale: Vec<DocumentKey>,
    /// Whose document the backend will never take: it has no copy.
    pub(super) rejected: Vec<DocumentKey>,
}

/// Re-reads these keys and writes what is found, or the tombstone of what isn't. On an error some of them may be done; doing them
/// again is harmless.
pub(super) async fn reread(
    mirror: &Inner,
    backend: &Backend,
    keys: &[DocumentKey],
    condition: Condition,
) -> Result<Reread, RefillError> {
    let mut writer = Writer::new(mirror, backend, condition);
    // Read before MongoDB is asked: what is found gone was gone at this time.
    let reading = mirror.clock.now_before_inserts();
    let mut absent: HashSet<&DocumentKey> = keys.iter().collect();
    let mut found = mirror.repository.fetch_stream(keys).await?;
    while let Some(document) = found.next().await {
        let change = writer.found(document?, reading)?;
        absent.remove(&change.key);
        writer.push(change).await?;
    }
    for key in absent {
        writer.push(Change { key: key.clone(), stamp: reading, document: None }).await?;
    }
    writer.finish().await
}

/// Copies all documents that belong to `shards`.
///
/// A document that another program changed without counting its revision up looks like its copy. As long as the tail knows
/// everything since the copy was made, it brings the change. `compares`: it doesn't, so whatever is refused here is handed to it.
pub(super) async fn copy_all(
    mirror: &Inner,
    backend: &Backend,
    shards: &[u32],
    compares: bool,
) -> Result<(), RefillError> {
    let mut writer = Writer::new(mirror, backend, Condition::Newer);
    // The stamp of documents without a revision.
    let reading = mirror.clock.before_changes();
    mirror.set_state(MirrorState::Backfilling { copied: 0 });
    // In no order that it could be taken up in again: cut short, it begins anew in any case.
    let mut documents = mirror.repository.scan().await?;
    while let Some(document) = documents.next().await {
        let change = writer.found(document?, reading)?;
        if shards.contains(&backend.shard_of(change.key.as_str())) && writer.push(change).await? {
            mirror.set_state(MirrorState::Backfilling { copied: writer.written });
            let refused = std::mem::take(&mut writer.stale);
            if compares {
                have_reread(mirror, refused).await?;
            }
        }
    }
    let refused = writer.finish().await?.stale;
    if compares {
        have_reread(mirror, refused).await?;
    }
    Ok(())
}

/// Waits until the tail, in its own order, has re-read these and put what it found, whatever the stamps. The tail must be running.
async fn have_reread(mirror: &Inner, keys: Vec<DocumentKey>) -> Result<(), RefillError> {
    while !keys.is_empty() {
        match mirror.repairs.add(keys.clone()) {
            Ok(done) => {
                let stopped = || Err(KvError::Down("the tail stopped before everything was compared".to_owned()));
                done.await.unwrap_or_else(|_| stopped())?;
                return Ok(());
            }
            // Others have handed it a lot: it gets there.
            Err(_) => tokio::time::sleep(REPAIRS_POLL).await,
        }
    }
    Ok(())
}

/// Fewer entries than this are removed without a question.
const FEW: u64 = 100;

/// Whether a sweep may remove what it finds, where nobody has told that documents were deleted: not if that would be most of the
/// backend. A MongoDB that has lost its data looks like one that everything was deleted from, and the backend may then be all that
/// is left.
pub(super) async fn check_loss(mirror: &Inner, backend: &Backend) -> Result<(), RefillError> {
    if mirror.may_remove_most.load(Ordering::Acquire) {
        return Ok(());
    }
    let entries = mirror.without_checkpoint(backend, backend.stats().await?).entries;
    let documents = mirror.repository.estimated_count().await?;
    match entries >= FEW && documents < entries / 2 {
        true => Err(RefillError::Suspicious { entries, documents }),
        false => Ok(()),
    }
}

/// That nothing would be lost by making the backend the same as a MongoDB that has gone back in time. Looks no further than the first
/// page on which something would.
pub(super) async fn check_gone_back(mirror: &Inner, backend: &Backend) -> Result<(), RefillError> {
    if mirror.may_remove_most.load(Ordering::Acquire) {
        return Ok(());
    }
    let mut pages = pin!(pages(backend, mirror.scanned_shards()));
    while let Some(marks) = pages.next().await {
        let stamps: HashMap<DocumentKey, u64> = documents_of(marks?).collect();
        let keys: Vec<DocumentKey> = stamps.keys().cloned().collect();
        let documents = mirror.repository.revisions(&keys).await?;
        let (mut missing, mut newer) = (0, 0);
        for (key, stamp) in stamps {
            match documents.get(&key).map(MemCell::revision) {
                None => missing += 1,
                Some(revision) => newer += u64::from(revision.is_some_and(|revision| revision < stamp)),
            }
        }
        if missing + newer > 0 {
            return Err(RefillError::GoneBack { missing, newer });
        }
    }
    Ok(())
}

/// All that these shards list, a page at a time.
fn pages(backend: &Backend, shards: impl IntoIterator<Item = u32>) -> impl Stream<Item = Result<Vec<Mark>, KvError>> {
    let of_shard = move |shard| {
        // Before the first page there is no cursor, and after the last none to go on with.
        stream::try_unfold(Some(None), move |cursor| async move {
            let Some(cursor) = cursor else { return Ok(None) };
            let page = backend.scan(shard, cursor, SCAN_PAGE).await?;
            Ok(Some((page.marks, page.next.map(Some))))
        })
    };
    stream::iter(shards).flat_map(of_shard)
}

/// The keys that documents can have, with the stamps of their entries. Others are the host's own, or somebody else's in a shared
/// store, and can't be looked up.
fn documents_of(marks: Vec<Mark>) -> impl Iterator<Item = (DocumentKey, u64)> {
    let keys = marks.into_iter().map(|mark| (DocumentKey::from_backend(mark.key), mark.stamp));
    keys.filter(|(key, _)| key.to_bson().is_ok())
}

/// Who makes a removal that a sweep finds due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweeper {
    /// The tail itself.
    Tail,
    /// Somebody beside it, who has it done by the tail: the document may be back, with an old revision, before he has written.
    Other,
}

/// Whether these shards have no entry of any document.
pub(super) async fn are_empty(backend: &Backend, shards: &[u32]) -> Result<bool, RefillError> {
    let mut pages = pin!(pages(backend, shards.iter().copied()));
    while let Some(marks) = pages.next().await {
        if documents_of(marks?).next().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what only the backend has: entries of documents that are gone from MongoDB.
pub(super) async fn sweep(
    mirror: &Inner,
    backend: &Backend,
    shards: &[u32],
    sweeper: Sweeper,
) -> Result<(), RefillError> {
    let mut pages = pin!(pages(backend, shards.iter().copied()));
    while let Some(marks) = pages.next().await {
        let mut keys: Vec<DocumentKey> = documents_of(marks?).map(|(key, _)| key).collect();
        let live = mirror.repository.existing(&keys).await?;
        keys.retain(|key| live.get(key) != Some(&true));
        match sweeper {
            Sweeper::Tail if keys.is_empty() => {}
            Sweeper::Tail => {
                reread(mirror, backend, &keys, Condition::Always).await?;
                mirror.delivered.forget(&keys);
            }
            Sweeper::Other => have_reread(mirror, keys).await?,
        }
    }
    Ok(())
}

/// Encodes changes and writes them in batches: while the backend works on one, the next is gathered.
struct Writer<'a> {
    mirror: &'a Inner,
    backend: &'a Backend,
    condition: Condition,
    gathered: Vec<Write>,
    /// Of what was gathered.
    marks: Vec<(DocumentKey, u64)>,
    /// About as many as all documents gathered have.
    bytes: usize,
    /// Handed over, and not known to be written.
    under_way: Option<UnderWay<'a>>,
    stale: Vec<DocumentKey>,
    written: u64,
    rejected: Vec<DocumentKey>,
}

struct UnderWay<'a> {
    /// What is written, and with which stamps.
    marks: Vec<(DocumentKey, u64)>,
    ends: Begun<'a, Vec<Result<Outcome, KvError>>>,
}

impl<'a> Writer<'a> {
    fn new(mirror: &'a Inner, backend: &'a Backend, condition: Condition) -> Self {
        Self {
            mirror,
            backend,
            condition,
            gathered: Vec::new(),
            marks: Vec::new(),
            bytes: 0,
            under_way: None,
            stale: Vec::new(),
            written: 0,
            rejected: Vec::new(),
        }
    }

    fn found(&self, document: MemCell, reading: u64) -> Result<Change, RefillError> {
        if let Some(revision) = document.revision() {
            self.mirror.clock.observe(revision);
        }
        Ok(Change::found(document, reading)?)
    }

    /// Answers whether a batch was handed over, and so the one before it is written.
    async fn push(&mut self, change: Change) -> Result<bool, RefillError> {
        let Change { key, stamp, document } = change;
        self.bytes += document.as_ref().map_or(0, |document| document.as_raw().as_bytes().len());
        // At once: the document is in the processor's caches, and not needed any more after that.
        self.gathered.push(self.mirror.copies.write(&key, stamp, document.as_ref())?);
        self.marks.push((key, stamp));
        let full = self.gathered.len() >= BATCH || self.bytes >= BATCH_BYTES;
        if full {
            self.hand_over().await?;
        }
        Ok(full)
    }

    /// Writes what is left.
    async fn finish(mut self) -> Result<Reread, RefillError> {
        self.write_all().await?;
        Ok(Reread { stale: self.stale, rejected: self.rejected })
    }

    async fn write_all(&mut self) -> Result<(), RefillError> {
        self.hand_over().await?;
        self.settle().await
    }

    async fn hand_over(&mut self) -> Result<(), RefillError> {
        let (writes, marks) = (std::mem::take(&mut self.gathered), std::mem::take(&mut self.marks));
        self.bytes = 0;
        let ends = Begun::new(self.backend.write(writes, self.condition)).await;
        self.settle().await?;
        self.under_way = Some(UnderWay { marks, ends });
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), RefillError> {
        let Some(UnderWay { marks, ends }) = self.under_way.take() else { return Ok(()) };
        let ends = ends.end().await;
        self.mirror.metrics.refreshed(marks.len() as u64);
        self.written += marks.len() as u64;
        let mut failure = None;
        let mut outdated = Vec::new();
        for ((key, stamp), end) in marks.into_iter().zip(ends) {
            match end {
                Ok(Outcome::Applied) => {}
                Ok(Outcome::Stale) => self.stale.push(key),
                Err(error) if error.is_permanent() => {
                    self.mirror.report_rejected(&key, &error);
                    outdated.push(self.mirror.copies.write(&key, stamp, None)?);
                    self.rejected.push(key);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if !outdated.is_empty() {
            // The copies that were to be replaced are not those of the documents any more.
            let removed = self.backend.write(outdated, self.condition).await.into_iter();
            failure = failure.or(removed.filter_map(Result::err).find(|error| !error.is_permanent()));
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}
