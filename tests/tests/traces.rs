//! What can be found out about a request afterwards: in the log, and in a collector of OpenTelemetry; and what mustn't be.

#![expect(
    clippy::indexing_slicing,
    reason = "JSON answers null for what it lacks, and a slice that isn't there fails the test"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use memcell_tests::host::eventually;
use memcell_tests::program::{Host, Memcell};
use memcell_tests::{artifacts, operations};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// In every field of what these tests write, and nowhere in what is logged or traced.
const PRIVATE: &str = "xyzzy-private";

/// Takes OTLP over HTTP and keeps the spans.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    bodies: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    async fn start() -> Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}/v1/traces", listener.local_addr()?);
        let collector = Self::default();
        let inner = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = inner.clone();
                tokio::spawn(async move { collector.serve(stream).await });
            }
        });
        Ok((collector, endpoint))
    }

    /// Answers the requests of one connection.
    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let mut received = Vec::new();
        loop {
            let head = loop {
                match received.windows(4).position(|window| window == b"\r\n\r\n") {
                    Some(end) => break end + 4,
                    None => ensure!(stream.read_buf(&mut received).await? > 0),
                }
            };
            let text = String::from_utf8_lossy(&received[..head]).to_lowercase();
            ensure!(
                text.starts_with("post /v1/traces ") && text.contains("content-type: application/x-protobuf"),
                "{text}"
            );
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
            let end = head + length.trim().parse::<usize>()?;
            while received.len() < end {
                ensure!(stream.read_buf(&mut received).await? > 0);
            }
            let body = received.drain(..end).skip(head).collect::<Vec<u8>>();
            let request = ExportTraceServiceRequest::decode(body.as_slice())?;
            self.bodies.lock().unwrap_or_else(PoisonError::into_inner).extend(body);
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            let spans = scopes.flat_map(|scope| scope.spans);
            self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn received(&self, text: &str) -> bool {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// A host as a process, its log, and what it needs.
struct Stage {
    folder: TempDir,
    host: Host,
    client: reqwest::Client,
}

impl Stage {
    async fn start(backend: &str, sections: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let config = folder.path().join("memcell.toml");
        let http = "[http]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(
            &config,
            format!("[mongodb]\nuri = \"embedded\"\n{http}{sections}\n[backends.local]\n{backend}\n"),
        )?;
        let host = Memcell::new(config)?.serve(&folder.path().join("log")).await?;
        let stage = Self { folder, host, client: reqwest::Client::new() };
        eventually("the host is ready", async || Ok(stage.status().await? == 200)).await?;
        Ok(stage)
    }

    async fn status(&self) -> Result<u16> {
        Ok(self.client.get(format!("{}/readyz", self.host.url())).send().await?.status().as_u16())
    }

    async fn state(&self) -> Result<Value> {
        let answer = self.client.get(format!("{}/v1/backends", self.host.url())).send().await?;
        Ok(answer.json::<Value>().await?["items"][0]["state"].clone())
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let mut request = self.client.request(method.parse()?, format!("{}{path}", self.host.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await?;
        Ok((status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? }))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

/// The lines of a log in JSON.
fn lines(log: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(log)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn backend(component: &Path, more: &str) -> String {
    format!("plugin = {:?}\n{more}", component.display().to_string())
}

fn attributes(span: &Span) -> HashMap<String, String> {
    let text = |value: AnyValue| match value {
        AnyValue::StringValue(text) => text,
        AnyValue::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    pairs.filter_map(|pair| Some((pair.key.clone(), text(pair.value.clone()?.value?)))).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_followed_to_the_call_of_the_plugin() -> Result<()> {
    let (collector, endpoint) = Collector::start().await?;
    let level = "[log]\nformat = \"json\"\nlevel = \"warn,memcell_host=debug\"";
    let traces = format!("{level}\n[traces]\nendpoint = \"{endpoint}\"\n[validation]\nmode = \"inline\"");
    let stage = Stage::start(&backend(&artifacts::plugin("in_memory")?, ""), &traces).await?;
    eventually("the backend is live", async || Ok(stage.state().await? == "live")).await?;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let headers = [("x-request-id", "follow-me"), ("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
    let (status, created) = stage.send("POST", "/v1/memcells", &headers, Some(&operations::memcell("x"))).await?;
    ensure!(status == 201, "{created}");
    let path = format!("/v1/memcells/{}", created["event_id"].as_str().context("no id")?);
    let (status, _) = stage.send("GET", &path, &[("x-request-id", "and-me")], None).await?;
    assert_eq!(status, 200);
    let log = stage.log_file();
    stage.host.stop().await?;

    // In the log: the call names the request that it was made for.
    let lines = lines(&log)?;
    let called = |request: &str, function: &str| {
        lines.iter().any(|line| {
            line["message"] == "plugin called" && line["function"] == function && line["span"]["requests"] == request
        })
    };
    assert!(called("follow-me", "put-many"), "{lines:#?}");
    assert!(called("and-me", "get-many"), "{lines:#?}");
    let answered =
        |id: &str| lines.iter().any(|line| line["message"] == "request answered" && line["span"]["id"] == id);
    assert!(answered("follow-me") && answered("and-me"));

    // In the collector: all of it is one trace, the client's.
    let spans = collector.spans();
    let ours: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let find = |name: &str| ours.iter().find(|span| span.name == name).with_context(|| format!("no {name}: {ours:#?}"));
    let (request, mongodb, call) = (find("POST /v1/memcells")?, find("mongodb")?, find("kv_call")?);
    assert_eq!(hex(&request.parent_span_id), "b7ad6b7169203331");
    assert_eq!(request.trace_state, "vendor=1");
    assert_eq!((request.kind(), mongodb.kind()), (SpanKind::Server, SpanKind::Client));
    assert_eq!(mongodb.parent_span_id, request.span_id);
    assert_eq!(call.parent_span_id, request.span_id);
    let (of_request, of_call) = (attributes(request), attributes(call));
    let route = (
        of_request["id"].as_str(),
        of_request["http.route"].as_str(),
        of_request["http.response.status_code"].as_str(),
    );
    assert_eq!(of_request["http.request.method"], "POST");
    assert_eq!(route, ("follow-me", "/v1/memcells", "201"));
    let call = (of_call["requests"].as_str(), of_call["backend"].as_str(), of_call["function"].as_str());
    assert_eq!(call, ("follow-me", "local", "write"));
    // The read began a trace of its own.
    let read =
        spans.iter().find(|span| attributes(span).get("id").is_some_and(|id| id == "and-me")).context("no read")?;
    assert_ne!(hex(&read.trace_id), TRACE);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every kind of operation with private contents, on a backend that loses writes, damages them, or fails: neither the log at its
/// usual level nor the collector learns any of it.
#[tokio::test(flavor = "multi_thread")]
async fn contents_are_neither_logged_nor_traced() -> Result<()> {
    let (collector, endpoint) = Collector::start().await?;
    for settings in ["mode = \"lost-write\", on = \"put\", after = \"1\"", "mode = \"trap\", on = \"put\""] {
        let hostile =
            backend(&artifacts::guest("hostile")?, &format!("settings = {{ {settings} }}\ngrants.log = true"));
        let sections = format!(
            "[log]\nformat = \"json\"\n[traces]\nendpoint = \"{endpoint}\"\n[validation]\nrecheck_after = \"50ms\"\nrepair = true"
        );
        let stage = Stage::start(&hostile, &sections).await?;
        let private = json!({
            "user_id": PRIVATE, "timestamp": "2025-06-26T00:03:30Z", "summary": PRIVATE, "keywords": [PRIVATE],
            "extend": { PRIVATE: PRIVATE },
        });
        let patch = json!({ "summary": format!("{PRIVATE} 2") });
        let (_, created) = stage.send("POST", "/v1/memcells", &[], Some(&private)).await?;
        let path = format!("/v1/memcells/{}", created["event_id"].as_str().context("no id")?);
        stage.send("PATCH", &path, &[], Some(&patch)).await?;
        stage.send("POST", "/v1/memcells/batch", &[], Some(&json!([private, { "timestamp": PRIVATE }]))).await?;
        let (status, _) = stage.send("POST", "/v1/memcells", &[], Some(&json!({ "timestamp": PRIVATE }))).await?;
        assert_eq!(status, 422);
        let operations = json!({ "operations": [{ "op": "append", "memcell": private }, { "op": PRIVATE }] });
        stage.send("POST", "/v1/transactions", &[], Some(&operations)).await?;
        for query in [
            format!("/v1/memcells?user_id={PRIVATE}"),
            format!("/v1/memcells?{PRIVATE}={PRIVATE}"),
            format!("/{PRIVATE}"),
        ] {
            stage.send("GET", &query, &[("authorization", PRIVATE), ("x-other", PRIVATE)], None).await?;
        }
        for _ in 0..10 {
            stage.send("GET", &path, &[], None).await?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        stage.send("DELETE", &path, &[], None).await?;
        let log = stage.log_file();
        // A backend that fails may leave the host with something that isn't drained.
        let _ = stage.host.stop().await;
        let text = std::fs::read_to_string(log)?;
        assert!(text.contains("listening"), "{text}");
        assert!(!text.contains(PRIVATE), "{text}");
    }
    assert!(collector.received("kv_call") && !collector.received(PRIVATE));
    Ok(())
}

/// A collector that isn't there costs nothing but its spans, and the log tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_no_trouble() -> Result<()> {
    let port = memcell_tests::child::free_port()?;
    let traces = format!("[traces]\nendpoint = \"http://127.0.0.1:{port}/v1/traces\"\nsample = 0.5");
    let stage = Stage::start(&backend(&artifacts::plugin("in_memory")?, ""), &traces).await?;
    for _ in 0..20 {
        let (status, _) = stage.send("POST", "/v1/memcells", &[], Some(&operations::memcell("x"))).await?;
        assert_eq!(status, 201);
    }
    let told = async || {
        let lines = lines(&stage.log_file())?;
        Ok(lines.iter().any(|line| line.to_string().contains("spans can't be sent to traces.endpoint")))
    };
    eventually("the log says that spans can't be sent", told).await?;
    stage.host.stop().await?;
    Ok(())
}
