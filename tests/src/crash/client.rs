//! The host's API as the workload and the checks use it, and what an answer says about the fate of a write.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::steps::Refusal;

/// Longer than the host's own limit for a request, so that what is given up here has ended there.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many keys are read at a time.
const CHUNK: usize = 200;

/// What became of a write.
#[derive(Debug)]
pub(super) enum Answer {
    /// Acknowledged. With the document's new revision, if it concerned one document.
    Done { body: Value, revision: Option<u64> },
    /// It had no effect, for this reason.
    Refused(Refusal),
    /// It may have taken place, or may still do so.
    Unknown(String),
    /// Nobody was there to take it.
    NotSent,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { .. } => f.write_str("done"),
            Self::Refused(refusal) => write!(f, "refused, {refusal:?}"),
            Self::Unknown(reason) => write!(f, "unknown, {reason}"),
            Self::NotSent => f.write_str("not sent"),
        }
    }
}

/// Talks to one host, also across its restarts.
#[derive(Debug, Clone)]
pub(super) struct Api {
    client: reqwest::Client,
    url: String,
}

impl Api {
    pub(super) fn new(url: &str) -> Result<Self> {
        Ok(Self { client: reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?, url: url.to_owned() })
    }

    /// Asks for a write.
    ///
    /// # Errors
    /// If the answer is one that no operation of the workload should ever get.
    pub(super) async fn write(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Ok(Answer::NotSent),
            Err(error) => return Ok(Answer::Unknown(cause(&error))),
        };
        let status = response.status();
        let revision = response.headers().get("x-memcell-revision").and_then(|value| value.to_str().ok()?.parse().ok());
        let body: Value = match response.json().await {
            Ok(body) => body,
            Err(error) => return Ok(Answer::Unknown(cause(&error))),
        };
        Ok(match status {
            StatusCode::OK | StatusCode::CREATED => Answer::Done { body, revision },
            StatusCode::NOT_FOUND => Answer::Refused(Refusal::NotFound),
            StatusCode::CONFLICT => Answer::Refused(Refusal::Taken),
            status if status.is_server_error() => Answer::Unknown(format!("{status}, {}", text(&body, "detail"))),
            status => bail!("{method} {path} was answered with {status}: {body}"),
        })
    }

    /// Asks for something that has to be there.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        let response = self.client.get(format!("{}{path}", self.url)).send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        anyhow::ensure!(status.is_success(), "{path} was answered with {status}: {body}");
        Ok(body)
    }

    /// Reads a document with validation: whether it is there, and the outcome.
    pub(super) async fn read(&self, event_id: &str) -> Result<(bool, String)> {
        let response = self.client.get(format!("{}/v1/memcells/{event_id}?validate=true", self.url)).send().await?;
        let outcome = response.headers().get("x-memcell-validation").context("a validated read tells no outcome")?;
        Ok((response.status() == StatusCode::OK, outcome.to_str()?.to_owned()))
    }

    /// Reads these documents with validation. Answers the ids of those that are there, in order, and the outcomes that are not
    /// `consistent`, the worst of each part.
    pub(super) async fn read_all(&self, event_ids: &[String]) -> Result<(Vec<String>, Vec<String>)> {
        let (mut found, mut outcomes) = (Vec::new(), Vec::new());
        for part in event_ids.chunks(CHUNK) {
            let body = json!({ "event_ids": part, "validate": true, "fields": ["op"] });
            let response = self.client.post(format!("{}/v1/memcells/batch-get", self.url)).json(&body).send().await?;
            let outcome =
                response.headers().get("x-memcell-validation").context("a validated read tells no outcome")?;
            let outcome = outcome.to_str()?.to_owned();
            if outcome != "consistent" {
                outcomes.push(outcome);
            }
            let body: Value = response.json().await?;
            let items = body.get("items").and_then(Value::as_object).with_context(|| format!("no items: {body}"))?;
            found.extend(items.keys().cloned());
        }
        found.sort_unstable();
        Ok((found, outcomes))
    }
}

/// A text of a JSON object; empty if it isn't there.
pub(super) fn text<'a>(body: &'a Value, field: &str) -> &'a str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The innermost reason of an error, which says most.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
