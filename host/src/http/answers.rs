//! Building answers: JSON bodies, written without an intermediate form, and the headers of the API.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::error::{Answer, ApiError};
use crate::memcell::MemCell;
use crate::store::{Mirrored, Validation};
use crate::{Error, ErrorKind};

/// The revision of the document that the answer is about.
const REVISION: HeaderName = HeaderName::from_static("x-memcell-revision");

/// What came of comparing the document with the backend's copy.
const VALIDATION: HeaderName = HeaderName::from_static("x-memcell-validation");

/// How far the copies of a write had got when it was answered.
const MIRRORED: HeaderName = HeaderName::from_static("x-memcell-mirrored");

/// An answer with a body that is JSON already.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer with `value` as its body.
///
/// # Errors
/// [`ErrorKind::Internal`] for a value that makes no JSON.
pub(super) fn value(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value)
        .map_err(|source| Error::new(ErrorKind::Internal, "an answer makes no json").with_source(source))?;
    Ok(json(status, body))
}

/// An answer that is one MemCell, with its revision.
///
/// # Errors
/// As [`MemCell::write_api_json`].
pub(super) fn memcell(status: StatusCode, cell: &MemCell) -> Answer {
    let mut body = Vec::with_capacity(cell.as_raw().as_bytes().len());
    cell.write_api_json(&mut body)?;
    let answer = json(status, body);
    Ok(match cell.revision() {
        Some(revision) => answer.with_revision(revision),
        None => answer,
    })
}

/// The headers of the API.
pub(super) trait Annotate: Sized {
    /// Adds a header.
    fn with(self, name: HeaderName, value: HeaderValue) -> Self;

    /// Says which revision the answer is about.
    fn with_revision(self, revision: u64) -> Self {
        self.with(REVISION, HeaderValue::from(revision))
    }

    /// Says what came of a validation, if there was one.
    fn with_validation(self, validation: Option<Validation>) -> Self {
        match validation {
            Some(validation) => self.with(VALIDATION, HeaderValue::from_static(validation.as_str())),
            None => self,
        }
    }

    /// Says how far the copies have got.
    fn with_mirrored(self, mirrored: Mirrored) -> Self {
        self.with(MIRRORED, HeaderValue::from_static(mirrored.as_str()))
    }
}

impl Annotate for Response {
    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers_mut().insert(name, value);
        self
    }
}

impl Annotate for ApiError {
    fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        self.with_header(name, value)
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[tokio::test]
    async fn a_memcell_is_answered_with_its_revision() {
        let id = bson::oid::ObjectId::parse_str("685c8c52a1b2c3d4e5f60718").unwrap();
        let cell = MemCell::from_raw(rawdoc! { "_id": id, "n": 1.0, "revision": 7_i64 });
        let answer = memcell(StatusCode::CREATED, &cell).unwrap().with_mirrored(Mirrored::Queued);
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers()[REVISION], "7");
        assert_eq!(answer.headers()[MIRRORED], "queued");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, r#"{"event_id":"685c8c52a1b2c3d4e5f60718","n":1.0,"revision":7}"#);
    }
}
