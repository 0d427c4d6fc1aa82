//! Every operation of the API with every role, by the API's own description.

use anyhow::{Context, Result, ensure};
use memcell_tests::host::TestHost;
use serde_json::Value;

use super::{ADMIN, READ, WRITE, host_with_roles, with_token};

/// What anybody may ask for, on purpose.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];

/// What an operation has to need by its nature, whatever it says.
fn expected(method: &str, path: &str) -> Option<&'static str> {
    let is_administration = ["/v1/jobs", "/v1/config", "/v1/mismatches"].iter().any(|part| path.starts_with(part));
    match method {
        // The page of the dashboard and what belongs to it say nothing themselves.
        "get" if OPEN.contains(&path) || path == "/" || path.starts_with("/assets/") => None,
        "get" => Some("read"),
        "post" if path == "/v1/memcells/batch-get" => Some("read"),
        _ if is_administration => Some("admin"),
        _ => Some("write"),
    }
}

/// Each operation: its method, its path, and what it says that it needs.
fn operations(document: &Value) -> Result<Vec<(String, String, Option<String>)>> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("no operations")? {
            let security = operation["security"].as_array();
            let security = security.with_context(|| format!("{method} {path} does not say what it needs"))?;
            let role = security.first().and_then(|needed| needed["token"][0].as_str()).map(str::to_owned);
            found.push((method.clone(), path.clone(), role));
        }
    }
    ensure!(found.len() > 20, "{found:?}");
    Ok(found)
}

async fn status(host: &TestHost, method: &str, path: &str, token: Option<&str>) -> Result<u16> {
    // What stands for the variable parts is nothing that exists, so that nothing much comes of it.
    let path = path.replace(['{', '}'], "x");
    let answer = with_token(host, &method.to_ascii_uppercase(), &path, token).await?;
    if matches!(answer.status, 401 | 403) {
        ensure!(answer.header("content-type") == "application/problem+json", "{answer:?}");
        ensure!(answer.header("www-authenticate").starts_with("Bearer realm="), "{answer:?}");
        let code = answer.body["code"].as_str().unwrap_or_default();
        let expected: &[&str] =
            if answer.status == 401 { &["unauthenticated", "invalid_token"] } else { &["forbidden"] };
        ensure!(expected.contains(&code), "{answer:?}");
    }
    Ok(answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_needs_what_it_says_and_says_what_it_has_to_need() -> Result<()> {
    let (host, _directory) = host_with_roles("").await?;
    let document = host.request("GET", "/openapi.json").await?.body;
    ensure!(document["components"]["securitySchemes"]["token"]["scheme"] == "bearer", "{document}");
    let rank = |role: &str| ["read", "write", "admin"].iter().position(|other| *other == role);
    for (method, path, role) in operations(&document)? {
        let operation = format!("{method} {path}");
        ensure!(role.as_deref() == expected(&method, &path), "{operation} says that it needs {role:?}");
        let is_refused =
            async |token| Ok::<_, anyhow::Error>(matches!(status(&host, &method, &path, token).await?, 401 | 403));
        for (own, token) in [("read", READ), ("write", WRITE), ("admin", ADMIN)] {
            let suffices = role.as_deref().is_none_or(|role| rank(own) >= rank(role));
            ensure!(is_refused(Some(token)).await? != suffices, "{operation} with {own}");
            if !suffices {
                ensure!(status(&host, &method, &path, Some(token)).await? == 403, "{operation} with {own}");
            }
        }
        for token in [None, Some("no-token-at-all-but-long-enough")] {
            let expected = if role.is_some() { 401 } else { 200 };
            ensure!(status(&host, &method, &path, token).await? == expected, "{operation} with {token:?}");
        }
    }
    ensure!(with_token(&host, "HEAD", "/v1/memcells", None).await?.status == 401, "HEAD is no way around GET");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_does_nothing() -> Result<()> {
    let (host, _directory) = host_with_roles("").await?;
    let cell = serde_json::json!({ "timestamp": "2025-06-26", "user_id": "ana" });
    let append = |token| host.client.post(format!("{}/v1/memcells", host.url)).bearer_auth(token).json(&cell);
    ensure!(host.send(append(READ)).await?.status == 403);
    ensure!(host.send(append("no-token-at-all-but-long-enough")).await?.status == 401);
    ensure!(host.collection.count_documents(mongodb::bson::doc! {}).await? == 0);
    let stored = host.send(append(WRITE)).await?;
    ensure!(stored.status == 201, "{stored:?}");
    let path = format!("/v1/memcells/{}", stored.body["event_id"].as_str().context("no id")?);
    ensure!(with_token(&host, "DELETE", &format!("{path}?hard=true"), Some(READ)).await?.status == 403);
    ensure!(with_token(&host, "GET", &path, Some(READ)).await?.status == 200);
    ensure!(with_token(&host, "DELETE", &format!("{path}?hard=true"), Some(ADMIN)).await?.status == 200);
    Ok(())
}
