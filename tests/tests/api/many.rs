//! Many documents at once: batches, batch reads, streams, and bulk operations over more than one chunk.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use memcell_tests::host::{PATIENCE, TestHost, in_memory};
use memcell_tests::sample::Samples;
use serde_json::{Value, json};

use crate::checks::{NOON, append_all, body, check_mirror, check_problem, memcell};

const ID: &str = "685c8c52a1b2c3d4e5f60718";

async fn host() -> Result<TestHost> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    Ok(host)
}

/// More than one answer of a plugin may hold, which is no reason to lose it.
#[tokio::test]
async fn many_large_documents_are_read_and_compared() -> Result<()> {
    // Time is not what this is about.
    let mut backend = in_memory()?;
    backend.limits.call_timeout = PATIENCE;
    let host = TestHost::start_with(vec![backend], |config| config.validation.read_budget = PATIENCE).await?;
    host.live().await?;
    let mut ids = Vec::new();
    for _ in 0..8 {
        let mut large = memcell("ana", NOON);
        large["x"] = json!("x".repeat(9_000_000));
        ids.push(host.append(&large).await?);
    }
    host.settled().await?;
    let wanted = json!({ "event_ids": ids, "fields": ["timestamp"], "validate": true });
    let answer = host.json("POST", "/v1/memcells/batch-get", &wanted).await?;
    assert_eq!(answer.header("x-memcell-validation"), "consistent", "{answer:?}");
    host.live().await?;
    let backend = &host.request("GET", "/v1/backends").await?.body["items"][0];
    assert_eq!(backend["restarts"], 0, "{backend}");
    Ok(())
}

/// A number takes no more room in a copy than it has to.
#[tokio::test]
async fn many_large_numbers_are_mirrored() -> Result<()> {
    let host = host().await?;
    let mut cell = memcell("ana", NOON);
    cell["x"] = json!(vec![1e308; 250_000]);
    let id = host.append(&cell).await?;
    host.settled().await?;
    let answer = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
    assert_eq!(answer.header("x-memcell-validation"), "consistent");
    Ok(())
}

#[tokio::test]
async fn a_batch_stores_what_it_can_and_names_what_it_cannot() -> Result<()> {
    let host = host().await?;
    let taken = host.append(&memcell("ana", NOON)).await?;
    let with_id = |id: &str| json!({ "event_id": id, "timestamp": NOON });
    let batch = json!([
        memcell("ana", NOON),
        7,
        { "timestamp": NOON, "participants": ["a", 1] },
        with_id(&taken.to_uppercase()),
        with_id(ID),
        with_id(&ID.to_uppercase()),
        with_id("nonsense"),
        {},
        memcell("ben", NOON),
    ]);
    let answer = host.json("POST", "/v1/memcells/batch", &batch).await?;
    assert_eq!(answer.header("x-memcell-mirrored"), "queued", "{answer:?}");
    let items = body(answer, 200)["items"].as_array().context("items")?.clone();
    assert_eq!(items.len(), 9);
    let codes = [
        "",
        "invalid_document",
        "invalid_document",
        "already_exists",
        "",
        "already_exists",
        "invalid_id",
        "invalid_document",
        "",
    ];
    for (index, (item, code)) in items.iter().zip(codes).enumerate() {
        assert_eq!(item["index"], index, "{item}");
        assert_eq!(item["error"]["code"].as_str().unwrap_or_default(), code, "{item}");
        assert_eq!(item.get("event_id").is_some(), code.is_empty(), "{item}");
    }
    assert_eq!(items[2]["error"]["field"], "participants[1]");
    assert_eq!(items[7]["error"]["field"], "timestamp");
    assert_eq!(items[4]["event_id"], ID);
    assert_eq!(body(host.request("GET", "/v1/memcells/count").await?, 200), json!({ "count": 4 }));
    check_mirror(&host).await?;
    for id in [items[0]["event_id"].as_str(), items[8]["event_id"].as_str(), Some(ID)] {
        let answer = host.request("GET", &format!("/v1/memcells/{}", id.context("an id")?)).await?;
        assert_eq!((answer.status, answer.header("x-memcell-validation")), (200, "consistent"));
    }
    assert_eq!(body(host.json("POST", "/v1/memcells/batch", &json!([])).await?, 200), json!({ "items": [] }));
    Ok(())
}

