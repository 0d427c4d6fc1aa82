//! Work on whole collections: backfill, verify, repair, restore, rekey.
//!
//! A job is a record in MongoDB, cut into parts: ranges of document ids, and shards of a backend. Hosts take parts under leases and
//! note how far they are, so a job goes on where it was after a crash, and hosts that share a backend share its jobs. A backend of
//! this host alone is worked on by this host alone.
//!
//! Jobs run while others write. What differs is looked at again, after the mirror has passed the first look, and counts only if
//! neither side has changed in between: so a change that is on its way is no difference. What is mended is mended by the tail
//! ([`Mirror::repair`](crate::mirror::Mirror::repair)), in its own order, so that no concurrent write can be undone.

mod dispatch;
mod documents;
mod entries;
mod figures;
mod pace;
mod rekey;
mod report;
mod schedule;
mod seen;
mod suspects;
mod task;
mod trouble;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bson::DateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::pace::Pace;
pub use self::report::{JobProgress, JobReport};
use self::seen::Seen;
use self::trouble::Trouble;
use crate::config::{HostConfig, ScheduleConfig};
use crate::mirror::Mirror;
pub use crate::mongo::{Finding, JobKind, JobState, Needs, Tally};
use crate::mongo::{IdRange, JobRecord, PartRecord, PartScope};
use crate::store::MemCellStore;
use crate::validation::Comparer;
use crate::{Error, ErrorKind, Result};

/// Ranges that the documents of a job are cut into at the most.
const MAX_RANGES: usize = 64;

/// Fewer documents than this are not worth a range of their own: to draw bounds costs as well. Several hosts can share more of them.
const SMALLEST_RANGE: u64 = 200_000;
const SMALLEST_SHARED_RANGE: u64 = 25_000;

/// A server that takes as long as this to count documents has to look at each of them, and isn't asked again for a while: the count
/// is there to tell progress by.
const LONG_COUNT: Duration = Duration::from_millis(50);
const COUNT_AGE: Duration = Duration::from_secs(60);

/// What somebody wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOrder {
    /// What.
    pub kind: JobKind,
    /// Of which backend; `None`: the one that there is.
    pub backend: Option<String>,
    /// Whether whole documents are compared, and not only what digests tell. A backend without digests is compared deeply anyway.
    pub deep: bool,
    /// Whether a backfill also removes entries whose document is gone.
    pub sweep: bool,
    /// Documents and entries a second that each host works on at the most.
    pub rate: Option<u32>,
}

impl JobOrder {
    fn reads_entries(&self) -> bool {
        self.kind != JobKind::Backfill || self.sweep
    }
}

/// The jobs of this host. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    store: MemCellStore,
    /// The host's name, the same after a restart.
    host: String,
    /// A name of this process alone.
    process: String,
    schedule: ScheduleConfig,
    comparer: Comparer,
    /// How many documents there were, and when, if it took long to count them.
    counted: tokio::sync::Mutex<Option<(Instant, u64)>>,
    /// Told when there is something to do.
    wake: Notify,
    /// Of each job that this host works on.
    running: Mutex<HashMap<String, Running>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// What the workers on one job have in common.
#[derive(Clone)]
struct Running {
    cancelled: CancellationToken,
    pace: Pace,
    seen: Seen,
    trouble: Trouble,
    /// One reference for each of them, and one that is kept.
    workers: Arc<()>,
}

