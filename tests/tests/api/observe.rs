//! What operators see: health, readiness, backends, mismatches, metrics.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use memcell_tests::host::{TestHost, eventually, hostile, in_memory};
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};

use crate::checks::{NOON, body, check_mirror, memcell, read_consistent};

#[tokio::test]
async fn a_change_that_the_backend_loses_is_caught_confirmed_and_forgotten_once_it_is_mended() -> Result<()> {
    let losing = hostile(&[("mode", "lost-write"), ("on", "put"), ("containing", "as it was not"), ("times", "1")])?;
    let host = TestHost::start(vec![losing]).await?;
    host.live().await?;
    let mut given = memcell("ana", NOON);
    given["original_data"] = json!([{ "messages": [{ "content": "as it was said" }] }]);
    let id = host.append(&given).await?;
    host.settled().await?;
    let before = read_consistent(&host, &id).await?;
    assert_eq!(body(host.request("GET", "/v1/mismatches").await?, 200), json!({ "items": [] }));

    let behind = doc! { "$set": { "original_data.0.messages.0.content": "as it was not", "added": 1 } };
    host.collection.update_one(doc! { "_id": ObjectId::parse_str(&id)? }, behind).await?;
    let answer = host.request("GET", &format!("/v1/memcells/{id}")).await?;
    assert_eq!((answer.status, answer.header("x-memcell-validation")), (200, "different"));
    assert_eq!(answer.body["original_data"][0]["messages"][0]["content"], "as it was not", "MongoDB is right");
    let batch = json!({ "event_ids": [id], "validate": true });
    let answer = host.json("POST", "/v1/memcells/batch-get", &batch).await?;
    assert_eq!((answer.status, answer.header("x-memcell-validation")), (200, "different"));

    let mut items = Value::Null;
    eventually("the mismatch is confirmed", async || {
        items = body(host.request("GET", "/v1/mismatches").await?, 200)["items"].clone();
        Ok(items != json!([]))
    })
    .await?;
    let rows = items.as_array().context("a list")?;
    let row = &rows[0];
    assert_eq!(
        (rows.len(), &row["event_id"], &row["backend"], &row["kind"]),
        (1, &json!(id), &json!("local"), &json!("different"))
    );
    let differences = row["differences"].as_array().context("a list")?;
    let paths: Vec<&str> = differences.iter().filter_map(|difference| difference["path"].as_str()).collect();
    assert_eq!(paths, ["original_data[0].messages[0].content", "added"], "{row}");
    assert!(differences[0]["mongo"].as_str().is_some_and(|shown| shown.contains("as it was not")), "{row}");
    assert!(differences[0]["kv"].as_str().is_some_and(|shown| shown.contains("as it was said")), "{row}");
    assert!(row["first_seen"].as_str() <= row["confirmed_at"].as_str(), "{row}");

    // A write through the host copies the document as it is now.
    body(host.json("PATCH", &format!("/v1/memcells/{id}"), &json!({ "summary": "s" })).await?, 200);
    let after = read_consistent(&host, &id).await?;
    assert_eq!((&after["added"], &after["created_at"]), (&json!(1), &before["created_at"]));
    assert_eq!(body(host.request("GET", "/v1/mismatches").await?, 200), json!({ "items": [] }));
    check_mirror(&host).await
}

#[tokio::test]
async fn the_figures_say_what_happened() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    assert_eq!(body(host.request("GET", "/healthz").await?, 200), json!({ "status": "ok" }));
    let ready = body(host.request("GET", "/readyz").await?, 200);
    let expected = json!({ "status": "ready", "mongodb": "ok", "backends": [{ "name": "local", "state": "live" }] });
    assert_eq!(ready, expected);

    let mut id = String::new();
    for _ in 0..3 {
        id = host.append(&memcell("ana", NOON)).await?;
    }
    read_consistent(&host, &id).await?;
    host.request("GET", "/v1/memcells/nonsense").await?;
    host.request("DELETE", &format!("/v1/memcells/{id}?hard=true")).await?;
    host.request("DELETE", &format!("/v1/memcells/{id}")).await?;
    host.settled().await?;

    let backends = body(host.request("GET", "/v1/backends").await?, 200);
    let backend = &backends["items"][0];
    assert_eq!(
        (&backend["name"], &backend["state"], &backend["validates"]),
        (&json!("local"), &json!("live"), &json!(true))
    );
    assert_eq!((&backend["entries"], &backend["queue_depth"], &backend["restarts"]), (&json!(2), &json!(0), &json!(0)));
    assert_eq!((&backend["format"], &backend["shards"]), (&json!("json"), &json!(host.config.backends[0].shards)));
    assert_eq!(backend["sha256"].as_str().map(str::len), Some(64));
    assert!(backend["bytes"].as_u64() > Some(200) && backend["memory_bytes"].as_u64() > Some(0), "{backend}");
    assert!(backend["plugin"].as_str().is_some_and(|plugin| plugin.ends_with("in_memory.wasm")), "{backend}");

    let answer = host.request("GET", "/metrics").await?;
    assert_eq!((answer.status, answer.header("content-type")), (200, memcell_host::metrics::CONTENT_TYPE));
    let text = answer.body.as_str().context("a text")?;
    for line in [
        "memcell_operations_total{operation=\"append\",result=\"ok\"} 3",
        "memcell_operations_total{operation=\"get\",result=\"ok\"} 1",
        "memcell_operations_total{operation=\"hard_delete\",result=\"ok\"} 1",
        "memcell_operations_total{operation=\"delete\",result=\"not_found\"} 1",
        "memcell_operation_duration_seconds_count{operation=\"append\"} 3",
        "memcell_validations_total{backend=\"local\",kind=\"consistent\"} 1",
        "memcell_mirror_queue_depth{backend=\"local\"} 0",
        "memcell_mirror_direct_writes_total{backend=\"local\",kind=\"",
        "memcell_mirror_state{backend=\"local\",state=\"live\"} 1",
        "memcell_kv_call_duration_seconds_count{backend=\"local\",function=\"get-many\"} 1",
        "memcell_kv_items_total{backend=\"local\",function=\"put-many\"}",
        "memcell_mirror_tailed_keys_total{backend=\"local\"} ",
        "memcell_mirror_lag_seconds{backend=\"local\"} 0",
        "memcell_http_requests_total{route=\"/v1/memcells\",method=\"POST\",status=\"201\"} 3",
        "memcell_http_requests_total{route=\"/v1/memcells/{event_id}\",method=\"GET\",status=\"404\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.contains("memcell_kv_call_duration_seconds_bucket{le="), "{text}");
    assert!(!text.contains(&id) && !text.contains("nonsense"), "no label has as many values as there are documents");

    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let answer = host.send(host.client.get(format!("{}/metrics", host.url)).header("accept", accept)).await?;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.body.as_str().is_some_and(|text| text.ends_with("# EOF\n")), "{answer:?}");
    Ok(())
}

