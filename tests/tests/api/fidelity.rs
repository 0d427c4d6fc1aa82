//! What is written is what is read, on both sides: no fresh document ever differs from its copy, whatever is in it.
//!
//! Values are compared as JSON texts, so that `1` and `1.0`, `0.0` and `-0.0`, and the order of fields are told apart.

#![expect(clippy::cmp_owned, reason = "the texts are compared because equal values may have different ones")]

use anyhow::{Context, Result, ensure};
use memcell_host::config::ValueFormat;
use memcell_tests::host::{TestHost, in_memory};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::checks::{NOON, append_all, body, check_mirror};

/// How many generated documents each format is tried with.
const GENERATED: usize = 200;

/// JSON that comes back as it was sent.
const KEPT: &[&str] = &[
    // Numbers: int32, int64 and double, at their edges.
    "0",
    "-1",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "1.0",
    "-1.5",
    "0.1",
    "0.30000000000000004",
    "1e300",
    "-1e300",
    "5e-324",
    "2.2250738585072014e-308",
    "1.7976931348623157e308",
    "123456789012345680.0",
    "1e16",
    "1e-7",
    // Texts: empty, composed and decomposed, beyond the basic plane, joined, right to left, control characters.
    r#""""#,
    r#"" ""#,
    r#""é""#,
    "\"e\u{301}\"",
    "\"a\u{308}\u{323}\"",
    r#""😀""#,
    "\"👩\u{200d}👩\u{200d}👧\u{200d}👦🏽\"",
    r#""𠮷野家""#,
    r#""שלום עולם""#,
    "\"\u{feff}bom\u{202e}\u{2028}\u{2029}\u{fffd}\u{ffff}\u{10ffff}\"",
    r#""\u0000""#,
    r#""a\u0000b\u0000""#,
    r#""\u0001\u001f\b\f\n\r\t\"\\/""#,
    "\"\u{7f}\u{80}\u{9f}\"",
    r#""null""#,
    r#""2025-06-26T00:00:00Z""#,
    r#""685c8c52a1b2c3d4e5f60718""#,
    r#""$user_id""#,
    r#""\\u0000""#,
    // Nothing, and containers of nothing.
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "[null]",
    "[[],[[],[]],{}]",
    r#"{"a":null}"#,
    r#"{"a":{"b":{"c":[]}}}"#,
    // The order of fields, and names that mean something elsewhere.
    r#"{"z":1,"a":2,"m":{"y":1,"b":2},"":3}"#,
    r#"{"10":1,"9":2,"1":3}"#,
    r#"{"a.b":1,"a":{"b":2},".":3}"#,
    r#"{"$set":{"a":1}}"#,
    r#"{"$literal":1}"#,
    r#"{"é":1,"e\u0301":2,"😀":3,"\n\"\\":4}"#,
    r#"{"_id":1,"event_id":2,"revision":3,"deleted_at":4}"#,
    r#"{"__proto__":1,"constructor":2}"#,
    r#"[1,1.0,"1",[1],{"1":1},9223372036854775807,-0.0,null,true]"#,
    // Extended JSON that the API has no plainer form for.
    r#"{"$oid":"685c8c52a1b2c3d4e5f60718"}"#,
    r#"{"$numberDecimal":"1.50"}"#,
    r#"{"$numberDecimal":"-0"}"#,
    r#"{"$numberDouble":"NaN"}"#,
    r#"{"$numberDouble":"Infinity"}"#,
    r#"{"$numberDouble":"-Infinity"}"#,
    r#"{"$binary":{"base64":"AAEC/w==","subType":"00"}}"#,
    r#"{"$binary":{"base64":"","subType":"80"}}"#,
    r#"{"$regularExpression":{"pattern":"^a/b","options":"im"}}"#,
    r#"{"$timestamp":{"t":4294967295,"i":0}}"#,
    r#"{"$code":"f()"}"#,
    r#"{"$symbol":"s"}"#,
    r#"{"$minKey":1}"#,
    r#"{"$maxKey":1}"#,
    // What only looks like it.
    r#"{"$numberLong":"5","x":1}"#,
    r#"{"$numberlong":"5"}"#,
    r#"{"$date":1,"$oid":2}"#,
];

