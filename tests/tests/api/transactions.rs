//! Several writes together: all of them in MongoDB and then in the backend, or none in either.

use anyhow::{Context, Result};
use memcell_tests::host::{TestHost, in_memory};
use serde_json::{Value, json};

use crate::checks::{NOON, append_all, body, check_field, check_mirror, check_problem, memcell, read_consistent};

const ID: &str = "685c8c52a1b2c3d4e5f60718";
const UNKNOWN: &str = "000000000000000000000000";

/// A host with three documents, the last of them soft-deleted.
async fn host() -> Result<(TestHost, Vec<String>)> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let cells: Vec<Value> = ["ana", "ben", "cy"].iter().map(|user| memcell(user, NOON)).collect();
    let ids = append_all(&host, &cells).await?;
    body(host.request("DELETE", &format!("/v1/memcells/{}", ids[2])).await?, 200);
    check_mirror(&host).await?;
    Ok((host, ids))
}

async fn transact(host: &TestHost, operations: &Value) -> Result<memcell_tests::host::Answer> {
    host.json("POST", "/v1/transactions", &json!({ "operations": operations })).await
}

#[tokio::test]
async fn all_operations_take_place_and_see_each_other() -> Result<()> {
    let (host, ids) = host().await?;
    let mut appended = memcell("dan", NOON);
    appended["event_id"] = json!(ID);
    let answer = transact(
        &host,
        &json!([
            { "op": "append", "memcell": appended },
            { "op": "update", "event_id": ID.to_uppercase(), "patch": { "summary": "in the same transaction" } },
            { "op": "append", "memcell": memcell("eve", NOON) },
            { "op": "update", "event_id": ids[0], "patch": { "custom": { "n": 1.0 } } },
            { "op": "delete", "event_id": ids[1], "deleted_by": "me" },
            { "op": "restore", "event_id": ids[2] },
            { "op": "restore", "event_id": ids[2] },
            { "op": "update", "event_id": ids[2], "patch": {} },
        ]),
    )
    .await?;
    assert_eq!(answer.header("x-memcell-mirrored"), "queued", "{answer:?}");
    let answered = body(answer, 200);
    let items = answered["items"].as_array().context("items")?;
    let ops: Vec<&str> = items.iter().filter_map(|item| item["op"].as_str()).collect();
    assert_eq!(ops, ["append", "update", "append", "update", "delete", "restore", "restore", "update"]);
    assert_eq!((&items[4]["deleted"], &items[5]["restored"], &items[6]["restored"]), (&json!(1), &json!(1), &json!(0)));
    assert!(items[1]["memcell"]["revision"].as_u64() > items[0]["memcell"]["revision"].as_u64());
    check_mirror(&host).await?;
    assert_eq!(read_consistent(&host, ID).await?, items[1]["memcell"]);
    let second = items[2]["memcell"]["event_id"].as_str().context("an id")?;
    assert_eq!(read_consistent(&host, second).await?, items[2]["memcell"]);
    assert_eq!(read_consistent(&host, &ids[0]).await?, items[3]["memcell"]);
    assert_eq!(read_consistent(&host, &ids[2]).await?, items[7]["memcell"]);
    assert_eq!(host.stored(&ids[1]).await?.context("soft-deleted")?["deleted_by"], "me");

    // Born and gone in one transaction, and gone for good.
    let mut brief = memcell("fay", NOON);
    brief["event_id"] = json!(UNKNOWN);
    let operations = json!([
        { "op": "append", "memcell": brief },
        { "op": "hard_delete", "event_id": UNKNOWN },
        { "op": "hard_delete", "event_id": ids[0] },
    ]);
    let answered = body(transact(&host, &operations).await?, 200);
    assert_eq!(answered["items"][2], json!({ "op": "hard_delete", "deleted": 1 }));
    assert_eq!((host.stored(UNKNOWN).await?, host.stored(&ids[0]).await?), (None, None));
    check_mirror(&host).await?;
    assert_eq!(body(transact(&host, &json!([])).await?, 200), json!({ "items": [] }));
    Ok(())
}

#[tokio::test]
async fn an_operation_that_fails_undoes_all_of_them() -> Result<()> {
    let (host, ids) = host().await?;
    let mut before = Vec::new();
    for id in &ids {
        before.push((host.stored(id).await?, host.mirrored(id).await?));
    }
    let mut first = memcell("dan", NOON);
    first["event_id"] = json!(ID);
    let mut taken = memcell("eve", NOON);
    taken["event_id"] = json!(ids[0]);
    for (failing, status, code) in [
        (json!({ "op": "append", "memcell": taken }), 409, "already_exists"),
        (json!({ "op": "update", "event_id": UNKNOWN, "patch": { "summary": "x" } }), 404, "not_found"),
        (json!({ "op": "update", "event_id": ids[2], "patch": { "summary": "x" } }), 404, "not_found"),
        (json!({ "op": "delete", "event_id": ids[2] }), 404, "not_found"),
        (json!({ "op": "hard_delete", "event_id": UNKNOWN }), 404, "not_found"),
        (json!({ "op": "restore", "event_id": UNKNOWN }), 404, "not_found"),
        (json!({ "op": "restore", "event_id": "nonsense" }), 400, "invalid_id"),
        (json!({ "op": "append", "memcell": {} }), 422, "invalid_document"),
        (json!({ "op": "update", "event_id": ids[0], "patch": { "revision": 1 } }), 422, "invalid_document"),
        (json!({ "op": "append" }), 422, "invalid_body"),
        (json!({ "op": "drop", "event_id": ids[0] }), 422, "invalid_body"),
        (json!(7), 422, "invalid_body"),
        (json!(["hard_delete", ids[0]]), 422, "invalid_body"),
    ] {
        let operations = json!([
            { "op": "append", "memcell": first },
            { "op": "update", "event_id": ids[0], "patch": { "summary": "never" } },
            { "op": "hard_delete", "event_id": ids[1] },
            failing,
            { "op": "restore", "event_id": ids[2] },
        ]);
        let answer = transact(&host, &operations).await?;
        check_problem(&answer, status, code);
        let detail = answer.body["detail"].as_str().context("a detail")?;
        assert!(detail.starts_with("operation 3: "), "{detail}");
        if failing["patch"]["revision"].is_number() {
            check_field(&answer, "revision");
        }
        for (id, before) in ids.iter().zip(&before) {
            host.settled().await?;
            assert_eq!((host.stored(id).await?, host.mirrored(id).await?), *before, "{failing}");
        }
        assert_eq!((host.stored(ID).await?, host.mirrored(ID).await?), (None, None), "{failing}");
    }
    check_mirror(&host).await
}
