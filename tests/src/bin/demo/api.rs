//! The client of the host's HTTP API, which also keeps the figures of the validated reads.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::summary::Figures;

/// How many documents are listed at a time.
const PAGE: u32 = 100;

/// How often something is looked at again that is bound to happen.
const POLL: Duration = Duration::from_millis(20);

/// How long that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Talks to one host.
pub(crate) struct Api {
    client: reqwest::Client,
    url: String,
    /// Of all validated reads so far.
    pub(crate) figures: Figures,
}

/// What a validated read said.
#[derive(Debug)]
pub(crate) struct Reading {
    /// MongoDB's document; `None` if there is none.
    pub(crate) document: Option<Value>,
    /// How the backend's copy compared: the header `x-memcell-validation`.
    pub(crate) outcome: String,
}

/// A backend as `/v1/backends` describes it, as far as the demo is concerned.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) shards: u64,
    pub(crate) entries: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) memory_bytes: u64,
    pub(crate) restarts: u64,
    queue_depth: u64,
    lag_seconds: Option<f64>,
}

impl Backend {
    /// Whether it holds this many documents, and nothing more is on its way to it.
    fn has_settled(&self, entries: u64) -> bool {
        let is_idle = self.queue_depth == 0 && self.lag_seconds == Some(0.0);
        self.state == "live" && self.entries == Some(entries) && is_idle
    }
}

#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl Api {
    pub(crate) fn new(url: &str) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        Ok(Self { client, url: url.to_owned(), figures: Figures::default() })
    }

    /// Reads a document and has it compared with the backend's copy.
    pub(crate) async fn read(&mut self, event_id: &str) -> Result<Reading> {
        let started = Instant::now();
        let response = self.client.get(self.at(&format!("/v1/memcells/{event_id}?validate=true"))).send().await?;
        let outcome = response.headers().get("x-memcell-validation").context("a validated read tells no outcome")?;
        let outcome = outcome.to_str()?.to_owned();
        let status = response.status();
        let body: Value = response.json().await?;
        self.figures.add(&outcome, started.elapsed());
        let document = match status {
            StatusCode::OK => Some(body),
            StatusCode::NOT_FOUND => None,
            _ => bail!("reading {event_id} was answered with {status}: {body}"),
        };
        Ok(Reading { document, outcome })
    }

    /// The ids of all documents, listed page by page.
    pub(crate) async fn event_ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Items<Value> = self.get(&format!("/v1/memcells?limit={PAGE}{cursor}")).await?;
            for item in &page.items {
                ids.push(item.get("event_id").and_then(Value::as_str).context("a MemCell has no event_id")?.to_owned());
            }
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(ids),
            }
        }
    }

    /// Replaces fields of a document, and answers it as it is then.
    pub(crate) async fn update(&self, event_id: &str, patch: &Value) -> Result<Value> {
        let request = self.client.patch(self.at(&format!("/v1/memcells/{event_id}"))).json(patch);
        answered(request.send().await?).await
    }

    /// Hides a document.
    pub(crate) async fn soft_delete(&self, event_id: &str) -> Result<()> {
        let path = format!("/v1/memcells/{event_id}?deleted_by=demo");
        self.expect(Method::DELETE, &path, &json!({ "deleted": 1 })).await
    }

    /// Removes a document for good.
    pub(crate) async fn hard_delete(&self, event_id: &str) -> Result<()> {
        self.expect(Method::DELETE, &format!("/v1/memcells/{event_id}?hard=true"), &json!({ "deleted": 1 })).await
    }

    /// Brings a hidden document back.
    pub(crate) async fn restore(&self, event_id: &str) -> Result<()> {
        self.expect(Method::POST, &format!("/v1/memcells/{event_id}/restore"), &json!({ "restored": 1 })).await
    }

    /// The one backend that is configured.
    pub(crate) async fn backend(&self) -> Result<Backend> {
        let backends: Items<Backend> = self.get("/v1/backends").await?;
        backends.items.into_iter().next().context("the host has no backend")
    }

    /// Waits until the backend is live, holds this many documents and has nothing left to do.
    pub(crate) async fn settled(&self, entries: u64) -> Result<Backend> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let backend = self.backend().await?;
            if backend.has_settled(entries) {
                return Ok(backend);
            }
            if backend.state == "failed" {
                bail!("the backend failed: {}", backend.reason.unwrap_or_default());
            }
            if Instant::now() > deadline {
                bail!("the backend did not come to hold {entries} documents within {PATIENCE:?}: {backend:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a validated read of this document is consistent.
    pub(crate) async fn becomes_consistent(&mut self, event_id: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.read(event_id).await?.outcome;
            if outcome == "consistent" {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the copy of {event_id} is still {outcome} after {PATIENCE:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Fails if a mismatch was confirmed.
    pub(crate) async fn no_mismatches(&self) -> Result<()> {
        let rows: Items<Value> = self.get("/v1/mismatches").await?;
        ensure!(rows.items.is_empty(), "mismatches were confirmed: {:?}", rows.items);
        Ok(())
    }

    async fn expect(&self, method: Method, path: &str, expected: &Value) -> Result<()> {
        let answer: Value = answered(self.client.request(method.clone(), self.at(path)).send().await?).await?;
        if answer != *expected {
            bail!("{method} {path} answered {answer} instead of {expected}");
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        answered(self.client.get(self.at(path)).send().await?).await
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// The body of an answer that has to be a good one.
async fn answered<T: DeserializeOwned>(response: Response) -> Result<T> {
    let (status, url) = (response.status(), response.url().clone());
    let body = response.bytes().await?;
    if !status.is_success() {
        bail!("{url} was answered with {status}: {}", String::from_utf8_lossy(&body));
    }
    serde_json::from_slice(&body).with_context(|| format!("{url} was answered with something unexpected"))
}
