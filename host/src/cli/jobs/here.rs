//! Doing a job in this process, while no host runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::summary::JobView;
use super::watch::Watch;
use super::{Failure, Wanted};
use crate::ErrorKind;
use crate::config::Config;
use crate::jobs::{JobKind, JobOrder, JobReport, Jobs};
use crate::metrics::Metrics;
use crate::mirror::MirrorState;
use crate::shutdown::Shutdown;
use crate::store::MemCellStore;

/// How often progress is looked at.
const POLL: Duration = Duration::from_millis(300);

/// How long a mirror may be degraded before a job on it is given up, if nobody else could go on with it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Does it, and watches.
pub(super) async fn work(
    config: &Config,
    wanted: &Wanted,
    json: bool,
    shutdown: &Shutdown,
) -> Result<JobView, Failure> {
    let config = only(config, wanted.backend.as_deref())?;
    let metrics = Arc::new(Metrics::new());
    // A mirror would take what MongoDB has lost for deletions.
    let store = match wanted.kind {
        JobKind::Restore => MemCellStore::open_detached(&config, metrics).await?,
        _ => MemCellStore::open(&config, metrics).await?,
    };
    let jobs = Jobs::start(&store, &config.host, &crate::config::ScheduleConfig::default());
    let outcome = watched(&store, &jobs, wanted, json, shutdown).await;
    jobs.close(config.http.shutdown_grace).await;
    if let Some(left) = store.close(config.http.shutdown_grace).await {
        tracing::warn!(%left, "the store was not closed cleanly");
    }
    outcome
}

async fn watched(
    store: &MemCellStore,
    jobs: &Jobs,
    wanted: &Wanted,
    json: bool,
    shutdown: &Shutdown,
) -> Result<JobView, Failure> {
    opened(store, shutdown).await?;
    let mut report = order(jobs, wanted).await?;
    let mut watch = Watch::start(&view(&report)?, json);
    watch.say(&format!("no host is running, job {} is done here", report.id));
    let mut is_cancelled = false;
    let mut degraded = Degraded::default();
    while !report.has_ended() {
        watch.show(&view(&report)?);
        if let Some(reason) = degraded.for_long(store) {
            watch.finish();
            jobs.cancel(&report.id).await?;
            return Err(Failure::Work(reason));
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = shutdown.requested(), if !is_cancelled => {
                is_cancelled = true;
                watch.say("giving the job up");
                jobs.cancel(&report.id).await?;
            }
        }
        report = jobs.get(&report.id).await?;
    }
    watch.finish();
    view(&report)
}

/// A mirror that can't go on, and so neither can the job.
#[derive(Default)]
struct Degraded {
    since: Option<Instant>,
}

impl Degraded {
    /// Why, once that has lasted longer than it takes to get over a lost instance or connection.
    fn for_long(&mut self, store: &MemCellStore) -> Option<String> {
        let reason = store.mirrors().iter().find_map(|mirror| match mirror.state() {
            MirrorState::Degraded { reason } => Some(format!("backend {}: {reason}", mirror.config().name)),
            _ => None,
        });
        let since = reason.as_ref().map(|_| self.since.unwrap_or_else(Instant::now));
        self.since = since;
        reason.filter(|_| since.is_some_and(|since| since.elapsed() >= PATIENCE))
    }
}

/// Waits until the backend is open or has failed: only then is it known whether it is shared.
async fn opened(store: &MemCellStore, shutdown: &Shutdown) -> Result<(), Failure> {
    for mirror in store.mirrors() {
        let mut state = mirror.watch_state();
        let opened = state.wait_for(|state| !matches!(state, MirrorState::Loading));
        let state = tokio::select! {
            // The mirror lives as long as the store.
            state = opened => state.map(|state| state.clone()).unwrap_or(MirrorState::Closed),
            () = shutdown.requested() => return Err(Failure::Work("interrupted".to_owned())),
        };
        if let MirrorState::Failed { reason } = state {
            return Err(Failure::Work(format!("backend {}: {reason}", mirror.config().name)));
        }
    }
    Ok(())
}

async fn order(jobs: &Jobs, wanted: &Wanted) -> Result<JobReport, Failure> {
    let Wanted { kind, backend, deep, sweep, rate } = wanted;
    let order = JobOrder { kind: *kind, backend: backend.clone(), deep: *deep, sweep: *sweep, rate: *rate };
    match jobs.order(&order).await {
        // One that was interrupted is gone on with.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let same = jobs.list().await?.into_iter().find(|job| !job.has_ended() && error.message().contains(&job.id));
            same.ok_or(Failure::Store(error))
        }
        ordered => Ok(ordered?),
    }
}

fn view(report: &JobReport) -> Result<JobView, Failure> {
    let value = serde_json::to_value(report).and_then(serde_json::from_value);
    value.map_err(|error| Failure::Work(format!("the job as json: {error}")))
}

/// The configuration with the one backend that the job is about.
fn only(config: &Config, name: Option<&str>) -> Result<Config, Failure> {
    let enabled = config.backends.iter().filter(|backend| backend.enabled);
    let names: Vec<&str> = enabled.clone().map(|backend| backend.name.as_str()).collect();
    let wrong = Failure::Usage;
    let name = match (name, &names[..]) {
        (_, []) => return Err(wrong("no backend is configured".to_owned())),
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, _) => {
            return Err(wrong(format!("there are several backends, name one (`--backend`): {}", names.join(", "))));
        }
    };
    let backend = enabled.into_iter().find(|backend| backend.name == name);
    let backend =
        backend.ok_or_else(|| wrong(format!("there is no backend {name:?}, there is {}", names.join(", "))))?;
    let mut only = config.clone();
    only.backends = vec![backend.clone()];
    only.validation.backend = Some(backend.name.clone());
    Ok(only)
}
