//! Whether what MongoDB says and what the backend holds is the same, and whether a difference is one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::Validate;
use super::mismatches::{Mismatch, Mismatches, kind};
use crate::Result;
use crate::clock::{millis_of, unix_millis};
use crate::codec::Header;
use crate::config::{ValidationConfig, ValidationMode};
use crate::kv::{Entry, KvError};
use crate::memcell::{DocumentKey, MemCell};
use crate::mirror::{Mirror, MirrorState};
use crate::mongo::Repository;
use crate::query::Visibility;
use crate::trace::carried;
use crate::validation::{Comparer, Comparison, Difference, DifferenceKind, Outcome, Stored};

/// Looks in the background that may be under way at a time; further ones are left out, for the next read will find the same.
const MAX_BACKGROUND: usize = 256;

/// How often a bad outcome is looked at again while its document keeps changing, before it is left to the next read.
const MAX_LOOKS: u32 = 5;

/// How long a look is put off until the mirror has seen everything that happened before the look before it.
const MAX_CATCH_UP: Duration = Duration::from_secs(60);

/// How long the repair of a copy may take.
const MAX_REPAIR: Duration = Duration::from_secs(60);

/// How long the look at a repaired copy waits for the backend: nobody's read waits for it.
const REPAIRED_BUDGET: Duration = Duration::from_secs(2);

/// What the backend has for some keys, in their order; or, if it wasn't read, what that makes of the validation.
pub(super) type Copies = Result<Vec<Option<Entry>>, Outcome>;

/// Both sides of one document.
pub(super) struct Looked<'a> {
    pub(super) key: &'a DocumentKey,
    pub(super) document: Option<MemCell>,
    pub(super) copies: Result<Option<Entry>, Outcome>,
}

/// What one look at both sides amounts to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judgement {
    pub(super) outcome: Outcome,
    /// The revisions of both sides.
    revisions: (Option<u64>, Option<u64>),
    /// Hashes of what both sides have: as long as they stay, the difference is one of the same thing. Not every change counts the
    /// revision up.
    evidence: (Option<u64>, Option<u64>),
    differences: Vec<Difference>,
}

/// Compares reads with one backend.
#[derive(Clone)]
pub(super) struct Validator(Arc<Inner>);

struct Inner {
    mirror: Arc<Mirror>,
    backend: Arc<str>,
    repository: Repository,
    config: ValidationConfig,
    comparer: Comparer,
    mismatches: Arc<Mismatches>,
    background: Arc<Semaphore>,
    /// Keys that are being looked at again.
    rechecking: Mutex<HashSet<DocumentKey>>,
    sampled: AtomicU64,
}

impl Validator {
    pub(super) fn new(
        mirror: &Arc<Mirror>,
        repository: &Repository,
        config: &ValidationConfig,
        mismatches: &Arc<Mismatches>,
    ) -> Self {
        Self(Arc::new(Inner {
            mirror: Arc::clone(mirror),
            backend: mirror.config().name.as_str().into(),
            repository: repository.clone(),
            config: config.clone(),
            comparer: Comparer::new(),
            mismatches: Arc::clone(mismatches),
            background: Arc::new(Semaphore::new(MAX_BACKGROUND)),
            rechecking: Mutex::default(),
            sampled: AtomicU64::new(0),
        }))
    }

    /// The mirror of the backend that reads are compared with.
    pub(super) fn mirror(&self) -> &Arc<Mirror> {
        &self.0.mirror
    }

    /// Whether a read of one document is to be validated.
    pub(super) fn wants_single(&self, validate: Validate) -> bool {
        self.wants(validate, self.0.config.single_reads)
    }

    /// Whether a read of many documents is to be validated.
    pub(super) fn wants_batch(&self, validate: Validate) -> bool {
        self.wants(validate, self.0.config.batch_reads)
    }

