//! What an operator wants to see at a glance: how all of it is doing and was doing for the last minutes, and the configuration
//! in force. The dashboard shows both.

use axum::extract::State;
use axum::http::StatusCode;
use bson::DateTime;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answers;
use super::error::Answer;
use super::observe::mongodb_trouble;
use super::openapi::CommonProblems;
use super::parameters::OverviewParameters;
use super::schemas::{BackendSchema, SampleSchema};
use super::uri::{NoParameters, Parameters};
use crate::store::{BackendReport, MOST_SAMPLES, Operations, SAMPLE_INTERVAL, Sample};

/// How the host is doing.
#[derive(Serialize, ToSchema)]
pub(super) struct Overview {
    /// The host's name among others.
    host: String,
    /// The version of the program.
    version: &'static str,
    /// When it was started. Counts and numbers begin anew then.
    #[serde(serialize_with = "crate::memcell::as_time")]
    #[schema(value_type = String, format = DateTime)]
    started_at: DateTime,
    /// How long ago that is.
    uptime_seconds: f64,
    mongodb: MongoDbState,
    operations: OperationTotals,
    mismatches: MismatchCount,
    /// Each with its state and figures.
    #[schema(value_type = Vec<BackendSchema>)]
    backends: Vec<BackendReport>,
    history: History,
}

/// Whether MongoDB answers.
#[derive(Serialize, ToSchema)]
struct MongoDbState {
    /// Whether it takes operations.
    reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Where it is: the connection string without its secrets, or `embedded`.
    server: String,
    /// The database.
    database: String,
    /// The collection that holds the MemCells.
    collection: String,
}

/// Operations of the store since the start.
#[derive(Serialize, ToSchema)]
struct OperationTotals {
    /// Those that only read.
    reads: u64,
    /// Those that write.
    writes: u64,
    /// Those of both that failed through no fault of the caller.
    failed: u64,
}

/// Confirmed mismatches.
#[derive(Serialize, ToSchema)]
struct MismatchCount {
    /// How many are listed.
    count: usize,
    /// Grows whenever the list changes: as long as it stays, there is no need to get the list again.
    version: u64,
}

/// Samples of the last minutes.
#[derive(Serialize, ToSchema)]
struct History {
    /// How often a sample is taken.
    interval_seconds: f64,
    /// How many are kept.
    most: usize,
    /// The oldest first; only those after `since`.
    #[schema(value_type = Vec<SampleSchema>)]
    samples: Vec<Sample>,
}

/// See at a glance how the host is doing
///
/// Answered also while MongoDB is away, after two seconds at the most.
#[utoipa::path(
    get,
    path = "/v1/overview",
    tag = "operations",
    params(OverviewParameters),
    responses((status = 200, description = "All of it", body = Overview), CommonProblems)
)]
pub(super) async fn overview(
    State(api): State<Api>,
    Parameters(OverviewParameters { since }): Parameters<OverviewParameters>,
) -> Answer {
    let (problem, backends) = tokio::join!(mongodb_trouble(&api), api.store.backends());
    let config = api.store.config();
    let (started_at, uptime) = api.store.opened();
    let Operations { reads, writes, failed } = api.store.operations();
    let (count, version) = api.store.mismatch_count();
    let overview = Overview {
        host: config.host.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started_at,
        uptime_seconds: uptime.as_secs_f64(),
        mongodb: MongoDbState {
            reachable: problem.is_none(),
            problem,
            server: config.mongodb.redacted_uri(),
            database: config.mongodb.database.clone(),
            collection: config.mongodb.collection.clone(),
        },
        operations: OperationTotals { reads, writes, failed },
        mismatches: MismatchCount { count, version },
        backends,
        history: History {
            interval_seconds: SAMPLE_INTERVAL.as_secs_f64(),
            most: MOST_SAMPLES,
            samples: api.store.history(since),
        },
    };
    answers::value(StatusCode::OK, &overview)
}

/// Get the configuration in force
///
/// The sections and keys of the file with what is in force, defaults included; keys that are not set are null. `***` stands in
/// the place of passwords, and of every setting of a plugin that may be a secret.
#[utoipa::path(
    get,
    path = "/v1/config",
    tag = "operations",
    responses((status = 200, description = "The configuration", body = serde_json::Value), CommonProblems)
)]
pub(super) async fn config(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    answers::value(StatusCode::OK, &api.store.config().shown())
}
