//! MongoDB goes away and comes back: clear errors within a bounded time, then everything as before, without a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_tests::host::{TestHost, eventually, in_memory};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::checks::{NOON, append_all, body, check_mirror, check_problem, memcell, read_consistent};

const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What an answer may take: the two waits that are configured, and what two busy cores add.
const BOUND: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mongodb_answers_are_503_soon_and_with_it_all_is_well_again() -> Result<()> {
    let mut host = TestHost::start_with(vec![in_memory()?], |config| {
        config.mongodb.operation_timeout = OPERATION_TIMEOUT;
        config.mongodb.connect_timeout = CONNECT_TIMEOUT;
    })
    .await?;
    host.live().await?;
    let ids = append_all(&host, &vec![memcell("ana", NOON); 20]).await?;
    let id = ids[0].clone();

    // Clients write all the while. What they were promised must be there afterwards.
    let is_over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for (number, id) in ids.iter().skip(1).take(4).cloned().enumerate() {
        let (is_over, client, url) = (Arc::clone(&is_over), host.client.clone(), host.url.clone());
        writers.spawn(async move {
            let (mut promised, mut refused) = (Vec::new(), 0_usize);
            for round in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let field = format!("w{number}r{round}");
                let request = client.patch(format!("{url}/v1/memcells/{id}")).json(&json!({ &field: 1 }));
                match request.send().await?.status().as_u16() {
                    200 => promised.push(field),
                    503 => refused += 1,
                    other => anyhow::bail!("a write was answered {other}"),
                }
            }
            Ok((id, promised, refused))
        });
    }
    eventually("the writers are under way", async || {
        let cell = body(host.request("GET", &format!("/v1/memcells/{}", ids[1])).await?, 200);
        Ok(cell.get("w0r3").is_some())
    })
    .await?;
    host.stop_mongodb().await;

    let batch = json!([memcell("ana", NOON)]);
    let batch_get = json!({ "event_ids": [id], "validate": true });
    let operations = json!({ "operations": [{ "op": "delete", "event_id": id }] });
    let one = format!("/v1/memcells/{id}");
    let requests: Vec<(&str, String, Option<Value>)> = vec![
        ("POST", "/v1/memcells".into(), Some(memcell("ana", NOON))),
        ("POST", "/v1/memcells/batch".into(), Some(batch)),
        ("POST", "/v1/memcells/batch-get".into(), Some(batch_get)),
        ("POST", "/v1/transactions".into(), Some(operations)),
        ("PATCH", one.clone(), Some(json!({ "summary": "s" }))),
        ("GET", one.clone(), None),
        ("DELETE", one.clone(), None),
        ("DELETE", format!("{one}?hard=true"), None),
        ("POST", format!("{one}/restore"), None),
        ("GET", "/v1/memcells?user_id=ana".into(), None),
        ("GET", "/v1/memcells?limit=0".into(), None),
        ("GET", "/v1/memcells/count".into(), None),
        ("DELETE", "/v1/memcells?user_id=ana".into(), None),
        ("DELETE", "/v1/memcells?user_id=ana&hard=true".into(), None),
        ("POST", "/v1/memcells/restore?user_id=ana".into(), None),
        ("GET", "/v1/users/ana/latest".into(), None),
        ("GET", "/v1/users/ana/activity".into(), None),
    ];
    for (method, path, json) in &requests {
        let started = Instant::now();
        let answer = match json {
            Some(json) => host.json(method, path, json).await?,
            None => host.request(method, path).await?,
        };
        let elapsed = started.elapsed();
        let code = if answer.body["code"] == "timeout" { "timeout" } else { "unavailable" };
        check_problem(&answer, 503, code);
        assert_eq!(answer.header("retry-after"), "1", "{method} {path}");
        assert!(elapsed < BOUND, "{method} {path} took {elapsed:?}");
    }
    // What needs no MongoDB goes on.
    let started = Instant::now();
    let ready = body(host.request("GET", "/readyz").await?, 503);
    assert_eq!(ready["status"], "not_ready");
    assert!(ready["mongodb"] != "ok" && started.elapsed() < BOUND, "{ready}");
    for path in ["/healthz", "/metrics", "/v1/backends", "/v1/mismatches", "/openapi.json"] {
        body(host.request("GET", path).await?, 200);
    }
    check_problem(&host.json("POST", "/v1/memcells", &json!({})).await?, 422, "invalid_document");
    check_problem(&host.request("GET", "/v1/memcells/nonsense").await?, 404, "not_found");

    host.start_mongodb().await?;
    eventually("the host is ready again", async || Ok(host.request("GET", "/readyz").await?.status == 200)).await?;
    eventually("writes succeed again", async || {
        Ok(host.json("PATCH", &one, &json!({ "summary": "back" })).await?.status == 200)
    })
    .await?;
    is_over.store(true, Ordering::Relaxed);
    let mut promises = BTreeMap::new();
    while let Some(writer) = writers.join_next().await {
        let (id, promised, refused) = writer??;
        ensure!(refused > 0, "a writer noticed nothing");
        promises.insert(id, promised);
    }
    check_mirror(&host).await?;
    for id in &ids {
        let cell = read_consistent(&host, id).await?;
        for field in promises.get(id).into_iter().flatten() {
            assert_eq!(cell[field.as_str()], 1, "{field} was promised");
        }
    }
    host.append(&memcell("ben", NOON)).await?;
    check_mirror(&host).await?;
    assert_eq!(body(host.request("GET", "/v1/mismatches").await?, 200), json!({ "items": [] }));
    Ok(())
}
