//! The figures of jobs, for `/metrics`: taken from their records, so that they are right after a restart as well, and on every host
//! that shares a backend.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Inner;
use crate::Result;
use crate::metrics::RunningJob;
use crate::mirror::Mirror;
use crate::mongo::{JobKind, JobRecord, JobState, PartRecord, Tally};

/// How often they are taken. Whoever wants to see a job move looks at the API.
const PERIOD: Duration = Duration::from_secs(5);

/// What was taken last.
#[derive(Default)]
pub(super) struct Figures {
    taken: Option<Instant>,
    /// The last verify of each backend, and the differences that it left: that doesn't change any more.
    verified: HashMap<String, (String, u64)>,
}

impl Figures {
    /// Takes them, if it is time to.
    ///
    /// # Errors
    /// Those of MongoDB being away: they stay as they are.
    pub(super) async fn take(&mut self, inner: &Inner) -> Result<()> {
        if self.taken.is_some_and(|taken| taken.elapsed() < PERIOD) {
            return Ok(());
        }
        self.taken = Some(Instant::now());
        let repository = inner.store.repository();
        let jobs = repository.list_jobs(false).await?;
        let running: Vec<&str> =
            jobs.iter().filter(|job| job.state == JobState::Running).map(|job| job.id.as_str()).collect();
        let parts = repository.job_parts(&running).await?;
        for mirror in inner.store.mirrors() {
            let ours = |job: &&JobRecord| {
                job.backend == mirror.config().name && job.host.as_ref().is_none_or(|host| *host == inner.host)
            };
            let running = jobs.iter().filter(ours).filter(|job| job.state == JobState::Running);
            let running: Vec<RunningJob> = running.map(|job| progress(job, &parts)).collect();
            mirror.metrics().jobs_running(&running);
            // The newest comes first.
            if let Some(job) = jobs.iter().filter(ours).find(|job| is_complete_look(job)) {
                self.show_verified(inner, &mirror, job).await?;
            }
        }
        Ok(())
    }

    async fn show_verified(&mut self, inner: &Inner, mirror: &Mirror, job: &JobRecord) -> Result<()> {
        let Some(ended_at) = job.ended_at else { return Ok(()) };
        let known = self.verified.get(&job.backend).filter(|(id, _)| *id == job.id).map(|(_, left)| *left);
        let left = match known {
            Some(left) => left,
            None => {
                let tally = total(&inner.store.repository().job_parts(&[&job.id]).await?, &job.id);
                let left = tally.differences().saturating_sub(tally.repaired);
                self.verified.insert(job.backend.clone(), (job.id.clone(), left));
                left
            }
        };
        mirror.metrics().verified(ended_at.timestamp_millis(), left);
        Ok(())
    }
}

/// Whether this job has compared all there was.
fn is_complete_look(job: &JobRecord) -> bool {
    job.state == JobState::Done && matches!(job.kind, JobKind::Verify | JobKind::Repair)
}

fn progress(job: &JobRecord, parts: &[PartRecord]) -> RunningJob {
    RunningJob { job_kind: job.kind.as_str(), done: total(parts, &job.id).examined, expected: job.estimate }
}

fn total(parts: &[PartRecord], job: &str) -> Tally {
    parts.iter().filter(|part| part.job == job).map(|part| part.tally).fold(Tally::default(), Tally::plus)
}
