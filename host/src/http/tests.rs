//! The API as a whole, over a store whose MongoDB is away: everything that doesn't need a document.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, HOST, RETRY_AFTER};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::config::{Config, HostConfig, MongoServer, MongoUri, ScheduleConfig};
use crate::metrics::Metrics;

const ID: &str = "685c8c52a1b2c3d4e5f60718";

/// A store without backends, and without a MongoDB: nobody listens on port 1.
async fn store() -> MemCellStore {
    let mut config = Config::new(MongoServer::Uri(MongoUri::parse("mongodb://127.0.0.1:1").unwrap()));
    config.mongodb.connect_timeout = Duration::from_millis(50);
    config.mongodb.operation_timeout = Duration::from_millis(200);
    MemCellStore::open(&config, Arc::new(Metrics::new())).await.unwrap()
}

fn jobs(store: &MemCellStore) -> Jobs {
    Jobs::start(store, &HostConfig { name: "test".to_owned() }, &ScheduleConfig::default())
}

async fn api() -> Router {
    let config = HttpConfig { max_body: 1000, ..HttpConfig::default() };
    let store = store().await;
    let jobs = jobs(&store);
    router(store, jobs, None, &config, Security::none())
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&self.body));
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn send(api: &Router, request: Request<Body>) -> Answered {
    let (head, body) = api.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answered { status: head.status, headers: head.headers, body }
}

fn bare(method: &str, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).header(HOST, "localhost").body(Body::empty()).unwrap()
}

fn with_body(method: &str, uri: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(uri).header(HOST, "localhost");
    request.header(CONTENT_TYPE, content_type).body(body.into()).unwrap()
}

fn with_json(method: &str, uri: &str, body: &Value) -> Request<Body> {
    with_body(method, uri, "application/json", body.to_string())
}

fn with_header(mut request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn with_headers(mut request: Request<Body>, count: usize) -> Request<Body> {
    for number in 0..count {
        let name = axum::http::HeaderName::try_from(format!("x-{number}")).unwrap();
        request.headers_mut().insert(name, "1".parse().unwrap());
    }
    request
}

/// Checks that the answer is a complete problem, and which.
#[track_caller]
fn check_problem(answered: &Answered, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&answered.body);
    assert_eq!(answered.status.as_u16(), status, "{text}");
    assert_eq!(answered.header("content-type"), Some("application/problem+json"), "{text}");
    let problem = answered.json();
    assert_eq!(problem["code"], code, "{text}");
    assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status)), "{text}");
    assert!(
        !problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty(),
        "{text}"
    );
    assert!(answered.header("x-request-id").is_some(), "{text}");
    assert_eq!(answered.header("x-content-type-options"), Some("nosniff"), "{text}");
    assert_eq!(answered.header("cache-control"), Some("no-store"), "{text}");
}

