//! What looked wrong, and whether it is.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::task::{Task, TaskError};
use crate::clock::unix_millis;
use crate::kv::Entry;
use crate::memcell::{DocumentKey, MemCell};
use crate::mirror::MirrorState;
use crate::mongo::{Finding, Tally};
use crate::validation::{Comparison, Stored};

/// How often something that keeps changing is looked at.
const MAX_LOOKS: u32 = 6;

/// How long the mirror may take to pass the moment of a look.
const MAX_CATCH_UP: Duration = Duration::from_secs(60);

/// Keys looked at, or mended, in one go.
const BATCH: usize = 256;

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Missing,
    Stale,
    Different,
    Corrupt,
    Resurrected,
    Extra,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Different => "different",
            Self::Corrupt => "corrupt",
            Self::Resurrected => "resurrected",
            Self::Extra => "extra",
        }
    }

    fn count_in(self, tally: &mut Tally) {
        *match self {
            Self::Missing => &mut tally.missing,
            Self::Stale => &mut tally.stale,
            Self::Different => &mut tally.different,
            Self::Corrupt => &mut tally.corrupt,
            Self::Resurrected => &mut tally.resurrected,
            Self::Extra => &mut tally.extra,
        } += 1;
    }
}

/// A copy that looked wrong.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) key: DocumentKey,
    kind: Kind,
    /// Hashes of what both sides had.
    evidence: (Option<u64>, Option<u64>),
    paths: Vec<String>,
    /// Why the copy can't be read.
    reason: Option<String>,
}

/// What a part is about: each difference is found by one part, although documents and entries are both looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// Documents that there are, live or deleted.
    Documents,
    /// Entries of documents that there are not.
    Entries,
}

/// Looks at both sides of some keys, and answers what looks wrong.
///
/// # Errors
/// [`TaskError::NotReady`] if the mirror doesn't vouch for what was read.
pub(super) async fn look(task: &Task<'_>, about: About, keys: &[DocumentKey]) -> Result<Vec<Suspect>, TaskError> {
    let mut suspects = Vec::new();
    let mut scratch = Vec::new();
    for keys in keys.chunks(BATCH) {
        let (found, copies) = tokio::join!(task.store.repository().fetch(keys), task.mirror.read(keys));
        let mut documents: HashMap<DocumentKey, MemCell> =
            found?.into_iter().map(|document| Ok((document.key()?, document))).collect::<crate::Result<_>>()?;
        for (key, copy) in keys.iter().zip(copies?) {
            task.vouched(key)?;
            let document = documents.remove(key);
            let is_meant = document.is_some() == (about == About::Documents);
            if is_meant {
                suspects.extend(judge(task, key, document.as_ref(), copy.as_ref(), &mut scratch));
            }
        }
    }
    Ok(suspects)
}

/// Judges what was read already.
pub(super) fn judge(
    task: &Task<'_>,
    key: &DocumentKey,
    document: Option<&MemCell>,
    copy: Option<&Entry>,
    scratch: &mut Vec<u8>,
) -> Option<Suspect> {
    let mut reason = None;
    let (kind, paths) = match (document, copy) {
        (None, None) => return None,
        (None, Some(_)) => (Kind::Extra, Vec::new()),
        (Some(document), None) if document.is_deleted() => return None,
        // MongoDB removes it soon, and whatever its copy was, it is gone or goes as well.
        (Some(document), _) if !document.is_deleted() && task.mirror.has_expired(document) => return None,
        (Some(_), None) => (Kind::Missing, Vec::new()),
        (Some(document), Some(_)) if document.is_deleted() => (Kind::Resurrected, Vec::new()),
        (Some(document), Some(copy)) => match task.comparer.compare(document, stored(task, key, copy), scratch) {
            Comparison::Equal => return None,
            Comparison::Corrupt(why) => {
                reason = Some(why);
                (Kind::Corrupt, Vec::new())
            }
            Comparison::Different { revisions, differences, .. } => {
                let kind = if revisions.stored < revisions.authority { Kind::Stale } else { Kind::Different };
                (kind, differences.into_iter().map(|difference| difference.path).collect())
            }
        },
    };
    let evidence =
        (document.map(|document| xxh3_64(document.as_raw().as_bytes())), copy.map(|copy| xxh3_64(&copy.value)));
    Some(Suspect { key: key.clone(), kind, evidence, paths, reason })
}