/// JSON that comes back in another form that means the same.
const REWRITTEN: &[(&str, &str)] = &[
    ("18446744073709551616", "1.8446744073709552e19"),
    ("1E5", "100000.0"),
    ("1e-400", "0.0"),
    (r#""\ud83d\ude00\u00e9\/""#, r#""😀é/""#),
    (r#"{"$numberInt":"-7"}"#, "-7"),
    (r#"{"$numberLong":"7"}"#, "7"),
    (r#"{"$numberDouble":"7"}"#, "7.0"),
    (r#"{"$numberDouble":"-0.0"}"#, "-0.0"),
    (r#"{"$date":"2025-06-26T14:00:00.1234+02:00"}"#, r#""2025-06-26T12:00:00.123Z""#),
    (r#"{"$date":{"$numberLong":"-1"}}"#, r#""1969-12-31T23:59:59.999Z""#),
    (r#"{"$date":{"$numberLong":"253402300800000"}}"#, r#"{"$date":{"$numberLong":"253402300800000"}}"#),
    (r#"{"a":[{"$numberLong":"1"},{"$date":"2025-06-26"}]}"#, r#"{"a":[1,"2025-06-26T00:00:00Z"]}"#),
];

const TIMESTAMPS: &[(&str, &str)] = &[
    ("2025-06-26T12:00:00Z", "2025-06-26T12:00:00Z"),
    ("2025-06-26T12:00:00.000Z", "2025-06-26T12:00:00Z"),
    ("2025-06-26T12:00:00.1Z", "2025-06-26T12:00:00.100Z"),
    ("2025-06-26T12:00:00.123456Z", "2025-06-26T12:00:00.123Z"),
    ("2025-06-26T12:00:00.999999999Z", "2025-06-26T12:00:00.999Z"),
    ("2025-06-26T12:00:00.0009+00:00", "2025-06-26T12:00:00Z"),
    ("2025-06-26T20:30:00.5+08:30", "2025-06-26T12:00:00.500Z"),
    ("2025-06-25T22:00:00-1400", "2025-06-26T12:00:00Z"),
    ("2025-06-26T12:00:00", "2025-06-26T12:00:00Z"),
    ("2025-06-26 12:00", "2025-06-26T12:00:00Z"),
    ("2025-06-26", "2025-06-26T00:00:00Z"),
    ("2024-02-29T23:59:59.9999Z", "2024-02-29T23:59:59.999Z"),
    ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
];

async fn host(format: ValueFormat) -> Result<TestHost> {
    let mut backend = in_memory()?;
    backend.format = format;
    let host = TestHost::start(vec![backend]).await?;
    host.live().await?;
    Ok(host)
}

async fn post(host: &TestHost, json: String) -> Result<Value> {
    let request = host.client.post(format!("{}/v1/memcells", host.url)).header("content-type", "application/json");
    let answer = host.send(request.body(json.clone())).await?;
    ensure!(answer.status == 201, "{json}: {answer:?}");
    Ok(answer.body)
}

/// Reads it alone, validated; the copy must be the same, and the answer too.
async fn check_read(host: &TestHost, expected: &Value) -> Result<()> {
    let id = expected.get("event_id").and_then(Value::as_str).context("an id")?;
    let answer = host.request("GET", &format!("/v1/memcells/{id}")).await?;
    ensure!(answer.header("x-memcell-validation") == "consistent", "{expected}: {answer:?}");
    ensure!(answer.body.to_string() == expected.to_string(), "{expected} is read as {}", answer.body);
    Ok(())
}

async fn values_survive(format: ValueFormat) -> Result<()> {
    let host = host(format).await?;
    let mut cells = Vec::new();
    let same = KEPT.iter().map(|json| (*json, *json));
    for (given, expected) in same.chain(REWRITTEN.iter().copied()) {
        // A duplicate in the text must not be the test's own reading of it.
        let expected = serde_json::from_str::<Value>(expected)?.to_string();
        let json =
            format!(r#"{{"x_z":{given},"timestamp":"{NOON}","user_id":"ana","extend":{{"deep":[{given}]}},"x_a":1}}"#);
        let cell = post(&host, json).await?;
        let shown = (cell["x_z"].to_string(), cell["extend"].to_string());
        ensure!(shown == (expected.clone(), format!(r#"{{"deep":[{expected}]}}"#)), "{given} is stored as {shown:?}");
        let names: Vec<&String> = cell.as_object().context("an object")?.keys().collect();
        let given_names =
            ["event_id", "x_z", "timestamp", "user_id", "extend", "x_a", "revision", "created_at", "updated_at"];
        ensure!(names == given_names, "{names:?}");
        // The same by way of a patch, into a field that was there and one that was not.
        let path = format!("{}/v1/memcells/{}", host.url, cell["event_id"].as_str().context("an id")?);
        let patch = host.client.patch(path).header("content-type", "application/json");
        let cell = body(host.send(patch.body(format!(r#"{{"x_a":{given},"x_b":{given}}}"#))).await?, 200);
        for field in ["x_a", "x_b", "x_z"] {
            ensure!(cell[field].to_string() == expected, "{given} is stored as {field} {}", cell[field]);
        }
        cells.push(cell);
    }
    for (given, expected) in TIMESTAMPS {
        let cell = post(&host, format!(r#"{{"timestamp":"{given}","x":{{"$date":"{given}"}}}}"#)).await?;
        ensure!(cell["timestamp"] == *expected && cell["x"] == *expected, "{given} is stored as {cell}");
        cells.push(cell);
    }
    for fields in [
        // Absent and null are different, and both stay what they are.
        json!({ "timestamp": NOON }),
        json!({
            "timestamp": NOON, "user_id": null, "group_id": null, "summary": null, "original_data": null,
            "participants": null,
            "type": null, "subject": null, "keywords": null, "linked_entities": null, "episode": null,
            "foresight_memories": null, "event_log": null, "extend": null, "deleted_at": null, "deleted_by": null,
        }),
        json!({
            "timestamp": NOON, "user_id": "", "summary": "", "original_data": [], "participants": [], "type": "",
            "keywords": [], "linked_entities": [], "foresight_memories": [], "event_log": {}, "extend": {},
        }),
        json!({
            "timestamp": NOON, "extend": { "n": 1.0 }, "participants": ["", "\u{0}", "ana", "ana"],
            "original_data": [
                { "data_type": "Conversation", "messages": [
                    { "content": "hi 😀", "files": [{ "u": 1.0 }, "f", null], "extend": { "speaker": "ana" },
                        "unknown": [] },
                    { "content": null, "files": null, "extend": null }, {},
                ], "meta": { "z": 1, "a": 2.5 } },
                {},
            ],
            "foresight_memories": [{}, { "content": "c", "parent": null }],
            "event_log": { "time": "2025-06-26T12:00:00.123456Z", "atomic_fact": ["a", ""] },
        }),
    ] {
        let cell = post(&host, fields.to_string()).await?;
        for (name, value) in fields.as_object().context("fields")? {
            ensure!(
                cell[name].to_string() == value.to_string() && cell.get(name).is_some(),
                "{name} is stored as {cell}"
            );
        }
        let added = cell.as_object().context("an object")?.len() - fields.as_object().context("fields")?.len();
        ensure!(added == 4, "event_id, revision and two times are added, nothing else: {cell}");
        cells.push(cell);
    }
    host.settled().await?;
    for cell in &cells {
        check_read(&host, cell).await?;
    }
    check_mirror(&host).await
}

#[tokio::test]
async fn values_survive_in_a_backend_of_json() -> Result<()> {
    values_survive(ValueFormat::Json).await
}

#[tokio::test]
async fn values_survive_in_a_backend_of_bson() -> Result<()> {
    values_survive(ValueFormat::Bson).await
}

/// Any JSON whose objects are no Extended JSON. The text of a double says that it is one, so that nothing is rewritten.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![any::<String>(), "[ -~]{0,40}", "[a-z\"\\\\\u{0}-\u{1f}é😀\u{301}]{0,30}"];
    let name = any::<String>().prop_map(|name| name.trim_start_matches('$').replace('\0', ""));
    let double = prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL | prop::num::f64::NEGATIVE;
    let scalar = prop_oneof![
        4 => text.prop_map(Value::String),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<i32>().prop_map(Value::from),
        2 => double.prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::vec((name.clone(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The seed is fixed: what fails once fails again.
#[tokio::test]
async fn generated_documents_survive_in_both_formats() -> Result<()> {
    for format in [ValueFormat::Json, ValueFormat::Bson] {
        let host = host(format).await?;
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
        );
        let mut values = Vec::new();
        for _ in 0..GENERATED {
            values.push(any_json().new_tree(&mut runner).map_err(anyhow::Error::msg)?.current());
        }
        let cells: Vec<Value> = values.iter().map(|value| json!({ "x": value, "timestamp": NOON })).collect();
        let ids = append_all(&host, &cells).await?;
        host.settled().await?;
        let wanted = json!({ "event_ids": ids, "validate": true });
        let answer = host.json("POST", "/v1/memcells/batch-get", &wanted).await?;
        assert_eq!(answer.header("x-memcell-validation"), "consistent", "{:?}", host.store.mismatches());
        for (id, value) in ids.iter().zip(&values) {
            let cell = &answer.body["items"][id];
            assert_eq!(cell["x"].to_string(), value.to_string());
            check_read(&host, cell).await?;
        }
        check_mirror(&host).await?;
    }
    Ok(())
}
