//! What surrounds every request: its id, its log span, the gate before it, its deadline, a net for panics, and its count.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bson::oid::ObjectId;
use futures::FutureExt as _;
use tracing::Instrument as _;

use super::Api;
use super::body::Arrival;
use super::browser::harden;
use super::error::{Answer, ApiError};
use super::uri::{decode, shown};
use crate::trace::{self, NO_ROUTE};

/// Names a request in the log and in its answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer. Dropped with the connection, it drops the handler, wherever that is.
pub(super) async fn surround(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let method = method_name(request.method());
    let text = id.to_str().unwrap_or_default();
    let span = tracing::info_span!("request", id = text, method, route);
    trace::adopt(&span, request.headers());
    let handled = async {
        let response = handle(&api, request, route, next).await;
        tracing::debug!(status = response.status().as_u16(), "request answered");
        response
    };
    let mut response = trace::for_request(text.into(), handled).instrument(span.clone()).await;
    trace::answered(&span, response.status().as_u16());
    api.store.metrics().http_request(route, method, response.status().as_u16(), started.elapsed());
    response.headers_mut().insert(REQUEST_ID, id);
    harden(response.headers_mut());
    response
}

async fn handle(api: &Api, request: Request, route: &str, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let admitted = match api.gate.admit(&head, route) {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    head.extensions.insert(admitted.caller.clone());
    head.extensions.insert(admitted.body.clone());
    let arrival = Arrival::default();
    head.extensions.insert(arrival.clone());
    let request = Request::from_parts(head, body);
    // No handler sees a path that can't be decoded, whether or not it looks at that part.
    if let Err(error) = decode(request.uri().path()) {
        return error.into_response();
    }
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(api.request_timeout, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            tracing::error!(panic = panic_message(panic.as_ref()), "a request handler panicked");
            ApiError::internal().into_response()
        }
        Err(_) if arrival.is_awaited() => {
            tracing::debug!(timeout = ?api.request_timeout, "the body of a request did not arrive in time");
            ApiError::body_timeout().into_response()
        }
        Err(_) => {
            tracing::warn!(timeout = ?api.request_timeout, "request timed out");
            ApiError::timeout().into_response()
        }
    }
}

/// The id that the client or a proxy gave, if it is one that can be put into a log as it is; else a fresh one.
fn request_id(request: &Request) -> HeaderValue {
    const MOST_BYTES: usize = 128;
    let is_sane = |id: &&HeaderValue| {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
        (1..=MOST_BYTES).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
    };
    match request.headers().get(REQUEST_ID).filter(is_sane) {
        Some(given) => given.clone(),
        None => HeaderValue::try_from(ObjectId::new().to_hex()).unwrap_or(HeaderValue::from_static("unknown")),
    }
}

/// A method as a label: there are few of them, whatever clients make up.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

/// Answers what no route is for.
pub(super) async fn unknown_route(uri: Uri) -> Answer {
    let detail = format!("there is no route {}; /openapi.json lists the routes", shown(uri.path()));
    Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_route", detail))
}

/// Answers a method that a route lacks; the router adds the `allow` header.
pub(super) async fn method_not_allowed(method: Method) -> Answer {
    let detail = format!("this route does not take {}; the allow header says what it takes", shown(method.as_str()));
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn id_for(given: Option<&[u8]>) -> HeaderValue {
        let mut request = Request::new(Body::empty());
        if let Some(given) = given {
            request.headers_mut().insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        }
        request_id(&request)
    }

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        assert_eq!(id_for(Some(b"0af7651916cd43dd-8448:eb/1")), "0af7651916cd43dd-8448:eb/1");
        for given in [b"".as_slice(), b"two words", b"\xff", b"a\"b", &[b'a'; 129]] {
            assert_ne!(id_for(Some(given)), HeaderValue::from_bytes(given).unwrap());
        }
        assert_eq!(id_for(None).len(), 24);
        assert_ne!(id_for(None), id_for(None));
    }

    #[test]
    fn made_up_methods_share_a_label() {
        assert_eq!(method_name(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
