//! The route that takes the configuration file over into the running host.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answers;
use super::error::{Answer, ApiError, FileProblem};
use super::openapi::{CommonProblems, MediaTypeProblem, ReloadProblems};
use super::uri::{NoParameters, Parameters};
use crate::config::ConfigError;
use crate::error::ErrorKind;
use crate::reload::ReloadError;

/// What a reload changed.
#[derive(Serialize, ToSchema)]
pub(super) struct Reloaded {
    /// In the order of the configuration; empty if the file says what it said before.
    changes: Vec<Change>,
}

/// One change of the configuration.
#[derive(Serialize, ToSchema)]
struct Change {
    /// `backends.NAME`, or the key of a single value.
    #[schema(example = "backends.disk")]
    key: String,
    /// `added`, `removed`, `replaced` (a backend that started anew), or `changed`.
    #[schema(example = "added")]
    change: &'static str,
}

/// Read the configuration file again
///
/// Takes over what the file that the host was started with says by now, without a restart; SIGHUP does the same. Either all
/// of it is taken over or nothing is. A backend that is new is filled afterwards: `/v1/backends` tells when it is `live`.
#[utoipa::path(
    post,
    path = "/v1/config/reload",
    tag = "operations",
    responses((status = 200, description = "It is in effect", body = Reloaded), CommonProblems, MediaTypeProblem, ReloadProblems)
)]
pub(super) async fn reload(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    let Some(reloader) = &api.reloader else {
        let detail = "this host was not started with a configuration file";
        return Err(ApiError::new(StatusCode::CONFLICT, "no_config_file", detail));
    };
    let report = reloader.reload().await.map_err(|error| {
        tracing::warn!(%error, "the configuration was not reloaded");
        refusal(error)
    })?;
    let change = |change: crate::config::ConfigChange| Change { key: change.key, change: change.kind.as_str() };
    answers::value(StatusCode::OK, &Reloaded { changes: report.changes.into_iter().map(change).collect() })
}

fn refusal(error: ReloadError) -> ApiError {
    let invalid = |detail: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", detail);
    match error {
        ReloadError::Invalid(error) => invalid(error.to_string()).with_problems(file_problems(&error)),
        // Here it is the configuration that was to be, not the one that the host runs with.
        ReloadError::Refused(error) if error.kind() == ErrorKind::Config => invalid(error.message().to_owned()),
        ReloadError::Refused(error) => error.into(),
    }
}

fn file_problems(error: &ConfigError) -> Vec<FileProblem> {
    let file = error.origin().display().to_string();
    let problem = |problem: &crate::config::Problem| FileProblem {
        file: file.clone(),
        line: problem.line,
        column: problem.column,
        key: problem.key.clone(),
        message: problem.message.clone(),
    };
    error.problems().iter().map(problem).collect()
}
