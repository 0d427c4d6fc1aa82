//! The routes that operators and their programs watch.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answers::{self, Annotate as _};
use super::error::Answer;
use super::openapi::CommonProblems;
use super::schemas::{BackendList, MismatchList};
use super::uri::{NoParameters, Parameters};
use crate::metrics;

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
    mongodb: String,
    /// For information.
    backends: Vec<BackendState>,
}

/// The state of one backend.
#[derive(Serialize, ToSchema)]
struct BackendState {
    name: String,
    /// `loading`, `backfilling`, `catching-up`, `live`, `degraded`, `failed` or `closed`.
    state: &'static str,
    /// More about the state, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// All of something, in one answer.
#[derive(Serialize)]
struct Items<T> {
    items: Vec<T>,
}

/// Tell whether the process runs
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "It does", body = Health))
)]
pub(super) async fn health(Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    answers::value(StatusCode::OK, &Health { status: "ok" })
}

/// Tell whether requests can be fulfilled
///
/// A backend that is not well does not matter for that.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "MongoDB does not answer", body = Readiness),
    )
)]
pub(super) async fn ready(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    let ping = tokio::time::timeout(READY_BUDGET, api.store.ping());
    let (ping, backends) = tokio::join!(ping, api.store.backends());
    let trouble = match ping {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.message().to_owned()),
        Err(_) => Some("mongodb did not answer in time".to_owned()),
    };
    let (http_status, status) = match trouble {
        None => (StatusCode::OK, "ready"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let state = |backend: crate::store::BackendReport| BackendState {
        name: backend.name,
        state: backend.state,
        reason: backend.reason,
    };
    let readiness = Readiness {
        status,
        mongodb: trouble.unwrap_or_else(|| "ok".to_owned()),
        backends: backends.into_iter().map(state).collect(),
    };
    answers::value(http_status, &readiness)
}

/// Get the metrics
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((
        status = 200, description = "All figures, in the OpenMetrics text format", body = String,
        content_type = "application/openmetrics-text",
    ))
)]
pub(super) async fn metrics(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    api.store.refresh_metrics();
    let answer = Response::new(api.store.metrics().render().into());
    Ok(answer.with(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE)))
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
