//! One document: append, get, patch, delete, restore.

use anyhow::{Context, Result};
use memcell_tests::host::{TestHost, in_memory};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::checks::{NOON, body, check_field, check_mirror, check_problem, memcell, read_consistent, revision};

const ID: &str = "685c8c52a1b2c3d4e5f60718";
const UPPER: &str = "685C8C52A1B2C3D4E5F60718";
const UNKNOWN: &str = "000000000000000000000000";

fn path(event_id: &str) -> String {
    format!("/v1/memcells/{event_id}")
}

async fn host() -> Result<TestHost> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    Ok(host)
}

#[tokio::test]
async fn append_answers_the_document_and_get_finds_it_validated() -> Result<()> {
    let host = host().await?;
    let given = json!({
        "user_id": "ana", "timestamp": "2025-06-26T14:00:00.1239+02:00", "summary": null,
        "participants": ["ana", "ben"],
        "unknown": { "b": 1, "a": [] }, "created_at": "1999-01-01", "revision": 1,
    });
    let answer = host.json("POST", "/v1/memcells", &given).await?;
    let stored = answer.body.clone();
    let id = stored["event_id"].as_str().context("an event_id")?;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), path(id));
    assert_eq!(answer.header("x-memcell-mirrored"), "queued");
    assert_eq!(stored["revision"], json!(revision(&answer)?));
    assert_eq!(stored["timestamp"], "2025-06-26T12:00:00.123Z");
    assert_eq!(stored["unknown"].to_string(), r#"{"b":1,"a":[]}"#);
    assert_eq!((stored.get("summary"), stored.get("subject")), (Some(&Value::Null), None));
    assert_eq!(stored["created_at"], stored["updated_at"]);
    assert_ne!(stored["created_at"], "1999-01-01T00:00:00Z");
    assert_eq!(stored.get("_id"), None);

    assert_eq!(read_consistent(&host, id).await?, stored);
    let answer = host.request("GET", &format!("{}?validate=true", path(id))).await?;
    assert_eq!(
        (answer.header("x-memcell-validation"), revision(&answer)?),
        ("consistent", stored["revision"].as_u64().context("a revision")?)
    );
    let answer = host.request("GET", &format!("{}?validate=false", path(id))).await?;
    assert_eq!((answer.status, answer.header("x-memcell-validation"), &answer.body), (200, "", &stored));
    let answer = host.request("HEAD", &path(id)).await?;
    assert_eq!((answer.status, answer.body), (200, Value::Null));

    let answer = host.request("GET", &path(UNKNOWN)).await?;
    check_problem(&answer, 404, "not_found");
    assert_eq!(answer.header("x-memcell-validation"), "consistent");
    for invalid in ["x", "685c8c52a1b2c3d4e5f6071", "%00", "a%2Fb", "685c8c52a1b2c3d4e5f6071g"] {
        check_problem(&host.request("GET", &path(invalid)).await?, 404, "not_found");
    }
    check_mirror(&host).await
}

#[tokio::test]
async fn a_given_id_is_kept_in_lower_case_and_can_be_taken_once() -> Result<()> {
    let host = host().await?;
    let mut given = memcell("ana", NOON);
    given["event_id"] = json!(UPPER);
    let stored = body(host.json("POST", "/v1/memcells", &given).await?, 201);
    assert_eq!(stored["event_id"], ID);
    assert!(host.stored(ID).await?.is_some());
    for id in [ID, UPPER] {
        given["event_id"] = json!(id);
        check_problem(&host.json("POST", "/v1/memcells", &given).await?, 409, "already_exists");
        assert_eq!(read_consistent(&host, id).await?, stored);
    }
    // The backend knows it by its one name.
    let mirror = host.store.mirrors().into_iter().next().context("a backend")?;
    let entries = mirror.read(&[ID.to_owned(), UPPER.to_owned()]).await?;
    assert!(entries[0].is_some() && entries[1].is_none());

    // Every operation takes either spelling for the same document.
    let patched = body(host.json("PATCH", &path(UPPER), &json!({ "subject": "s" })).await?, 200);
    assert_eq!((&patched["event_id"], &patched["subject"]), (&json!(ID), &json!("s")));
    check_mirror(&host).await?;
    assert_eq!(body(host.request("DELETE", &path(UPPER)).await?, 200), json!({ "deleted": 1 }));
    check_mirror(&host).await?;
    assert_eq!(body(host.request("POST", &format!("{}/restore", path(UPPER))).await?, 200), json!({ "restored": 1 }));
    check_mirror(&host).await?;
    let found = body(host.json("POST", "/v1/memcells/batch-get", &json!({ "event_ids": [UPPER, ID] })).await?, 200);
    assert_eq!(found["items"].as_object().map(|items| items.keys().cloned().collect()), Some(vec![ID.to_owned()]));
    // A soft-deleted document still has its id; a hard-deleted one has given it up.
    body(host.request("DELETE", &path(ID)).await?, 200);
    check_problem(&host.json("POST", "/v1/memcells", &given).await?, 409, "already_exists");
    assert_eq!(
        body(host.request("DELETE", &format!("{}?hard=true", path(UPPER))).await?, 200),
        json!({ "deleted": 1 })
    );
    check_mirror(&host).await?;
    let again = body(host.json("POST", "/v1/memcells", &given).await?, 201);
    assert!(again["revision"].as_u64() > patched["revision"].as_u64());
    read_consistent(&host, ID).await?;
    check_mirror(&host).await
}

