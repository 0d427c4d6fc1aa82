//! Through the documents of a range: copying them, or comparing their copies.

use std::sync::Arc;

use super::suspects::{self, About, Suspect};
use super::task::{Task, TaskError};
use crate::begun::Begun;
use crate::clock::unix_millis;
use crate::codec::{Codec, HEADER_BYTES};
use crate::kv::{Digest, Entry, KvError};
use crate::memcell::{DocumentKey, MemCell};
use crate::mirror::{Copied, Mirror, MirrorState, RefillError};
use crate::mongo::{Batch, IdRange, JobKind, Place, Route, Tally};

/// Suspects that gather before they are looked at again: each time costs the time that the mirror needs to catch up.
const MAX_SUSPECTS: usize = 1000;

/// Revisions compared in one go; with a rate, fewer, so that the work is spread.
const REVISIONS: usize = 2000;
const PACED_REVISIONS: usize = 500;

/// Works through a range, from where the part was.
pub(super) async fn walk(task: &mut Task<'_>, range: IdRange) -> Result<(), TaskError> {
    // Before that, nothing is known of what the backend can do.
    match task.job.kind {
        JobKind::Backfill => task.ready(MirrorState::takes_copies).await?,
        _ => task.ready(|state| *state == MirrorState::Live).await?,
    }
    let route = match task.place() {
        Some(Place::Id(id)) => Route::Ids(IdRange { after: Some(id.clone()), ..range }),
        Some(Place::Natural) => {
            // Cut short once: this time in an order in which that costs nothing.
            task.start_over();
            Route::Ids(range)
        }
        _ => Route::through(range, takes_any_order(task)),
    };
    match task.job.kind {
        JobKind::Backfill => copy(task, route).await,
        JobKind::Verify | JobKind::Repair | JobKind::Restore | JobKind::Rekey => compare(task, route).await,
    }
}

/// Whether MongoDB's own order, the quickest, will do for a job that is one range, and so not long. If it is cut short, it has to
/// begin anew, which is no loss where it doesn't take its time on purpose and what it did is still done.
fn takes_any_order(task: &Task<'_>) -> bool {
    let only_looks_or_copies = matches!(task.job.kind, JobKind::Backfill | JobKind::Verify);
    only_looks_or_copies && task.job.rate.is_none()
}

/// A batch that the backend works on.
struct Copying {
    copied: Begun<'static, Result<Copied, RefillError>>,
    examined: usize,
    next: Option<Place>,
}

async fn copy(task: &mut Task<'_>, route: Route) -> Result<(), TaskError> {
    // The stamp of documents without a revision.
    let reading = task.store.clock().before_changes();
    let mut documents = task.store.repository().walk(route);
    let mut before: Option<Copying> = None;
    loop {
        let Batch { documents, next } = documents.next().await?;
        task.ready(MirrorState::takes_copies).await?;
        let examined = documents.len();
        task.pace.take(examined).await;
        if task.job.sweep {
            task.seen.add(&keys_of(&documents)?);
        }
        let is_last = next.is_none();
        let mirror = Arc::clone(&task.mirror);
        // Encoded and handed over, on top of what the backend is at. While it is at that, the next batch is read.
        let copied = Begun::new(async move { mirror.copy(documents, reading).await }).await;
        let current = Copying { copied, examined, next };
        if let Some(before) = before.take() {
            settle(task, before).await?;
        }
        if is_last {
            return settle(task, current).await;
        }
        before = Some(current);
    }
}

async fn settle(task: &mut Task<'_>, copying: Copying) -> Result<(), TaskError> {
    let Copying { copied, examined, next } = copying;
    let Copied { written, rejected } = copied.end().await?;
    let tally = Tally { examined: examined as u64, copied: written, rejected, ..Tally::default() };
    task.advance(next, tally).await
}

fn keys_of(documents: &[MemCell]) -> crate::Result<Vec<DocumentKey>> {
    documents.iter().map(MemCell::key).collect()
}

/// A batch whose copies, or digests of them, the backend looks up.
struct Comparing {
    documents: Vec<MemCell>,
    keys: Arc<[DocumentKey]>,
    found: Begun<'static, Result<Found, KvError>>,
    next: Option<Place>,
}

/// What a backend has for some keys.
enum Found {
    Copies(Vec<Option<Entry>>),
    Digests(Vec<Option<Digest>>),
}

/// What comparing came to that is not noted yet.
#[derive(Default)]
struct Compared {
    suspects: Vec<Suspect>,
    tally: Tally,
}