impl Jobs {
    /// Begins to work on the jobs that there are, and to order those that the schedule says.
    pub fn start(store: &MemCellStore, host: &HostConfig, schedule: &ScheduleConfig) -> Self {
        let inner = Arc::new(Inner {
            store: store.clone(),
            host: host.name.clone(),
            process: store.process().to_owned(),
            schedule: schedule.clone(),
            comparer: Comparer::new(),
            counted: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            running: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        inner.tasks.spawn(dispatch::dispatch(Arc::clone(&inner)));
        inner.tasks.spawn(schedule::keep(Arc::clone(&inner)));
        inner.tasks.close();
        Self { inner }
    }

    /// Notes a job, for this host and those that share the backend to work on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a backend that there isn't; [`ErrorKind::AlreadyExists`] if the same is being done already;
    /// those of MongoDB being away.
    pub async fn order(&self, order: &JobOrder) -> Result<JobReport> {
        self.inner.order(order).await
    }

    /// All jobs that are remembered, the newest first.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn list(&self) -> Result<Vec<JobReport>> {
        let repository = self.inner.store.repository();
        let jobs = repository.list_jobs(false).await?;
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        let mut parts: HashMap<String, Vec<PartRecord>> = HashMap::new();
        for part in repository.job_parts(&ids).await? {
            parts.entry(part.job.clone()).or_default().push(part);
        }
        Ok(jobs
            .into_iter()
            .map(|job| {
                let parts = parts.remove(&job.id).unwrap_or_default();
                self.inner.report(job, &parts)
            })
            .collect())
    }

    /// One job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none with this id; those of MongoDB being away.
    pub async fn get(&self, id: &str) -> Result<JobReport> {
        let repository = self.inner.store.repository();
        let job = repository.job(id).await?.ok_or_else(|| no_such_job(id))?;
        let parts = repository.job_parts(&[id]).await?;
        Ok(self.inner.report(job, &parts))
    }

    /// Asks for a job to be given up, wherever it is worked on. One that has ended is left as it is.
    ///
    /// # Errors
    /// As [`Jobs::get`].
    pub async fn cancel(&self, id: &str) -> Result<JobReport> {
        let is_running = self.inner.store.repository().cancel_job(id).await?;
        if is_running {
            if let Some(running) = self.inner.running().get(id) {
                running.cancelled.cancel();
            }
            self.inner.wake.notify_one();
        }
        self.get(id).await
    }

    /// Stops working, and gives back what this host has in hand: other hosts, or its next start, go on from there.
    pub async fn close(&self, grace: Duration) {
        self.inner.closing.cancel();
        // Whatever isn't given back becomes free by itself.
        let _ = tokio::time::timeout(grace, self.inner.tasks.wait()).await;
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job, with what keeps this host from getting on with it.
    fn report(&self, job: JobRecord, parts: &[PartRecord]) -> JobReport {
        let trouble = self.running().get(&job.id).and_then(|running| running.trouble.now());
        let trouble = trouble.filter(|_| job.state == JobState::Running);
        JobReport::new(JobRecord { reason: job.reason.clone().or(trouble), ..job }, parts)
    }

    async fn order(&self, order: &JobOrder) -> Result<JobReport> {
        if order.sweep && order.kind != JobKind::Backfill {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "sweep only goes with a backfill; a repair sweeps anyway",
            ));
        }
        if order.deep && !matches!(order.kind, JobKind::Verify | JobKind::Repair) {
            return Err(Error::new(ErrorKind::InvalidArgument, "deep only goes with a verify or a repair"));
        }
        let mirror = self.mirror(order.backend.as_deref())?;
        let backend = &mirror.config().name;
        let repository = self.store.repository();
        let shared = mirror.is_shared();
        let host = (!shared).then(|| self.host.clone());
        // One that does less is none that this order could be taken for.
        let covers = |job: &JobRecord| (job.deep || !order.deep) && (job.sweep || !order.sweep);
        let same =
            |job: &JobRecord| job.kind == order.kind && job.backend == *backend && job.host == host && covers(job);
        if let Some(other) = repository.list_jobs(true).await?.into_iter().find(same) {
            let message = format!("job {} is doing the same, and has not ended", other.id);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let id = bson::oid::ObjectId::new().to_hex();
        let documents = match order.kind {
            JobKind::Restore | JobKind::Rekey => 0,
            JobKind::Backfill | JobKind::Verify | JobKind::Repair => self.documents().await?,
        };
        let scopes = self.scopes(order, &mirror, documents).await?;
        // One that is not opened yet looks like one without entries, of which nothing would be left to rewrite.
        if order.kind == JobKind::Rekey && scopes.is_empty() {
            let message = format!("backend {backend} is {}: order it when it is live", mirror.state().name());
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let parts: Vec<PartRecord> =
            scopes.into_iter().enumerate().map(|(number, scope)| PartRecord::new(&id, number, scope)).collect();
        let job = JobRecord {
            id,
            kind: order.kind,
            backend: backend.clone(),
            host,
            deep: order.deep,
            sweep: order.sweep,
            rate: order.rate,
            state: JobState::Running,
            reason: None,
            cancel: false,
            estimate: documents + entries(order, &mirror, documents).await,
            created_at: DateTime::now(),
            ended_at: None,
        };
        repository.create_job(&job, &parts).await?;
        tracing::info!(job = %job.id, kind = ?job.kind, backend = %job.backend, parts = parts.len(), "job ordered");
        self.wake.notify_one();
        Ok(JobReport::new(job, &parts))
    }

    /// About how many documents there are, or were a little while ago.
    async fn documents(&self) -> Result<u64> {
        let mut counted = self.counted.lock().await;
        if let Some((at, count)) = *counted
            && at.elapsed() < COUNT_AGE
        {
            return Ok(count);
        }
        let started = Instant::now();
        let count = self.store.repository().estimated_count().await?;
        *counted = (started.elapsed() >= LONG_COUNT).then(|| (Instant::now(), count));
        Ok(count)
    }

    /// The backend of this name, or the only one.
    fn mirror(&self, name: Option<&str>) -> Result<Arc<Mirror>> {
        let mirrors = self.store.mirrors();
        let unusable = |message: String| Error::new(ErrorKind::InvalidArgument, message);
        let names = || mirrors.iter().map(|mirror| mirror.config().name.as_str()).collect::<Vec<_>>().join(", ");
        match (name, mirrors.as_slice()) {
            (_, []) => Err(unusable("no backend is configured".to_owned())),
            (None, [mirror]) => Ok(Arc::clone(mirror)),
            (None, _) => Err(unusable(format!(
                "there are several backends, name one (`backend`, or `--backend` of a command): {}",
                names()
            ))),
            (Some(name), all) => match all.iter().find(|mirror| mirror.config().name == name) {
                Some(mirror) => Ok(Arc::clone(mirror)),
                None => Err(unusable(format!("there is no backend {name:?}, there is {}", names()))),
            },
        }
    }

    async fn scopes(&self, order: &JobOrder, mirror: &Mirror, documents: u64) -> Result<Vec<PartScope>> {
        let mut scopes = Vec::new();
        if !matches!(order.kind, JobKind::Restore | JobKind::Rekey) {
            let smallest = if mirror.is_shared() { SMALLEST_SHARED_RANGE } else { SMALLEST_RANGE };
            let ranges = self.store.repository().worthwhile_ranges(documents, smallest, MAX_RANGES).await?;
            scopes.extend(ranges.into_iter().map(|IdRange { after, up_to }| PartScope::Documents { after, up_to }));
        }
        if order.reads_entries() {
            scopes.extend(mirror.scanned_shards().map(|shard| PartScope::Entries { shard }));
        }
        Ok(scopes)
    }
}

/// About how many entries a job looks through: as many as there are documents, where it can't be asked.
async fn entries(order: &JobOrder, mirror: &Mirror, documents: u64) -> u64 {
    if order.reads_entries() { mirror.entries().await.unwrap_or(documents) } else { 0 }
}

fn no_such_job(id: &str) -> Error {
    let shown: String = id.chars().take(64).collect();
    Error::new(ErrorKind::NotFound, format!("there is no job {shown:?}"))
}
