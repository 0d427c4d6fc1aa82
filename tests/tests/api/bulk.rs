//! Deleting and restoring by user and by time: exactly what the scope means, to the millisecond.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use memcell_tests::host::{TestHost, in_memory};
use serde_json::{Value, json};

use crate::checks::{append_all, body, check_mirror, check_problem};

/// The times around the range `[12:00, 13:00)`.
const TIMES: [(&str, &str); 5] = [
    ("before", "2025-06-26T11:59:59.999Z"),
    ("first", "2025-06-26T12:00:00.000Z"),
    ("inside", "2025-06-26T12:30:00Z"),
    ("last", "2025-06-26T12:59:59.999Z"),
    ("after", "2025-06-26T13:00:00.000Z"),
];

const RANGE: &str = "start=2025-06-26T12:00:00Z&end=2025-06-26T15:00:00%2B02:00";

/// A document of each of these times for `ana` and for `ben`, whose `subject` says which it is. The participants are
/// the wrong way round: a scope doesn't look at them.
async fn host() -> Result<TestHost> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let mut cells = Vec::new();
    for (user, participant) in [("ana", "ben"), ("ben", "ana")] {
        for (when, timestamp) in TIMES {
            let subject = format!("{user} {when}");
            cells.push(
                json!({ "user_id": user, "timestamp": timestamp, "subject": subject, "participants": [participant] }),
            );
        }
    }
    append_all(&host, &cells).await?;
    Ok(host)
}

/// The subjects of what a list with this query holds.
async fn subjects(host: &TestHost, query: &str) -> Result<BTreeSet<String>> {
    let list = body(host.request("GET", &format!("/v1/memcells?{query}")).await?, 200);
    let items = list["items"].as_array().context("a list")?;
    Ok(items.iter().filter_map(|item| item["subject"].as_str()).map(str::to_owned).collect())
}

/// Checks which documents are soft-deleted, and that the backend agrees.
async fn check_deleted(host: &TestHost, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|subject| (*subject).to_owned()).collect();
    assert_eq!(subjects(host, "deleted=only").await?, expected);
    let live = subjects(host, "").await?;
    assert_eq!((live.len(), live.is_disjoint(&expected)), (10 - expected.len(), true));
    check_mirror(host).await
}

async fn delete(host: &TestHost, query: &str) -> Result<Value> {
    Ok(body(host.request("DELETE", &format!("/v1/memcells?{query}")).await?, 200)["deleted"].clone())
}

async fn restore(host: &TestHost, query: &str) -> Result<Value> {
    Ok(body(host.request("POST", &format!("/v1/memcells/restore?{query}")).await?, 200)["restored"].clone())
}

#[tokio::test]
async fn soft_deletion_and_restoration_hit_exactly_their_scope() -> Result<()> {
    let host = host().await?;
    check_deleted(&host, &[]).await?;

    // By range: the start is in it, the end is not.
    assert_eq!(delete(&host, &format!("{RANGE}&deleted_by=me")).await?, 6);
    let in_range = ["ana first", "ana inside", "ana last", "ben first", "ben inside", "ben last"];
    check_deleted(&host, &in_range).await?;
    let list = body(host.request("GET", "/v1/memcells?deleted=only").await?, 200);
    for item in list["items"].as_array().context("a list")? {
        assert_eq!(item["deleted_by"], "me", "{item}");
        assert!(item["deleted_at"].is_string(), "{item}");
    }
    // What is deleted already is not deleted again, nor counted.
    assert_eq!(delete(&host, RANGE).await?, 0);
    // By user and range.
    assert_eq!(restore(&host, &format!("user_id=ana&{RANGE}")).await?, 3);
    check_deleted(&host, &in_range[3..]).await?;
    // By user.
    assert_eq!(delete(&host, "user_id=ben").await?, 2);
    check_deleted(&host, &["ben before", "ben first", "ben inside", "ben last", "ben after"]).await?;
    // One side of the range can be open.
    assert_eq!(restore(&host, "end=2025-06-26T12:00:00Z").await?, 1);
    assert_eq!(restore(&host, "start=2025-06-26T13:00:00Z").await?, 1);
    check_deleted(&host, &in_range[3..]).await?;
    assert_eq!(restore(&host, "start=2025-06-26T12:00:00.001Z&end=2025-06-26T12:59:59.999Z").await?, 1);
    check_deleted(&host, &["ben first", "ben last"]).await?;
    assert_eq!(restore(&host, "user_id=ben").await?, 2);
    assert_eq!(restore(&host, "user_id=ben").await?, 0);
    check_deleted(&host, &[]).await?;
    let list = body(host.request("GET", "/v1/memcells").await?, 200);
    for item in list["items"].as_array().context("a list")? {
        assert!(item["deleted_by"].is_null() && item["deleted_at"].is_null(), "{item}");
    }

    // Nothing matches: nothing happens.
    for query in ["user_id=nobody", "start=2025-06-26T12:00:00Z&end=2025-06-26T12:00:00Z", "user_id=", "end=1970-01-01"]
    {
        let answer = host.request("DELETE", &format!("/v1/memcells?{query}")).await?;
        assert_eq!(answer.header("x-memcell-mirrored"), "none", "{query}");
        assert_eq!(body(answer, 200), json!({ "deleted": 0 }), "{query}");
    }
    check_deleted(&host, &[]).await
}

