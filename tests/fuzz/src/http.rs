//! Requests: a line with method and target, lines of headers, an empty line, and the body. MongoDB is away, so that what is
//! accepted ends in a 503; everything that isn't is told what is wrong with it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use memcell_host::config::{Config, HostConfig, HttpConfig, MongoServer, MongoUri, ScheduleConfig};
use memcell_host::jobs::Jobs;
use memcell_host::metrics::Metrics;
use memcell_host::security::Security;
use memcell_host::store::MemCellStore;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

struct Host {
    runtime: Runtime,
    api: Router,
}

static HOST: LazyLock<Host> = LazyLock::new(|| host().expect("a host without a MongoDB"));

fn host() -> Result<Host> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Nobody listens on port 1.
    let mut config =
        Config::new(MongoServer::Uri(MongoUri::parse("mongodb://127.0.0.1:1").map_err(anyhow::Error::msg)?));
    config.mongodb.connect_timeout = Duration::from_millis(2);
    config.mongodb.operation_timeout = Duration::from_millis(10);
    let api = runtime.block_on(async {
        let store = MemCellStore::open(&config, Arc::new(Metrics::new())).await?;
        let jobs = Jobs::start(&store, &HostConfig { name: "fuzzed".to_owned() }, &ScheduleConfig::default());
        let http = HttpConfig { max_body: 64 * 1024, ..HttpConfig::default() };
        anyhow::Ok(memcell_host::http::router(store, jobs, None, &http, Security::none()))
    })?;
    Ok(Host { runtime, api })
}

pub(crate) fn run(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let is_head = request.method() == "HEAD";
    let (status, headers, body) = HOST.runtime.block_on(async {
        let (head, body) = HOST.api.clone().oneshot(request).await.unwrap_or_else(|never| match never {}).into_parts();
        let body = body.collect().await.expect("an answer is complete").to_bytes();
        (head.status, head.headers, body)
    });
    let shown = || String::from_utf8_lossy(&body);
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{}", shown());
    assert!(headers.contains_key("x-request-id") && headers.contains_key("x-content-type-options"), "{headers:?}");
    let is_problem = status.is_client_error() || status.is_server_error();
    if is_problem && !is_readiness(&headers, &body) && !is_head {
        assert_eq!(text(&headers, "content-type"), "application/problem+json", "{}", shown());
        let problem: Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {}", shown()));
        assert_eq!(problem.get("status"), Some(&Value::from(status.as_u16())), "{problem}");
        for member in ["code", "title", "detail"] {
            let given = problem.get(member).and_then(Value::as_str);
            assert!(given.is_some_and(|text| !text.is_empty()), "no {member} in {problem}");
        }
    } else if text(&headers, "content-type").starts_with("application/json") && !is_head {
        assert!(serde_json::from_slice::<Value>(&body).is_ok(), "{}", shown());
    }
}

/// What is not ready says so in the same form as what is.
fn is_readiness(headers: &HeaderMap, body: &[u8]) -> bool {
    text(headers, "content-type").starts_with("application/json")
        && serde_json::from_slice::<Value>(body)
            .is_ok_and(|answer| answer.get("status") == Some(&Value::from("not_ready")))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// `None` for what hyper would never hand on.
fn request(data: &[u8]) -> Option<Request<Body>> {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(end) => (data.get(..end)?, data.get(end + 2..)?),
        None => (data, &[][..]),
    };
    let mut lines = head.split(|&byte| byte == b'\n');
    let mut words = lines.next()?.splitn(2, |&byte| byte == b' ');
    let mut request = Request::builder().method(words.next()?).uri(words.next()?);
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':')?;
        request = request.header(line.get(..colon)?, line.get(colon + 1..)?.trim_ascii());
    }
    let mut request = request.body(body.to_vec().into()).ok()?;
    // Without one, nothing else would be looked at.
    request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
    Some(request)
}