#[tokio::test]
async fn a_batch_read_answers_what_there_is_by_id() -> Result<()> {
    let host = host().await?;
    let cells: Vec<Value> = Samples::new(11).take(5).collect();
    let ids = append_all(&host, &cells).await?;
    body(host.request("DELETE", &format!("/v1/memcells/{}", ids[4])).await?, 200);
    host.settled().await?;
    let wanted = json!({
        "event_ids": [ids[2], ids[0].to_uppercase(), "nonsense", "", ID, ids[2], ids[0], ids[4], ids[1]],
    });
    let answer = host.json("POST", "/v1/memcells/batch-get", &wanted).await?;
    assert_eq!(answer.header("x-memcell-validation"), "", "batch reads are not validated unless asked for");
    let found = body(answer, 200)["items"].clone();
    let keys: Vec<&String> = found.as_object().context("a map")?.keys().collect();
    assert_eq!(keys, [&ids[2], &ids[0], &ids[1]], "each once, in the order asked for");
    for index in 0..3 {
        let single = body(host.request("GET", &format!("/v1/memcells/{}", ids[index])).await?, 200);
        assert_eq!(found[&ids[index]], single);
    }

    let mut wanted = wanted;
    wanted["validate"] = json!(true);
    let answer = host.json("POST", "/v1/memcells/batch-get", &wanted).await?;
    assert_eq!((answer.header("x-memcell-validation"), &answer.body["items"]), ("consistent", &found));
    // With fields, whole documents are compared and parts of them answered.
    wanted["fields"] = json!(["timestamp", "user_id", "no_such_field"]);
    let answer = host.json("POST", "/v1/memcells/batch-get", &wanted).await?;
    assert_eq!(answer.header("x-memcell-validation"), "consistent");
    for (id, cell) in answer.body["items"].as_object().context("a map")? {
        let full = &found[id];
        assert_eq!(cell["timestamp"], full["timestamp"]);
        let fields: BTreeSet<&str> = cell.as_object().context("an object")?.keys().map(String::as_str).collect();
        let expected = ["event_id", "timestamp", "user_id"].into_iter().filter(|field| full.get(*field).is_some());
        assert_eq!(fields, expected.collect());
    }
    wanted["fields"] = json!([]);
    let answer = host.json("POST", "/v1/memcells/batch-get", &wanted).await?;
    assert_eq!(answer.body["items"][&ids[0]], json!({ "event_id": ids[0] }));
    let nothing = body(host.json("POST", "/v1/memcells/batch-get", &json!({ "event_ids": [] })).await?, 200);
    assert_eq!(nothing, json!({ "items": {} }));

    for fields in [json!(["a.b"]), json!(["$where"]), json!([""])] {
        let wanted = json!({ "event_ids": ids, "fields": fields });
        check_problem(&host.json("POST", "/v1/memcells/batch-get", &wanted).await?, 400, "invalid_argument");
    }
    let too_many: Vec<String> = (0..10_001).map(|number| format!("{number:024x}")).collect();
    let answer = host.json("POST", "/v1/memcells/batch-get", &json!({ "event_ids": too_many })).await?;
    check_problem(&answer, 400, "invalid_argument");
    Ok(())
}

#[tokio::test]
async fn thousands_of_documents_stream_validate_and_go_in_bulk() -> Result<()> {
    const COUNT: usize = 2500;
    let host = host().await?;
    let mut cells: Vec<Value> = Samples::new(12).sized(800).with_ids().take(COUNT).collect();
    cells.iter_mut().for_each(|cell| cell["user_id"] = json!("ana"));
    let mut ids = BTreeSet::new();
    for part in cells.chunks(500) {
        ids.extend(append_all(&host, part).await?);
    }
    assert_eq!(ids.len(), COUNT);
    check_mirror(&host).await?;

    for order in ["newest", "oldest"] {
        let answer = host.request("GET", &format!("/v1/memcells?limit=0&order={order}")).await?;
        assert_eq!(answer.header("content-length"), "", "it is streamed");
        let list = body(answer, 200);
        assert_eq!(list["next"], Value::Null);
        let items = list["items"].as_array().context("a list")?;
        let listed: BTreeSet<String> =
            items.iter().filter_map(|item| item["event_id"].as_str()).map(str::to_owned).collect();
        assert_eq!((items.len(), &listed), (COUNT, &ids));
        // To the second, ISO 8601 in UTC sorts as text.
        let mut times: Vec<&str> = items.iter().filter_map(|item| item["timestamp"].as_str()?.get(..19)).collect();
        if order == "newest" {
            times.reverse();
        }
        assert!(times.len() == COUNT && times.is_sorted());
    }
    let latest = body(host.request("GET", "/v1/users/ana/latest?limit=0").await?, 200);
    assert_eq!(latest["items"].as_array().map(Vec::len), Some(COUNT));

    let answer = host.json("POST", "/v1/memcells/batch-get", &json!({ "event_ids": ids, "validate": true })).await?;
    assert_eq!(answer.header("x-memcell-validation"), "consistent");
    assert_eq!(answer.body["items"].as_object().map(serde_json::Map::len), Some(COUNT));

    for (method, path, expected) in [
        ("DELETE", "/v1/memcells?user_id=ana", json!({ "deleted": COUNT })),
        ("POST", "/v1/memcells/restore?user_id=ana", json!({ "restored": COUNT })),
        ("DELETE", "/v1/memcells?user_id=ana&hard=true", json!({ "deleted": COUNT })),
    ] {
        assert_eq!(body(host.request(method, path).await?, 200), expected);
        check_mirror(&host).await?;
    }
    Ok(())
}
