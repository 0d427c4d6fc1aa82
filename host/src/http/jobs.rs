//! The routes of work on whole collections.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Api;
use super::answers;
use super::body::JsonObject;
use super::error::Answer;
use super::observe::Items;
use super::openapi::{BodyProblems, CommonProblems, NoJobProblem, SameJobProblem};
use super::schemas::{JobList, JobSchema};
use super::uri::{NoParameters, Parameters, Segment};
use crate::jobs::{JobKind, JobOrder};

/// What is to be done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a json object with `kind`")]
pub(super) struct JobRequest {
    /// `backfill` copies all MemCells to a backend; `verify` compares them with their copies; `repair` also mends what differs;
    /// `restore` brings MemCells back that only the backend has; `rekey` rewrites copies that are encrypted, compressed or written
    /// otherwise than the configuration says by now.
    #[schema(value_type = String, example = "verify")]
    kind: JobKind,
    /// Which backend; can be left out if there is only one.
    backend: Option<String>,
    /// Whether whole MemCells are compared, and not only revisions and checksums.
    #[serde(default)]
    #[schema(default = false)]
    deep: bool,
    /// Of a `backfill`: whether it also removes copies of MemCells that are gone, even if those are most of all copies.
    #[serde(default)]
    #[schema(default = false)]
    sweep: bool,
    /// MemCells and copies a second that each host looks at, at the most.
    #[schema(value_type = Option<u32>, minimum = 1)]
    rate: Option<std::num::NonZeroU32>,
}

/// Begin a job
///
/// It is done in the background, also by other hosts if they share the backend, and goes on after a restart.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    tag = "jobs",
    request_body = JobRequest,
    responses(
        (status = 201, description = "The job", body = JobSchema),
        CommonProblems,
        BodyProblems,
        SameJobProblem,
    )
)]
pub(super) async fn order(
    State(api): State<Api>,
    Parameters(NoParameters): Parameters<NoParameters>,
    JsonObject(request): JsonObject<JobRequest>,
) -> Answer {
    let JobRequest { kind, backend, deep, sweep, rate } = request;
    let order = JobOrder { kind, backend, deep, sweep, rate: rate.map(std::num::NonZeroU32::get) };
    answers::value(StatusCode::CREATED, &api.jobs.order(&order).await?)
}

/// List the jobs
///
/// Those that have not ended, and the last hundred that have; the newest first.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    tag = "jobs",
    responses((status = 200, description = "The jobs", body = JobList), CommonProblems)
)]
pub(super) async fn list(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    answers::value(StatusCode::OK, &Items { items: api.jobs.list().await? })
}

/// Get a job
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "The job as it is now", body = JobSchema), CommonProblems, NoJobProblem)
)]
pub(super) async fn get(
    State(api): State<Api>,
    Segment(id): Segment,
    Parameters(NoParameters): Parameters<NoParameters>,
) -> Answer {
    answers::value(StatusCode::OK, &api.jobs.get(&id).await?)
}

/// Give a job up
///
/// What it has done stays done. One that has ended is left as it is.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job; `running` until all hosts have stopped working on it", body = JobSchema),
        CommonProblems,
        NoJobProblem,
    )
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Segment(id): Segment,
    Parameters(NoParameters): Parameters<NoParameters>,
) -> Answer {
    answers::value(StatusCode::OK, &api.jobs.cancel(&id).await?)
}
