//! Arbitrary documents for property tests: every BSON type, also nested, and the values at the edges of each.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp};
use proptest::prelude::*;

/// A document with an `_id` and up to ten other fields. No double is subnormal or a negative NaN, and options of
/// regular expressions are sorted: there `bson` itself writes other JSON than the specification, or than what it
/// reads back.
pub(crate) fn document() -> impl Strategy<Value = Document> {
    let id = prop_oneof![
        Just(Bson::ObjectId(ObjectId::new())),
        any::<String>().prop_map(Bson::String),
        any::<i32>().prop_map(Bson::Int32)
    ];
    (id, prop::collection::vec((name(), value()), 0..10)).prop_map(|(id, fields)| {
        let mut document = bson::doc! { "_id": id };
        document.extend(fields);
        document
    })
}

/// As [`document`], with documents in it that may look like what stands for a value in Extended JSON.
pub(crate) fn lookalike() -> impl Strategy<Value = Document> {
    let names = [
        "$oid",
        "$date",
        "$numberLong",
        "$numberDouble",
        "$code",
        "$scope",
        "$binary",
        "$regularExpression",
        "$x",
        "a",
    ];
    let name = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    let texts = ["5", "1.5", "2025-01-01T00:00:00Z", "0123456789abcdef01234567"];
    let content = prop_oneof![
        prop::sample::select(texts.to_vec()).prop_map(|text| Bson::String(text.to_owned())),
        Just(Bson::Document(bson::doc! { "$numberLong": "5" })),
        Just(Bson::Document(bson::doc! { "pattern": "a", "options": "i" })),
        value(),
    ];
    let inner =
        prop::collection::vec((name, content), 1..4).prop_map(|fields| fields.into_iter().collect::<Document>());
    (document(), inner).prop_map(|(mut document, inner)| {
        document.insert("lookalike", inner);
        document
    })
}

/// Field names, some of which the host knows. None begins with `$`, which Extended JSON can't always tell from its own.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}",
        prop::sample::select(vec!["revision", "timestamp", "deleted_at", "original_data", "a.b", "", "é \"\n"])
            .prop_map(str::to_owned),
        any::<String>().prop_map(|name| name.trim_start_matches('$').replace('\0', "")),
    ]
    .prop_filter("_id stands in front, and event_id is its name in the api", |name| name != "_id" && name != "event_id")
}

/// Text with what JSON has to escape, also around the blocks that are copied whole.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,80}", "[a-z\"\\\\\u{0}-\u{1f}é😀]{0,40}"]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::num::f64::NORMAL | prop::num::f64::INFINITE | prop::num::f64::ZERO,
        prop::sample::select(vec![0.0, -0.0, 1.0, -1.5, 1e15, 1e16, 1e21, 1e-7, f64::MAX, f64::MIN_POSITIVE, f64::NAN]),
        (-1000..1000).prop_map(f64::from),
    ]
}

/// Milliseconds, most of them in years of four digits.
pub(crate) fn millis() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        -70_000_000_000_000..260_000_000_000_000_i64,
        (-62_168_000_000..253_403_000_000_i64).prop_map(|seconds| seconds * 1000),
    ]
}

fn scalar() -> impl Strategy<Value = Bson> {
    prop_oneof![
        4 => text().prop_map(Bson::String),
        1 => Just(Bson::Null),
        1 => any::<bool>().prop_map(Bson::Boolean),
        1 => any::<i32>().prop_map(Bson::Int32),
        1 => prop_oneof![any::<i64>(), -10_i64..10].prop_map(Bson::Int64),
        2 => double().prop_map(Bson::Double),
        2 => millis().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        1 => any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))),
        1 => exotic(),
    ]
}

const DECIMALS: [&str; 7] =
    ["0", "-0", "1.50", "-12E+30", "NaN", "Infinity", "9.999999999999999999999999999999999E+6144"];

fn exotic() -> impl Strategy<Value = Bson> {
    let binary =
        |(bytes, subtype): (Vec<u8>, u8)| Bson::Binary(Binary { bytes, subtype: BinarySubtype::from(subtype) });
    prop_oneof![
        (any::<Vec<u8>>(), any::<u8>()).prop_map(binary),
        prop::sample::select(DECIMALS.to_vec()).prop_map(|number| Bson::Decimal128(number.parse().unwrap())),
        text().prop_map(Bson::Symbol),
        text().prop_map(Bson::JavaScriptCode),
        (text(), "[a-z]{1,3}", any::<i32>()).prop_map(|(code, name, value)| {
            JavaScriptCodeWithScope { code, scope: bson::doc! { name: value } }.into()
        }),
        "[^\0]{0,10}".prop_map(|pattern| Regex {
            pattern: pattern.try_into().unwrap(),
            options: cstr!("im").to_owned()
        }
        .into()),
        (any::<u32>(), any::<u32>()).prop_map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })),
        any::<[u8; 12]>().prop_map(|bytes| {
            let id = ObjectId::from_bytes(bytes).to_hex();
            Bson::try_from(serde_json::json!({ "$dbPointer": { "$ref": "a.b", "$id": { "$oid": id } } })).unwrap()
        }),
        Just(Bson::Undefined),
        Just(Bson::MinKey),
        Just(Bson::MaxKey),
    ]
}

/// A value with up to four levels.
pub(crate) fn value() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Bson::Array),
            prop::collection::vec((name(), inner), 0..6)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}
