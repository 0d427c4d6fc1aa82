//! Through the entries of a shard: looking for those whose document is gone, bringing it back, or rewriting those that are outdated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::rekey;
use super::suspects::{self, About};
use super::task::{Task, TaskError};
use crate::begun::Begun;
use crate::clock::unix_millis;
use crate::codec::Codec;
use crate::kv::{Entry, GuestError, KvError, Page};
use crate::memcell::{DocumentKey, MemCell};
use crate::mirror::MirrorState;
use crate::mongo::{Finding, JobKind, Place, Returned, Tally};

/// Entries listed at a time.
const PAGE: u32 = 1000;

/// A page of entries that the backend lists.
struct Listing {
    /// Who lists them.
    instance: String,
    /// Whether pages came before it.
    goes_on: bool,
    page: Begun<'static, Result<Page, KvError>>,
}

impl Listing {
    /// Asks for the first page, or the one behind a cursor.
    async fn begin(
        task: &Task<'_>,
        shard: u32,
        cursor: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Self, TaskError> {
        match task.job.kind {
            JobKind::Restore => task.ready(MirrorState::can_be_read).await?,
            _ => task.ready(|state| *state == MirrorState::Live).await?,
        }
        let Some(instance) = task.mirror.instance(shard) else {
            return Err(task.not_ready());
        };
        let cursor = cursor(&instance);
        let goes_on = cursor.is_some();
        let mirror = Arc::clone(&task.mirror);
        let page = Begun::new(async move { mirror.scan(shard, cursor, PAGE).await }).await;
        Ok(Self { instance, goes_on, page })
    }
}

/// Works through a shard, from where the part was.
pub(super) async fn walk(task: &mut Task<'_>, shard: u32) -> Result<(), TaskError> {
    let mut confirmed: HashSet<DocumentKey> = HashSet::new();
    let noted = |instance: &str| match task.place() {
        Some(Place::Cursor { cursor, instance: noted_for }) if noted_for == instance => Some(cursor.clone()),
        _ => None,
    };
    let mut listing = Listing::begin(task, shard, noted).await?;
    loop {
        let Listing { instance, goes_on, page } = listing;
        if !goes_on {
            task.start_over();
            confirmed.clear();
        }
        let Page { marks, next } = match page.end().await {
            // The cursor means nothing any more, so the shard is looked through from its beginning.
            Err(KvError::Refused(GuestError::InvalidArgument(_))) if goes_on => {
                listing = Listing::begin(task, shard, |_| None).await?;
                continue;
            }
            page => page?,
        };
        // While the backend lists the next ones, these are looked at.
        let following = match next.clone() {
            Some(cursor) => Some(Listing::begin(task, shard, |_| Some(cursor)).await?),
            None => None,
        };
        task.pace.take(marks.len()).await;
        let listed = marks.len() as u64;
        let keys: Vec<DocumentKey> = marks.into_iter().map(|mark| DocumentKey::from_backend(mark.key)).collect();
        let own = keys.iter().filter(|key| task.mirror.is_own(key)).count() as u64;
        // A job that goes through no documents has seen none.
        let unknown = task.seen.unknown(keys);
        let unknown_count = unknown.len() as u64;
        let keys: Vec<DocumentKey> = unknown.into_iter().filter(|key| key.to_bson().is_ok()).collect();
        let foreign = unknown_count - own - keys.len() as u64;
        let existing = task.store.repository().existing(&keys).await?;
        let of_page = Tally { examined: listed - own, foreign, ..Tally::default() };
        let tally = of_page.plus(match task.job.kind {
            JobKind::Rekey => rekey::rewrite(task, &keys, &existing).await?,
            JobKind::Restore => {
                let present = Tally { present: existing.len() as u64, ..Tally::default() };
                present.plus(restore(task, &absent(keys, &existing)).await?)
            }
            JobKind::Backfill | JobKind::Verify | JobKind::Repair => {
                let mut absent = absent(keys, &existing);
                absent.retain(|key| !confirmed.contains(key));
                let suspects = suspects::look(task, About::Entries, &absent).await?;
                let looked_at = unix_millis() + 1;
                // An entry can be listed twice, but is one difference.
                confirmed.extend(suspects.iter().map(|suspect| suspect.key.clone()));
                suspects::settle(task, About::Entries, suspects, looked_at).await?
            }
        });
        let place = next.map(|cursor| Place::Cursor { cursor, instance });
        task.advance(place, tally).await?;
        match following {
            Some(following) => listing = following,
            None => return Ok(()),
        }
    }
}

/// The keys of documents that there are not.
fn absent(keys: Vec<DocumentKey>, existing: &HashMap<DocumentKey, bool>) -> Vec<DocumentKey> {
    keys.into_iter().filter(|key| !existing.contains_key(key)).collect()
}

/// Brings the documents of these keys back to MongoDB, which doesn't have them.
async fn restore(task: &mut Task<'_>, keys: &[DocumentKey]) -> Result<Tally, TaskError> {
    let mut tally = Tally::default();
    if keys.is_empty() {
        return Ok(tally);
    }
    // A document that was deleted a moment ago still has its copy. Where a tail is at work, the copy is gone once it has passed.
    task.mirror.passed_if_tailed(unix_millis() + 1).await;
    let copies = task.mirror.read(keys).await?;
    let mut documents = Vec::new();
    for (key, copy) in keys.iter().zip(copies) {
        let Some(copy) = copy else { continue };
        match decode(task.mirror.codec(), key, &copy) {
            Ok(document) => documents.push(document),
            Err(reason) => {
                tracing::warn!(job = %task.job.id, event_id = %key, reason, "a copy can't be restored");
                tally.corrupt += 1;
                task.remember(finding(key, "corrupt", Some(reason)));
            }
        }
    }
    let keys = documents.iter().map(MemCell::key).collect::<crate::Result<Vec<DocumentKey>>>()?;
    for (key, returned) in keys.iter().zip(task.store.repository().insert_absent(documents).await?) {
        match returned {
            Returned::Inserted => tally.restored += 1,
            Returned::Present => tally.present += 1,
            Returned::Refused => {
                tracing::warn!(job = %task.job.id, event_id = %key, "mongodb does not take this document back");
                tally.rejected += 1;
                task.remember(finding(key, "rejected", None));
            }
        }
    }
    Ok(tally)
}

/// The document of a copy, if it is that of its key.
fn decode(codec: &Codec, key: &DocumentKey, copy: &Entry) -> Result<MemCell, String> {
    let envelope = codec.open(key.as_str(), &copy.value).map_err(|corrupt| corrupt.to_string())?;
    let document = envelope.document().map_err(|corrupt| corrupt.to_string())?;
    match document.key() {
        Ok(own) if own == *key => Ok(document),
        _ => Err("it is the copy of another document".to_owned()),
    }
}

fn finding(key: &DocumentKey, kind: &str, reason: Option<String>) -> Finding {
    Finding { event_id: key.to_string(), kind: kind.to_owned(), paths: Vec::new(), reason, repaired: false }
}
