//! Ordering jobs from time to time, by one of the hosts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, JobKind, JobOrder};
use crate::Result;
use crate::mirror::{Mirror, MirrorState};
use crate::mongo::{Claim, JobRecord, Sighting};

/// How often it looks whether something is due.
const POLL: Duration = Duration::from_secs(5);

/// How long a host may take to order a job before others take its turn.
const TURN: Duration = Duration::from_secs(10);

/// Orders what is due until the jobs are closed.
pub(super) async fn keep(inner: Arc<Inner>) {
    let Some(every) = inner.schedule.verify else { return };
    let mut sightings: HashMap<String, Sighting> = HashMap::new();
    let work = async {
        loop {
            for mirror in inner.store.mirrors() {
                let backend = &mirror.config().name;
                if let Err(error) = order_if_due(&inner, &mirror, every, &mut sightings).await {
                    tracing::warn!(%backend, %error, "a scheduled job could not be ordered");
                }
            }
            tokio::time::sleep(POLL).await;
        }
    };
    inner.closing.run_until_cancelled(work).await;
}

/// A job is due if none of its kind was begun for as long as the interval, by anybody. Hosts that look at the same time take turns.
async fn order_if_due(
    inner: &Inner,
    mirror: &Mirror,
    every: Duration,
    sightings: &mut HashMap<String, Sighting>,
) -> Result<()> {
    // Whether it is shared isn't known before it has been opened, and what isn't up to date need not be verified.
    if mirror.state() != MirrorState::Live {
        return Ok(());
    }
    let schedule = &inner.schedule;
    let order = JobOrder {
        kind: if schedule.repair { JobKind::Repair } else { JobKind::Verify },
        backend: Some(mirror.config().name.clone()),
        deep: schedule.deep,
        sweep: false,
        rate: schedule.rate,
    };
    let host = (!mirror.is_shared()).then_some(inner.host.as_str());
    if !is_due(inner, &order, host, every).await? {
        return Ok(());
    }
    let repository = inner.store.repository();
    let name = format!("schedule:{}:{}", mirror.config().name, host.unwrap_or_default());
    let sighting = sightings.entry(name.clone()).or_default();
    let claim = repository.acquire_lease(&name, &inner.process, TURN, sighting).await?;
    let Claim::Held(turn) = claim else { return Ok(()) };
    // Somebody else may have ordered it between the look and the turn.
    if is_due(inner, &order, host, every).await? {
        let job = inner.order(&order).await?;
        tracing::info!(job = %job.id, backend = %job.backend, "scheduled job ordered");
    }
    repository.release_lease(&turn).await
}

async fn is_due(inner: &Inner, order: &JobOrder, host: Option<&str>, every: Duration) -> Result<bool> {
    let now = bson::DateTime::now().timestamp_millis();
    let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let jobs = inner.store.repository().list_jobs(false).await?;
    let same = |job: &&JobRecord| {
        job.kind == order.kind && Some(&job.backend) == order.backend.as_ref() && job.host.as_deref() == host
    };
    let is_recent =
        |job: &JobRecord| job.ended_at.is_none() || now.saturating_sub(job.created_at.timestamp_millis()) < every;
    Ok(!jobs.iter().filter(same).any(is_recent))
}
