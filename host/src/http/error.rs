//! How errors are answered: problem details (RFC 9457) with a stable `code`, and the one place where a kind becomes a
//! status.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Error, ErrorKind};

/// The media type of every error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// After how many seconds a client should try again what failed for a passing reason.
const RETRY_AFTER_SECONDS: &str = "1";

/// The result of a handler.
pub(super) type Answer<T = Response> = Result<T, ApiError>;

/// A request that wasn't fulfilled, as the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    problems: Vec<FileProblem>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What went wrong, in the form of RFC 9457.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem<'a> {
    /// Always `about:blank`: the `code` tells problems apart.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The words of the status.
    #[schema(example = "Unprocessable Entity")]
    title: &'static str,
    /// The status.
    #[schema(example = 422)]
    status: u16,
    /// What programs should act on; codes never change their meaning.
    #[schema(example = "invalid_document")]
    code: &'static str,
    /// For people.
    #[schema(example = "expected a list, found a string")]
    detail: &'a str,
    /// The dotted path of the document field that is wrong, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "participants")]
    field: Option<&'a str>,
    /// Everything that is wrong with the configuration file, if that is what is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    problems: &'a [FileProblem],
}

/// Something to mend in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FileProblem {
    /// The file.
    #[schema(example = "memcell.toml")]
    pub(super) file: String,
    /// The line it is on, from 1; null if it is nowhere in the file.
    #[schema(required)]
    pub(super) line: Option<usize>,
    /// The column in characters, from 1; only for what isn't TOML at all.
    #[schema(required)]
    pub(super) column: Option<usize>,
    /// The dotted key; empty if the file as a whole is meant.
    #[schema(example = "backends.local.shards")]
    pub(super) key: String,
    /// What is wrong and how to mend it.
    pub(super) message: String,
}

/// What went wrong with one element of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ElementError {
    /// As in a problem.
    code: &'static str,
    /// For people.
    detail: String,
    /// The dotted path of the document field that is wrong, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl ApiError {
    /// An error of the HTTP layer itself; `detail` is for people: lower case, no full stop.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, problems: Vec::new(), headers: Vec::new() }
    }

    /// A parameter that makes no sense.
    pub(super) fn invalid_argument(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_argument", detail)
    }

    /// A URI whose percent-encoding is broken.
    pub(super) fn malformed_uri(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_uri", detail)
    }

    /// A body that is JSON, but not of the shape that the route takes.
    pub(super) fn invalid_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail)
    }

    /// What a client may know of a fault of the server's own: the log says the rest.
    pub(super) fn internal() -> Self {
        let detail = "something unexpected happened; the server's log says what, under the x-request-id of this answer";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// The request took longer than it may.
    pub(super) fn timeout() -> Self {
        let detail = "the request was not finished in time; a write may or may not have taken place";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail)
    }

    /// The body took longer to arrive than the request may take.
    pub(super) fn body_timeout() -> Self {
        let detail = "the body did not arrive in time; nothing was done";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
    }

    /// Puts `what` and a colon before the detail, to say which part of the request is meant.
    #[must_use]
    pub(super) fn within(mut self, what: impl std::fmt::Display) -> Self {
        self.detail = format!("{what}: {}", self.detail);
        self
    }

    /// Adds what is wrong with the configuration file.
    #[must_use]
    pub(super) fn with_problems(mut self, problems: Vec<FileProblem>) -> Self {
        self.problems = problems;
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status of the answer.
    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The text for people.
    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The same as a part of an answer about many.
    pub(super) fn into_element(self) -> ElementError {
        ElementError { code: self.code, detail: self.detail, field: self.field }
    }
}

/// The status and the code of each kind, for every route.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidId => StatusCode::BAD_REQUEST,
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::InvalidDocument => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists => StatusCode::CONFLICT,
        // Nothing is wrong with the request, and the same one may succeed: that is 503 rather than 409.
        ErrorKind::Conflict => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        // Refused credentials, for example: only an operator can help, and another host may do better.
        ErrorKind::Config => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::RestartRequired => StatusCode::CONFLICT,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Logs what the client isn't told.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let (status, code) = (status(error.kind()), error.kind().label());
        match error.kind() {
            ErrorKind::Internal => {
                tracing::error!(?error, "request failed");
                return Self::internal();
            }
            ErrorKind::Config => tracing::error!(?error, "request failed"),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Conflict | ErrorKind::Unsupported => {
                tracing::warn!(?error, "request failed");
            }
            ErrorKind::InvalidId
            | ErrorKind::InvalidArgument
            | ErrorKind::InvalidDocument
            | ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::RestartRequired => {}
        }
        let mut answer = Self::new(status, code, error.message());
        answer.field = error.field().map(str::to_owned);
        if error.is_retryable() {
            answer.headers.push((RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS)));
        }
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            field: self.field.as_deref(),
            problems: &self.problems,
        };
        let mut response = (self.status, Json(problem)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response.headers_mut().extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn problem(error: ApiError) -> (StatusCode, axum::http::HeaderMap, serde_json::Value) {
        let (head, body) = error.into_response().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (head.status, head.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn an_invalid_document_is_a_problem_that_names_the_field() {
        let error = Error::invalid_field("event_log.time", "expected a string, found a number");
        let (status, headers, body) = problem(error.into()).await;
        assert_eq!(status, 422);
        assert_eq!(headers[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(
            body,
            serde_json::json!({
                "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "invalid_document",
                "detail": "expected a string, found a number", "field": "event_log.time",
            })
        );
    }

    #[tokio::test]
    async fn only_what_may_pass_says_when_to_try_again() {
        for (kind, status, code, retry) in [
            (ErrorKind::InvalidId, 400, "invalid_id", false),
            (ErrorKind::InvalidArgument, 400, "invalid_argument", false),
            (ErrorKind::InvalidDocument, 422, "invalid_document", false),
            (ErrorKind::NotFound, 404, "not_found", false),
            (ErrorKind::AlreadyExists, 409, "already_exists", false),
            (ErrorKind::Conflict, 503, "conflict", true),
            (ErrorKind::Unavailable, 503, "unavailable", true),
            (ErrorKind::Timeout, 503, "timeout", true),
            (ErrorKind::Unsupported, 501, "unsupported", false),
            (ErrorKind::Config, 503, "misconfigured", false),
            (ErrorKind::RestartRequired, 409, "restart_required", false),
            (ErrorKind::Internal, 500, "internal", false),
        ] {
            let (answered, headers, body) = problem(Error::new(kind, "x").into()).await;
            assert_eq!((answered.as_u16(), body["code"].as_str().unwrap()), (status, code), "{kind:?}");
            assert_eq!(headers.contains_key(RETRY_AFTER), retry, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn internal_details_stay_inside() {
        let error = Error::new(ErrorKind::Internal, "the shard at 10.0.0.7 is odd").with_source("secret");
        let (_, _, body) = problem(error.into()).await;
        let text = body.to_string();
        assert!(!text.contains("10.0.0.7") && !text.contains("secret"), "{text}");
    }
}
