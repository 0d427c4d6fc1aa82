//! Looking for parts that can be worked on, and having them worked on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::figures::Figures;
use super::pace::Pace;
use super::seen::{Seen, Walk};
use super::task::{self, End};
use super::trouble::Trouble;
use super::{Inner, Running, rekey};
use crate::Result;
use crate::mongo::{JobKind, JobRecord, JobState, PartScope, Sighting, TakenPart};

/// How often it looks, if nobody calls.
const POLL: Duration = Duration::from_secs(1);

/// Parts of one job that a host works on at a time. More would only get into each other's way. Every job has its own: one that waits,
/// for its backend or for its rate, must not keep others waiting, least of all the one that would put an end to that.
const WORKERS: usize = 3;

/// How long a part stays with a host that gives no sign of life.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// Pause before a part is tried again that could not be worked on.
const RETRY: Duration = Duration::from_secs(1);

/// Works until the jobs are closed.
pub(super) async fn dispatch(inner: Arc<Inner>) {
    let mut workers: JoinSet<()> = JoinSet::new();
    let mut sightings = HashMap::new();
    let mut taken_count = 0_u64;
    let mut figures = Figures::default();
    let closing = inner.closing.clone();
    while !closing.is_cancelled() {
        match turn(&inner, &mut workers, &mut sightings, &mut taken_count).await {
            Ok(()) => {
                if let Err(error) = figures.take(&inner).await {
                    tracing::debug!(%error, "the figures of jobs can't be taken");
                }
            }
            // Jobs wait until MongoDB is back.
            Err(error) => tracing::debug!(%error, "jobs can't be looked for"),
        }
        tokio::select! {
            () = inner.wake.notified() => {}
            () = tokio::time::sleep(POLL) => {}
            Some(_) = workers.join_next(), if !workers.is_empty() => {}
            () = closing.cancelled() => {}
        }
    }
    // Each gives its part back and ends.
    while workers.join_next().await.is_some() {}
}

async fn turn(
    inner: &Arc<Inner>,
    workers: &mut JoinSet<()>,
    sightings: &mut HashMap<String, Sighting>,
    taken_count: &mut u64,
) -> Result<()> {
    let repository = inner.store.repository();
    let listed = repository.list_jobs(true).await?;
    // What another host has ended is not worked on any longer.
    inner.running().retain(|id, running| {
        let is_running = listed.iter().any(|job| job.id == *id);
        if !is_running {
            running.cancelled.cancel();
        }
        is_running
    });
    let mut jobs = Vec::new();
    for job in listed {
        if let Some(job) = look_after(inner, job).await? {
            jobs.push(job);
        }
    }
    loop {
        let ids: Vec<&str> =
            jobs.iter().filter(|job| workers_on(inner, job) < WORKERS).map(|job| job.id.as_str()).collect();
        if ids.is_empty() {
            break;
        }
        *taken_count += 1;
        let worker = format!("{}/{taken_count}", inner.process);
        let Some(part) = repository.take_part(&ids, &worker, LEASE, sightings).await? else { break };
        let Some(job) = jobs.iter().find(|job| job.id == part.record.job) else { break };
        let running = running(inner, job);
        // Before anything else is taken: what looks through entries is to wait for it.
        let walk = matches!(part.record.scope, PartScope::Documents { .. }).then(|| running.seen.walk());
        workers.spawn(work(Arc::clone(inner), job.clone(), part, running, walk));
    }
    Ok(())
}