#[tokio::test]
async fn hard_deletion_takes_live_and_deleted_documents_for_good() -> Result<()> {
    let host = host().await?;
    assert_eq!(delete(&host, "user_id=ana&end=2025-06-26T12:15:00Z").await?, 2);
    assert_eq!(delete(&host, &format!("user_id=ana&{RANGE}&hard=true")).await?, 3);
    check_mirror(&host).await?;
    let mut left = subjects(&host, "deleted=include").await?;
    assert!(!left.contains("ana first") && left.contains("ana before") && left.contains("ana after"), "{left:?}");
    assert_eq!(left.len(), 7);
    assert_eq!(delete(&host, "start=2025-06-26T12:59:59.999Z&hard=true").await?, 3);
    left.retain(|subject| !["ana after", "ben last", "ben after"].contains(&subject.as_str()));
    assert_eq!(subjects(&host, "deleted=include").await?, left);
    check_mirror(&host).await?;
    assert_eq!(restore(&host, "user_id=ana").await?, 1);
    assert_eq!(delete(&host, "user_id=ana&hard=true").await?, 1);
    assert_eq!(delete(&host, "user_id=ben&hard=true").await?, 3);
    assert_eq!(delete(&host, "user_id=ben&hard=true").await?, 0);
    assert_eq!(host.collection.count_documents(mongodb::bson::doc! {}).await?, 0);
    check_mirror(&host).await
}

#[tokio::test]
async fn a_scope_that_means_everything_is_refused() -> Result<()> {
    let host = host().await?;
    for (method, path, code) in [
        ("DELETE", "/v1/memcells", "invalid_argument"),
        ("DELETE", "/v1/memcells?hard=true", "invalid_argument"),
        ("DELETE", "/v1/memcells?deleted_by=me", "invalid_argument"),
        ("POST", "/v1/memcells/restore", "invalid_argument"),
        ("DELETE", "/v1/memcells?start=2025-06-27&end=2025-06-26", "invalid_argument"),
        ("DELETE", "/v1/memcells?start=", "invalid_argument"),
        ("DELETE", "/v1/memcells?user_id=ana&hard=true&deleted_by=me", "invalid_argument"),
        ("DELETE", "/v1/memcells?user_id=ana&user_id=ben", "invalid_argument"),
        ("DELETE", "/v1/memcells?user_id=ana&group_id=g", "unknown_parameter"),
        ("DELETE", "/v1/memcells?participant=ana", "unknown_parameter"),
        ("POST", "/v1/memcells/restore?user_id=ana&hard=true", "unknown_parameter"),
    ] {
        check_problem(&host.request(method, path).await?, 400, code);
    }
    check_deleted(&host, &[]).await
}
