//! Tests of the document's JSON forms.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{Bson, DateTime, Document, RawBson, RawDocumentBuf, bson, doc};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn cell(document: &Document) -> MemCell {
    MemCell::from_raw(RawDocumentBuf::try_from(document).unwrap())
}

fn api_text(document: &Document) -> String {
    let mut out = Vec::new();
    cell(document).write_api_json(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn canonical_text(document: &Document) -> String {
    let mut out = Vec::new();
    cell(document).write_canonical_json(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object is expected") };
    object
}

#[test]
fn the_api_form_is_plain() {
    let document = doc! {
        "user_id": null,
        "_id": ObjectId::parse_str("685c8c52a1b2c3d4e5f60718").unwrap(),
        "timestamp": DateTime::from_millis(1_750_896_210_000),
        "a": [DateTime::from_millis(1_750_896_210_123), 1, 2_i64, 1.0, 1e300, -0.0, true],
        "b": { "_id": ObjectId::parse_str("685c8c52a1b2c3d4e5f60719").unwrap(), "far": DateTime::MAX },
        "c": f64::NEG_INFINITY,
        "event_id": "another program's",
    };
    let expected = concat!(
        r#"{"user_id":null,"event_id":"685c8c52a1b2c3d4e5f60718","timestamp":"2025-06-26T00:03:30Z","#,
        r#""a":["2025-06-26T00:03:30.123Z",1,2,1.0,1e+300,-0.0,true],"#,
        r#""b":{"_id":{"$oid":"685c8c52a1b2c3d4e5f60719"},"far":{"$date":{"$numberLong":"9223372036854775807"}}},"#,
        r#""c":{"$numberDouble":"-Infinity"}}"#,
    );
    assert_eq!(api_text(&document), expected);
}

#[test]
fn an_id_of_another_type_is_a_string_or_canonical_extended_json() {
    assert_eq!(api_text(&doc! { "_id": "x\"y", "n": 1 }), r#"{"event_id":"x\"y","n":1}"#);
    assert_eq!(api_text(&doc! { "_id": 7, "n": 1 }), r#"{"event_id":{"$numberInt":"7"},"n":1}"#);
}

#[test]
fn every_character_that_needs_it_is_escaped() {
    let text: String = (0_u8..0x80).map(char::from).chain("é😀\u{2028}".chars()).collect();
    for shift in 0..40 {
        let document = doc! { "_id": 1, "t": format!("{}{text}", "x".repeat(shift)) };
        let back: Value = serde_json::from_str(&api_text(&document)).unwrap();
        assert_eq!(back["t"], document.get_str("t").unwrap());
    }
}

#[test]
fn a_subnormal_double_keeps_its_type() {
    let document = doc! { "_id": 1, "tiny": f64::from_bits(1) };
    let text = canonical_text(&document);
    assert!(text.contains(r#""$numberDouble":"5e-324""#), "{text}");
    assert_eq!(extended::read_document(text.as_bytes()).unwrap(), cell(&document).into_raw());
}

#[test]
fn fields_are_found_and_projected() {
    let id = EventId::parse("685C8C52A1B2C3D4E5F60718").unwrap();
    let moment = DateTime::from_millis(5);
    let document =
        cell(&doc! { "a": 1, "_id": id.object_id(), "b": { "a": 2 }, "timestamp": moment, "revision": 3_i64 });
    assert_eq!(document.event_id(), Some(id));
    assert_eq!(document.key().unwrap(), DocumentKey::from(id));
    assert_eq!(document.timestamp(), Some(moment));
    assert!(document.field("c").is_none());
    assert!(!document.is_deleted());
    let projected = document.project(&["b".to_owned(), "nothing".to_owned(), "event_id".to_owned()]);
    assert_eq!(projected, cell(&doc! { "_id": id.object_id(), "b": { "a": 2 } }));
    assert_eq!(
        format!("{document:?}"),
        format!("MemCell(685c8c52a1b2c3d4e5f60718, {} bytes)", document.as_raw().as_bytes().len())
    );
}

#[test]
fn of_a_field_that_occurs_twice_the_first_counts() {
    let mut raw = RawDocumentBuf::new();
    for (revision, deleted_at, expires_at) in [(1, RawBson::Null, 5), (2, RawBson::Int32(0), 4)] {
        raw.append(cstr!("revision"), revision);
        raw.append(cstr!("deleted_at"), deleted_at);
        raw.append(cstr!("expires_at"), DateTime::from_millis(expires_at));
    }
    let document = MemCell::from_raw(raw);
    assert_eq!(document.revision(), Some(1));
    assert!(!document.is_deleted());
    assert_eq!(document.expires_at(), Some(DateTime::from_millis(5)));
}

#[test]
fn fields_before_a_damage_are_found() {
    let whole = cell(&doc! { "revision": 3, "text": "abc", "deleted_at": DateTime::from_millis(1) });
    assert!(whole.is_deleted());
    // The text claims to be longer than the document.
    let mut bytes = whole.as_raw().as_bytes().to_vec();
    let length = bytes.windows(5).position(|window| window == b"text\0").unwrap() + 5;
    bytes[length] = 200;
    let damaged = MemCell::from_raw(RawDocumentBuf::from_bytes(bytes).unwrap());
    assert_eq!((damaged.revision(), damaged.is_deleted(), damaged.expires_at()), (Some(3), false, None));
}

#[test]
fn any_whole_number_is_a_revision() {
    for (stored, expected) in [
        (bson!(7), Some(7)),
        (Bson::Int64(1 << 60), Some(1 << 60)),
        (bson!(7.0), Some(7)),
        (bson!(0), Some(0)),
        (bson!(7.5), None),
        (bson!(-1), None),
        (bson!(-1.0), None),
        (bson!(1e19), None),
        (bson!(f64::NAN), None),
        (bson!("7"), None),
        (Bson::Null, None),
    ] {
        assert_eq!(cell(&doc! { "revision": stored.clone() }).revision(), expected, "{stored}");
    }
    assert_eq!(cell(&doc! {}).revision(), None);
}

#[test]
fn a_null_deletion_is_none() {
    assert!(!cell(&doc! { "deleted_at": null }).is_deleted());
    assert!(cell(&doc! { "deleted_at": DateTime::MIN }).is_deleted());
}

#[test]
fn malformed_bson_is_an_error_and_never_a_panic() {
    let good = cell(&doc! { "_id": 1, "a": ["text", { "b": 1.5 }] }).into_raw().into_bytes();
    for at in 4..good.len() - 1 {
        for byte in [0, 1, 2, 0x0f, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let Ok(raw) = RawDocumentBuf::from_bytes(bytes) else { continue };
            let damaged = MemCell::from_raw(raw);
            let readable = json::check_document(damaged.as_raw()).is_ok();
            assert_eq!(damaged.write_canonical_json(&mut Vec::new()).is_ok(), readable);
            assert_eq!(damaged.api_json().is_ok(), readable);
            let _ = (damaged.key(), damaged.revision(), damaged.project(&["a".to_owned()]), format!("{damaged:?}"));
        }
    }
}

/// `value` with every `$numberDouble` in its shortest form.
fn with_short_doubles(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| match value {
                Value::String(text)
                    if name == "$numberDouble" && text.ends_with(|last: char| last.is_ascii_digit()) =>
                {
                    (name, format!("{:?}", text.parse::<f64>().unwrap()).into())
                }
                value => (name, with_short_doubles(value)),
            });
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.into_iter().map(with_short_doubles).collect(),
        value => value,
    }
}

#[test]
fn large_and_small_doubles_take_no_more_room_than_others() {
    for (number, text) in [
        (1e308, "1e308"),
        (f64::MAX, "1.7976931348623157e308"),
        (-1e16, "-1e16"),
        (1e15, "1000000000000000.0"),
        (-0.0, "-0.0"),
        (1.5e-10, "1.5e-10"),
    ] {
        let document = doc! { "_id": 1, "n": number };
        let written = canonical_text(&document);
        assert!(written.contains(&format!(r#"{{"$numberDouble":"{text}"}}"#)), "{written}");
        assert_eq!(extended::read_document(written.as_bytes()).unwrap(), cell(&document).into_raw());
    }
}

#[test]
fn what_no_document_can_be_is_not_taken_exactly_either() {
    for (line, field, message) in [
        ("[]", "", "not a json object"),
        ("{", "", "not valid json"),
        (r#"{"event_id":"685c8c52a1b2c3d4e5f60718"}"#, "_id", "has one"),
        (r#"{"_id":[]}"#, "_id", "a list"),
        (r#"{"_id":1,"x":{"$timestamp":{"t":0,"i":0}}}"#, "x", "an empty timestamp"),
    ] {
        check_refused(NewMemCell::from_exact_line(line), field, message);
    }
}

#[test]
fn what_mongodb_would_replace_is_not_taken() {
    let timestamp = |seconds: u32| serde_json::json!({ "$timestamp": { "t": seconds, "i": 0 } });
    let fields = |x: Value| object(serde_json::json!({ "timestamp": "2025-06-26T00:03:30Z", "x": x }));
    check_refused(NewMemCell::from_api(fields(timestamp(0))), "x", "an empty timestamp");
    assert!(NewMemCell::from_api(fields(timestamp(1))).is_ok());
    // Within another value it stays what it is.
    assert!(NewMemCell::from_api(fields(serde_json::json!([timestamp(0)]))).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn canonical_json_is_what_bson_makes_of_it_but_for_long_doubles(document in arbitrary::document()) {
        let ours: Value = serde_json::from_str(&canonical_text(&document)).unwrap();
        prop_assert_eq!(ours, with_short_doubles(Bson::Document(document).into_canonical_extjson()));
    }

    #[test]
    fn canonical_json_reads_back_to_the_same_bytes(document in arbitrary::document()) {
        let back = extended::read_document(canonical_text(&document).as_bytes()).unwrap();
        let original = RawDocumentBuf::try_from(&document).unwrap();
        prop_assert_eq!(back.as_bytes(), original.as_bytes());
    }

    #[test]
    fn canonical_json_says_if_it_does_not_read_back(document in arbitrary::lookalike()) {
        let mut text = Vec::new();
        if cell(&document).write_canonical_json(&mut text).unwrap() == Fidelity::Exact {
            let back = extended::read_document(&text).unwrap();
            prop_assert!(back.as_bytes() == cell(&document).as_raw().as_bytes(), "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn api_json_has_the_fields_in_their_order(document in arbitrary::document()) {
        let json: Value = serde_json::from_str(&api_text(&document)).unwrap();
        let names: Vec<_> = object(json).into_iter().map(|(name, _)| name).collect();
        let expected: Vec<_> = document.keys().map(|name| if name == "_id" { "event_id" } else { name }).collect();
        prop_assert_eq!(names, expected);
    }

    #[test]
    fn what_the_api_writes_can_be_sent_back(document in arbitrary::document(), millis in arbitrary::millis()) {
        let id = EventId::new();
        let mut sent = doc! { "_id": id.object_id() };
        sent.extend(document.into_iter().filter(|(name, _)| {
            // Those have rules of their own, or are the host's.
            !matches!(name.as_str(), "_id" | "" | "revision" | "timestamp" | "deleted_at" | "original_data")
        }));
        sent.insert("timestamp", DateTime::from_millis(millis));
        let first = NewMemCell::from_api(object(cell(&sent).api_json().unwrap())).unwrap();
        let stored = first.into_memcell(1, 2).unwrap();
        prop_assert_eq!(stored.event_id(), Some(id));
        prop_assert_eq!(stored.timestamp(), Some(DateTime::from_millis(millis)));
        let again = NewMemCell::from_api(object(stored.api_json().unwrap())).unwrap().into_memcell(1, 2).unwrap();
        prop_assert_eq!(again.as_raw().as_bytes(), stored.as_raw().as_bytes());
    }

    #[test]
    fn an_exact_document_has_only_another_revision(document in arbitrary::document()) {
        let line = canonical_text(&document);
        let imported = NewMemCell::from_exact_line(&line).unwrap().into_memcell(9, 10).unwrap();
        let mut expected: Document = document.into_iter().filter(|(name, _)| name != "revision").collect();
        expected.insert("revision", 9_i64);
        prop_assert!(imported.as_raw().as_bytes() == cell(&expected).as_raw().as_bytes(), "{line}");
    }

    #[test]
    fn an_exported_document_is_imported_as_it_was(
        document in arbitrary::document(), millis in arbitrary::millis(), relaxed: bool,
    ) {
        let mut exported = doc! { "_id": document.get("_id").unwrap() };
        exported.extend(document.into_iter().filter(|(name, _)| {
            !matches!(name.as_str(), "_id" | "" | "revision" | "timestamp" | "deleted_at" | "original_data")
        }));
        exported.insert("timestamp", DateTime::from_millis(millis));
        let json = Bson::Document(exported.clone());
        let line = if relaxed { json.into_relaxed_extjson() } else { json.into_canonical_extjson() }.to_string();
        let imported = NewMemCell::from_import_line(&line).unwrap().into_memcell(9, 10).unwrap();
        if relaxed {
            // Relaxed JSON has but one kind of number, and `bson` writes no year beyond 9999 in it.
            prop_assume!(millis < 253_402_300_800_000);
            prop_assert_eq!(imported.key().unwrap(), cell(&exported).key().unwrap());
            prop_assert_eq!(imported.timestamp(), Some(DateTime::from_millis(millis)));
        } else {
            let now = DateTime::from_millis(10);
            exported.extend(doc! { "revision": 9_i64, "created_at": now, "updated_at": now });
            prop_assert!(imported.as_raw().as_bytes() == cell(&exported).as_raw().as_bytes(), "{line}");
        }
    }
}

/// Checks an answer against a field and a part of the message.
#[track_caller]
fn check_refused<T>(answer: crate::Result<T>, field: &str, message: &str) {
    let Err(error) = answer else { panic!("{field}: accepted, where {message:?} was expected") };
    assert_eq!((error.kind(), error.field().unwrap_or("")), (crate::ErrorKind::InvalidDocument, field), "{error}");
    assert!(error.message().contains(message), "{error}");
}

fn new(mut fields: Value) -> crate::Result<NewMemCell> {
    if fields.get("timestamp").is_none() {
        fields["timestamp"] = json!("2025-06-26T00:03:30Z");
    }
    NewMemCell::from_api(object(fields))
}

#[test]
fn a_new_memcell_gets_what_is_the_hosts_to_set() {
    let given = json!({
        "timestamp": "2025-06-26T08:03:30.1239+08:00",
        "user_id": null,
        "event_id": "685C8C52A1B2C3D4E5F60718",
        "revision": 99,
        "created_at": "1999-01-01",
        "updated_at": "1999-01-01",
        "note": "2025-06-26T08:03:30Z",
        "numbers": [1, 3_000_000_000_i64, 1.0, 1e3],
        "extend": { "when": { "$date": "2025-06-26" }, "empty": {}, "list": [] },
    });
    let new = NewMemCell::from_api(object(given)).unwrap();
    let id = EventId::parse("685c8c52a1b2c3d4e5f60718").unwrap();
    assert_eq!(new.event_id(), Some(id));
    let expected = doc! {
        "_id": id.object_id(),
        "timestamp": DateTime::from_millis(1_750_896_210_123),
        "user_id": null,
        "note": "2025-06-26T08:03:30Z",
        "numbers": [1, 3_000_000_000_i64, 1.0, 1000.0],
        "extend": { "when": DateTime::from_millis(1_750_896_000_000), "empty": {}, "list": [] },
        "revision": 5_i64,
        "created_at": DateTime::from_millis(6),
        "updated_at": DateTime::from_millis(6),
    };
    assert_eq!(new.into_memcell(5, 6).unwrap(), cell(&expected));
}

#[test]
fn a_new_memcell_without_an_id_gets_one() {
    let (first, second) = (new(json!({})).unwrap(), new(json!({})).unwrap());
    assert_eq!(first.given_event_id(), None);
    assert!(first.event_id().is_some() && first.event_id() != second.event_id());
    let again = first.clone().into_memcell(2, 0).unwrap();
    assert_eq!(
        (again.event_id(), first.event_id()),
        (first.event_id(), again.event_id()),
        "a transaction may try again"
    );
    assert!(first.into_memcell(u64::MAX, 0).is_err());
}

#[test]
fn fields_of_the_wrong_type_are_refused_by_their_path() {
    for (fields, field, message) in [
        (json!({ "timestamp": null }), "timestamp", "expected a datetime, found null"),
        (json!({ "timestamp": 5 }), "timestamp", "expected a datetime, found a number"),
        (json!({ "timestamp": "soon" }), "timestamp", "expected an ISO 8601 date and time"),
        (json!({ "timestamp": { "$date": "soon" } }), "timestamp", "not what $date can hold"),
        (json!({ "user_id": 5 }), "user_id", "expected a string, found a number"),
        (json!({ "user_id": { "$numberLong": "5" } }), "user_id", "expected a string, found a number"),
        (json!({ "participants": "me" }), "participants", "expected a list, found a string"),
        (json!({ "participants": ["me", null] }), "participants[1]", "expected a string, found null"),
        (
            json!({ "original_data": [{ "messages": "hi" }] }),
            "original_data[0].messages",
            "expected a list, found a string",
        ),
        (
            json!({ "original_data": [{}, { "messages": [{ "content": {} }] }] }),
            "original_data[1].messages[0].content",
            "expected a string, found an object",
        ),
        (json!({ "original_data": [null] }), "original_data[0]", "expected an object, found null"),
        (json!({ "foresight_memories": ["x"] }), "foresight_memories[0]", "expected an object, found a string"),
        (json!({ "event_log": [] }), "event_log", "expected an object, found a list"),
        (json!({ "deleted_at": "2025-06-26" }), "deleted_at", "delete it afterwards"),
        (json!({ "deleted_by": "me" }), "deleted_by", "delete it afterwards"),
        (json!({ "expires_at": true }), "expires_at", "expected a datetime, found a boolean"),
        (json!({ "x": { "y": [9_223_372_036_854_775_808_u64] } }), "x.y[0]", "64-bit"),
        (json!({ "x": { "a\u{0}b": 1 } }), "x.a\u{0}b", "nul"),
        (json!({ "x": { "$oid": "short" } }), "x", "$oid"),
        (json!({ "$where": 1 }), "$where", "begin with $"),
        (json!({ "": 1 }), "", "empty"),
        (json!({ "_id": "685c8c52a1b2c3d4e5f60718" }), "_id", "event_id"),
        (json!({ "event_id": 5 }), "event_id", "24 hexadecimal digits, found a number"),
    ] {
        check_refused(new(fields), field, message);
    }
    check_refused(NewMemCell::from_api(object(json!({ "user_id": "u" }))), "timestamp", "needs a timestamp");
    assert!(new(json!({ "deleted_at": null, "created_at": "x", "updated_at": 5, "revision": "y" })).is_ok());
    let error = new(json!({ "event_id": "xyz" })).err().unwrap();
    assert_eq!(error.kind(), crate::ErrorKind::InvalidId);
}

#[test]
fn null_and_absent_and_unknown_are_kept_apart() {
    let given = json!({
        "summary": null, "original_data": null, "keywords": [], "deleted_at": null, "type": "Anything", "x": null,
    });
    let stored = new(given).unwrap().into_memcell(1, 0).unwrap();
    let back = stored.api_json().unwrap();
    assert_eq!(back["summary"], Value::Null);
    assert_eq!(back["keywords"], json!([]));
    assert_eq!(back["type"], "Anything");
    let names: Vec<_> = object(back).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "event_id",
        "summary",
        "original_data",
        "keywords",
        "deleted_at",
        "type",
        "x",
        "timestamp",
        "revision",
        "created_at",
        "updated_at",
    ];
    assert_eq!(names, expected);
}

#[test]
fn nesting_and_size_are_limited() {
    let nested = |levels: usize| {
        (0..levels).fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) })
    };
    assert!(new(json!({ "x": nested(99) })).is_ok());
    let error = new(json!({ "x": nested(100) })).err().unwrap();
    assert!(error.message().contains("deeper than 100"), "{error}");

    let with_text = |bytes: usize| new(json!({ "x": "x".repeat(bytes) }));
    // The document itself, the timestamp, and the field around the text.
    let around = 5 + (1 + 10 + 8) + (1 + 2 + 4 + 1);
    assert!(with_text(MAX_DOCUMENT_BYTES - around).is_ok());
    check_refused(with_text(MAX_DOCUMENT_BYTES - around + 1), "", "the limit is 16760832");
    let patch = json!({ "x": "x".repeat(MAX_DOCUMENT_BYTES) });
    check_refused(Patch::from_api(object(patch)), "", "the limit is 16760832");
}

#[test]
fn an_import_line_keeps_its_times_and_any_id() {
    let line = concat!(
        "\u{feff}",
        r#" {"_id":{"$oid":"685c8c52a1b2c3d4e5f60718"},"#,
        r#""timestamp":{"$date":"2025-06-26T00:03:30.5Z"},"revision":"old","#,
        r#""created_at":{"$date":{"$numberLong":"-1"}},"updated_at":"2025-06-26","#,
        r#""n":{"$numberLong":"1"},"d":{"$numberDouble":"NaN"}}"#,
        "\r\n"
    );
    let new = NewMemCell::from_import_line(line).unwrap();
    let id = EventId::parse("685c8c52a1b2c3d4e5f60718").unwrap();
    assert_eq!(new.event_id(), Some(id));
    let stored = new.into_memcell(5, 6).unwrap();
    let back: Document = stored.as_raw().try_into().unwrap();
    assert_eq!(back.get_datetime("created_at").unwrap().timestamp_millis(), -1);
    assert_eq!(back.get_datetime("updated_at").unwrap().timestamp_millis(), 1_750_896_000_000);
    assert_eq!(back.get_i64("revision").unwrap(), 5);
    assert_eq!(back.get_i64("n").unwrap(), 1);
    assert!(back.get_f64("d").unwrap().is_nan());

    for (id, expected) in
        [(r#""685c8c52a1b2c3d4e5f60718""#, bson!("685c8c52a1b2c3d4e5f60718")), (r#"{"$numberInt":"7"}"#, bson!(7))]
    {
        let new = NewMemCell::from_import_line(&format!(r#"{{"_id":{id},"timestamp":"2025-06-26"}}"#)).unwrap();
        assert_eq!(new.given_event_id(), None);
        assert_eq!(new.into_memcell(1, 2).unwrap().key().unwrap().to_bson().unwrap(), expected);
    }
}

#[test]
fn a_bad_import_line_says_what_is_wrong() {
    for (line, field, message) in [
        ("", "", "not valid json"),
        ("{", "", "not valid json"),
        ("[1]", "", "a json object"),
        (r#"{"timestamp":"2025-06-26"} {}"#, "", "not valid json"),
        (r#"{"_id":1,"event_id":"685c8c52a1b2c3d4e5f60718","timestamp":"2025-06-26"}"#, "_id", "either"),
        (r#"{"_id":[1],"timestamp":"2025-06-26"}"#, "_id", "an _id can't be a list"),
        (r#"{"timestamp":{"$date":"x"}}"#, "timestamp", "$date"),
        (r#"{"timestamp":"2025-06-26","updated_at":5}"#, "updated_at", "expected a datetime"),
        (r#"{"timestamp":"2025-06-26","x":{"a":1,"a":1}}"#, "", "\"a\" is given twice"),
    ] {
        check_refused(NewMemCell::from_import_line(line), field, message);
    }
}

#[test]
fn a_patch_follows_the_same_rules() {
    let patch = Patch::from_api(object(
        json!({ "summary": null, "timestamp": "2025-06-26", "x": { "$numberLong": "5" }, "y": 2.0 }),
    ))
    .unwrap();
    let expected = [
        ("summary".to_owned(), Bson::Null),
        ("timestamp".to_owned(), Bson::DateTime(DateTime::from_millis(1_750_896_000_000))),
        ("x".to_owned(), Bson::Int64(5)),
        ("y".to_owned(), Bson::Double(2.0)),
    ];
    assert_eq!(patch.fields(), expected);
    assert!(!patch.is_empty());
    assert!(Patch::from_api(object(json!({}))).unwrap().is_empty());
    for (name, message) in [
        ("event_id", "never changes"),
        ("_id", "never changes"),
        ("revision", "counts the revision"),
        ("created_at", "keeps this time"),
        ("updated_at", "keeps this time"),
        ("deleted_at", "delete and restore"),
        ("deleted_by", "delete and restore"),
        ("a.b", "no dot"),
        ("$set", "begin with $"),
        ("", "empty"),
        ("timestamp", "expected a datetime, found null"),
    ] {
        check_refused(Patch::from_api(object(json!({ name: null }))), name, message);
    }
    check_refused(Patch::from_api(object(json!({ "x": { "$undefined": true } }))), "x", "an undefined value");
    check_refused(Patch::from_api(object(json!({ "keywords": "k" }))), "keywords", "expected a list, found a string");
}