fn stored<'a>(task: &'a Task<'_>, key: &'a DocumentKey, copy: &'a Entry) -> Stored<'a> {
    Stored { codec: task.mirror.codec(), key: key.as_str(), value: &copy.value }
}

/// Looks at suspects again, each time after the mirror has passed the end of the look before (`looked_at`), until what is wrong with each has stayed the
/// same from one look to the next: then it is a difference, which is counted, and mended if that is wanted.
///
/// # Errors
/// As [`look`].
pub(super) async fn settle(
    task: &mut Task<'_>,
    about: About,
    mut suspects: Vec<Suspect>,
    mut looked_at: u64,
) -> Result<Tally, TaskError> {
    let mut tally = Tally::default();
    for _ in 0..MAX_LOOKS {
        if suspects.is_empty() {
            return Ok(tally);
        }
        let passed = tokio::time::timeout(MAX_CATCH_UP, task.mirror.passed(looked_at)).await;
        passed.map_err(|_| TaskError::NotReady(format!("more than {MAX_CATCH_UP:?} behind")))?;
        task.ready(|state| *state == MirrorState::Live).await?;
        let keys: Vec<DocumentKey> = suspects.iter().map(|suspect| suspect.key.clone()).collect();
        let now = look(task, about, &keys).await?;
        looked_at = unix_millis() + 1;
        let before: HashMap<&DocumentKey, &Suspect> = suspects.iter().map(|suspect| (&suspect.key, suspect)).collect();
        let is_same = |suspect: &Suspect| {
            let before = before.get(&suspect.key);
            before.is_some_and(|before| (before.kind, before.evidence) == (suspect.kind, suspect.evidence))
        };
        let (confirmed, unclear): (Vec<Suspect>, Vec<Suspect>) = now.into_iter().partition(is_same);
        confirm(task, confirmed, &mut tally).await?;
        suspects = unclear;
    }
    tally.unsettled += suspects.len() as u64;
    Ok(tally)
}

/// Mends these if that is wanted, counts them and tells them.
async fn confirm(task: &mut Task<'_>, confirmed: Vec<Suspect>, tally: &mut Tally) -> Result<(), TaskError> {
    let repairs = task.repairs();
    for suspects in confirmed.chunks(BATCH) {
        let mut rejected = HashSet::new();
        if repairs {
            let keys = suspects.iter().map(|suspect| suspect.key.clone()).collect();
            rejected.extend(task.have_reread(keys).await?);
            tally.rejected += rejected.len() as u64;
            tally.repaired += (suspects.len() - rejected.len()) as u64;
        }
        for suspect in suspects {
            let repaired = repairs && !rejected.contains(&suspect.key);
            suspect.kind.count_in(tally);
            let (key, kind) = (&suspect.key, suspect.kind.as_str());
            task.mirror.metrics().job_difference(kind);
            let is_example = task.remember(Finding {
                event_id: key.to_string(),
                kind: kind.to_owned(),
                paths: suspect.paths.clone(),
                reason: suspect.reason.clone(),
                repaired,
            });
            macro_rules! tell {
                ($level:ident) => {
                    tracing::$level!(
                        job = %task.job.id, backend = %task.job.backend, event_id = %key, kind,
                        paths = suspect.paths.join(", "), reason = suspect.reason, repaired, "the copy differs from mongodb"
                    )
                };
            }
            // There may be as many as there are documents.
            if is_example {
                tell!(warn);
            } else {
                tell!(debug);
            }
        }
    }
    Ok(())
}
