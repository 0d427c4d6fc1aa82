//! Changes as MongoDB takes them: update pipelines that count the revision up in the same operation, and the activity
//! aggregation.

use bson::{Bson, DateTime, Document, doc};

use crate::clock::unix_millis;
use crate::memcell::Patch;

/// Replaces the fields of the patch, whole and literally: a value that looks like an expression is not one.
pub(super) fn update(patch: &Patch, reading: u64) -> Vec<Document> {
    let mut fields = stamped(now(), reading);
    for (name, value) in patch.fields() {
        fields.insert(name, literal(value.clone()));
    }
    vec![doc! { "$set": fields }]
}

/// Marks the document as deleted now, by whom if that is known.
pub(super) fn soft_delete(deleted_by: Option<&str>, reading: u64) -> Vec<Document> {
    let now = now();
    let mut fields = stamped(now, reading);
    fields.insert("deleted_at", literal(now));
    match deleted_by {
        Some(who) => {
            fields.insert("deleted_by", literal(who));
            vec![doc! { "$set": fields }]
        }
        None => vec![doc! { "$set": fields }, doc! { "$unset": "deleted_by" }],
    }
}

/// Takes the marks of a deletion away.
pub(super) fn restore(reading: u64) -> Vec<Document> {
    vec![doc! { "$set": stamped(now(), reading) }, doc! { "$unset": ["deleted_at", "deleted_by"] }]
}

/// What every change sets. `updated_at` moves with deletions too, so that whoever polls by it sees them.
fn stamped(now: DateTime, reading: u64) -> Document {
    doc! { "updated_at": literal(now), "revision": next_revision(reading) }
}

/// `max(revision + 1, reading)` as an int64, whatever another program left in `revision`: what is not a number, or no
/// int64 when cut to a whole one, counts as 0, and the largest int64, which can't be counted up, stays (then equal
/// stamps apply through the tail).
fn next_revision(reading: u64) -> Document {
    let number = doc! { "$cond": [{ "$isNumber": "$revision" }, "$revision", 0_i64] };
    let stored = doc! { "$convert": { "input": number, "to": "long", "onError": 0_i64, "onNull": 0_i64 } };
    let counted = doc! { "$cond": [{ "$lt": ["$$stored", i64::MAX] }, { "$add": ["$$stored", 1_i64] }, i64::MAX] };
    doc! { "$max": [revision_value(reading), { "$let": { "vars": { "stored": stored }, "in": counted } }] }
}

/// A revision as MongoDB keeps it. Readings of the clock fit an int64 until the year 2248.
fn revision_value(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn literal(value: impl Into<Bson>) -> Document {
    doc! { "$literal": value.into() }
}

fn now() -> DateTime {
    DateTime::from_millis(now_millis())
}

/// The wall clock, in the unit and width of BSON's datetimes.
pub(super) fn now_millis() -> i64 {
    i64::try_from(unix_millis()).unwrap_or(i64::MAX)
}

/// Under which name documents without a usable `type` are counted.
pub(super) const UNKNOWN_TYPE: &str = "unknown";

/// Counts the documents that `condition` matches by type, with the first and the last timestamp of each; timestamps
/// that are no datetimes are left out. Answers `{_id: type, count, earliest, latest}`, the last two null if there is
/// none.
pub(super) fn activity(condition: Document) -> Vec<Document> {
    let memcell_type = doc! { "$cond": [{ "$eq": [{ "$type": "$type" }, "string"] }, "$type", UNKNOWN_TYPE] };
    let moment = doc! { "$cond": [{ "$eq": [{ "$type": "$timestamp" }, "date"] }, "$timestamp", null] };
    vec![
        doc! { "$match": condition },
        doc! { "$group": {
            "_id": memcell_type,
            "count": { "$sum": 1_i64 },
            "earliest": { "$min": moment.clone() },
            "latest": { "$max": moment },
        } },
    ]
}
