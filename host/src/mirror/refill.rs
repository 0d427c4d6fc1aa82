//! Reading MongoDB again, and making the backend agree: for a few keys, or for all.

use std::collections::HashMap;

use futures::StreamExt;

use super::{Inner, MirrorState};
use crate::Error;
use crate::change::Change;
use crate::kv::{Backend, Condition, KvError};
use crate::memcell::DocumentKey;

/// Documents written in one go: their encoded values are in memory at the same time.
const BATCH: usize = 256;

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

/// Re-reads these keys and writes what is found. On an error some of them may be done; doing them again is harmless.
pub(super) async fn refresh(mirror: &Inner, backend: &Backend, keys: &[DocumentKey]) -> Result<(), RefillError> {
    let reading = mirror.clock.now();
    let mut found = HashMap::new();
    for document in mirror.repository.fetch(keys).await? {
        let change = Change::found(document, reading)?;
        found.insert(change.key.clone(), change);
    }
    let absent = |key: &DocumentKey| Change { key: key.clone(), stamp: reading, document: None };
    let changes = keys.iter().map(|key| found.remove(key).unwrap_or_else(|| absent(key))).collect();
    write(mirror, backend, changes).await
}

/// Copies all documents that belong to `shards`.
pub(super) async fn copy_all(mirror: &Inner, backend: &Backend, shards: &[u32]) -> Result<(), RefillError> {
    // Documents without a revision are stamped with a reading from before the first of them was read.
    let reading = mirror.clock.now();
    let mut copied = 0;
    mirror.set_state(MirrorState::Backfilling { copied });
    let mut chunks = mirror.repository.scan().await?.chunks(BATCH);
    while let Some(chunk) = chunks.next().await {
        let mut changes = Vec::with_capacity(chunk.len());
        for document in chunk {
            let document = document?;
            if let Some(revision) = document.revision() {
                mirror.clock.observe(revision);
            }
            let change = Change::found(document, reading)?;
            if shards.contains(&backend.shard_of(change.key.as_str())) {
                changes.push(change);
            }
        }
        copied += changes.len() as u64;
        write(mirror, backend, changes).await?;
        mirror.set_state(MirrorState::Backfilling { copied });
    }
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
                refresh(mirror, backend, &keys).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(())
}

async fn write(mirror: &Inner, backend: &Backend, changes: Vec<Change>) -> Result<(), RefillError> {
    let mut keys = Vec::with_capacity(changes.len());
    let mut writes = Vec::with_capacity(changes.len());
    for change in changes {
        writes.push(mirror.copies.write(&change.key, change.stamp, change.document.as_ref())?);
        keys.push(change.key);
    }
    let mut failure = None;
    for (key, end) in keys.iter().zip(backend.write(writes, Condition::Newer).await) {
        match end {
            Ok(_) => {}
            Err(error) if error.is_permanent() => mirror.report_rejected(key, &error),
            Err(error) => failure = Some(error),
        }
    }
    mirror.metrics.refreshed(keys.len() as u64);
    failure.map_or(Ok(()), |error| Err(error.into()))
}
