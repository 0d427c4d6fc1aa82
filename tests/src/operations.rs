//! Every kind of operation, checked against what MongoDB must answer: what has to go on working whatever the backends do.

#![allow(clippy::indexing_slicing, reason = "indexing a JSON value answers null for what it lacks")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::host::{Answer, TestHost};

/// How long an operation may take when nothing but MongoDB is waited for. Far above what it takes, far below every deadline of
/// a hung backend in these tests.
pub const PROMPT: Duration = Duration::from_secs(3);

/// A small MemCell of the user `ann`.
pub fn memcell(text: &str) -> Value {
    json!({ "user_id": "ann", "timestamp": "2025-06-26T00:03:30.123Z", "summary": text, "note": { "n": 1, "x": null } })
}

/// As [`TestHost::request`] or [`TestHost::json`].
///
/// # Errors
/// If it takes longer than [`PROMPT`].
pub async fn promptly(host: &TestHost, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
    let started = Instant::now();
    let answer = match body {
        Some(body) => host.json(method, path, body).await?,
        None => host.request(method, path).await?,
    };
    ensure!(started.elapsed() < PROMPT, "{method} {path} took {:?}", started.elapsed());
    Ok(answer)
}

/// Every kind of operation, each checked against what MongoDB must answer. There must be no document of the user `ann` before.
///
/// # Errors
/// If one is wrong or takes longer than [`PROMPT`].
pub async fn all_operations_work(host: &TestHost) -> Result<()> {
    for round in 0..4 {
        let created = promptly(host, "POST", "/v1/memcells", Some(&memcell("one"))).await?;
        ensure!(created.status == 201, "{created:?}");
        let id = created.body["event_id"].as_str().context("no id")?.to_owned();
        let path = format!("/v1/memcells/{id}");
        let read = promptly(host, "GET", &path, None).await?;
        ensure!(read.status == 200 && read.body == created.body, "{read:?}");
        let patched = promptly(host, "PATCH", &path, Some(&json!({ "summary": "two" }))).await?;
        ensure!(
            patched.status == 200 && patched.body["summary"] == "two" && patched.body["note"]["n"] == 1,
            "{patched:?}"
        );
        let batch = json!([memcell("b"), memcell("c"), { "timestamp": 5 }]);
        let batch = promptly(host, "POST", "/v1/memcells/batch", Some(&batch)).await?;
        ensure!(batch.body["items"][2]["error"]["code"] == "invalid_document", "{batch:?}");
        let ids = json!({ "event_ids": [id, batch.body["items"][0]["event_id"]], "validate": true });
        let both = promptly(host, "POST", "/v1/memcells/batch-get", Some(&ids)).await?;
        ensure!(both.body["items"].as_object().map(serde_json::Map::len) == Some(2), "{both:?}");
        ensure!(promptly(host, "DELETE", &path, None).await?.body == json!({ "deleted": 1 }));
        ensure!(promptly(host, "GET", &path, None).await?.status == 404);
        ensure!(promptly(host, "POST", &format!("{path}/restore"), None).await?.body == json!({ "restored": 1 }));
        ensure!(promptly(host, "DELETE", &format!("{path}?hard=true"), None).await?.body == json!({ "deleted": 1 }));
        let count = promptly(host, "GET", "/v1/memcells/count?user_id=ann", None).await?;
        ensure!(count.body == json!({ "count": 2 * (round + 1) }), "{count:?}");
        let list = promptly(host, "GET", "/v1/memcells?user_id=ann&limit=0", None).await?;
        ensure!(list.body["items"].as_array().map(Vec::len) == Some(2 * (round + 1)), "{list:?}");
    }
    let gone = promptly(host, "DELETE", "/v1/memcells?user_id=ann&hard=true", None).await?;
    ensure!(gone.body == json!({ "deleted": 8 }), "{gone:?}");
    Ok(())
}