    fn wants(&self, validate: Validate, default: bool) -> bool {
        match validate {
            Validate::Yes => true,
            Validate::No => false,
            Validate::Default => default && self.sample(),
        }
    }

    /// Spreads the sampled share evenly over the reads.
    fn sample(&self) -> bool {
        let ratio = self.0.config.sample;
        if ratio >= 1.0 {
            return true;
        }
        let n = self.0.sampled.fetch_add(1, Ordering::Relaxed);
        // The n-th read is taken when the whole number of reads due goes up with it.
        ((n + 1) as f64 * ratio).floor() > (n as f64 * ratio).floor()
    }

    /// Whether reads are answered before they are compared.
    pub(super) fn is_deferred(&self) -> bool {
        self.0.config.mode == ValidationMode::Background
    }

    /// Until when a read that starts now waits for the backend.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.0.config.read_budget
    }

    /// What the backend has for these keys, if it says so before `deadline`.
    pub(super) async fn read(&self, keys: &[impl AsRef<str>], deadline: Instant) -> Copies {
        match self.0.mirror.state() {
            MirrorState::Live => {}
            MirrorState::Degraded { .. } | MirrorState::Failed { .. } => return Err(Outcome::Unavailable),
            _ => return Err(Outcome::Skipped),
        }
        match tokio::time::timeout_at(deadline, self.0.mirror.read(keys)).await {
            Ok(Ok(entries)) => Ok(entries),
            Ok(Err(KvError::Closed)) => Err(Outcome::Skipped),
            Ok(Err(_)) | Err(_) => Err(Outcome::Unavailable),
        }
    }

    /// Judges a read and does what follows from it. The document may be a newer one than was looked at first.
    pub(super) async fn conclude(&self, looked: Looked<'_>, deadline: Instant) -> Result<(Option<MemCell>, Outcome)> {
        let Looked { key, document, copies } = looked;
        let copy = match copies {
            Ok(copy) => copy,
            Err(unread) => {
                self.count(unread);
                return Ok((document, unread));
            }
        };
        let judgement = self.judge(key, document.as_ref(), copy.as_ref(), &mut Vec::new());
        if kind(judgement.outcome).is_some() {
            let closer = self.look_closer(vec![(key.clone(), judgement)], deadline).await?.pop();
            return Ok(closer.unwrap_or((document, Outcome::Skipped)));
        }
        Ok((document, self.note(key, judgement)))
    }

    /// Looks at both sides of these once more before it is said that something is wrong: of a change that came and went
    /// between the two reads of the first look, nothing is left to see but that both sides are others by now. Answers, for
    /// each, the live document as it is by now, and the outcome; and does what follows from it.
    pub(super) async fn look_closer(
        &self,
        suspects: Vec<(DocumentKey, Judgement)>,
        deadline: Instant,
    ) -> Result<Vec<(Option<MemCell>, Outcome)>> {
        let (keys, before): (Vec<DocumentKey>, Vec<Judgement>) = suspects.into_iter().unzip();
        let (found, copies) = tokio::join!(self.0.repository.fetch(&keys), self.read(&keys, deadline));
        let live = found?.into_iter().filter(|document| !document.is_deleted());
        let mut live: HashMap<DocumentKey, MemCell> =
            live.map(|document| Ok((document.key()?, document))).collect::<Result<_>>()?;
        let documents: Vec<Option<MemCell>> = keys.iter().map(|key| live.remove(key)).collect();
        let copies = match copies {
            Ok(copies) => copies,
            Err(unread) => {
                keys.iter().for_each(|_| self.count(unread));
                return Ok(documents.into_iter().map(|document| (document, unread)).collect());
            }
        };
        let mut scratch = Vec::new();
        let looks = keys.iter().zip(before).zip(documents.into_iter().zip(copies));
        let concluded = looks.map(|((key, before), (document, copy))| {
            let mut now = self.judge(key, document.as_ref(), copy.as_ref(), &mut scratch);
            if kind(now.outcome).is_some() && now.evidence != before.evidence {
                now.outcome = Outcome::InFlight;
            }
            (document, self.note(key, now))
        });
        Ok(concluded.collect())
    }

    /// What both sides amount to. `scratch` is reused between calls.
    pub(super) fn judge(
        &self,
        key: &DocumentKey,
        document: Option<&MemCell>,
        copy: Option<&Entry>,
        scratch: &mut Vec<u8>,
    ) -> Judgement {
        let mirror = &self.0.mirror;
        let consistent = Judgement {
            outcome: Outcome::Consistent,
            revisions: (None, None),
            evidence: (None, None),
            differences: Vec::new(),
        };
        let comparison = match (document, copy) {
            _ if !mirror.vouches_for(key) => return Judgement { outcome: Outcome::Skipped, ..consistent },
            (None, None) => return consistent,
            (Some(document), Some(copy)) => {
                let stored = Stored { codec: mirror.codec(), key: key.as_str(), value: &copy.value };
                match self.0.comparer.compare(document, stored, scratch) {
                    Comparison::Equal => return consistent,
                    comparison => Some(comparison),
                }
            }
            _ => None,
        };
        let stored = copy.and_then(|copy| Header::of(&copy.value).ok()).and_then(|header| header.revision);
        let revisions = (document.and_then(MemCell::revision), stored);
        let evidence =
            (document.map(|document| xxh3_64(document.as_raw().as_bytes())), copy.map(|copy| xxh3_64(&copy.value)));
        let judged = |outcome, differences| Judgement { outcome, revisions, evidence, differences };
        // A change needs a moment to get from MongoDB to the backend; its revision tells when it was made.
        let newer = revisions.0.max(revisions.1);
        let may_be_under_way =
            || mirror.is_pending(key) || newer.is_some_and(|revision| !mirror.has_passed(millis_of(revision) + 1));
        match comparison {
            // MongoDB removes it soon, and whatever its copy was, it is gone or goes as well.
            _ if document.is_some_and(|document| mirror.has_expired(document)) => judged(Outcome::Skipped, Vec::new()),
            None if document.is_none() && may_be_under_way() => judged(Outcome::InFlight, Vec::new()),
            None if document.is_none() => judged(Outcome::Different, vec![whole_document_only_in_kv()]),
            None if may_be_under_way() => judged(Outcome::InFlight, Vec::new()),
            None => judged(Outcome::Missing, Vec::new()),
            Some(Comparison::Corrupt(reason)) => {
                let path = String::new();
                let difference = Difference { path, kind: DifferenceKind::Changed, mongo: None, kv: Some(reason) };
                judged(Outcome::Corrupt, vec![difference])
            }
            Some(_) if revisions.0 != revisions.1 && may_be_under_way() => judged(Outcome::InFlight, Vec::new()),
            Some(Comparison::Different { differences, .. }) => judged(Outcome::Different, differences),
            Some(Comparison::Equal) => consistent,
        }
    }

    /// Counts an outcome.
    pub(super) fn count(&self, outcome: Outcome) {
        self.0.mirror.metrics().validation(outcome);
    }

    /// Counts an outcome, and has a bad one looked at again.
    pub(super) fn note(&self, key: &DocumentKey, judgement: Judgement) -> Outcome {
        let outcome = judgement.outcome;
        self.count(outcome);
        if outcome == Outcome::Consistent {
            self.0.mismatches.resolve(key, &self.0.backend);
        } else if kind(outcome).is_some() {
            self.recheck(key.clone(), judgement);
        }
        outcome
    }

    /// Compares in the background what was just read.
    pub(super) fn defer(&self, documents: Vec<(DocumentKey, Option<MemCell>)>) {
        let Ok(permit) = Arc::clone(&self.0.background).try_acquire_owned() else {
            documents.iter().for_each(|_| self.count(Outcome::Skipped));
            return;
        };
        let validator = self.clone();
        tokio::spawn(carried(async move {
            let _permit = permit;
            let keys: Vec<&DocumentKey> = documents.iter().map(|(key, _)| key).collect();
            let deadline = validator.deadline();
            match validator.read(&keys, deadline).await {
                Err(unread) => documents.iter().for_each(|_| validator.count(unread)),
                Ok(copies) => {
                    // Nobody waits for the outcome, and MongoDB's being away is no finding about the copies.
                    let documents: Vec<_> = documents.iter().map(|(key, document)| (key, document.as_ref())).collect();
                    if let Err(error) = validator.conclude_many(&documents, &copies, deadline).await {
                        tracing::debug!(%error, "a read could not be validated in the background");
                    }
                }
            }
        }));
    }

    /// Judges each document with its copy, and answers the worst outcome.
    pub(super) async fn conclude_many(
        &self,
        documents: &[(&DocumentKey, Option<&MemCell>)],
        copies: &[Option<Entry>],
        deadline: Instant,
    ) -> Result<Outcome> {
        let mut suspects = Vec::new();
        let mut outcome = Outcome::Consistent;
        let mut scratch = Vec::new();
        for ((key, document), copy) in documents.iter().zip(copies) {
            let judgement = self.judge(key, *document, copy.as_ref(), &mut scratch);
            if kind(judgement.outcome).is_some() {
                suspects.push(((*key).clone(), judgement));
            } else {
                outcome = worst(outcome, self.note(key, judgement));
            }
        }
        if !suspects.is_empty() {
            let closer = self.look_closer(suspects, deadline).await?;
            outcome = closer.into_iter().map(|(_, outcome)| outcome).fold(outcome, worst);
        }
        Ok(outcome)
    }

    /// Looks at both sides again after the mirror had its time. What is still wrong then, and unchanged, is confirmed.
    fn recheck(&self, key: DocumentKey, first: Judgement) {
        let Ok(permit) = Arc::clone(&self.0.background).try_acquire_owned() else { return };
        if !self.0.rechecking.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return;
        }
        let validator = self.clone();
        let first_seen = bson::DateTime::now();
        tokio::spawn(carried(async move {
            let _permit = permit;
            tokio::select! {
                confirmed = validator.look_again(&key, first) => {
                    if let Some(confirmed) = confirmed {
                        validator.confirm(key.clone(), confirmed, first_seen);
                    }
                }
                // A backend that was removed is of no interest any more.
                () = validator.0.mirror.closed() => {}
            }
            validator.0.rechecking.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }));
    }

    async fn look_again(&self, key: &DocumentKey, mut before: Judgement) -> Option<Judgement> {
        for _ in 0..MAX_LOOKS {
            let looked_at = unix_millis();
            tokio::time::sleep(self.0.config.recheck_after).await;
            // What the mirror had not seen by the last look may have been on its way. One that doesn't get there isn't live.
            tokio::time::timeout(MAX_CATCH_UP, self.0.mirror.passed(looked_at)).await.ok()?;
            let document = self.0.repository.get_by_key(key, Visibility::Live);
            let (document, copies) = tokio::join!(document, self.read(std::slice::from_ref(key), self.deadline()));
            // Without both sides there is nothing to say; the next read of the document will find the same.
            let (document, copy) = (document.ok()?, copies.ok()?.pop().flatten());
            let now = self.judge(key, document.as_ref(), copy.as_ref(), &mut Vec::new());
            match now.outcome {
                Outcome::Consistent | Outcome::Skipped | Outcome::Unavailable => return None,
                outcome if outcome == before.outcome && now.evidence == before.evidence => return Some(now),
                _ => before = now,
            }
        }
        None
    }

    fn confirm(&self, key: DocumentKey, judgement: Judgement, first_seen: bson::DateTime) {
        let Some(kind) = kind(judgement.outcome) else { return };
        // Paths say what is wrong without saying what is in the document.
        let paths: Vec<&str> = judgement.differences.iter().map(|difference| difference.path.as_str()).collect();
        let paths = paths.join(", ");
        let mismatch = Mismatch {
            event_id: key.clone(),
            backend: self.0.backend.to_string(),
            kind,
            differences: judgement.differences.clone(),
            first_seen,
            confirmed_at: bson::DateTime::now(),
        };
        let is_new = self.0.mismatches.add(mismatch, || !self.0.mirror.is_retired());
        if is_new {
            self.0.mirror.metrics().confirmed(kind);
            let (mongo, kv) = judgement.revisions;
            // Of a copy that can't be read, what the other side has is why.
            let is_unreadable = judgement.outcome == Outcome::Corrupt;
            let reason = judgement.differences.first().and_then(|difference| difference.kv.as_deref());
            tracing::error!(
                event_id = %key, backend = %self.0.backend, kind, paths, reason = reason.filter(|_| is_unreadable),
                mongo_revision = mongo, kv_revision = kv, "confirmed mismatch between mongodb and its mirror"
            );
        }
        if self.0.config.repair {
            let validator = self.clone();
            tokio::spawn(carried(async move { validator.repair(key).await }));
        }
    }

    /// Has the tail mend a copy, and looks at both sides then. If they agree, the row is off the list; else it stays.
    pub(super) async fn repair(&self, key: DocumentKey) -> Result<Outcome, KvError> {
        let (backend, mirror) = (&self.0.backend, &self.0.mirror);
        let ended = tokio::time::timeout(MAX_REPAIR, mirror.repair(vec![key.clone()])).await;
        let ended =
            ended.unwrap_or_else(|_| Err(KvError::Down(format!("it did not come to an end within {MAX_REPAIR:?}"))));
        if let Err(error) = ended {
            // It stays on the list, and the next read of the document finds it again.
            tracing::warn!(event_id = %key, %backend, %error, "a mismatch could not be repaired");
            return Err(error);
        }
        let outcome = self.look_at_repaired(&key).await;
        if outcome == Outcome::Consistent {
            self.0.mismatches.resolve(&key, backend);
            tracing::info!(event_id = %key, %backend, "mismatch repaired");
        } else {
            let outcome = outcome.as_str();
            tracing::warn!(event_id = %key, %backend, outcome, "after its repair, a copy is not known to be right");
        }
        Ok(outcome)
    }

    async fn look_at_repaired(&self, key: &DocumentKey) -> Outcome {
        let mut outcome = Outcome::Skipped;
        for _ in 0..MAX_LOOKS {
            let document = self.0.repository.get_by_key(key, Visibility::Live);
            let (document, copies) =
                tokio::join!(document, self.read(std::slice::from_ref(key), Instant::now() + REPAIRED_BUDGET));
            outcome = match (document, copies) {
                (Ok(document), Ok(mut copies)) => {
                    let copy = copies.pop().flatten();
                    self.judge(key, document.as_ref(), copy.as_ref(), &mut Vec::new()).outcome
                }
                (Err(_), _) => Outcome::Unavailable,
                (_, Err(unread)) => unread,
            };
            if outcome != Outcome::InFlight {
                break;
            }
            // Somebody is changing it.
            tokio::time::sleep(self.0.config.recheck_after).await;
        }
        outcome
    }
}

fn whole_document_only_in_kv() -> Difference {
    Difference { path: String::new(), kind: DifferenceKind::OnlyInKv, mongo: None, kv: None }
}

/// The worse of two outcomes: the one that an operator should hear of first.
pub(super) fn worst(a: Outcome, b: Outcome) -> Outcome {
    let badness = |outcome: Outcome| match outcome {
        Outcome::Consistent => 0,
        Outcome::Skipped => 1,
        Outcome::InFlight => 2,
        Outcome::Unavailable => 3,
        Outcome::Missing => 4,
        Outcome::Different => 5,
        Outcome::Corrupt => 6,
    };
    if badness(b) > badness(a) { b } else { a }
}