#[tokio::test]
async fn a_patch_replaces_top_level_fields_and_leaves_all_others() -> Result<()> {
    let host = host().await?;
    let mut given = memcell("ana", NOON);
    given["extend"] = json!({ "a": 1, "b": 2 });
    given["custom"] = json!({ "deep": { "kept": [1, 2.5, null] } });
    given["participants"] = json!(["ana", "ben"]);
    let id = host.append(&given).await?;
    let before = read_consistent(&host, &id).await?;

    // Nothing to do is nothing done.
    let answer = host.json("PATCH", &path(&id), &json!({})).await?;
    assert_eq!((answer.status, &answer.body, answer.header("x-memcell-mirrored")), (200, &before, "none"));

    let patch = json!({
        "extend": { "c": 3 }, "participants": [], "summary": "new", "user_id": null,
        "timestamp": "2025-06-27T00:00:00.9999Z",
        "fresh": { "$literal": "$user_id", "n": 1.0 }, "expression": "$user_id", "list": ["$$ROOT", { "$add": [1, 2] }],
    });
    let answer = host.json("PATCH", &path(&id), &patch).await?;
    let after = answer.body.clone();
    assert_eq!((answer.status, answer.header("x-memcell-mirrored")), (200, "queued"), "{answer:?}");
    for field in ["extend", "participants", "summary", "user_id", "fresh", "expression", "list"] {
        assert_eq!(after[field].to_string(), patch[field].to_string(), "{field}");
    }
    assert_eq!(after["timestamp"], "2025-06-27T00:00:00.999Z");
    for field in ["event_id", "custom", "type", "created_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(after["revision"].as_u64() > before["revision"].as_u64());
    let moment = |memcell: &Value| -> Result<OffsetDateTime> {
        Ok(OffsetDateTime::parse(memcell["updated_at"].as_str().context("no updated_at")?, &Rfc3339)?)
    };
    assert!(moment(&after)? >= moment(&before)?);
    assert_eq!(revision(&answer)?, after["revision"].as_u64().context("a revision")?);
    assert_eq!(read_consistent(&host, &id).await?, after);
    check_mirror(&host).await?;

    for (patch, field) in [
        (json!({ "event_id": id }), "event_id"),
        (json!({ "_id": id }), "_id"),
        (json!({ "summary": "x", "revision": 7 }), "revision"),
        (json!({ "created_at": NOON }), "created_at"),
        (json!({ "updated_at": NOON }), "updated_at"),
        (json!({ "deleted_at": null }), "deleted_at"),
        (json!({ "deleted_by": "me" }), "deleted_by"),
        (json!({ "timestamp": null }), "timestamp"),
        (json!({ "timestamp": "yesterday" }), "timestamp"),
        (json!({ "timestamp": 1_750_939_200 }), "timestamp"),
        (json!({ "user_id": 7 }), "user_id"),
        (json!({ "type": ["Conversation"] }), "type"),
        (json!({ "participants": "ana" }), "participants"),
        (json!({ "participants": ["ana", null] }), "participants[1]"),
        (json!({ "keywords": [{}] }), "keywords[0]"),
        (json!({ "extend": [] }), "extend"),
        (json!({ "event_log": "log" }), "event_log"),
        (json!({ "foresight_memories": [1] }), "foresight_memories[0]"),
        (json!({ "original_data": [{ "messages": [{ "content": 5 }] }] }), "original_data[0].messages[0].content"),
        (json!({ "a.b": 1 }), "a.b"),
        (json!({ "$set": {} }), "$set"),
        (json!({ "": 1 }), ""),
        (json!({ "x": { "y": { "$oid": "no" } } }), "x.y"),
    ] {
        let answer = host.json("PATCH", &path(&id), &patch).await?;
        assert_eq!(answer.body["field"], field, "{patch}: {answer:?}");
        check_field(&answer, field);
    }
    assert_eq!(read_consistent(&host, &id).await?, after, "a refused patch changes nothing");

    check_problem(&host.json("PATCH", &path(UNKNOWN), &json!({ "summary": "x" })).await?, 404, "not_found");
    check_problem(&host.json("PATCH", &path(UNKNOWN), &json!({})).await?, 404, "not_found");
    check_problem(&host.json("PATCH", &path("nonsense"), &json!({ "summary": "x" })).await?, 400, "invalid_id");
    body(host.request("DELETE", &path(&id)).await?, 200);
    check_problem(&host.json("PATCH", &path(&id), &json!({ "summary": "x" })).await?, 404, "not_found");
    check_problem(&host.json("PATCH", &path(&id), &json!({})).await?, 404, "not_found");
    check_mirror(&host).await
}

#[tokio::test]
async fn a_soft_deletion_can_be_undone_and_a_hard_one_not() -> Result<()> {
    let host = host().await?;
    let id = host.append(&memcell("ana", NOON)).await?;
    let other = host.append(&memcell("ana", NOON)).await?;
    let before = read_consistent(&host, &id).await?;
    let restore = format!("{}/restore", path(&id));

    let answer = host.request("POST", &restore).await?;
    assert_eq!((answer.status, answer.header("x-memcell-mirrored")), (200, "none"), "{answer:?}");
    assert_eq!(answer.body, json!({ "restored": 0 }), "it is not deleted");

    let answer = host.request("DELETE", &format!("{}?deleted_by=b%C3%A9a%20%26co", path(&id))).await?;
    assert_eq!(
        (answer.status, &answer.body, answer.header("x-memcell-mirrored")),
        (200, &json!({ "deleted": 1 }), "queued")
    );
    let deletion = revision(&answer)?;
    assert!(deletion > before["revision"].as_u64().context("a revision")?);
    let stored = host.stored(&id).await?.context("it is still there")?;
    assert_eq!(stored["deleted_by"], "béa &co");
    assert_eq!(stored["revision"]["$numberLong"], deletion.to_string());
    assert!(stored["deleted_at"]["$date"].is_object());
    check_mirror(&host).await?;
    assert_eq!(host.mirrored(&id).await?, None);
    let answer = host.request("GET", &path(&id)).await?;
    check_problem(&answer, 404, "not_found");
    assert_eq!(answer.header("x-memcell-validation"), "consistent");
    check_problem(&host.request("DELETE", &path(&id)).await?, 404, "not_found");
    assert_eq!(host.stored(&id).await?, Some(stored), "deleting it again changes nothing");

    let answer = host.request("POST", &restore).await?;
    assert_eq!(body(answer, 200), json!({ "restored": 1 }));
    let after = read_consistent(&host, &id).await?;
    assert!(after["revision"].as_u64() > Some(deletion));
    assert!(after["deleted_at"].is_null() && after["deleted_by"].is_null(), "{after}");
    assert_eq!((&after["user_id"], &after["created_at"]), (&before["user_id"], &before["created_at"]));
    check_mirror(&host).await?;

    // A hard deletion takes a live document as well as a soft-deleted one, once.
    body(host.request("DELETE", &path(&other)).await?, 200);
    for id in [&id, &other] {
        let answer = host.request("DELETE", &format!("{}?hard=true", path(id))).await?;
        assert_eq!((answer.status, &answer.body), (200, &json!({ "deleted": 1 })));
        assert_eq!(host.stored(id).await?, None);
        check_mirror(&host).await?;
        check_problem(&host.request("DELETE", &format!("{}?hard=true", path(id))).await?, 404, "not_found");
        check_problem(&host.request("POST", &format!("{}/restore", path(id))).await?, 404, "not_found");
        check_problem(&host.request("GET", &path(id)).await?, 404, "not_found");
    }
    for (method, path) in [("DELETE", path(UNKNOWN)), ("POST", format!("{}/restore", path(UNKNOWN)))] {
        check_problem(&host.request(method, &path).await?, 404, "not_found");
    }
    for (method, path) in
        [("DELETE", path("nonsense")), ("DELETE", path("nonsense?hard=true")), ("POST", path("nonsense/restore"))]
    {
        check_problem(&host.request(method, &path).await?, 400, "invalid_id");
    }
    Ok(())
}
