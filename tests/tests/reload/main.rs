//! A configuration that changes while the host runs: what is taken over, what is refused, and that nothing is lost or fails
//! meanwhile.

#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value answers null for what it lacks, and tests may panic"
)]

mod changes;
mod load;
mod refusals;
mod validation;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use memcell_tests::artifacts;
use memcell_tests::host::{Answer, TestHost, eventually};
use serde_json::{Value, json};

/// What tests wait less for than people would.
const VALIDATION: &str = "[validation]\nrecheck_after = \"200ms\"\nread_budget = \"2s\"\n";

/// A backend in memory, with these lines in its table.
fn in_memory(name: &str, more: &str) -> Result<String> {
    backend(name, &artifacts::plugin("in_memory")?, more)
}

/// A backend in files, with these lines in its table.
fn file(name: &str, directory: &Path, more: &str) -> Result<String> {
    let grant = format!("grants.directory = \"{}\"\n{more}", directory.display());
    backend(name, &artifacts::plugin("file")?, &grant)
}

fn backend(name: &str, plugin: &Path, more: &str) -> Result<String> {
    Ok(format!("[backends.{name}]\nplugin = \"{}\"\n{more}\n", plugin.display()))
}

async fn reload(host: &TestHost) -> Result<Answer> {
    host.request("POST", "/v1/config/reload").await
}

/// Reloads these sections, and checks that it changes exactly this: a key and a word each.
async fn changes(host: &TestHost, sections: &str, expected: &[(&str, &str)]) -> Result<()> {
    host.rewrite_config(sections)?;
    let answer = reload(host).await?;
    let change = |(key, change): &(&str, &str)| json!({ "key": key, "change": change });
    let expected: Vec<Value> = expected.iter().map(change).collect();
    ensure!(answer.status == 200 && answer.body == json!({ "changes": expected }), "{answer:?}");
    Ok(())
}

/// What `GET /v1/backends` says of a backend; null if there is none of this name.
async fn status(host: &TestHost, name: &str) -> Result<Value> {
    let answer = host.request("GET", "/v1/backends").await?;
    let backends = answer.body["items"].as_array().context("no backends")?;
    Ok(backends.iter().find(|backend| backend["name"] == name).cloned().unwrap_or_default())
}

async fn becomes(host: &TestHost, name: &str, state: &str) -> Result<()> {
    eventually(&format!("{name} is {state}"), async || Ok(status(host, name).await?["state"] == state)).await
}

/// How many series of `/metrics` are about this backend.
async fn series(host: &TestHost, name: &str) -> Result<usize> {
    let text = host.request("GET", "/metrics").await?.body;
    let label = format!("backend=\"{name}\"");
    Ok(text.as_str().context("no metrics")?.lines().filter(|line| line.contains(&label)).count())
}
