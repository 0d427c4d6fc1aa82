//! Finding documents: filters, order, pages, counts, and what a user did.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result};
use memcell_tests::host::{TestHost, in_memory};
use serde_json::{Value, json};

use crate::checks::{NOON, append_all, body, check_problem};

/// Documents whose `subject` is their name, an hour apart; `gone` is soft-deleted.
async fn host() -> Result<TestHost> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    let cells = [
        json!({ "subject": "one", "timestamp": "2025-06-26T10:00:00Z", "user_id": "ana", "group_id": "red",
            "participants": ["ana", "ben"], "keywords": ["x", "y"], "type": "Conversation" }),
        json!({ "subject": "two", "timestamp": "2025-06-26T11:00:00Z", "user_id": "ana", "group_id": "blue",
            "participants": ["ana", "cy"], "keywords": ["y"], "type": "Note" }),
        json!({ "subject": "three", "timestamp": "2025-06-26T12:00:00Z", "user_id": "ben", "group_id": "red",
            "participants": ["ben", "ana"], "keywords": ["x", "z"], "type": "Conversation" }),
        json!({ "subject": "four", "timestamp": "2025-06-26T13:00:00Z", "user_id": "ben", "group_id": null,
            "participants": [], "keywords": [], "type": "Conversation" }),
        json!({ "subject": "five", "timestamp": "2025-06-26T14:00:00Z", "user_id": "a&b +é" }),
        json!({ "subject": "gone", "timestamp": "2025-06-26T15:00:00Z", "user_id": "ana", "group_id": "red",
            "participants": ["ana", "ben"], "keywords": ["x"], "type": "Conversation" }),
    ];
    let ids = append_all(&host, &cells).await?;
    body(host.request("DELETE", &format!("/v1/memcells/{}", ids[5])).await?, 200);
    Ok(host)
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["subject"].as_str()).collect()
}

#[tokio::test]
async fn filters_find_and_count_exactly_what_matches() -> Result<()> {
    let host = host().await?;
    for (query, expected) in [
        ("", "five four three two one"),
        ("user_id=ana", "two one"),
        ("user_id=nobody", ""),
        ("user_id=a%26b+%2B%C3%A9", "five"),
        ("user_id=a%26b%20%2B%c3%a9", "five"),
        ("group_id=red", "three one"),
        ("group_id=red&user_id=ana", "one"),
        ("participant=ana", "three two one"),
        ("participant=ben&participant=cy", "three two one"),
        ("participant=ben&participant=cy&match=any", "three two one"),
        ("participant=ana&participant=ben&match=all", "three one"),
        ("participant=ana&participant=ana&match=all", "three two one"),
        ("keyword=x", "three one"),
        ("keyword=y&keyword=z", "three two one"),
        ("keyword=x&keyword=y&match=all", "one"),
        ("keyword=x&keyword=z&participant=ben&match=all", "three"),
        ("type=Note", "two"),
        ("type=conversation", ""),
        ("type=Conversation&user_id=ben", "four three"),
        // A range has its start and not its end; alone, and within a user, who then also matches as a participant.
        ("start=2025-06-26T11:00:00Z&end=2025-06-26T13:00:00Z", "three two"),
        ("start=2025-06-26T11:00:00.001Z&end=2025-06-26T13:00:00.001Z", "four three"),
        ("start=2025-06-26T15:00:00%2B02:00", "five four"),
        ("end=2025-06-26T11:00", "one"),
        ("start=2025-06-26&end=2025-06-27", "five four three two one"),
        ("start=2025-06-26T12:00:00Z&end=2025-06-26T12:00:00Z", ""),
        ("user_id=ana&start=2025-06-26T11:00:00Z", "three two"),
        ("user_id=ana&end=2025-06-26T12:00:00Z", "two one"),
        ("user_id=ana&start=2025-06-26T11:00:00Z&type=Conversation", "three"),
        ("user_id=cy&start=1970-01-01", "two"),
        ("deleted=only", "gone"),
        ("deleted=include&user_id=ana", "gone two one"),
        ("deleted=exclude&keyword=x", "three one"),
        // Nothing that a caller sends is an operator.
        ("user_id=%7B%22%24ne%22%3Anull%7D", ""),
        ("participant=%24ana", ""),
        ("keyword=.*", ""),
    ] {
        let list = body(host.request("GET", &format!("/v1/memcells?{query}")).await?, 200);
        assert_eq!(names(&list).join(" "), expected, "{query}");
        assert_eq!(list["next"], Value::Null, "{query}");
        let count = body(host.request("GET", &format!("/v1/memcells/count?{query}")).await?, 200);
        assert_eq!(count, json!({ "count": names(&list).len() }), "{query}");
    }
    // The documents are whole.
    let list = body(host.request("GET", "/v1/memcells?user_id=ana&limit=1").await?, 200);
    let id = list["items"][0]["event_id"].as_str().context("an id")?;
    assert_eq!(list["items"][0], body(host.request("GET", &format!("/v1/memcells/{id}")).await?, 200));
    Ok(())
}

