//! One part of a job, from being taken to being done or given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch::LEASE;
use super::pace::Pace;
use super::seen::Seen;
use super::trouble::Trouble;
use super::{Inner, Running, documents, entries};
use crate::Error;
use crate::kv::KvError;
use crate::memcell::DocumentKey;
use crate::mirror::{Mirror, MirrorState, RefillError, Tenure};
use crate::mongo::{Finding, IdRange, JobKind, JobRecord, Needs, PartScope, Place, TakenPart, Tally};
use crate::store::MemCellStore;
use crate::validation::Comparer;

/// How often progress is noted while nothing else calls for it.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// How often a sign of life is given.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// How long the tail may take to read some documents anew.
const REREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Examples that a part keeps for each kind of difference.
const EXAMPLES: usize = 10;

/// How the work on a part ended.
#[derive(Debug)]
pub(super) enum End {
    Done,
    /// Somebody else has it by now.
    Lost,
    /// Nobody wants it any more, or the host is closing.
    Cancelled,
    /// It makes no sense to try again.
    Failed(String),
    /// It does.
    Passing(String),
}

/// Why a part can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum TaskError {
    #[error("can't read from MongoDB: {0}")]
    Mongo(#[from] Error),
    #[error("{0}")]
    Backend(#[from] KvError),
    #[error("the mirror is {0}")]
    NotReady(String),
    #[error("{0}")]
    Hopeless(String),
    #[error("another host took it over")]
    Lost,
}

impl From<RefillError> for TaskError {
    fn from(error: RefillError) -> Self {
        match error {
            RefillError::Mongo(error) => error.into(),
            RefillError::Backend(error) => error.into(),
            error @ (RefillError::Suspicious { .. } | RefillError::GoneBack { .. }) => {
                Self::Hopeless(error.to_string())
            }
        }
    }
}

/// What the work on a part has at hand.
pub(super) struct Task<'a> {
    pub(super) store: &'a MemCellStore,
    pub(super) mirror: Arc<Mirror>,
    pub(super) job: &'a JobRecord,
    pub(super) comparer: &'a Comparer,
    pub(super) pace: Pace,
    pub(super) seen: Seen,
    trouble: Trouble,
    part: TakenPart,
    noted: Instant,
    /// The backend's, since it was ready for the first of what it is to keep.
    tenure: Option<Tenure>,
}

/// Works on a part until it is done or can't go on. What is cut off is done again from where it was last noted.
pub(super) async fn run(inner: &Inner, job: &JobRecord, part: TakenPart, running: &Running) -> End {
    let mirror = match inner.mirror(Some(&job.backend)) {
        Ok(mirror) => mirror,
        Err(error) => return End::Passing(error.to_string()),
    };
    let repository = inner.store.repository();
    let kept = part.clone();
    if job.sweep {
        mirror.allow_removals();
    }
    let mut task = Task {
        store: &inner.store,
        tenure: None,
        mirror,
        job,
        comparer: &inner.comparer,
        pace: running.pace.clone(),
        seen: running.seen.clone(),
        trouble: running.trouble.clone(),
        noted: Instant::now(),
        part,
    };
    let alive = async {
        loop {
            tokio::time::sleep(SIGN_OF_LIFE).await;
            if matches!(repository.keep_part(&kept).await, Ok(false)) {
                return TaskError::Lost;
            }
        }
    };
    let result = tokio::select! {
        result = task.work() => result,
        lost = alive => Err(lost),
        () = running.cancelled.cancelled() => {
            // If it can't be given back, it becomes free by itself.
            let _ = tokio::time::timeout(LEASE, repository.release_part(&kept)).await;
            return End::Cancelled;
        }
    };
    match result {
        Ok(()) => End::Done,
        Err(TaskError::Lost) => End::Lost,
        Err(TaskError::Hopeless(reason)) => End::Failed(reason),
        Err(error) => {
            let _ = tokio::time::timeout(LEASE, repository.release_part(&kept)).await;
            End::Passing(error.to_string())
        }
    }
}