/// The names of all series that are shown, with their labels.
async fn series(host: &TestHost) -> Result<BTreeSet<String>> {
    let text = host.request("GET", "/metrics").await?.body;
    let lines = text.as_str().context("a text")?.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect())
}

#[tokio::test]
async fn clients_can_not_make_up_labels() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    // Everything that a client can choose, each time another: paths, methods, ids, names of backends and kinds of jobs.
    let requests = |n: usize| {
        let made_up = format!("made-up-{n}");
        [
            ("GET", format!("/{made_up}"), Value::Null),
            (["BREW", "MAKEUPX", "MAKEUPY"][n % 3], "/healthz".to_owned(), Value::Null),
            (["BREW", "MAKEUPX", "MAKEUPY"][n % 3], format!("/{made_up}"), Value::Null),
            ("GET", format!("/v1/memcells/{made_up}"), Value::Null),
            ("GET", format!("/v1/users/{made_up}/latest"), Value::Null),
            ("GET", format!("/v1/memcells?{made_up}=1"), Value::Null),
            ("GET", format!("/v1/jobs/{made_up}"), Value::Null),
            ("POST", "/v1/jobs".to_owned(), json!({ "kind": made_up })),
            ("POST", "/v1/jobs".to_owned(), json!({ "kind": "verify", "backend": made_up })),
            ("POST", "/v1/memcells".to_owned(), json!({ "type": made_up, "user_id": made_up, "timestamp": NOON })),
            ("POST", "/v1/memcells".to_owned(), json!({ "timestamp": made_up })),
        ]
    };
    for (method, path, body) in requests(0).into_iter().chain(requests(1)).chain(requests(2)) {
        host.json(method, &path, &body).await?;
    }
    host.settled().await?;
    // Looking is a request, too.
    series(&host).await?;
    // What the backend does in the background has no part in this.
    let of_clients = |series: BTreeSet<String>| -> BTreeSet<String> {
        series.into_iter().filter(|name| !name.contains("backend=")).collect()
    };
    let before = of_clients(series(&host).await?);
    for n in 3..23 {
        for (method, path, body) in requests(n) {
            host.json(method, &path, &body).await?;
        }
    }
    host.settled().await?;
    let after = series(&host).await?;
    assert!(!after.iter().any(|name| name.contains("made-up") || name.contains("BREW") || name.contains("MAKEUP")));
    let new: Vec<String> = of_clients(after).difference(&before).cloned().collect();
    assert!(new.is_empty(), "new series: {new:?}");
    Ok(())
}

#[tokio::test]
async fn without_a_backend_all_of_it_works_and_says_so() -> Result<()> {
    let host = TestHost::start(Vec::new()).await?;
    let answer = host.json("POST", "/v1/memcells", &memcell("ana", NOON)).await?;
    assert_eq!((answer.status, answer.header("x-memcell-mirrored")), (201, "none"));
    let id = answer.body["event_id"].as_str().context("an id")?;
    for (query, validation) in [("", ""), ("?validate=true", "skipped"), ("?validate=false", "")] {
        let read = host.request("GET", &format!("/v1/memcells/{id}{query}")).await?;
        assert_eq!((read.status, &read.body, read.header("x-memcell-validation")), (200, &answer.body, validation));
    }
    let answer = host.request("DELETE", &format!("/v1/memcells/{id}")).await?;
    assert_eq!((answer.status, answer.header("x-memcell-mirrored")), (200, "none"));
    assert_eq!(body(host.request("POST", "/v1/memcells/restore?user_id=ana").await?, 200), json!({ "restored": 1 }));
    assert_eq!(body(host.request("GET", "/v1/backends").await?, 200), json!({ "items": [] }));
    let ready = body(host.request("GET", "/readyz").await?, 200);
    assert_eq!(ready, json!({ "status": "ready", "mongodb": "ok", "backends": [] }));
    Ok(())
}
