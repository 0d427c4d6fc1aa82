//! What many tests ask of a host, said once.

use anyhow::{Context, Result, ensure};
use memcell_tests::agreement::check_agreement;
use memcell_tests::host::{Answer, TestHost};
use serde_json::{Value, json};

/// A moment to build documents around.
pub(crate) const NOON: &str = "2025-06-26T12:00:00Z";

/// The smallest MemCell of a user.
pub(crate) fn memcell(user_id: &str, timestamp: &str) -> Value {
    json!({ "user_id": user_id, "timestamp": timestamp, "type": "Conversation" })
}

/// The body of an answer that must have this status.
#[track_caller]
pub(crate) fn body(answer: Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    answer.body
}

/// Checks that the answer is a complete problem of this status and code.
#[track_caller]
pub(crate) fn check_problem(answer: &Answer, status: u16, code: &str) {
    let text = |name: &str| answer.body.get(name).and_then(Value::as_str).unwrap_or_default();
    assert_eq!((answer.status, text("code")), (status, code), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    assert_eq!(answer.body.get("status"), Some(&json!(status)), "{answer:?}");
    assert!(!text("title").is_empty() && !text("detail").is_empty() && text("type") == "about:blank", "{answer:?}");
    assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
}

/// Checks that the answer is the problem of a document with a wrong field.
#[track_caller]
pub(crate) fn check_field(answer: &Answer, field: &str) {
    check_problem(answer, 422, "invalid_document");
    assert_eq!(answer.body.get("field"), Some(&json!(field)), "{answer:?}");
}

/// The revision that the answer is about.
pub(crate) fn revision(answer: &Answer) -> Result<u64> {
    answer.header("x-memcell-revision").parse().with_context(|| format!("no revision in {answer:?}"))
}

/// A validated read of a document that is there, once the mirror has caught up: its outcome must be `consistent`.
pub(crate) async fn read_consistent(host: &TestHost, event_id: &str) -> Result<Value> {
    host.settled().await?;
    let answer = host.request("GET", &format!("/v1/memcells/{event_id}")).await?;
    ensure!(answer.status == 200 && answer.header("x-memcell-validation") == "consistent", "{answer:?}");
    Ok(answer.body)
}

/// Appends many documents in one request. Returns their ids in order, and fails if one is refused.
pub(crate) async fn append_all(host: &TestHost, cells: &[Value]) -> Result<Vec<String>> {
    let answer = host.json("POST", "/v1/memcells/batch", &json!(cells)).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let items = answer.body.get("items").and_then(Value::as_array).context("a batch has items")?;
    let id = |item: &Value| item.get("event_id").and_then(Value::as_str).map(str::to_owned);
    items.iter().map(|item| id(item).with_context(|| item.to_string())).collect()
}

/// Waits for the mirror, and then checks that the backend `local` holds all live documents, byte for byte as MongoDB
/// has them, and nothing else.
pub(crate) async fn check_mirror(host: &TestHost) -> Result<()> {
    host.settled().await?;
    check_agreement(host, "local").await.map(drop)
}
