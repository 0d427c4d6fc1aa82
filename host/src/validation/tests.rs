//! Tests of the comparison.

use bson::{Binary, Bson, Document, RawDocumentBuf, doc, spec::BinarySubtype};
use proptest::prelude::*;

use super::*;
use crate::codec::{Codec, encode};
use crate::memcell::arbitrary;

fn cell(document: &Document) -> MemCell {
    MemCell::from_raw(RawDocumentBuf::try_from(document).unwrap())
}

/// A plain value: under which key doesn't matter to it.
fn plain(value: &[u8]) -> Stored<'_> {
    static CODEC: std::sync::LazyLock<Codec> = std::sync::LazyLock::new(|| Codec::plain(Format::Json));
    Stored { codec: &CODEC, key: "", value }
}

fn compared(mongo: &Document, kv: &Document, format: Format) -> Comparison {
    let (authority, stored) = (cell(mongo), encode(format, &cell(kv)).unwrap());
    let found = compare(&authority, plain(&stored), &mut b"left over".to_vec());
    // One that remembers answers the same, the first time, the second, and after it has seen a faithful copy.
    let comparer = Comparer::new();
    for _ in 0..2 {
        assert_eq!(comparer.compare(&authority, plain(&stored), &mut Vec::new()), found);
    }
    let faithful = encode(format, &authority).unwrap();
    assert_eq!(comparer.compare(&authority, plain(&faithful), &mut Vec::new()), Comparison::Equal);
    assert_eq!(comparer.compare(&authority, plain(&stored), &mut Vec::new()), found);
    found
}

fn check_equal(mongo: &Document, kv: &Document) {
    for format in [Format::Json, Format::Bson] {
        assert_eq!(compared(mongo, kv, format), Comparison::Equal, "{format:?}");
    }
}

/// Each expected difference is `path kind mongo | kv`, with `-` for no value.
fn check(mongo: &Document, kv: &Document, expected: &[&str]) {
    for format in [Format::Json, Format::Bson] {
        let Comparison::Different { differences, truncated, .. } = compared(mongo, kv, format) else {
            panic!("no difference found in {format:?}");
        };
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let found: Vec<String> = differences
            .iter()
            .map(|found| {
                let kind = serde_json::to_value(found.kind).unwrap();
                format!("{} {} {} | {}", found.path, kind.as_str().unwrap(), shown(&found.mongo), shown(&found.kv))
            })
            .collect();
        assert_eq!(found, expected, "{format:?}");
        assert!(!truncated);
    }
}

#[test]
fn the_order_of_fields_does_not_matter() {
    check_equal(
        &doc! { "_id": 1, "a": { "x": 1, "y": [{ "p": 1, "q": 2 }] } },
        &doc! { "a": { "y": [{ "q": 2, "p": 1 }], "x": 1 }, "_id": 1 },
    );
}

#[test]
fn every_kind_of_difference_is_told() {
    check(
        &doc! { "a": 1, "b": { "c": ["x", { "d": "old" }] }, "e": null, "f": [1, 2, 3] },
        &doc! { "a": 2, "b": { "c": ["x", { "d": "new" }] }, "f": [1, 5], "g": { "h": true } },
        &[
            "a changed 1 | 2",
            r#"b.c[1].d changed "old" | "new""#,
            "e only_in_mongo null | -",
            "f length 3 | 2",
            "f[1] changed 2 | 5",
            r#"g only_in_kv - | {"h":true}"#,
        ],
    );
}