/// Ends a job that is to be ended. Answers it if this host can work on it.
async fn look_after(inner: &Inner, job: JobRecord) -> Result<Option<JobRecord>> {
    let repository = inner.store.repository();
    let is_ours = job.host.as_ref().is_none_or(|host| *host == inner.host);
    let mirror = inner.mirror(Some(&job.backend)).ok();
    let has_backend = mirror.is_some();
    // Only who has the tail can repair.
    let needs_tail = matches!(job.kind, JobKind::Repair | JobKind::Rekey);
    let can_work = mirror.as_ref().is_some_and(|mirror| !needs_tail || mirror.is_tailing());
    let end = if job.cancel {
        Some((JobState::Cancelled, None))
    } else if !is_ours {
        None
    } else if !has_backend && job.host.is_some() {
        Some((JobState::Failed, Some("the backend is no longer configured".to_owned())))
    } else if let Some(mirror) = mirror.filter(|_| can_work || !needs_tail) {
        let parts = repository.job_parts(&[&job.id]).await?;
        // What was found out by a rekey counts once the backend itself knows of it.
        let is_done =
            parts.iter().all(|part| part.done) && (job.kind != JobKind::Rekey || rekey::conclude(&mirror, &parts));
        let examined = parts.iter().map(|part| part.tally.examined).sum();
        is_done.then(|| match shortfall(job.kind, job.estimate, examined) {
            None => (JobState::Done, None),
            short => (JobState::Failed, short),
        })
    } else {
        None
    };
    let Some((state, reason)) = end else { return Ok((is_ours && can_work).then_some(job)) };
    if repository.end_job(&job.id, state, reason.as_deref()).await? {
        count_end(inner, &job, state);
        tracing::info!(job = %job.id, kind = ?job.kind, backend = %job.backend, ?state, reason, "job ended");
    }
    if let Some(running) = inner.running().remove(&job.id) {
        running.cancelled.cancel();
    }
    Ok(None)
}

/// What is wrong with a job that has come across so many entries, if it is a restore that found far fewer than the backend had when it
/// was ordered. To whoever looks through it from the start again, a store that has lost its data meanwhile looks like one that never
/// had more.
fn shortfall(kind: JobKind, estimate: u64, examined: u64) -> Option<String> {
    let is_short = kind == JobKind::Restore && examined < estimate / 4 * 3;
    is_short.then(|| {
        format!(
            "the backend had about {estimate} entries when this was ordered, and only {examined} were there to be looked at: it has lost \
             the others meanwhile, unless they have expired. What was brought back stays in mongodb"
        )
    })
}

/// What the workers on this job have in common.
fn running(inner: &Inner, job: &JobRecord) -> Running {
    let first = || Running {
        cancelled: inner.closing.child_token(),
        pace: Pace::new(job.rate),
        seen: Seen::new(),
        trouble: Trouble::default(),
        workers: Arc::default(),
    };
    inner.running().entry(job.id.clone()).or_insert_with(first).clone()
}

/// How many workers of this host a job has.
fn workers_on(inner: &Inner, job: &JobRecord) -> usize {
    inner.running().get(&job.id).map_or(0, |running| Arc::strong_count(&running.workers) - 1)
}

async fn work(inner: Arc<Inner>, job: JobRecord, part: TakenPart, running: Running, walk: Option<Walk>) {
    let (id, scope) = (part.record.id.clone(), part.record.scope.clone());
    let end = task::run(&inner, &job, part, &running).await;
    drop(walk);
    match end {
        End::Done | End::Lost | End::Cancelled => {}
        End::Failed(reason) => {
            tracing::error!(job = %job.id, part = %id, ?scope, reason, "job can't go on");
            let ended = inner.store.repository().end_job(&job.id, JobState::Failed, Some(&reason)).await;
            match ended {
                Ok(true) => count_end(&inner, &job, JobState::Failed),
                Ok(false) => {}
                // It is taken up again, and fails again.
                Err(error) => tracing::warn!(job = %job.id, %error, "the failure of a job could not be noted"),
            }
        }
        End::Passing(reason) => {
            tracing::warn!(job = %job.id, part = %id, ?scope, reason, "a part of a job is tried again");
            running.trouble.is(reason);
            let _ = running.cancelled.run_until_cancelled(tokio::time::sleep(RETRY)).await;
        }
    }
}

/// Counts a job whose end this host noted.
fn count_end(inner: &Inner, job: &JobRecord, state: JobState) {
    if let Ok(mirror) = inner.mirror(Some(&job.backend)) {
        mirror.metrics().job_finished(job.kind.as_str(), state.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_found_much_less_than_there_was_has_failed() {
        let reason = shortfall(JobKind::Restore, 6000, 2000).unwrap();
        assert!(reason.contains("6000") && reason.contains("only 2000"), "{reason}");
        assert!(shortfall(JobKind::Restore, 1500, 0).is_some());
        for (estimate, examined) in [(6000, 6000), (6000, 5000), (6000, 7000), (0, 0), (0, 5), (3, 2)] {
            assert_eq!(shortfall(JobKind::Restore, estimate, examined), None, "{examined} of {estimate}");
        }
        assert_eq!(shortfall(JobKind::Verify, 6000, 0), None);
    }
}
