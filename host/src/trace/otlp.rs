//! Spans for a collector of OpenTelemetry, if the configuration names one: OTLP over HTTP, in batches, from a thread of its own.
//!
//! A collector that is slow or away costs spans and nothing else: what doesn't fit the bounded queue is dropped, and the log says so
//! once in a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value, propagation::TextMapPropagator as _};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::NO_ROUTE;
use crate::config::TracesConfig;

/// How long one batch may take to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the process waits for what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is said that spans can't be sent.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What names the trace and the span that a request belongs to at its client, and what their makers add to it (W3C Trace Context).
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// What says how a request was answered.
const STATUS_CODE: &str = "http.response.status_code";

/// An exporter that names things as collectors expect, and whose failures are logged.
#[derive(Debug)]
struct Told {
    exporter: opentelemetry_otlp::SpanExporter,
    trouble: Mutex<Trouble>,
}

/// What has not been sent.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<Instant>,
    lost: usize,
}

impl SpanExporter for Told {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(name_by_conventions);
        let spans = batch.len();
        let end = self.exporter.export(batch).await;
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match &end {
            Ok(()) if trouble.told.is_some() => {
                tracing::info!(lost = trouble.lost, "spans can be sent again");
                *trouble = Trouble::default();
            }
            Ok(()) => {}
            Err(error) => {
                trouble.lost += spans;
                if trouble.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                    trouble.told = Some(Instant::now());
                    tracing::warn!(%error, lost = trouble.lost, "spans can't be sent to traces.endpoint");
                }
            }
        }
        end
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Where spans go.
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Begins to send to `config.endpoint`. To be called, and dropped, outside of a runtime, since it waits. The headers that the
    /// collector wants are in `OTEL_EXPORTER_OTLP_HEADERS`, as is usual.
    ///
    /// # Errors
    /// What the exporter has against its settings, or the system against one more thread.
    pub fn start(endpoint: &str, config: &TracesConfig, host: &str) -> Result<Self, String> {
        let client = reqwest::blocking::Client::builder().timeout(SEND_TIMEOUT).build();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client.map_err(|error| error.to_string())?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(SEND_TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder()
            .with_service_name("memcell")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", host.to_owned()))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample)));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler)
            .with_batch_exporter(Told { exporter, trouble: Mutex::default() })
            .build();
        Ok(Self { provider })
    }

    /// What collects the spans of this program, and what is logged within them.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
    {
        let tracer = self.provider.tracer("memcell");
        tracing_opentelemetry::layer().with_tracer(tracer).with_threads(false).with_filter(filter_fn(is_exported))
    }

    /// Sends what is left, within a few seconds.
    ///
    /// # Errors
    /// What kept it from that.
    pub fn close(self) -> Result<(), String> {
        self.provider.shutdown_with_timeout(CLOSE_TIMEOUT).map_err(|error| error.to_string())
    }
}

/// Those of the host itself: what libraries do is theirs, and what is said at debug level may be private.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let least = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
    metadata.target().starts_with("memcell_host") && *metadata.level() <= least
}

/// Gives a span the kind, the name and the attributes that OpenTelemetry's semantic conventions have for what it is about; in the log
/// it keeps its own.
fn name_by_conventions(span: &mut SpanData) {
    match &*span.name {
        "request" => {
            span.span_kind = SpanKind::Server;
            let (mut method, mut route) = (String::new(), None);
            span.attributes.retain_mut(|attribute| match attribute.key.as_str() {
                "method" => {
                    method = attribute.value.to_string();
                    attribute.key = "http.request.method".into();
                    true
                }
                "route" if attribute.value.as_str() == NO_ROUTE => false,
                "route" => {
                    route = Some(attribute.value.to_string());
                    attribute.key = "http.route".into();
                    true
                }
                STATUS_CODE => {
                    if matches!(attribute.value, Value::I64(500..)) {
                        span.status = Status::error("");
                    }
                    true
                }
                _ => true,
            });
            span.name = match route {
                Some(route) => format!("{method} {route}").into(),
                None => method.into(),
            };
        }
        "mongodb" => {
            span.span_kind = SpanKind::Client;
            span.attributes.push(KeyValue::new("db.system.name", "mongodb"));
        }
        _ => {}
    }
}

/// Makes a span a part of the trace that a client began, as the W3C's `traceparent` and `tracestate` tell it. Anything else is ignored.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    if !headers.contains_key(TRACE_PARENT) {
        return;
    }
    let joined = |name: &str| {
        let values: Option<Vec<&str>> = headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
        values.map(|values| (name.to_owned(), values.join(",")))
    };
    let carrier: HashMap<String, String> = [TRACE_PARENT, TRACE_STATE].into_iter().filter_map(joined).collect();
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    // Refused where nobody collects spans.
    let _ = span.set_parent(context);
}

/// Says of a span how its request was answered.
pub fn answered(span: &Span, status: u16) {
    span.set_attribute(STATUS_CODE, i64::from(status));
}
