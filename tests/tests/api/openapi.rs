//! The OpenAPI document against the truth: every documented operation is called, every answer has a documented status
//! and media type, and every body fits its schema.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use memcell_tests::host::{Answer, TestHost, eventually, hostile, in_memory};
use memcell_tests::sample::Samples;
use reqwest::header::HeaderName;
use serde_json::{Value, json};

use crate::checks::{NOON, append_all, body, check_mirror, memcell};

const METHODS: [&str; 5] = ["get", "post", "patch", "put", "delete"];

/// The document, and what was called of it.
struct Described<'a> {
    host: &'a TestHost,
    document: Value,
    called: BTreeSet<String>,
}

impl Described<'_> {
    /// Calls an operation: `call` is its method and its path, with what stands in the place of `{…}`.
    async fn call(&mut self, call: &str, json: Option<&Value>, status: u16) -> Result<Answer> {
        let (method, path) = call.split_once(' ').context("a method and a path")?;
        let answer = match json {
            Some(json) => self.host.json(method, path, json).await?,
            None => self.host.request(method, path).await?,
        };
        ensure!(answer.status == status, "{call}: {answer:?}");
        let route = self.route(path.split('?').next().unwrap_or(path))?;
        let method = method.to_ascii_lowercase();
        let operation = &self.document["paths"][&route][&method];
        ensure!(operation.is_object(), "{method} {route} is not documented");
        let documented = &operation["responses"][status.to_string()];
        ensure!(documented.is_object(), "{method} {route} does not document {status}");
        let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
        let schema = &documented["content"][media_type]["schema"];
        ensure!(schema.is_object(), "{method} {route} does not document {media_type} for {status}");
        self.check_schema(schema, &answer.body).with_context(|| format!("{call}: {}", answer.body))?;
        for header in documented["headers"].as_object().into_iter().flat_map(serde_json::Map::keys) {
            // A read is not validated unless asked to be, and a document can lack a revision.
            let is_optional = header == "x-memcell-validation";
            ensure!(is_optional || answer.headers.contains_key(header), "{call} lacks the header {header}");
        }
        for header in answer.headers.keys().map(HeaderName::as_str).filter(|header| header.starts_with("x-memcell-")) {
            ensure!(documented["headers"][header].is_object(), "{call}: the header {header} is not documented");
        }
        self.called.insert(format!("{method} {route}"));
        Ok(answer)
    }

    fn paths(&self) -> impl Iterator<Item = &String> {
        self.document["paths"].as_object().into_iter().flat_map(serde_json::Map::keys)
    }

    /// The documented path that this is one of: of several, that with the fewest variable parts, as the router has it.
    fn route(&self, path: &str) -> Result<String> {
        let fits = |route: &str| {
            let (route, path): (Vec<&str>, Vec<&str>) = (route.split('/').collect(), path.split('/').collect());
            route.len() == path.len() && route.iter().zip(&path).all(|(r, p)| r.starts_with('{') || r == p)
        };
        let best = self.paths().filter(|route| fits(route)).min_by_key(|route| route.matches('{').count());
        best.cloned().with_context(|| format!("{path} is not documented"))
    }

    fn check_schema(&self, schema: &Value, instance: &Value) -> Result<()> {
        // References within the document keep their meaning in a schema that has its components.
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.document["components"],
            "allOf": [schema],
        });
        let validator = jsonschema::validator_for(&schema).map_err(|error| anyhow::anyhow!("{error}"))?;
        let errors: Vec<String> =
            validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if !errors.is_empty() {
            bail!("{errors:?}");
        }
        Ok(())
    }
}