#[tokio::test]
async fn pages_have_a_limit_a_place_and_an_order() -> Result<()> {
    let host = host().await?;
    for (query, expected, has_next) in [
        ("limit=2", "five four", true),
        ("limit=5", "five four three two one", false),
        ("limit=0", "five four three two one", false),
        ("limit=18446744073709551615", "five four three two one", false),
        ("limit=2&skip=1", "four three", true),
        ("limit=2&skip=3", "two one", false),
        ("skip=4", "one", false),
        ("skip=5", "", false),
        ("skip=18446744073709551615", "", false),
        ("limit=0&skip=3", "two one", false),
        ("order=oldest", "one two three four five", false),
        ("order=asc&limit=2", "one two", true),
        ("order=desc&limit=1", "five", true),
        ("order=newest&limit=1&skip=1", "four", true),
    ] {
        let list = body(host.request("GET", &format!("/v1/memcells?{query}")).await?, 200);
        assert_eq!((names(&list).join(" ").as_str(), list["next"].is_string()), (expected, has_next), "{query}");
    }
    for query in [
        "limit=-1",
        "skip=-1",
        "limit=ten",
        "limit=1.5",
        "limit=",
        "skip=%2B1",
        "limit=18446744073709551616",
        "order=up",
        "match=some",
        "deleted=true",
        "cursor=nonsense",
        "cursor=",
        "start=noon",
        "end=1750939200",
        "start=2025-06-26T12:00:00+02:00",
        "start=2025-06-27&end=2025-06-26",
        "limit=1&limit=2",
        "user_id=a&user_id=a",
    ] {
        check_problem(&host.request("GET", &format!("/v1/memcells?{query}")).await?, 400, "invalid_argument");
    }
    check_problem(&host.request("GET", "/v1/memcells/count?limit=1").await?, 400, "unknown_parameter");

    let list = body(host.request("GET", "/v1/memcells?limit=2").await?, 200);
    let cursor = list["next"].as_str().context("a cursor")?;
    let list = body(host.request("GET", &format!("/v1/memcells?limit=2&cursor={cursor}")).await?, 200);
    assert_eq!(names(&list), ["three", "two"]);
    for query in ["&skip=1", "&order=oldest"] {
        let answer = host.request("GET", &format!("/v1/memcells?cursor={cursor}{query}")).await?;
        check_problem(&answer, 400, "invalid_argument");
    }
    Ok(())
}

