//! Requests that are wrong: always a problem with a status below 500 and a stable code, and nothing is stored.

use anyhow::{Context, Result};
use memcell_tests::host::{Answer, TestHost, in_memory};
use serde_json::{Value, json};

use crate::checks::{NOON, body, check_field, check_mirror, check_problem, memcell};

const ID: &str = "685c8c52a1b2c3d4e5f60718";
const MAX_BODY: usize = 64 * 1024;

async fn host() -> Result<TestHost> {
    let host = TestHost::start_with(vec![in_memory()?], |config| config.http.max_body = MAX_BODY as u64).await?;
    host.live().await?;
    Ok(host)
}

/// Sends a body as it is.
async fn send(
    host: &TestHost,
    method: &str,
    path: &str,
    content_type: &str,
    text: impl Into<reqwest::Body>,
) -> Result<Answer> {
    let request = host.client.request(method.parse()?, format!("{}{path}", host.url));
    host.send(request.header("content-type", content_type).body(text)).await
}

/// Checks that all the refused requests have left nothing behind.
async fn check_untouched(host: &TestHost) -> Result<()> {
    assert_eq!(body(host.request("GET", "/v1/memcells/count?deleted=include").await?, 200), json!({ "count": 0 }));
    check_mirror(host).await
}

#[tokio::test]
async fn documents_with_wrong_fields_are_refused_by_name() -> Result<()> {
    let host = host().await?;
    for (fields, field) in [
        (json!({ "timestamp": null }), "timestamp"),
        (json!({ "timestamp": "2025-02-30T00:00:00Z" }), "timestamp"),
        (json!({ "timestamp": "26.6.2025" }), "timestamp"),
        (json!({ "timestamp": 1_750_939_200_000_i64 }), "timestamp"),
        (json!({ "timestamp": { "$date": "never" } }), "timestamp"),
        (json!({ "timestamp": [NOON] }), "timestamp"),
        (json!({ "user_id": 1 }), "user_id"),
        (json!({ "user_id": ["ana"] }), "user_id"),
        (json!({ "summary": {} }), "summary"),
        (json!({ "group_id": true }), "group_id"),
        (json!({ "type": 1.5 }), "type"),
        (json!({ "participants": {} }), "participants"),
        (json!({ "participants": [["ana"]] }), "participants[0]"),
        (json!({ "keywords": ["x", 2] }), "keywords[1]"),
        (json!({ "linked_entities": "e" }), "linked_entities"),
        (json!({ "original_data": {} }), "original_data"),
        (json!({ "original_data": [null] }), "original_data[0]"),
        (json!({ "original_data": [{ "data_type": 1 }] }), "original_data[0].data_type"),
        (json!({ "original_data": [{ "messages": [{ "files": "f" }] }] }), "original_data[0].messages[0].files"),
        (json!({ "original_data": [{ "messages": [{}, { "extend": 1 }] }] }), "original_data[0].messages[1].extend"),
        (json!({ "foresight_memories": ["f"] }), "foresight_memories[0]"),
        (json!({ "event_log": [] }), "event_log"),
        (json!({ "extend": "e" }), "extend"),
        (json!({ "deleted_at": "later" }), "deleted_at"),
        (json!({ "_id": ID }), "_id"),
        (json!({ "event_id": 7 }), "event_id"),
        (json!({ "event_id": null }), "event_id"),
        (json!({ "$where": "1" }), "$where"),
        (json!({ "": 1 }), ""),
        (json!({ "nul\u{0}": 1 }), "nul\u{0}"),
        (json!({ "x": { "nul\u{0}": 1 } }), "x.nul\u{0}"),
        (json!({ "x": u64::MAX }), "x"),
        (json!({ "x": [{ "$numberInt": "2147483648" }] }), "x[0]"),
        (json!({ "x": { "$binary": { "base64": "?", "subType": "00" } } }), "x"),
    ] {
        let mut cell = memcell("ana", NOON);
        for (name, value) in fields.as_object().context("fields")? {
            cell[name] = value.clone();
        }
        let answer = host.json("POST", "/v1/memcells", &cell).await?;
        assert_eq!(answer.body["field"], field, "{fields}: {answer:?}");
        check_field(&answer, field);
    }
    check_field(&host.json("POST", "/v1/memcells", &json!({ "user_id": "ana" })).await?, "timestamp");
    let mut cell = memcell("ana", NOON);
    for id in ["", "x", "685c8c52a1b2c3d4e5f6071", "685c8c52a1b2c3d4e5f607180", "685c8c52a1b2c3d4e5f6071g"] {
        cell["event_id"] = json!(id);
        check_problem(&host.json("POST", "/v1/memcells", &cell).await?, 400, "invalid_id");
    }
    check_untouched(&host).await
}