#[tokio::test]
async fn bad_requests_are_problems() {
    let api = api().await;
    let twice = "{\"timestamp\":\"2025-06-26\",\"x\":{\"a\":1,\"a\":2}}";
    let large = json!({ "timestamp": "2025-06-26", "summary": "x".repeat(1000) });
    let one = format!("/v1/memcells/{ID}");
    for (request, status, code) in [
        (bare("GET", "/v2/memcells"), 404, "unknown_route"),
        (bare("GET", "/v1/memcells/"), 404, "unknown_route"),
        (bare("GET", &format!("{one}/")), 404, "unknown_route"),
        (bare("POST", "/v1/memcells//restore"), 400, "invalid_id"),
        (bare("POST", "/nowhere?x=%zz"), 404, "unknown_route"),
        (bare("PUT", "/v1/memcells"), 405, "method_not_allowed"),
        (bare("GET", "/v1/memcells/batch"), 405, "method_not_allowed"),
        (bare("OPTIONS", "/healthz"), 405, "method_not_allowed"),
        (bare("BREW", "/healthz"), 405, "method_not_allowed"),
        (bare("GET", "/v1/memcells/%zz"), 400, "malformed_uri"),
        (bare("GET", "/v1/users/%ff/latest"), 400, "malformed_uri"),
        (bare("GET", "/v1/%/x"), 400, "malformed_uri"),
        (bare("GET", "/v1/memcells?user_id=%ff"), 400, "malformed_uri"),
        (bare("GET", "/v1/memcells?userid=u"), 400, "unknown_parameter"),
        (bare("GET", "/healthz?verbose"), 400, "unknown_parameter"),
        (bare("GET", "/openapi.json?x=1"), 400, "unknown_parameter"),
        (bare("GET", "/v1/memcells?limit=-1"), 400, "invalid_argument"),
        (bare("GET", "/v1/memcells?skip=-1"), 400, "invalid_argument"),
        (bare("GET", "/v1/memcells?limit=1&limit=2"), 400, "invalid_argument"),
        (bare("GET", "/v1/memcells?start=2025-06-26T00:00:00+08:00"), 400, "invalid_argument"),
        (bare("GET", "/v1/memcells?start=2025-06-27&end=2025-06-26"), 400, "invalid_argument"),
        (bare("GET", "/v1/users/u/activity?start=2025-06-27&end=2025-06-26"), 400, "invalid_argument"),
        (bare("GET", "/v1/memcells/nonsense"), 404, "not_found"),
        (bare("GET", &format!("{one}?validate=maybe")), 400, "invalid_argument"),
        (bare("DELETE", "/v1/memcells/nonsense"), 400, "invalid_id"),
        (bare("DELETE", &format!("{one}?hard=true&deleted_by=me")), 400, "invalid_argument"),
        (bare("POST", "/v1/memcells/nonsense/restore"), 400, "invalid_id"),
        (with_json("PATCH", "/v1/memcells/nonsense", &json!({})), 400, "invalid_id"),
        (bare("DELETE", "/v1/memcells"), 400, "invalid_argument"),
        (bare("DELETE", "/v1/memcells?hard=true"), 400, "invalid_argument"),
        (bare("DELETE", "/v1/memcells?user_id=u&group_id=g"), 400, "unknown_parameter"),
        (bare("POST", "/v1/memcells/restore"), 400, "invalid_argument"),
        (bare("POST", "/v1/memcells/restore?user_id=u&hard=true"), 400, "unknown_parameter"),
        (bare("POST", "/v1/memcells"), 415, "unsupported_media_type"),
        (with_body("POST", "/v1/memcells", "text/plain", "{}"), 415, "unsupported_media_type"),
        (with_body("PATCH", &one, "application/merge-patch+json", "{}"), 415, "unsupported_media_type"),
        (
            with_header(with_json("POST", "/v1/memcells", &json!({})), "content-encoding", "gzip"),
            415,
            "unsupported_media_type",
        ),
        (with_body("POST", "/v1/memcells", "application/json", ""), 400, "malformed_json"),
        (with_body("POST", "/v1/memcells", "application/json; charset=UTF-8", "{\"a\":"), 400, "malformed_json"),
        (with_body("POST", "/v1/transactions", "application/json", "{]"), 400, "malformed_json"),
        (with_json("POST", "/v1/memcells", &large), 413, "body_too_large"),
        (with_json("POST", "/v1/memcells", &json!([])), 422, "invalid_document"),
        (with_json("POST", "/v1/memcells", &json!({})), 422, "invalid_document"),
        (with_json("PATCH", &one, &json!("x")), 422, "invalid_document"),
        (with_json("POST", "/v1/memcells", &json!({ "timestamp": "2025-06-26", "event_id": "x" })), 400, "invalid_id"),
        (with_json("POST", "/v1/memcells?x=1", &json!({ "timestamp": "2025-06-26" })), 400, "unknown_parameter"),
        (with_json("POST", "/v1/memcells/batch", &json!({})), 422, "invalid_body"),
        (with_json("POST", "/v1/memcells/batch-get", &json!([])), 422, "invalid_body"),
        (with_json("POST", "/v1/memcells/batch-get", &json!({ "event_ids": [1] })), 422, "invalid_body"),
        (with_json("POST", "/v1/memcells/batch-get", &json!({ "event_ids": [], "x": 1 })), 422, "invalid_body"),
        (with_json("POST", "/v1/transactions", &json!({ "operations": {} })), 422, "invalid_body"),
        (with_json("POST", "/v1/transactions", &json!({ "operations": [{ "op": "x" }] })), 422, "invalid_body"),
        (with_body("POST", "/v1/memcells", "application/json", twice), 422, "invalid_body"),
        (with_body("PATCH", &one, "application/json", twice), 422, "invalid_body"),
        (with_body("POST", "/v1/memcells/batch", "application/json", format!("[{twice}]")), 422, "invalid_body"),
        (
            with_body("POST", "/v1/transactions", "application/json", format!("{{\"operations\":[{twice}]}}")),
            422,
            "invalid_body",
        ),
        (bare("GET", &format!("/v1/memcells?user_id={}", "x".repeat(64_512))), 414, "uri_too_long"),
        (with_headers(bare("GET", "/v1/memcells"), 101), 431, "headers_too_large"),
        (with_header(bare("GET", "/healthz"), "host", "evil.example"), 403, "unknown_host"),
        (with_header(bare("POST", "/v1/memcells/restore"), "sec-fetch-site", "cross-site"), 403, "cross_site"),
        (with_body("POST", "/v1/config/reload", "text/plain", ""), 415, "unsupported_media_type"),
    ] {
        let shown = format!("{} {}", request.method(), request.uri());
        let answered = send(&api, request).await;
        assert_eq!((answered.status.as_u16(), &answered.json()["code"]), (status, &json!(code)), "{shown}");
        check_problem(&answered, status, code);
    }
}