#[tokio::test]
async fn pages_by_cursor_show_every_document_once_also_at_equal_times() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    let times = ["2025-06-26T11:59:59.999Z", NOON, NOON, NOON, NOON, "2025-06-26T12:00:00.001Z"];
    let cells: Vec<Value> =
        (0..60).map(|number| json!({ "user_id": "ana", "timestamp": times[number % times.len()] })).collect();
    let ids: HashSet<String> = append_all(&host, &cells).await?.into_iter().collect();
    for order in ["newest", "oldest"] {
        let whole = body(host.request("GET", &format!("/v1/memcells?limit=0&order={order}")).await?, 200);
        for limit in [1, 7, 20, 59, 60] {
            let mut paged: Vec<Value> = Vec::new();
            let mut next = String::new();
            loop {
                let path = format!("/v1/memcells?limit={limit}&order={order}{next}");
                let page = body(host.request("GET", &path).await?, 200);
                let items = page["items"].as_array().context("a list")?;
                assert!(!items.is_empty() && items.len() <= limit, "{order} {limit}: {page}");
                paged.extend(items.iter().cloned());
                match page["next"].as_str() {
                    Some(cursor) => next = format!("&cursor={cursor}"),
                    None => break,
                }
            }
            assert_eq!(whole["items"], json!(paged), "{order} {limit}");
            let seen: HashSet<String> =
                paged.iter().filter_map(|item| item["event_id"].as_str()).map(str::to_owned).collect();
            assert_eq!((paged.len(), &seen), (60, &ids), "{order} {limit}");
        }
    }
    // A cursor stays good while documents come and go, also the one that it was made from.
    let first = body(host.request("GET", "/v1/memcells?limit=15").await?, 200);
    let last = first["items"][14]["event_id"].as_str().context("an id")?;
    body(host.request("DELETE", &format!("/v1/memcells/{last}?hard=true")).await?, 200);
    host.append(&json!({ "timestamp": "2026-01-01" })).await?;
    let cursor = first["next"].as_str().context("a cursor")?;
    let rest = body(host.request("GET", &format!("/v1/memcells?limit=0&cursor={cursor}")).await?, 200);
    let shown = [&first, &rest].into_iter().flat_map(|page| page["items"].as_array().into_iter().flatten());
    let shown: Vec<&str> = shown.filter_map(|item| item["event_id"].as_str()).collect();
    assert_eq!((shown.len(), shown.into_iter().map(str::to_owned).collect()), (60, ids));
    Ok(())
}

#[tokio::test]
async fn a_users_latest_documents_and_activity() -> Result<()> {
    let host = host().await?;
    for (path, expected) in [
        ("ana/latest", "two one"),
        ("ana/latest?limit=1", "two"),
        ("ana/latest?limit=0", "two one"),
        ("a%26b%20+%C3%A9/latest", "five"),
        ("nobody/latest", ""),
    ] {
        let list = body(host.request("GET", &format!("/v1/users/{path}")).await?, 200);
        assert_eq!((names(&list).join(" ").as_str(), &list["next"]), (expected, &Value::Null), "{path}");
    }
    let twelve: Vec<Value> = (0..12).map(|_| json!({ "user_id": "many", "timestamp": NOON })).collect();
    append_all(&host, &twelve).await?;
    let list = body(host.request("GET", "/v1/users/many/latest").await?, 200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(10), "ten unless told");

    let activity = |user: &str, types: &[(&str, u64)], earliest: Value, latest: Value| {
        let types: BTreeMap<&str, u64> = types.iter().copied().collect();
        json!({
            "user_id": user, "total_count": types.values().sum::<u64>(), "type_distribution": types,
            "earliest_activity": earliest, "latest_activity": latest,
        })
    };
    let (ten, eleven) = (json!("2025-06-26T10:00:00Z"), json!("2025-06-26T11:00:00Z"));
    for (path, expected) in [
        ("ana/activity", activity("ana", &[("Conversation", 1), ("Note", 1)], ten.clone(), eleven.clone())),
        ("ana/activity?start=2025-06-26T11:00:00Z", activity("ana", &[("Note", 1)], eleven.clone(), eleven.clone())),
        ("ana/activity?end=2025-06-26T11:00:00Z", activity("ana", &[("Conversation", 1)], ten.clone(), ten.clone())),
        ("many/activity", activity("many", &[("unknown", 12)], json!(NOON), json!(NOON))),
        ("nobody/activity", activity("nobody", &[], Value::Null, Value::Null)),
    ] {
        assert_eq!(body(host.request("GET", &format!("/v1/users/{path}")).await?, 200), expected, "{path}");
    }
    for (path, code) in [
        ("ana/latest?limit=-1", "invalid_argument"),
        ("ana/latest?order=oldest", "unknown_parameter"),
        ("ana/activity?start=2025-06-27&end=2025-06-26", "invalid_argument"),
        ("ana/activity?limit=1", "unknown_parameter"),
        ("%ff/activity", "malformed_uri"),
    ] {
        check_problem(&host.request("GET", &format!("/v1/users/{path}")).await?, 400, code);
    }
    Ok(())
}
