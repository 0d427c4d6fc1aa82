//! Reading a JSON request body: the right media type, no larger than allowed, and errors that say where it is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use futures::StreamExt as _;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::Api;
use super::error::{Answer, ApiError};
use super::gate::BodyMemory;
use super::uri::shown;
use crate::{Error, ErrorKind};

/// Extracts a body of JSON.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Answer<Self> {
        parse(&receive(request, api).await?).map(Self)
    }
}

/// Extracts a body of JSON that is an object, whose members have names: a list of their values in the right order isn't one.
pub(super) struct JsonObject<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for JsonObject<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Answer<Self> {
        parse_object(&receive(request, api).await?).map(Self)
    }
}

/// Whether the body of a request is being waited for. Every request that got past the gate bears one, as an extension.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// Whether it is. Remains so if the wait is given up.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn awaits(&self, does: bool) {
        self.0.store(does, Ordering::Relaxed);
    }
}

async fn receive(request: Request, api: &Api) -> Answer<Vec<u8>> {
    check_media_type(request.headers())?;
    check_encoding(request.headers())?;
    let announced = content_length(request.headers());
    let memory = request.extensions().get::<BodyMemory>().cloned();
    let memory = memory.ok_or_else(ApiError::internal)?;
    let arrival = request.extensions().get::<Arrival>().cloned().unwrap_or_default();
    arrival.awaits(true);
    let body = read(request.into_body(), announced, api.max_body, &memory).await;
    arrival.awaits(false);
    body
}

/// Bodies come as they are.
fn check_encoding(headers: &HeaderMap) -> Answer<()> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let detail = "the body has a content-encoding, and bodies are taken as they are: send it without one";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

/// `application/json`, and no character set but UTF-8, which JSON is always in. Other parameters mean nothing.
pub(super) fn check_media_type(headers: &HeaderMap) -> Answer<()> {
    let refused = |found: &str| {
        let detail = format!("the content-type of the body must be application/json, found {found}");
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
    };
    let Some(value) = headers.get(CONTENT_TYPE) else { return refused("none") };
    let Ok(value) = value.to_str() else { return refused("one that is not ascii") };
    let mut parts = value.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let mut parameters = parts.filter_map(|parameter| parameter.split_once('='));
    let is_utf8 = parameters.all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if is_json && is_utf8 { Ok(()) } else { refused(&shown(value)) }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads all of a body, which may be sent in chunks of unknown number, but never holds more than `limit` bytes.
async fn read(body: Body, announced: Option<u64>, limit: u64, memory: &BodyMemory) -> Answer<Vec<u8>> {
    let too_large = || {
        let detail = format!("the body is larger than the {limit} bytes that this server takes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    // All of it at once, if it is known: two halves of two bodies are of no use to anybody.
    memory.hold(announced.unwrap_or_default())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended before all of it had arrived")
        })?;
        if chunk.len() > limit - bytes.len() {
            return Err(too_large());
        }
        memory.hold(u64::try_from(bytes.len() + chunk.len()).unwrap_or(u64::MAX))?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let error = match serde_json::from_slice(bytes) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    if error.classify() == Category::Data {
        return Err(ApiError::invalid_body(error.to_string()));
    }
    match serde_json::from_slice::<Value>(bytes) {
        // Where one of several words belongs, the parser takes anything else for a mistake of syntax.
        Ok(value) => serde_json::from_value(value).map_err(|error| ApiError::invalid_body(error.to_string())),
        Err(_) => {
            let detail = format!("the body is not valid json: {error}");
            Err(ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", detail))
        }
    }
}

fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        // One that isn't even json is told so.
        parse::<IgnoredAny>(bytes)?;
        return Err(ApiError::invalid_body("the body is a json object, found a list"));
    }
    parse(bytes)
}