#[tokio::test]
async fn an_invalid_document_names_its_field_and_a_wrong_operation_its_index() {
    let api = api().await;
    let body = json!({ "timestamp": "2025-06-26", "participants": ["a", 1] });
    let answered = send(&api, with_json("POST", "/v1/memcells", &body)).await;
    check_problem(&answered, 422, "invalid_document");
    assert_eq!(answered.json()["field"], "participants[1]");

    let body = json!({ "operations": [{ "op": "restore", "event_id": ID }, { "op": "append", "memcell": {} }] });
    let answered = send(&api, with_json("POST", "/v1/transactions", &body)).await;
    check_problem(&answered, 422, "invalid_document");
    assert!(answered.json()["detail"].as_str().unwrap().starts_with("operation 1: "), "{}", answered.json());
}

#[tokio::test]
async fn a_batch_without_a_good_element_needs_no_mongodb() {
    let body = json!([{}, 7, { "timestamp": "2025-06-26", "event_id": "x" }]);
    let answered = send(&api().await, with_json("POST", "/v1/memcells/batch", &body)).await;
    assert_eq!(answered.status, 200);
    assert_eq!(answered.header("x-memcell-mirrored"), Some("none"));
    let items = answered.json()["items"].clone();
    let codes: Vec<_> = items.as_array().unwrap().iter().map(|item| (&item["index"], &item["error"]["code"])).collect();
    let (invalid, no_id) = (json!("invalid_document"), json!("invalid_id"));
    assert_eq!(codes, [(&json!(0), &invalid), (&json!(1), &invalid), (&json!(2), &no_id)]);
}

#[tokio::test]
async fn without_mongodb_operations_are_unavailable_soon() {
    let api = api().await;
    let document = json!({ "timestamp": "2025-06-26" });
    let one = format!("/v1/memcells/{ID}");
    for request in [
        bare("GET", &one),
        bare("GET", "/v1/memcells"),
        bare("GET", "/v1/memcells?limit=0"),
        bare("GET", "/v1/memcells/count"),
        bare("GET", "/v1/users/a%2Fb/latest"),
        bare("GET", "/v1/users/u/activity"),
        bare("DELETE", &one),
        bare("DELETE", "/v1/memcells?user_id=u"),
        bare("POST", "/v1/memcells/restore?user_id=u"),
        with_json("POST", "/v1/memcells", &document),
        with_json("POST", "/v1/memcells/batch", &json!([document])),
        with_json("POST", "/v1/memcells/batch-get", &json!({ "event_ids": [ID] })),
        with_json("PATCH", &one, &json!({ "subject": "s" })),
    ] {
        let shown = format!("{} {}", request.method(), request.uri());
        let answered = send(&api, request).await;
        assert_eq!(answered.status, 503, "{shown}: {}", String::from_utf8_lossy(&answered.body));
        assert_eq!(answered.headers[RETRY_AFTER], "1", "{shown}");
    }
    let answered = send(&api, bare("GET", "/readyz")).await;
    assert_eq!(answered.status, 503);
    let readiness = answered.json();
    assert_eq!((&readiness["status"], &readiness["backends"]), (&json!("not_ready"), &json!([])));
    assert!(!readiness["mongodb"].as_str().unwrap().is_empty());
    let answered = send(&api, bare("GET", "/healthz")).await;
    assert_eq!((answered.status.as_u16(), answered.json()), (200, json!({ "status": "ok" })));
}