#[tokio::test]
async fn every_documented_operation_answers_as_documented() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let document = body(host.request("GET", "/openapi.json").await?, 200);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let mut api = Described { host: &host, document, called: BTreeSet::new() };
    let one = "685c8c52a1b2c3d4e5f60718";
    let path = format!("/v1/memcells/{one}");
    let mut cell = Samples::new(1).next().context("a sample")?;
    cell["event_id"] = json!(one);
    let samples: Vec<Value> = Samples::new(2).take(40).collect();
    append_all(&host, &samples).await?;

    api.call("POST /v1/memcells", Some(&cell), 201).await?;
    api.call("POST /v1/memcells", Some(&cell), 409).await?;
    api.call("POST /v1/memcells", Some(&json!({})), 422).await?;
    api.call("POST /v1/memcells", None, 415).await?;
    api.call("POST /v1/memcells?x=1", Some(&cell), 400).await?;
    api.call("POST /v1/memcells/batch", Some(&json!([memcell("ana", NOON), cell, 7, {}])), 200).await?;
    api.call("POST /v1/memcells/batch", Some(&json!({})), 422).await?;
    let wanted = json!({ "event_ids": [one, "nonsense"], "validate": true });
    api.call("POST /v1/memcells/batch-get", Some(&wanted), 200).await?;
    for (name, validate) in [("$x", false), ("a.b", false), ("$x", true), ("a.b", true)] {
        let wanted = json!({ "event_ids": [one], "fields": [name], "validate": validate });
        api.call("POST /v1/memcells/batch-get", Some(&wanted), 400).await?;
    }
    let answer = api.call(&format!("GET {path}"), None, 200).await?;
    assert!(!answer.header("x-memcell-validation").is_empty());
    api.call("GET /v1/memcells/nonsense", None, 404).await?;
    let nothing = api.call("GET /v1/memcells/000000000000000000000000", None, 404).await?;
    assert_eq!(nothing.header("x-memcell-validation"), "consistent");
    api.call(&format!("GET {path}?validate=x"), None, 400).await?;
    api.call(&format!("PATCH {path}"), Some(&json!({ "subject": null, "x": { "y": [1, null] } })), 200).await?;
    api.call(&format!("PATCH {path}"), Some(&json!({ "revision": 1 })), 422).await?;
    api.call("PATCH /v1/memcells/nonsense", Some(&json!({})), 400).await?;
    api.call("GET /healthz?x=1", None, 400).await?;
    for query in ["", "?limit=3", "?limit=0&order=oldest", "?user_id=nobody"] {
        api.call(&format!("GET /v1/memcells{query}"), None, 200).await?;
    }
    api.call("GET /v1/memcells?limit=-1", None, 400).await?;
    api.call("GET /v1/memcells/count?user_id=ana", None, 200).await?;
    api.call("GET /v1/memcells/count?limit=1", None, 400).await?;
    api.call("GET /v1/users/ana/latest", None, 200).await?;
    api.call("GET /v1/users/ana/latest?limit=x", None, 400).await?;
    api.call("GET /v1/users/ana/activity", None, 200).await?;
    api.call("GET /v1/users/nobody/activity", None, 200).await?;
    api.call("GET /v1/users/ana/activity?x=1", None, 400).await?;
    let operations = json!({ "operations": [
        { "op": "update", "event_id": one, "patch": { "subject": "s" } },
        { "op": "delete", "event_id": one, "deleted_by": "me" },
        { "op": "restore", "event_id": one },
        { "op": "append", "memcell": memcell("ben", NOON) },
    ] });
    api.call("POST /v1/transactions", Some(&operations), 200).await?;
    let missing = json!({ "operations": [{ "op": "hard_delete", "event_id": "000000000000000000000000" }] });
    api.call("POST /v1/transactions", Some(&missing), 404).await?;
    api.call("POST /v1/transactions", Some(&json!([])), 422).await?;
    api.call(&format!("DELETE {path}?deleted_by=me"), None, 200).await?;
    api.call(&format!("DELETE {path}"), None, 404).await?;
    let deleted = api.call("GET /v1/memcells?deleted=only", None, 200).await?;
    assert_eq!(deleted.body["items"].as_array().map(Vec::len), Some(1));
    api.call(&format!("POST {path}/restore"), None, 200).await?;
    api.call("POST /v1/memcells/nonsense/restore", None, 400).await?;
    api.call("DELETE /v1/memcells?user_id=ana", None, 200).await?;
    api.call("DELETE /v1/memcells", None, 400).await?;
    api.call("POST /v1/memcells/restore?user_id=ana", None, 200).await?;
    api.call("POST /v1/memcells/restore", None, 400).await?;
    check_mirror(&host).await?;

    // A row in the list of mismatches, so that its shape is seen.
    let losing =
        TestHost::start(vec![hostile(&[("mode", "lost-write"), ("on", "put"), ("containing", "to be lost")])?]).await?;
    losing.live().await?;
    let lost = losing.append(&memcell("ana", NOON)).await?;
    losing.settled().await?;
    losing.json("PATCH", &format!("/v1/memcells/{lost}"), &json!({ "subject": "to be lost" })).await?;
    losing.settled().await?;
    losing.request("GET", &format!("/v1/memcells/{lost}")).await?;
    eventually("a mismatch is confirmed", async || Ok(!losing.store.mismatches().is_empty())).await?;
    api.host = &losing;
    api.call("GET /v1/mismatches", None, 200).await?;
    api.call("GET /v1/mismatches?limit=1", None, 400).await?;
    eventually("a sample is taken", async || Ok(!losing.store.history(0).is_empty())).await?;
    let overview = api.call("GET /v1/overview", None, 200).await?;
    assert_eq!(overview.body["mismatches"]["count"], 1);
    api.call("GET /v1/overview?since=x", None, 400).await?;
    api.call("GET /v1/config", None, 200).await?;
    api.call(&format!("POST /v1/mismatches/none/{lost}/repair"), None, 404).await?;
    // This backend loses whatever it is given, and the repair says so.
    let repaired = api.call(&format!("POST /v1/mismatches/local/{lost}/repair"), None, 200).await?;
    assert_eq!(repaired.body, json!({ "mended": false, "outcome": "different" }));
    assert_eq!(losing.store.mismatches().len(), 1);
    let configured = TestHost::start_from_file("").await?;
    api.host = &configured;
    configured.rewrite_config("[validation]\nsample = 0.5\n")?;
    let reloaded = api.call("POST /v1/config/reload", None, 200).await?;
    assert_eq!(reloaded.body["changes"].as_array().map(Vec::len), Some(1));
    api.call("POST /v1/config/reload?x=1", None, 400).await?;
    configured.rewrite_config("x = 1\n[http]\nlisten = 1\n")?;
    let wrong = api.call("POST /v1/config/reload", None, 422).await?;
    assert_eq!(wrong.body["problems"].as_array().map(Vec::len), Some(2), "{wrong:?}");
    configured.rewrite_config("[http]\nmax_body = \"1MiB\"\n")?;
    api.call("POST /v1/config/reload", None, 409).await?;
    api.host = &host;
    api.call("POST /v1/config/reload", None, 409).await?;
    api.call("GET /v1/backends", None, 200).await?;
    api.call("GET /v1/backends?x=1", None, 400).await?;
    let job = api.call("POST /v1/jobs", Some(&json!({ "kind": "verify", "backend": "local", "rate": 1 })), 201).await?;
    api.call("POST /v1/jobs", Some(&json!({ "kind": "verify" })), 409).await?;
    api.call("POST /v1/jobs", Some(&json!({ "kind": "x" })), 422).await?;
    api.call("POST /v1/jobs", Some(&json!({ "kind": "verify", "sweep": true })), 400).await?;
    let job = format!("/v1/jobs/{}", job.body["id"].as_str().context("no id")?);
    api.call(&format!("GET {job}"), None, 200).await?;
    api.call("GET /v1/jobs", None, 200).await?;
    api.call("GET /v1/jobs/none", None, 404).await?;
    api.call(&format!("DELETE {job}"), None, 200).await?;
    api.call("DELETE /v1/jobs/none", None, 404).await?;
    eventually("the job is given up", async || Ok(host.request("GET", &job).await?.body["state"] == "cancelled"))
        .await?;
    api.call(&format!("GET {job}"), None, 200).await?;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        api.call(&format!("GET {path}"), None, 200).await?;
    }

    let documented: BTreeSet<String> = api
        .paths()
        .flat_map(|route| METHODS.iter().map(move |method| (*method, route)))
        .filter(|(method, route)| api.document["paths"][*route][*method].is_object())
        .map(|(method, route)| format!("{method} {route}"))
        .collect();
    assert_eq!(api.called, documented, "every documented operation was called");
    Ok(())
}