#[tokio::test]
async fn bodies_that_are_no_json_of_the_right_shape_are_refused() -> Result<()> {
    let host = host().await?;
    let routes = [
        ("POST", "/v1/memcells".to_owned()),
        ("POST", "/v1/memcells/batch".to_owned()),
        ("POST", "/v1/memcells/batch-get".to_owned()),
        ("POST", "/v1/transactions".to_owned()),
        ("PATCH", format!("/v1/memcells/{ID}")),
    ];
    let deep_list = format!(r#"{{"timestamp":"{NOON}","x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let deep_object = format!(r#"{{"timestamp":"{NOON}","x":{}1{}}}"#, r#"{"a":"#.repeat(6000), "}".repeat(6000));
    let malformed: [&[u8]; 15] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"{\"a\":01}",
        b"{\"a\":NaN}",
        b"{\"a\":1} x",
        b"nul",
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\n\"}",
        b"\x00",
    ];
    for (method, path) in &routes {
        for text in malformed {
            let answer = send(&host, method, path, "application/json", text.to_vec()).await?;
            // A route that knows its shape may find that wrong first.
            let is_typed = path.contains("batch-get") || path.contains("transactions");
            match answer.status {
                422 if is_typed => check_problem(&answer, 422, "invalid_body"),
                _ => check_problem(&answer, 400, "malformed_json"),
            }
        }
        for deep in [&deep_list, &deep_object] {
            let answer = send(&host, method, path, "application/json", deep.clone()).await?;
            assert!(matches!(answer.status, 400 | 422), "{method} {path}: {answer:?}");
            check_problem(&answer, answer.status, answer.body["code"].as_str().unwrap_or_default());
        }
        for shape in [json!(null), json!(true), json!(7), json!("text")] {
            let answer = host.json(method, path, &shape).await?;
            let code = if path.contains("batch") || path.contains("transactions") {
                "invalid_body"
            } else {
                "invalid_document"
            };
            assert_eq!(answer.body["code"], code, "{method} {path} {shape}");
            check_problem(&answer, 422, code);
        }
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "application/json; charset=latin1",
            "*/*",
            "json",
            "",
        ] {
            let answer = send(&host, method, path, content_type, "{}").await?;
            check_problem(&answer, 415, "unsupported_media_type");
        }
        let request = host.client.request(method.parse()?, format!("{}{path}", host.url)).body("{}");
        check_problem(&host.send(request).await?, 415, "unsupported_media_type");
    }
    for (path, shape) in [
        ("/v1/memcells/batch", json!({ "items": [] })),
        ("/v1/memcells/batch-get", json!([])),
        ("/v1/memcells/batch-get", json!({})),
        ("/v1/memcells/batch-get", json!({ "event_ids": ID })),
        ("/v1/memcells/batch-get", json!({ "event_ids": [7] })),
        ("/v1/memcells/batch-get", json!({ "event_ids": [], "fields": "timestamp" })),
        ("/v1/memcells/batch-get", json!({ "event_ids": [], "validate": "yes" })),
        ("/v1/memcells/batch-get", json!({ "event_ids": [], "unknown": 1 })),
        ("/v1/transactions", json!([])),
        ("/v1/transactions", json!({})),
        ("/v1/transactions", json!({ "operations": {} })),
        ("/v1/transactions", json!({ "operations": [], "unknown": 1 })),
        ("/v1/transactions", json!({ "operations": [{ "op": "restore", "event_id": ID, "hard": true }] })),
    ] {
        let answer = host.json("POST", path, &shape).await?;
        assert_eq!(answer.body["code"], "invalid_body", "{path} {shape}");
        check_problem(&answer, 422, "invalid_body");
    }
    check_untouched(&host).await
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() -> Result<()> {
    let host = host().await?;
    let sized = |bytes: usize| {
        let mut cell = json!({ "timestamp": NOON, "summary": "" });
        cell["summary"] = Value::String("x".repeat(bytes - cell.to_string().len()));
        cell.to_string()
    };
    let chunked = |text: String| {
        let chunks: Vec<_> = text.as_bytes().chunks(10_000).map(|chunk| anyhow::Ok(chunk.to_vec())).collect();
        reqwest::Body::wrap_stream(futures::stream::iter(chunks))
    };
    for (method, path) in [("POST", "/v1/memcells".to_owned()), ("PATCH", format!("/v1/memcells/{ID}"))] {
        for bytes in [MAX_BODY + 1, 3 * MAX_BODY] {
            let answer = send(&host, method, &path, "application/json", sized(bytes)).await?;
            check_problem(&answer, 413, "body_too_large");
            let answer = send(&host, method, &path, "application/json", chunked(sized(bytes))).await?;
            check_problem(&answer, 413, "body_too_large");
        }
    }
    check_untouched(&host).await?;
    let whole = body(send(&host, "POST", "/v1/memcells", "application/json", sized(MAX_BODY)).await?, 201);
    let in_chunks = body(send(&host, "POST", "/v1/memcells", "application/json", chunked(sized(MAX_BODY))).await?, 201);
    assert_eq!(whole["summary"], in_chunks["summary"]);
    check_mirror(&host).await
}