impl Task<'_> {
    async fn work(&mut self) -> Result<(), TaskError> {
        if self.writes_lasting_copies() {
            self.ready(MirrorState::takes_copies).await?;
            self.tenure = Some(self.mirror.tenure());
        }
        match self.part.record.scope.clone() {
            PartScope::Documents { after, up_to } => documents::walk(self, IdRange { after, up_to }).await?,
            PartScope::Entries { shard } => {
                // The better part of the entries is of documents that are just being looked at.
                self.seen.complete().await;
                entries::walk(self, shard).await?;
            }
        }
        self.part.record.done = true;
        self.note().await
    }

    /// Where the part goes on.
    pub(super) fn place(&self) -> Option<&Place> {
        self.part.record.place.as_ref()
    }

    /// All of the part is done again, and counted again but for what was mended.
    pub(super) fn start_over(&mut self) {
        let repairs = self.repairs();
        let record = &mut self.part.record;
        record.place = None;
        record.tally = record.tally.mended(repairs);
        record.needs = Needs::default();
        if !repairs {
            record.findings.clear();
        }
    }

    /// Whether differences are mended.
    pub(super) fn repairs(&self) -> bool {
        match self.job.kind {
            JobKind::Repair => true,
            JobKind::Backfill => self.job.sweep,
            JobKind::Verify | JobKind::Restore | JobKind::Rekey => false,
        }
    }

    /// Adds to what the part came to, with the place up to which that holds; `None`: its end. Noted at once, or a little later; at the
    /// end together with that it is the end.
    ///
    /// # Errors
    /// If the part is no longer ours, or MongoDB is away.
    pub(super) async fn advance(&mut self, place: Option<Place>, tally: Tally) -> Result<(), TaskError> {
        self.mirror.metrics().job_items(self.job.kind.as_str(), tally.examined);
        self.trouble.is_over();
        let record = &mut self.part.record;
        record.tally = record.tally.plus(tally);
        if place.is_none() {
            return Ok(());
        }
        record.place = place;
        if self.noted.elapsed() >= NOTED_EVERY { self.note().await } else { Ok(()) }
    }

    /// Keeps some findings as examples. Answers whether this is one.
    pub(super) fn remember(&mut self, finding: Finding) -> bool {
        let findings = &mut self.part.record.findings;
        let is_example = findings.iter().filter(|other| other.kind == finding.kind).count() < EXAMPLES;
        if is_example {
            findings.push(finding);
        }
        is_example
    }

    /// Has the tail read these documents anew and replace their copies, in its own order. Answers those that the backend doesn't take.
    ///
    /// # Errors
    /// If it can't, or takes too long.
    pub(super) async fn have_reread(&self, keys: Vec<DocumentKey>) -> Result<Vec<DocumentKey>, TaskError> {
        match tokio::time::timeout(REREAD_TIMEOUT, self.mirror.repair(keys)).await {
            Ok(end) => Ok(end?),
            Err(_) => Err(TaskError::NotReady("too busy to read documents anew".to_owned())),
        }
    }

    /// Counts what some entries need. Noted with the next advance.
    pub(super) fn add_needs(&mut self, needs: &Needs) {
        let before = std::mem::take(&mut self.part.record.needs);
        self.part.record.needs = before.plus(needs);
    }

    /// Whether it writes copies that are to outlast a crash.
    fn writes_lasting_copies(&self) -> bool {
        matches!(self.job.kind, JobKind::Backfill | JobKind::Repair | JobKind::Rekey) && self.mirror.keeps_data()
    }

    /// Notes how far the part is, once that is durable.
    async fn note(&mut self) -> Result<(), TaskError> {
        if self.writes_lasting_copies() {
            self.mirror.flush().await?;
            if self.tenure != Some(self.mirror.tenure()) {
                let reason = "what the backend took since the last note may be lost, and is done again";
                return Err(KvError::Down(reason.to_owned()).into());
            }
        }
        self.noted = Instant::now();
        if self.store.repository().advance_part(&self.part).await? { Ok(()) } else { Err(TaskError::Lost) }
    }

    /// That the mirror vouches for what was just read for this key.
    ///
    /// # Errors
    /// [`TaskError::NotReady`] if it doesn't.
    pub(super) fn vouched(&self, key: &DocumentKey) -> Result<(), TaskError> {
        if self.mirror.vouches_for(key) { Ok(()) } else { Err(self.not_ready()) }
    }

    /// The mirror is in no state to go on with.
    pub(super) fn not_ready(&self) -> TaskError {
        TaskError::NotReady(self.mirror.state().name().to_owned())
    }

    /// Waits until the mirror is in a state that `fits`.
    ///
    /// # Errors
    /// [`TaskError::Hopeless`] if it never will be.
    pub(super) async fn ready(&self, fits: impl Fn(&MirrorState) -> bool) -> Result<(), TaskError> {
        let mut states = self.mirror.watch_state();
        let mut has_waited = false;
        loop {
            let state = states.borrow_and_update().clone();
            let reason = match state {
                state if fits(&state) => {
                    if has_waited {
                        self.trouble.is_over();
                    }
                    return Ok(());
                }
                MirrorState::Failed { reason } => {
                    return Err(TaskError::Hopeless(format!("the backend has failed: {reason}")));
                }
                MirrorState::Closed => return Err(TaskError::NotReady("closed".to_owned())),
                // What it waits for is what this job is to bring about, and can't beside it.
                MirrorState::Degraded { reason } if self.job.kind == JobKind::Restore && self.mirror.is_undecided() => {
                    return Err(TaskError::Hopeless(reason));
                }
                MirrorState::Degraded { reason } => format!("degraded: {reason}"),
                state => state.name().to_owned(),
            };
            self.trouble.is(format!("waits for the backend, which is {reason}"));
            has_waited = true;
            if states.changed().await.is_err() {
                return Err(TaskError::NotReady("gone".to_owned()));
            }
        }
    }
}