#[test]
fn types_matter_and_are_shown_where_nothing_else_differs() {
    check(
        &doc! { "a": 1, "b": 1_i64, "c": 0.0, "d": "1", "e": null },
        &doc! { "a": 1_i64, "b": 1.0, "c": -0.0, "d": 1, "e": "" },
        &[
            r#"a changed {"$numberInt":"1"} | {"$numberLong":"1"}"#,
            "b changed 1 | 1.0",
            "c changed 0.0 | -0.0",
            r#"d changed "1" | 1"#,
            r#"e changed null | """#,
        ],
    );
    let binary = |subtype| doc! { "a": Binary { subtype, bytes: vec![1] } };
    check(
        &binary(BinarySubtype::Generic),
        &binary(BinarySubtype::Uuid),
        &[r#"a changed {"$binary":{"base64":"AQ==","subType":"00"}} | {"$binary":{"base64":"AQ==","subType":"04"}}"#],
    );
}

#[test]
fn nan_is_nan_whatever_its_bits() {
    let other = f64::from_bits(f64::NAN.to_bits() | 1);
    check_equal(&doc! { "a": f64::NAN, "b": 1 }, &doc! { "b": 1, "a": other });
    check_equal(&doc! { "a": -f64::NAN }, &doc! { "a": f64::NAN });
}

#[test]
fn a_long_value_is_shortened_around_the_difference() {
    let long = |end: &str| doc! { "a": format!("{}{end}", "é".repeat(1000)) };
    let Comparison::Different { differences, .. } = compared(&long("old and more"), &long("new"), Format::Json) else {
        panic!("no difference found");
    };
    let context = "é".repeat(40);
    assert_eq!(differences[0].mongo.as_deref(), Some(format!("…{context}old and more\"").as_str()));
    assert_eq!(differences[0].kv.as_deref(), Some(format!("…{context}new\"").as_str()));

    let Comparison::Different { differences, .. } = compared(&doc! { "a": "é".repeat(120) }, &doc! {}, Format::Json)
    else {
        panic!("no difference found");
    };
    assert_eq!(differences[0].mongo.as_deref(), Some(format!("\"{}…", "é".repeat(118)).as_str()));
    check(&doc! { "a": "x".repeat(118) }, &doc! {}, &[&format!("a only_in_mongo \"{}\" | -", "x".repeat(118))]);
}

#[test]
fn the_list_of_differences_is_bounded() {
    let mongo: Document = (0..1000).map(|at| (format!("f{at}"), Bson::Int32(1))).collect();
    let Comparison::Different { differences, truncated, .. } = compared(&mongo, &doc! {}, Format::Json) else {
        panic!("no difference found");
    };
    assert_eq!((differences.len(), truncated), (MAX_DIFFERENCES, true));
    let mongo: Document = mongo.into_iter().take(MAX_DIFFERENCES).collect();
    let Comparison::Different { differences, truncated, .. } = compared(&mongo, &doc! {}, Format::Json) else {
        panic!("no difference found");
    };
    assert_eq!((differences.len(), truncated), (MAX_DIFFERENCES, false));
}

#[test]
fn both_revisions_are_reported() {
    let comparison = compared(&doc! { "revision": 7_i64 }, &doc! { "a": 1 }, Format::Bson);
    let Comparison::Different { revisions, .. } = comparison else { panic!("no difference found") };
    assert_eq!(revisions, Revisions { authority: Some(7), stored: None });
}

#[test]
fn a_damaged_copy_is_corrupt_and_not_different() {
    let authority = cell(&doc! { "_id": 1, "revision": 1 });
    let mut stored = encode(Format::Json, &authority).unwrap();
    *stored.last_mut().unwrap() ^= 1;
    let comparison = compare(&authority, plain(&stored), &mut Vec::new());
    assert_eq!(comparison, Comparison::Corrupt("the checksum does not match".to_owned()));
    assert!(matches!(compare(&authority, plain(b""), &mut Vec::new()), Comparison::Corrupt(_)));
}

#[test]
fn what_only_looks_like_extended_json_is_compared_as_the_document_it_is() {
    let mongo = doc! { "a": { "$oid": 5 }, "b": { "$date": "never" }, "c": { "$set": 1 }, "z": 1 };
    let mut kv = mongo.clone();
    check_equal(&mongo, &kv);
    kv.insert("z", 2);
    check(&mongo, &kv, &["z changed 1 | 2"]);
}

#[test]
fn an_outcome_has_one_name_everywhere() {
    for outcome in Outcome::ALL {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_copy_equals_its_original_whatever_the_order(document in arbitrary::document(), seed: u64) {
        let mut fields: Vec<_> = document.clone().into_iter().collect();
        let turn = usize::try_from(seed % 16).unwrap() % fields.len();
        fields.rotate_left(turn);
        let turned: Document = fields.into_iter().collect();
        for format in [Format::Json, Format::Bson] {
            prop_assert_eq!(compared(&document, &document, format), Comparison::Equal);
            prop_assert_eq!(compared(&document, &turned, format), Comparison::Equal);
        }
    }

    #[test]
    fn formats_agree_on_what_differs(mongo in arbitrary::document(), kv in arbitrary::document()) {
        prop_assert_eq!(compared(&mongo, &kv, Format::Json), compared(&mongo, &kv, Format::Bson));
    }

    #[test]
    fn one_changed_value_is_found(
        document in arbitrary::document(), at: prop::sample::Index, value in arbitrary::value(),
    ) {
        let (name, old) = document.clone().into_iter().nth(at.index(document.len())).unwrap();
        prop_assume!(old.into_canonical_extjson() != value.clone().into_canonical_extjson());
        let mut changed = document.clone();
        changed.insert(name.clone(), value);
        for format in [Format::Json, Format::Bson] {
            let Comparison::Different { differences, .. } = compared(&document, &changed, format) else {
                return Err(TestCaseError::fail("no difference found"));
            };
            prop_assert!(differences.iter().all(|found| found.path.starts_with(&name)));
        }
    }
}