#[tokio::test]
async fn requests_keep_their_id_and_count_by_route() {
    let api = api().await;
    let mut request = bare("GET", &format!("/v1/memcells/{ID}/x"));
    request.headers_mut().insert("x-request-id", "abc-1".parse().unwrap());
    let answered = send(&api, request).await;
    assert_eq!(answered.header("x-request-id"), Some("abc-1"));
    send(&api, bare("GET", "/v1/memcells/nonsense")).await;
    let answered = send(&api, bare("GET", "/metrics")).await;
    assert_eq!(answered.header("content-type"), Some(crate::metrics::CONTENT_TYPE));
    let text = String::from_utf8(answered.body).unwrap();
    for line in [
        "memcell_http_requests_total{route=\"/v1/memcells/{event_id}\",method=\"GET\",status=\"404\"} 1",
        "memcell_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let api = api().await;
    let answered = send(&api, bare("HEAD", "/healthz")).await;
    assert_eq!((answered.status.as_u16(), answered.body.len()), (200, 0));
    assert_eq!(answered.header("content-length"), Some("15"));
}

#[tokio::test]
async fn lists_for_operators_are_empty_without_backends() {
    let api = api().await;
    for uri in ["/v1/backends", "/v1/mismatches"] {
        let answered = send(&api, bare("GET", uri)).await;
        assert_eq!((answered.status.as_u16(), answered.json()), (200, json!({ "items": [] })));
    }
}

/// The paths of the document with their methods.
fn described(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, item)| {
            (path.clone(), item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect())
        })
        .collect()
}

#[tokio::test]
async fn the_document_describes_exactly_the_routes() {
    let api = api().await;
    let document = send(&api, bare("GET", "/openapi.json")).await.json();
    let described = described(&document);
    let expected: BTreeMap<String, BTreeSet<String>> = [
        ("/v1/memcells", "GET POST DELETE"),
        ("/v1/memcells/batch", "POST"),
        ("/v1/memcells/batch-get", "POST"),
        ("/v1/memcells/count", "GET"),
        ("/v1/memcells/restore", "POST"),
        ("/v1/memcells/{event_id}", "GET PATCH DELETE"),
        ("/v1/memcells/{event_id}/restore", "POST"),
        ("/v1/users/{user_id}/latest", "GET"),
        ("/v1/users/{user_id}/activity", "GET"),
        ("/v1/transactions", "POST"),
        ("/v1/backends", "GET"),
        ("/v1/config", "GET"),
        ("/v1/config/reload", "POST"),
        ("/v1/jobs", "GET POST"),
        ("/v1/jobs/{id}", "GET DELETE"),
        ("/v1/mismatches", "GET"),
        ("/v1/mismatches/{backend}/{event_id}/repair", "POST"),
        ("/v1/overview", "GET"),
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/metrics", "GET"),
        ("/openapi.json", "GET"),
    ]
    .map(|(path, methods)| (path.to_owned(), methods.split(' ').map(str::to_owned).collect()))
    .into();
    assert_eq!(described, expected);

    // What the router takes is what `allow` says to a method that no route has.
    for (path, methods) in &described {
        let uri = path.replace("{event_id}", ID).replace("{user_id}", "u").replace("{id}", "j");
        let uri = uri.replace("{backend}", "b");
        let answered = send(&api, bare("PUT", &uri)).await;
        check_problem(&answered, 405, "method_not_allowed");
        let allowed = answered.headers[ALLOW].to_str().unwrap().split(',').filter(|method| *method != "HEAD");
        assert_eq!(&allowed.map(str::to_owned).collect::<BTreeSet<_>>(), methods, "{path}");
    }
}

