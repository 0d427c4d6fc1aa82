//! Having a running host do a job.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::summary::JobView;
use super::watch::Watch;
use super::{Failure, Wanted};
use crate::cli::running::{Problem, Refusal, RunningHost};
use crate::shutdown::Shutdown;

/// How often progress is asked for.
const POLL: Duration = Duration::from_millis(300);

/// How often in a row an answer may fail to come before it is given up.
const PATIENCE: u32 = 100;

/// The list of jobs.
#[derive(Deserialize)]
pub(in crate::cli) struct Jobs {
    pub(in crate::cli) items: Vec<JobView>,
}

/// Has the host do it, and watches.
pub(super) async fn work(
    host: &RunningHost,
    wanted: &Wanted,
    detach: bool,
    json: bool,
    shutdown: &Shutdown,
) -> Result<JobView, Failure> {
    let (mut job, is_ours) = order(host, wanted).await?;
    if detach {
        return Ok(job);
    }
    let path = format!("/v1/jobs/{}", job.id);
    let mut watch = Watch::start(&job, json);
    let begun = if is_ours { "" } else { ", which was begun before" };
    watch.say(&format!("the host at {} works on job {}{begun}", host.url(), job.id));
    let mut failures = 0;
    let mut is_cancelled = false;
    while !job.has_ended() {
        watch.show(&job);
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = shutdown.requested(), if !is_cancelled => {
                if !is_ours {
                    watch.finish();
                    return Err(Failure::Work(format!("interrupted; job {}, which was begun before, goes on", job.id)));
                }
                is_cancelled = true;
                watch.say("giving the job up");
                job = host.delete(&path).await?;
                continue;
            }
        }
        match host.get(&path).await {
            Ok(now) => (job, failures) = (now, 0),
            // A host that is being started again goes on with it.
            Err(failure) if failures >= PATIENCE => return Err(failure),
            Err(_) => failures += 1,
        }
    }
    watch.finish();
    Ok(job)
}

/// The job, and whether it was begun by this order.
async fn order(host: &RunningHost, wanted: &Wanted) -> Result<(JobView, bool), Failure> {
    let Wanted { kind, backend, deep, sweep, rate } = wanted;
    let mut body = json!({ "kind": kind, "deep": deep, "sweep": sweep });
    if let Some(fields) = body.as_object_mut() {
        fields.extend(backend.as_ref().map(|backend| ("backend".to_owned(), Value::from(backend.as_str()))));
        fields.extend(rate.map(|rate| ("rate".to_owned(), Value::from(rate))));
    }
    match host.post("/v1/jobs", Some(&body)).await {
        // One that was begun before, by whomever, is as good.
        Err(Refusal::Problem(Problem { code, detail })) if code == "already_exists" => {
            let jobs: Jobs = host.get("/v1/jobs").await?;
            let same = jobs.items.into_iter().find(|job| !job.has_ended() && detail.contains(&job.id));
            same.map(|job| (job, false)).ok_or(Failure::Work(detail))
        }
        answer => answer.map(|job| (job, true)).map_err(|refusal| host.failure(refusal)),
    }
}