#[tokio::test]
async fn routes_methods_and_parameters_that_are_none_are_refused() -> Result<()> {
    let host = host().await?;
    let one = format!("/v1/memcells/{ID}");
    let long = format!("/v1/memcells?user_id={}", "x".repeat(60_000));
    assert_eq!(body(host.request("GET", &long).await?, 200)["items"], json!([]), "long is not wrong");
    for (method, path, status, code) in [
        ("GET", "/v1".to_owned(), 404, "unknown_route"),
        ("GET", "/v1/memcell".to_owned(), 404, "unknown_route"),
        ("GET", "/v1/memcells/".to_owned(), 404, "unknown_route"),
        ("GET", "//v1/memcells".to_owned(), 404, "unknown_route"),
        ("POST", format!("{one}/undelete"), 404, "unknown_route"),
        ("GET", format!("{one}/restore/x"), 404, "unknown_route"),
        ("GET", "/v1/users/ana".to_owned(), 404, "unknown_route"),
        ("GET", "/.env".to_owned(), 404, "unknown_route"),
        ("GET", format!("/{}", "x".repeat(60_000)), 404, "unknown_route"),
        ("PUT", one.clone(), 405, "method_not_allowed"),
        ("POST", one.clone(), 405, "method_not_allowed"),
        ("PATCH", "/v1/memcells".to_owned(), 405, "method_not_allowed"),
        ("GET", "/v1/transactions".to_owned(), 405, "method_not_allowed"),
        ("GET", format!("{one}/restore"), 405, "method_not_allowed"),
        ("DELETE", "/healthz".to_owned(), 405, "method_not_allowed"),
        ("OPTIONS", "/v1/memcells".to_owned(), 405, "method_not_allowed"),
        ("TRACE", "/v1/memcells".to_owned(), 405, "method_not_allowed"),
        ("BREW", "/v1/memcells".to_owned(), 405, "method_not_allowed"),
        ("GET", "/v1/memcells?userid=ana".to_owned(), 400, "unknown_parameter"),
        ("GET", "/v1/memcells?USER_ID=ana".to_owned(), 400, "unknown_parameter"),
        ("GET", format!("{one}?hard=true"), 400, "unknown_parameter"),
        ("DELETE", format!("{one}?validate=true"), 400, "unknown_parameter"),
        ("POST", format!("{one}/restore?hard=true"), 400, "unknown_parameter"),
        ("GET", "/readyz?verbose".to_owned(), 400, "unknown_parameter"),
        ("GET", "/metrics?x=1".to_owned(), 400, "unknown_parameter"),
        ("GET", format!("{one}?validate=1"), 400, "invalid_argument"),
        ("GET", format!("{one}?validate=true&validate=true"), 400, "invalid_argument"),
        ("DELETE", format!("{one}?hard=yes"), 400, "invalid_argument"),
        ("DELETE", format!("{one}?hard=true&deleted_by=me"), 400, "invalid_argument"),
        ("GET", "/v1/memcells?user_id=%".to_owned(), 400, "malformed_uri"),
        ("GET", "/v1/memcells?user_id=%f".to_owned(), 400, "malformed_uri"),
        ("GET", "/v1/memcells?user_id=%zz".to_owned(), 400, "malformed_uri"),
        ("GET", "/v1/memcells?user_id=%ff".to_owned(), 400, "malformed_uri"),
        ("GET", "/v1/memcells?%c3=x".to_owned(), 400, "malformed_uri"),
        ("GET", "/v1/memcells/%zz".to_owned(), 400, "malformed_uri"),
        ("GET", "/v1/memcells/%c3%28".to_owned(), 400, "malformed_uri"),
        ("GET", "/v1/users/%ff/latest".to_owned(), 400, "malformed_uri"),
    ] {
        let answer = host.request(method, &path).await?;
        let shown: String = path.chars().take(80).collect();
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{method} {shown}");
        check_problem(&answer, status, code);
        assert_eq!(status == 405, !answer.header("allow").is_empty(), "{method} {shown}");
    }
    check_untouched(&host).await
}
