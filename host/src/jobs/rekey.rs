//! Rewriting entries that are written otherwise than the configuration says by now: under another key, with another dictionary, in
//! another format.
//!
//! An entry is rewritten by the tail, from its document and in the tail's own order, as a repair is: so no concurrent write can be undone,
//! and what is written meanwhile is written as the configuration says anyway. An entry whose document is gone can't be rewritten; it is
//! left as it is, and counted.

use std::collections::{HashMap, HashSet};

use super::task::{Task, TaskError};
use crate::codec::{Currency, Encoding, HEAD_BYTES, Packing};
use crate::memcell::{DocumentKey, MemCell};
use crate::mirror::Mirror;
use crate::mongo::{Needs, PartRecord, Tally};

/// Documents re-read in one go.
const BATCH: usize = 256;

/// Brings the entries of these keys up to date. `existing`: the keys that have a document.
pub(super) async fn rewrite(
    task: &mut Task<'_>,
    keys: &[DocumentKey],
    existing: &HashMap<DocumentKey, bool>,
) -> Result<Tally, TaskError> {
    let mut needs = Needs::default();
    // Whatever it finds, values may be written with this meanwhile.
    count(&mut needs, task.mirror.codec().writes_as(), 0);
    let mut outdated = Vec::new();
    for (key, head) in keys.iter().zip(heads(task, keys).await?) {
        let Some(head) = head else { continue };
        match task.mirror.codec().judge(&head) {
            Currency::Current => count(&mut needs, Encoding::peek(&head).ok(), 1),
            Currency::Outdated | Currency::Unclear => outdated.push((key.clone(), head)),
        }
    }
    let unclear = outdated.iter().filter(|(_, head)| task.mirror.codec().judge(head) == Currency::Unclear);
    let as_they_are = as_they_would_be_written(task, unclear).await?;
    let (current, outdated): (Vec<_>, Vec<_>) = outdated.into_iter().partition(|(key, _)| as_they_are.contains(key));
    current.iter().for_each(|(_, head)| count(&mut needs, Encoding::peek(head).ok(), 1));

    let (rewritable, left): (Vec<_>, Vec<_>) = outdated.into_iter().partition(|(key, _)| existing.contains_key(key));
    let mut tally = Tally { outdated: left.len() as u64, ..Tally::default() };
    left.iter().for_each(|(_, head)| count(&mut needs, Encoding::peek(head).ok(), 1));
    for batch in rewritable.chunks(BATCH) {
        let keys: Vec<DocumentKey> = batch.iter().map(|(key, _)| key.clone()).collect();
        task.have_reread(keys.clone()).await?;
        for (key, head) in keys.iter().zip(heads(task, &keys).await?) {
            // Deleted meanwhile, or deleted long ago and only now noticed.
            let Some(head) = head else { continue };
            count(&mut needs, Encoding::peek(&head).ok(), 1);
            if task.mirror.codec().judge(&head) == Currency::Outdated {
                tracing::warn!(job = %task.job.id, event_id = %key, "an entry can't be rewritten, the backend does not take it");
                tally.outdated += 1;
            } else {
                tally.rewritten += 1;
            }
        }
    }
    task.add_needs(&needs);
    Ok(tally)
}

/// The beginnings of the entries of these keys.
async fn heads(task: &Task<'_>, keys: &[DocumentKey]) -> Result<Vec<Option<Vec<u8>>>, TaskError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    if task.mirror.has_digests() {
        let digests = task.mirror.digests(keys, HEAD_BYTES as u32).await?;
        return Ok(digests.into_iter().map(|digest| digest.map(|digest| digest.head)).collect());
    }
    let entries = task.mirror.read(keys).await?;
    Ok(entries.into_iter().map(|entry| entry.map(|entry| entry.value)).collect())
}

/// Which of these entries, given with their beginnings, would be written the same way now.
async fn as_they_would_be_written(
    task: &Task<'_>,
    entries: impl Iterator<Item = &(DocumentKey, Vec<u8>)>,
) -> Result<HashSet<DocumentKey>, TaskError> {
    let entries: HashMap<&DocumentKey, &Vec<u8>> = entries.map(|(key, head)| (key, head)).collect();
    let keys: Vec<DocumentKey> = entries.keys().map(|key| (*key).clone()).collect();
    let mut same = HashSet::new();
    for keys in keys.chunks(BATCH) {
        for document in task.store.repository().fetch(keys).await? {
            let key = MemCell::key(&document)?;
            let written = Encoding::peek(&task.mirror.codec().encode(key.as_str(), &document)?).ok();
            let stored = entries.get(&key).and_then(|head| Encoding::peek(head).ok());
            if written.is_some() && written == stored && !document.is_deleted() {
                same.insert(key);
            }
        }
    }
    Ok(same)
}

fn count(needs: &mut Needs, encoding: Option<Encoding>, entries: u64) {
    let key = match encoding {
        None => Needs::UNREADABLE.to_owned(),
        Some(Encoding { key: None, .. }) => Needs::NO_KEY.to_owned(),
        Some(Encoding { key: Some(id), .. }) => id.to_string(),
    };
    *needs.keys.entry(key).or_default() += entries;
    if let Some(Encoding { packing: Packing::ZstdWith(id), .. }) = encoding {
        *needs.dictionaries.entry(id.to_string()).or_default() += entries;
    }
}

/// What all parts together need.
pub(super) fn needs(parts: &[PartRecord]) -> Needs {
    parts.iter().fold(Needs::default(), |needs, part| needs.plus(&part.needs))
}

/// Tells the backend, when all parts are done, which keys and dictionaries are no longer needed. Answers whether it has noted that: from
/// then on it opens without them.
pub(super) fn conclude(mirror: &Mirror, parts: &[PartRecord]) -> bool {
    let Needs { keys, dictionaries } = needs(parts);
    mirror.needs_only(|id| keys.contains_key(id), |id| dictionaries.contains_key(id))
}
