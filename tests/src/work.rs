//! Jobs of a host, and documents for them to work on.

#![allow(clippy::indexing_slicing, reason = "indexing a JSON value answers null for what it lacks")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::host::TestHost;
use crate::sample::Samples;

/// Begins a job, and answers its id.
///
/// # Errors
/// If the host refuses it.
pub async fn order(host: &TestHost, body: &Value) -> Result<String> {
    let answer = host.json("POST", "/v1/jobs", body).await?;
    ensure!(answer.status == 201, "{answer:?}");
    Ok(answer.body["id"].as_str().context("no id")?.to_owned())
}

/// A job as it is now.
///
/// # Errors
/// If there is none with this id.
pub async fn job(host: &TestHost, id: &str) -> Result<Value> {
    let answer = host.request("GET", &format!("/v1/jobs/{id}")).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.body)
}

/// How long a job may take: while writers keep the machine busy, each of its looks waits for a mirror that has a lot to do.
const JOB_PATIENCE: Duration = Duration::from_secs(120);

/// Waits for the end of a job, and answers it.
///
/// # Errors
/// If it takes too long.
pub async fn ended(host: &TestHost, id: &str) -> Result<Value> {
    let deadline = Instant::now() + JOB_PATIENCE;
    loop {
        let job = job(host, id).await?;
        if job["state"] != "running" {
            return Ok(job);
        }
        ensure!(Instant::now() < deadline, "the job has not ended: {job}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Has a job done that has to come to its end.
///
/// # Errors
/// If it doesn't.
pub async fn done(host: &TestHost, body: &Value) -> Result<Value> {
    let job = ended(host, &order(host, body).await?).await?;
    ensure!(job["state"] == "done", "{job}");
    ensure!(job["progress"]["parts_done"] == job["progress"]["parts"], "{job}");
    Ok(job)
}

/// Stores so many sample documents, and answers their ids.
///
/// # Errors
/// If one of them is not stored.
pub async fn append(host: &TestHost, seed: u64, count: usize) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    let samples: Vec<Value> = Samples::new(seed).take(count).collect();
    for batch in samples.chunks(200) {
        let answer = host.json("POST", "/v1/memcells/batch", &json!(batch)).await?;
        for item in answer.body["items"].as_array().context("no items")? {
            ids.push(item["event_id"].as_str().with_context(|| format!("{item}"))?.to_owned());
        }
    }
    Ok(ids)
}

/// The figures of a report that aren't zero, but for how much was looked at.
pub fn figures(job: &Value) -> Vec<(String, u64)> {
    let report = job["report"].as_object().cloned().unwrap_or_default();
    let counted = report.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?)));
    counted.filter(|(name, count)| *count > 0 && !matches!(name.as_str(), "examined" | "differences")).collect()
}
