//! Reading MongoDB again, and making the backend agree: for a few keys, or for all.

use std::collections::HashSet;

use futures::StreamExt;

use super::{Inner, MirrorState};
use crate::Error;
use crate::change::Change;
use crate::kv::{Backend, Condition, KvError, Outcome};
use crate::memcell::{DocumentKey, MemCell};

/// Documents written in one go, and about how many bytes of them: their encoded values are in memory at the same time.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Keys listed in one page of a scan, and looked up in one query.
const SCAN_PAGE: u32 = 512;

/// Why a refill did not come to its end. It can be started again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefillError {
    #[error("can't read from MongoDB: {0}")]
    Mongo(#[from] Error),
    #[error("{0}")]
    Backend(#[from] KvError),
}

/// Re-reads these keys and writes what is found, or the tombstone of what isn't. Answers the keys whose write was refused as
/// stale. On an error some of them may be done; doing them again is harmless.
pub(super) async fn reread(
    mirror: &Inner,
    backend: &Backend,
    keys: &[DocumentKey],
    condition: Condition,
) -> Result<Vec<DocumentKey>, RefillError> {
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
pub(super) async fn copy_all(mirror: &Inner, backend: &Backend, shards: &[u32]) -> Result<(), RefillError> {
    let mut writer = Writer::new(mirror, backend, Condition::Newer);
    // Documents without a revision are stamped with a reading from before the first of them was read.
    let reading = mirror.clock.now_before_inserts();
    mirror.set_state(MirrorState::Backfilling { copied: 0 });
    let mut documents = mirror.repository.scan().await?;
    while let Some(document) = documents.next().await {
        let change = writer.found(document?, reading)?;
        if shards.contains(&backend.shard_of(change.key.as_str())) && writer.push(change).await? {
            mirror.set_state(MirrorState::Backfilling { copied: writer.written });
        }
    }
    writer.finish().await?;
    Ok(())
}

/// Removes what only the backend has: entries of documents that are gone from MongoDB.
pub(super) async fn sweep(mirror: &Inner, backend: &Backend, shards: &[u32]) -> Result<(), RefillError> {
    for shard in shards {
        let mut cursor = None;
        loop {
            let page = backend.scan(*shard, cursor, SCAN_PAGE).await?;
            let keys: Vec<DocumentKey> =
                page.marks.into_iter().map(|mark| DocumentKey::from_backend(mark.key)).collect();
            // Keys that no host writes can't be looked up; they are somebody else's, in a shared store.
            let keys: Vec<DocumentKey> = keys.into_iter().filter(|key| key.to_bson().is_ok()).collect();
            if !keys.is_empty() {
                reread(mirror, backend, &keys, Condition::Newer).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Gathers changes and writes them in batches.
struct Writer<'a> {
    mirror: &'a Inner,
    backend: &'a Backend,
    condition: Condition,
    changes: Vec<Change>,
    bytes: usize,
    stale: Vec<DocumentKey>,
    written: u64,
}

impl<'a> Writer<'a> {
    fn new(mirror: &'a Inner, backend: &'a Backend, condition: Condition) -> Self {
        Self { mirror, backend, condition, changes: Vec::new(), bytes: 0, stale: Vec::new(), written: 0 }
    }

    fn found(&self, document: MemCell, reading: u64) -> Result<Change, RefillError> {
        if let Some(revision) = document.revision() {
            self.mirror.clock.observe(revision);
        }
        Ok(Change::found(document, reading)?)
    }

    /// Answers whether a batch was written.
    async fn push(&mut self, change: Change) -> Result<bool, RefillError> {
        self.bytes += change.document.as_ref().map_or(0, |document| document.as_raw().as_bytes().len());
        self.changes.push(change);
        let full = self.changes.len() >= BATCH || self.bytes >= BATCH_BYTES;
        if full {
            self.write().await?;
        }
        Ok(full)
    }

    /// Writes what is left, and answers the keys whose write was stale.
    async fn finish(mut self) -> Result<Vec<DocumentKey>, RefillError> {
        self.write().await?;
        Ok(self.stale)
    }

    async fn write(&mut self) -> Result<(), RefillError> {
        let changes = std::mem::take(&mut self.changes);
        self.bytes = 0;
        let mut keys = Vec::with_capacity(changes.len());
        let mut writes = Vec::with_capacity(changes.len());
        for change in changes {
            writes.push(self.mirror.copies.write(&change.key, change.stamp, change.document.as_ref())?);
            keys.push(change.key);
        }
        let mut failure = None;
        let ends = self.backend.write(writes, self.condition).await;
        self.mirror.metrics.refreshed(keys.len() as u64);
        self.written += keys.len() as u64;
        for (key, end) in keys.into_iter().zip(ends) {
            match end {
                Ok(Outcome::Applied) => {}
                Ok(Outcome::Stale) => self.stale.push(key),
                Err(error) if error.is_permanent() => self.mirror.report_rejected(&key, &error),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}