#[tokio::test]
async fn the_document_is_complete_in_itself() {
    let document = send(&api().await, bare("GET", "/openapi.json")).await.json();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut values = vec![&document];
    while let Some(value) = values.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let name = reference.strip_prefix("#/components/schemas/").unwrap();
                    assert!(schemas.contains_key(name), "{reference} leads nowhere");
                }
                values.extend(fields.values());
            }
            Value::Array(items) => values.extend(items),
            _ => {}
        }
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses {
                let headers = response["headers"].as_object().unwrap();
                assert!(headers.contains_key("x-request-id"), "{method} {path} {status}");
                assert!(headers.values().all(|header| header["description"].is_string()), "{method} {path} {status}");
                // A probe's own trouble is told in the form that it has anyway.
                let is_refusal = matches!(status.as_str(), "400" | "401" | "403");
                let is_error = status.as_str() >= "400" && (path.starts_with("/v1/") || is_refusal);
                assert_eq!(
                    response["content"]["application/problem+json"].is_object(),
                    is_error,
                    "{method} {path} {status}"
                );
            }
            if path.starts_with("/v1/") {
                assert!(["400", "500", "503"].iter().all(|status| responses.contains_key(*status)), "{method} {path}");
            }
            if operation["requestBody"].is_object() {
                assert!(["413", "415", "422"].iter().all(|status| responses.contains_key(*status)), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_schema_of_a_memcell_has_all_its_fields() {
    let document = send(&api().await, bare("GET", "/openapi.json")).await.json();
    let text = document["components"]["schemas"].to_string();
    for field in [
        "event_id",
        "user_id",
        "timestamp",
        "summary",
        "group_id",
        "original_data",
        "participants",
        "type",
        "subject",
        "keywords",
        "linked_entities",
        "episode",
        "foresight_memories",
        "event_log",
        "extend",
        "created_at",
        "updated_at",
        "deleted_at",
        "deleted_by",
        "revision",
    ] {
        assert!(text.contains(&format!("\"{field}\":{{")), "{field} is not in {text}");
    }
    assert!(document["components"]["schemas"]["MemCellFields"].get("additionalProperties").is_some(), "{text}");
}

/// The properties of a schema, and those that are required.
fn properties<'a>(document: &'a Value, schema: &str) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let schema = &document["components"]["schemas"][schema];
    let required = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    (schema["properties"].as_object().unwrap().keys().map(String::as_str).collect(), required.collect())
}

#[tokio::test]
async fn reports_have_the_properties_that_are_described() {
    let document = send(&api().await, bare("GET", "/openapi.json")).await.json();
    let backend = crate::store::BackendReport {
        name: "b".to_owned(),
        plugin: "p.wasm".to_owned(),
        sha256: None,
        state: "failed",
        reason: Some("r".to_owned()),
        shards: 1,
        format: "json",
        validates: true,
        entries: None,
        bytes: None,
        queue_depth: 0,
        queue_bytes: 0,
        memory_bytes: 0,
        restarts: 0,
        lag_seconds: None,
        tailed_by: Some("h".to_owned()),
    };
    let difference = crate::validation::Difference {
        path: "a".to_owned(),
        kind: crate::validation::DifferenceKind::OnlyInMongo,
        mongo: None,
        kv: None,
    };
    let mismatch = crate::store::Mismatch {
        event_id: crate::memcell::EventId::new().into(),
        backend: "b".into(),
        kind: "different",
        differences: vec![difference.clone()],
        first_seen: bson::DateTime::from_millis(0),
        confirmed_at: bson::DateTime::from_millis(1),
    };
    let backend_sample = crate::store::BackendSample {
        name: "b".to_owned(),
        state: "live",
        lag_seconds: None,
        queue_depth: 0,
        memory_bytes: 0,
        written: 0,
        read: 0,
        validations: BTreeMap::new(),
    };
    let sample = crate::store::Sample {
        number: 1,
        at: bson::DateTime::from_millis(0),
        seconds: 2.0,
        operations: crate::store::Operations::default(),
        backends: vec![backend_sample.clone()],
    };
    let (sample, backend_sample) =
        (serde_json::to_value(sample).unwrap(), serde_json::to_value(backend_sample).unwrap());
    for (schema, value) in [
        ("Backend", serde_json::to_value(backend).unwrap()),
        ("Mismatch", serde_json::to_value(mismatch).unwrap()),
        ("Difference", serde_json::to_value(difference).unwrap()),
        ("Sample", sample),
        ("BackendSample", backend_sample),
    ] {
        let (all, mut required) = properties(&document, schema);
        let written: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(all, written, "{schema}");
        if schema == "Backend" {
            required.extend(["reason", "tailed_by"]);
        }
        assert_eq!(required, written, "{schema}");
    }
}

