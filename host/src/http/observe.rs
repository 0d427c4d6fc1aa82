//! The routes that operators and their programs watch.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answers::{self, Annotate as _};
use super::error::Answer;
use super::openapi::{CommonProblems, MediaTypeProblem, NoMismatchProblem, ParameterProblem};
use super::schemas::{BackendList, BackendStateSchema, MismatchList};
use super::uri::{NoParameters, Parameters, Segments};
use crate::metrics::Format;
use crate::store::BackendState;
use crate::validation::Outcome;

/// How long a readiness check waits for MongoDB: those who ask usually wait a few seconds themselves.
const READY_BUDGET: Duration = Duration::from_secs(2);

/// The process runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether requests can be fulfilled.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready` or `not_ready`. Only MongoDB decides.
    #[schema(example = "ready")]
    status: &'static str,
    /// `ok`, or why not.
    #[schema(example = "ok")]
    mongodb: &'static str,
    /// For information.
    #[schema(value_type = Vec<BackendStateSchema>)]
    backends: Vec<BackendState>,
}

/// All of something, in one answer.
#[derive(Serialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
}

/// Tell whether the process runs
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "It does", body = Health), ParameterProblem)
)]
pub(super) async fn health(Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    answers::value(StatusCode::OK, &Health { status: "ok" })
}

/// Tell whether requests can be fulfilled
///
/// A backend that is not well does not matter for that. Anybody may ask, so nothing is told of why something is not well: `/v1/overview`
/// and `/v1/backends` do.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "MongoDB does not answer", body = Readiness),
        ParameterProblem,
    )
)]
pub(super) async fn ready(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    let (http_status, status, mongodb) = match mongodb_trouble(&api).await {
        None => (StatusCode::OK, "ready", "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "mongodb does not take operations"),
    };
    answers::value(http_status, &Readiness { status, mongodb, backends: api.store.backend_states() })
}

/// Why MongoDB doesn't take operations, if it doesn't.
pub(super) async fn mongodb_trouble(api: &Api) -> Option<String> {
    match tokio::time::timeout(READY_BUDGET, api.store.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.message().to_owned()),
        Err(_) => Some("mongodb did not answer in time".to_owned()),
    }
}

/// Get the metrics
///
/// In Prometheus' text format; in OpenMetrics for those whose `accept` names it, as Prometheus' does.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses(
        (
            status = 200, description = "All figures",
            content((String = "text/plain"), (String = "application/openmetrics-text")),
        ),
        ParameterProblem,
    )
)]
pub(super) async fn metrics(
    State(api): State<Api>,
    headers: HeaderMap,
    Parameters(NoParameters): Parameters<NoParameters>,
) -> Answer {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted_by(accept);
    api.store.refresh_metrics();
    let answer = Response::new(api.store.metrics().render_as(format).into());
    let answer = answer.with(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(answer.with(VARY, HeaderValue::from_static("accept")))
}

/// List the backends
#[utoipa::path(
    get,
    path = "/v1/backends",
    tag = "operations",
    responses((status = 200, description = "Each with its state and figures", body = BackendList), CommonProblems)
)]
pub(super) async fn backends(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    answers::value(StatusCode::OK, &Items { items: api.store.backends().await })
}

/// List confirmed mismatches
///
/// MemCells whose copy was found to differ, and still did when it was looked at again; the newest first, a bounded
/// number.
#[utoipa::path(
    get,
    path = "/v1/mismatches",
    tag = "operations",
    responses((status = 200, description = "The mismatches", body = MismatchList), CommonProblems)
)]
pub(super) async fn mismatches(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    answers::value(StatusCode::OK, &Items { items: api.store.mismatches() })
}

/// What came of a repair.
#[derive(Serialize, ToSchema)]
pub(super) struct Repaired {
    /// Whether the copy agrees with MongoDB now; the mismatch is off the list then.
    mended: bool,
    /// How the copy was found afterwards: as in `x-memcell-validation`.
    #[schema(example = "consistent")]
    outcome: &'static str,
}

/// Repair a mismatch
///
/// The backend's copy is replaced by what MongoDB has now, in the order of the other changes, so that no concurrent write is
/// undone. Then both sides are compared once more.
#[utoipa::path(
    post,
    path = "/v1/mismatches/{backend}/{event_id}/repair",
    tag = "operations",
    params(
        ("backend" = String, Path, description = "The backend whose copy is wrong"),
        ("event_id" = String, Path, description = "The MemCell, as the list of mismatches has it"),
    ),
    responses((status = 200, description = "What came of it", body = Repaired), CommonProblems, MediaTypeProblem, NoMismatchProblem)
)]
pub(super) async fn repair(
    State(api): State<Api>,
    Segments(backend, event_id): Segments,
    Parameters(NoParameters): Parameters<NoParameters>,
) -> Answer {
    let outcome = api.store.repair_mismatch(&backend, &event_id).await?;
    let mended = outcome == Outcome::Consistent;
    answers::value(StatusCode::OK, &Repaired { mended, outcome: outcome.as_str() })
}
