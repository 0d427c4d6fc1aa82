//! `memcell status`: how the backends of a running host are doing, and which jobs it works on.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::jobs::JobsView;
use super::running::{HostArgs, RunningHost};
use super::{Exit, Failure, output, session};
use crate::config::{Config, Role};

const AFTER_HELP: &str = "\
Exit code 1: no host is running, a backend is not live, or MongoDB is away (`jobs` is null then).

Examples:
  memcell status
  memcell status --json | jq '.backends[].state'";

/// Arguments of `memcell status`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Deserialize)]
struct Backends {
    items: Vec<Value>,
}

/// Carries it out.
pub(super) fn run(args: StatusArgs, config: &Config, json: bool) -> Result<Exit, Failure> {
    let runtime = session::runtime()?;
    runtime.block_on(async {
        let Some(host) = RunningHost::find(args.host, Role::Read, config).await? else {
            return Err(Failure::Work(format!("no host is running at {}", config.http.listen)));
        };
        let backends: Backends = host.get("/v1/backends").await?;
        // MongoDB keeps them: they are not known while it is away, which is when the backends matter most.
        let jobs: Result<JobsView, Failure> = host.get("/v1/jobs").await;
        let running: Option<Vec<_>> =
            jobs.as_ref().ok().map(|jobs| jobs.items.iter().filter(|job| !job.has_ended()).collect());
        let is_live = |backend: &Value| backend.get("state").and_then(Value::as_str) == Some("live");
        let all_live = backends.items.iter().all(is_live);
        let written = if json {
            output::json_line(&json!({ "url": host.url(), "backends": backends.items, "jobs": running }))
        } else {
            let mut lines = vec![format!("host at {}", host.url())];
            lines.extend(backends.items.iter().map(describe));
            lines.extend(running.into_iter().flatten().map(|job| {
                let (kind, backend, id, progress) = (&job.kind, &job.backend, &job.id, &job.progress);
                format!("job {id}: {kind} of {backend}, {} of about {}", progress.examined, progress.estimate)
            }));
            output::line(&lines.join("\n"))
        };
        output::though_unread(written)?;
        jobs?;
        Ok(Exit::fine_if(all_live))
    })
}

fn describe(backend: &Value) -> String {
    let text = |name: &str| backend.get(name).and_then(Value::as_str).unwrap_or_default();
    let figure =
        |name: &str| backend.get(name).filter(|value| !value.is_null()).map_or("?".to_owned(), Value::to_string);
    let reason = match text("reason") {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    format!(
        "backend {}: {}{reason}, {} entries, lag {} s, {} queued, {} restarts",
        text("name"),
        text("state"),
        figure("entries"),
        backend.get("lag_seconds").and_then(Value::as_f64).map_or("?".to_owned(), |lag| format!("{lag:.1}")),
        figure("queue_depth"),
        figure("restarts")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_in_a_line() {
        let backend = json!({
            "name": "local", "state": "degraded", "reason": "it traps", "entries": null, "lag_seconds": 0.51234,
            "queue_depth": 3, "restarts": 1,
        });
        let expected = "backend local: degraded (it traps), ? entries, lag 0.5 s, 3 queued, 1 restarts";
        assert_eq!(describe(&backend), expected);
    }
}