async fn compare(task: &mut Task<'_>, route: Route) -> Result<(), TaskError> {
    let by_digest = !task.job.deep && task.mirror.has_digests();
    let repository = task.store.repository();
    let step = if task.job.rate.is_some() { PACED_REVISIONS } else { REVISIONS };
    let mut documents = if by_digest { repository.walk_revisions(route, step) } else { repository.walk(route) };
    let mut compared = Compared::default();
    let mut before: Option<Comparing> = None;
    loop {
        let Batch { documents, next } = documents.next().await?;
        task.ready(|state| *state == MirrorState::Live).await?;
        task.pace.take(documents.len()).await;
        let keys: Arc<[DocumentKey]> = keys_of(&documents)?.into();
        task.seen.add(&*keys);
        let is_last = next.is_none();
        // While the backend looks these up, the batch before is compared, and the next one read.
        let found = Begun::new(look_up(Arc::clone(&task.mirror), Arc::clone(&keys), by_digest)).await;
        let current = Comparing { documents, keys, found, next };
        if let Some(before) = before.take() {
            conclude(task, before, &mut compared).await?;
        }
        if is_last {
            return conclude(task, current, &mut compared).await;
        }
        before = Some(current);
    }
}

async fn look_up(mirror: Arc<Mirror>, keys: Arc<[DocumentKey]>, by_digest: bool) -> Result<Found, KvError> {
    Ok(match by_digest {
        true => Found::Digests(mirror.digests(&keys, HEADER_BYTES as u32).await?),
        false => Found::Copies(mirror.read(&keys).await?),
    })
}

/// Compares a batch, has a closer look at suspects if they are many or it is the last one, and notes how far all is well.
async fn conclude(task: &mut Task<'_>, comparing: Comparing, compared: &mut Compared) -> Result<(), TaskError> {
    let Comparing { documents, keys, found, next } = comparing;
    let suspects = match found.end().await? {
        Found::Copies(copies) => compare_copies(task, &documents, &keys, &copies)?,
        Found::Digests(digests) => compare_digests(task, &documents, &keys, &digests).await?,
    };
    compared.suspects.extend(suspects);
    compared.tally.examined += documents.len() as u64;
    if compared.suspects.len() >= MAX_SUSPECTS || next.is_none() {
        let looked_at = unix_millis() + 1;
        let suspects = std::mem::take(&mut compared.suspects);
        let settled = suspects::settle(task, About::Documents, suspects, looked_at).await?;
        compared.tally = std::mem::take(&mut compared.tally).plus(settled);
    }
    match compared.suspects.is_empty() {
        true => task.advance(next, std::mem::take(&mut compared.tally)).await,
        false => Ok(()),
    }
}

/// What looks wrong about whole documents and their copies.
fn compare_copies(
    task: &Task<'_>,
    documents: &[MemCell],
    keys: &[DocumentKey],
    copies: &[Option<Entry>],
) -> Result<Vec<Suspect>, TaskError> {
    let mut scratch = Vec::new();
    let mut suspects = Vec::new();
    for ((key, document), copy) in keys.iter().zip(documents).zip(copies) {
        task.vouched(key)?;
        suspects.extend(suspects::judge(task, key, Some(document), copy.as_ref(), &mut scratch));
    }
    Ok(suspects)
}

/// What looks wrong about revisions and digests: what does, or can't be told by them, is looked at as a whole.
async fn compare_digests(
    task: &Task<'_>,
    documents: &[MemCell],
    keys: &[DocumentKey],
    digests: &[Option<Digest>],
) -> Result<Vec<Suspect>, TaskError> {
    let mut unclear = Vec::new();
    for ((key, document), digest) in keys.iter().zip(documents).zip(digests) {
        task.vouched(key)?;
        if !is_faithful(task.mirror.codec(), document, digest.as_ref()) {
            unclear.push(key.clone());
        }
    }
    suspects::look(task, About::Documents, &unclear).await
}

/// Whether the copy is intact and bears the document's revision, or is rightly not there.
fn is_faithful(codec: &Codec, document: &MemCell, digest: Option<&Digest>) -> bool {
    match digest {
        None => document.is_deleted(),
        Some(_) if document.is_deleted() => false,
        Some(digest) => {
            let header = codec.verify(&digest.head, digest.rest_hash);
            let revision = document.revision();
            revision.is_some() && header.is_ok_and(|header| header.revision == revision)
        }
    }
}