/// The fields of `value`, which must be an object; `what` names it in the error: "a MemCell".
///
/// # Errors
/// [`ErrorKind::InvalidDocument`].
pub(super) fn object(value: Value, what: &str) -> crate::Result<Map<String, Value>> {
    let found = match value {
        Value::Object(fields) => return Ok(fields),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
    };
    Err(Error::new(ErrorKind::InvalidDocument, format!("{what} is a json object, found {found}")))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    fn media_type(value: &'static str) -> Answer<()> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, value.parse().unwrap());
        check_media_type(&headers)
    }

    #[test]
    fn json_in_utf8_is_taken_and_nothing_else() {
        for value in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; profile=x",
        ] {
            media_type(value).unwrap_or_else(|error| panic!("{value}: {error:?}"));
        }
        for value in
            ["text/plain", "application/json; charset=latin1", "application/merge-patch+json", "application/jsonx", ""]
        {
            let error = media_type(value).unwrap_err();
            assert_eq!((error.status().as_u16(), error.code()), (415, "unsupported_media_type"), "{value}");
        }
        assert_eq!(check_media_type(&HeaderMap::new()).unwrap_err().status(), 415);
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_the_limit_however_it_comes() {
        let chunked = |chunks: &[&'static str]| {
            let chunks: Vec<_> =
                chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))).collect();
            Body::from_stream(stream::iter(chunks))
        };
        assert_eq!(read(chunked(&["12", "345"]), None, 5, &BodyMemory::of(5)).await.unwrap(), b"12345");
        assert_eq!(read(Body::from("12345"), Some(5), 5, &BodyMemory::of(5)).await.unwrap(), b"12345");
        for error in [
            read(chunked(&["12", "345", "6"]), None, 5, &BodyMemory::of(5)).await.unwrap_err(),
            read(chunked(&["123456"]), None, 5, &BodyMemory::of(5)).await.unwrap_err(),
            read(Body::empty(), Some(6), 5, &BodyMemory::of(5)).await.unwrap_err(),
        ] {
            assert_eq!((error.status().as_u16(), error.code()), (413, "body_too_large"));
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_clients_fault() {
        let broken = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))];
        let error = read(Body::from_stream(stream::iter(broken)), None, 5, &BodyMemory::of(5)).await.unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (400, "incomplete_body"));
    }

    #[test]
    fn malformed_json_says_where() {
        for text in ["", "{\"a\":1,}", "{\n\"a\" 1}", "{} {}", "\u{feff}{}", &"[".repeat(200)] {
            let error = parse::<Value>(text.as_bytes()).unwrap_err();
            assert_eq!((error.status().as_u16(), error.code()), (400, "malformed_json"), "{text}");
            assert!(error.detail().contains("line") && error.detail().contains("column"), "{}", error.detail());
        }
        assert_eq!(parse::<Value>(b"\"\xff\"").unwrap_err().code(), "malformed_json");
    }

    #[test]
    fn json_of_another_shape_is_told_apart() {
        #[derive(Debug, serde::Deserialize)]
        struct Named {
            #[expect(dead_code, reason = "only its being read counts")]
            name: u8,
        }
        assert!(parse_object::<Named>(b" {\"name\":1}").is_ok());
        for (text, code) in [(" [1]", "invalid_body"), ("[1", "malformed_json"), ("1", "invalid_body")] {
            let error = parse_object::<Named>(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{text}");
        }
        #[derive(Debug, serde::Deserialize)]
        enum Word {
            One,
        }
        assert!(matches!(parse::<Word>(b"\"One\""), Ok(Word::One)));
        for (text, code) in
            [("1", "invalid_body"), ("null", "invalid_body"), ("\"Two\"", "invalid_body"), ("+", "malformed_json")]
        {
            let error = parse::<Word>(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{text}: {}", error.detail());
        }
        let error = parse::<Vec<u8>>(b"{}").unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (422, "invalid_body"));
        let error = object(serde_json::json!([]), "a MemCell").unwrap_err();
        assert_eq!(error.message(), "a MemCell is a json object, found a list");
    }
}