#[tokio::test]
async fn the_overview_is_answered_while_mongodb_is_away() {
    let api = api().await;
    let overview = send(&api, bare("GET", "/v1/overview?since=7")).await;
    assert_eq!(overview.status, 200);
    let overview = overview.json();
    assert_eq!((&overview["mongodb"]["reachable"], &overview["backends"]), (&json!(false), &json!([])));
    assert!(!overview["mongodb"]["problem"].as_str().unwrap().is_empty());
    assert_eq!(overview["history"]["samples"], json!([]));
    let config = send(&api, bare("GET", "/v1/config")).await.json();
    assert_eq!(config["mongodb"]["uri"], "mongodb://127.0.0.1:1");
    let answered = send(&api, bare("POST", &format!("/v1/mismatches/none/{ID}/repair"))).await;
    check_problem(&answered, 404, "not_found");
}

/// The layer around every request, over handlers that misbehave.
async fn misbehaving(request_timeout: Duration) -> Router {
    let store = store().await;
    let jobs = jobs(&store);
    let gate = Arc::new(Gate::new(&HttpConfig::default(), Security::none()));
    let api = Api { store, jobs, reloader: None, gate, max_body: 1000, request_timeout, openapi: Bytes::new() };
    Router::new()
        .route("/panic", get(|| async { panic!("secret") as StatusCode }))
        .route("/hang", get(std::future::pending::<StatusCode>))
        .layer(middleware::from_fn_with_state(api, requests::surround))
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing() {
    let answered = send(&misbehaving(Duration::from_secs(60)).await, bare("GET", "/panic")).await;
    check_problem(&answered, 500, "internal");
    assert!(!String::from_utf8(answered.body).unwrap().contains("secret"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let answered = send(&misbehaving(Duration::from_millis(20)).await, bare("GET", "/hang")).await;
    check_problem(&answered, 503, "timeout");
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_the_clients_matter() {
    let config = HttpConfig { request_timeout: Duration::from_millis(50), ..HttpConfig::default() };
    let (address, stop, _server) = start(config).await;
    let mut connection = begin_request(address).await;
    let answer = read_to_end(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"body_timeout\""), "{answer}");
    assert!(answer.contains("nothing was done"), "{answer}");
    stop.cancel();
}

/// A server on a free port, and what stops it.
async fn start(
    config: HttpConfig,
) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (store, stop) = (store().await, CancellationToken::new());
    let stopped = stop.clone().cancelled_owned();
    let jobs = jobs(&store);
    let server =
        tokio::spawn(async move { serve(listener, store, jobs, None, &config, Security::none(), stopped).await });
    (address, stop, server)
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn read_to_end(connection: &mut TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, connection.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

async fn read_until(connection: &mut TcpStream, end: &str) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let read = tokio::time::timeout(PATIENCE, connection.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&bytes));
    }
}

/// Sends the head of a request and as much of its body that it can't be answered yet, and waits until it is being
/// handled.
async fn begin_request(address: std::net::SocketAddr) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head =
        b"POST /v1/memcells HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                 expect: 100-continue\r\n\r\n";
    connection.write_all(head).await.unwrap();
    read_until(&mut connection, "HTTP/1.1 100 Continue\r\n\r\n").await;
    connection
}

#[tokio::test]
async fn a_shutdown_lets_running_requests_finish() {
    let (address, stop, server) = start(HttpConfig { shutdown_grace: PATIENCE, ..HttpConfig::default() }).await;
    let mut running = begin_request(address).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut idle, r#"{"status":"ok"}"#).await;
    stop.cancel();
    // Idle connections are closed, which shows that the shutdown has begun.
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(!server.is_finished());
    running.write_all(b"[]").await.unwrap();
    let answer = read_to_end(&mut running).await;
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("invalid_document"), "{answer}");
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_forever() {
    let grace = Duration::from_millis(50);
    let (address, stop, server) = start(HttpConfig { shutdown_grace: grace, ..HttpConfig::default() }).await;
    let mut running = begin_request(address).await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap().unwrap();
    assert_eq!(read_to_end(&mut running).await, "", "the connection is cut");
}

#[tokio::test]
async fn an_announced_body_that_is_too_large_is_refused_before_it_is_sent() {
    let (address, stop, _server) = start(HttpConfig { max_body: 10, ..HttpConfig::default() }).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head =
        b"POST /v1/memcells HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\
                 expect: 100-continue\r\nconnection: close\r\n\r\n";
    connection.write_all(head).await.unwrap();
    let answer = read_to_end(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
    stop.cancel();
}
