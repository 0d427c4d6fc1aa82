//! Filters as MongoDB takes them.
//!
//! Values that come from callers are only ever compared with, never interpreted: as plain values under a field name, or
//! under `$literal` in an expression.

use bson::{Bson, Document, doc};

use crate::query::{BulkScope, Cursor, Filter, MatchMode, Order, Page, Terms, TimeRange, Visibility};
use crate::{Error, ErrorKind, Result};

/// The documents that `filter` means.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a range that ends before it starts, and for an empty list of terms.
pub(super) fn select(filter: &Filter) -> Result<Document> {
    filter.range.check()?;
    let mut query = Document::new();
    match &filter.user_id {
        Some(user) if !filter.range.is_unbounded() => {
            query.insert("$or", vec![doc! { "user_id": user }, doc! { "participants": user }]);
        }
        Some(user) => {
            query.insert("user_id", user);
        }
        None => {}
    }
    if let Some(group) = &filter.group_id {
        query.insert("group_id", group);
    }
    if let Some(participants) = &filter.participants {
        query.insert("participants", contains(participants)?);
    }
    if let Some(keywords) = &filter.keywords {
        query.insert("keywords", contains(keywords)?);
    }
    if let Some(memcell_type) = &filter.memcell_type {
        query.insert("type", memcell_type);
    }
    insert_range(&mut query, filter.range);
    insert_visibility(&mut query, filter.visibility);
    Ok(query)
}

/// The documents that `filter` means and that lie on `page`, but for its limit and skip.
///
/// # Errors
/// As [`select`], and [`ErrorKind::InvalidArgument`] for a cursor of the other order.
pub(super) fn select_page(filter: &Filter, page: &Page) -> Result<Document> {
    let mut query = select(filter)?;
    if let Some(cursor) = &page.cursor {
        if cursor.order() != page.order {
            return Err(Error::new(ErrorKind::InvalidArgument, "the cursor continues a list of the other order"));
        }
        query.insert("$and", following(cursor));
    }
    Ok(query)
}

/// The sort that belongs to `order`.
pub(super) fn sort(order: Order) -> Document {
    match order {
        Order::NewestFirst => doc! { "timestamp": -1, "_id": -1 },
        Order::OldestFirst => doc! { "timestamp": 1, "_id": 1 },
    }
}

/// The documents that `scope` means and that are visible so.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for an empty scope or a range that ends before it starts.
pub(super) fn select_scope(scope: &BulkScope, visibility: Visibility) -> Result<Document> {
    scope.check()?;
    let mut query = Document::new();
    if let Some(user) = &scope.user_id {
        query.insert("user_id", user);
    }
    insert_range(&mut query, scope.range);
    insert_visibility(&mut query, visibility);
    Ok(query)
}

/// The one document with this id, if it also meets `condition`.
pub(super) fn with_id(id: &Bson, condition: &Document) -> Document {
    let mut query = doc! { "_id": id };
    query.extend(condition.clone());
    query
}

/// The condition that this visibility is.
pub(super) fn visible(visibility: Visibility) -> Document {
    let mut query = Document::new();
    insert_visibility(&mut query, visibility);
    query
}

/// `condition`, restricted to ids that come after `last` in MongoDB's order of all types.
///
/// A query operator compares only within one type, so it serves as the bound that an index can use (negated, so that it
/// lets other types through), and the expression, which compares across types, decides.
pub(super) fn after_id(condition: &Document, last: Option<&Bson>) -> Document {
    let mut query = condition.clone();
    if let Some(last) = last {
        query.insert("_id", doc! { "$not": { "$lt": last } });
        query.insert("$expr", doc! { "$gt": ["$_id", { "$literal": last }] });
    }
    query
}

/// `condition`, restricted to ids after the first bound and up to the second, in MongoDB's order of all types.
pub(super) fn within_ids(condition: &Document, after: Option<&Bson>, up_to: Option<&Bson>) -> Document {
    let mut query = condition.clone();
    match (after, up_to) {
        // Between two values of one kind there is nothing of another, so that plain operators are exact.
        (Some(after), Some(up_to)) if kind_of_id(after).is_some() && kind_of_id(after) == kind_of_id(up_to) => {
            query.insert("_id", doc! { "$gt": after, "$lte": up_to });
        }
        (after, up_to) => {
            let mut bounds = Vec::new();
            let mut exact = Vec::new();
            if let Some(after) = after {
                bounds.push(doc! { "_id": { "$not": { "$lt": after } } });
                exact.push(doc! { "$gt": ["$_id", { "$literal": after }] });
            }
            if let Some(up_to) = up_to {
                bounds.push(doc! { "_id": { "$not": { "$gt": up_to } } });
                exact.push(doc! { "$lte": ["$_id", { "$literal": up_to }] });
            }
            if !bounds.is_empty() {
                query.insert("$and", bounds);
                query.insert("$expr", doc! { "$and": exact });
            }
        }
    }
    query
}

/// The kinds within which query operators compare, as far as they are usual for ids.
fn kind_of_id(id: &Bson) -> Option<u8> {
    match id {
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => Some(1),
        Bson::String(_) => Some(2),
        Bson::ObjectId(_) => Some(3),
        Bson::Binary(_) => Some(4),
        Bson::DateTime(_) => Some(5),
        _ => None,
    }
}

/// The conditions of lying behind the cursor. See [`after_id`] for the two parts.
fn following(cursor: &Cursor) -> Vec<Document> {
    let (beyond, before, sorted_by) = match cursor.order() {
        Order::NewestFirst => ("$lt", "$gt", "$max"),
        Order::OldestFirst => ("$gt", "$lt", "$min"),
    };
    // A sort takes one element for a list, and null for a missing field; an expression does neither.
    let timestamp = doc! {
        "$ifNull": [{ "$cond": [{ "$isArray": "$timestamp" }, { sorted_by: "$timestamp" }, "$timestamp"] }, null],
    };
    let last = doc! { "$literal": cursor.timestamp() };
    let mut farther = Document::new();
    farther.insert(beyond, vec![timestamp.clone(), last.clone()]);
    let mut tied = Document::new();
    tied.insert(beyond, vec![Bson::from("$_id"), doc! { "$literal": cursor.id() }.into()]);
    let same = doc! { "$eq": [timestamp, last] };
    let mut conditions = vec![doc! { "$expr": { "$or": [farther, { "$and": [same, tied] }] } }];
    if let Bson::DateTime(moment) = cursor.timestamp() {
        let mut passed = Document::new();
        passed.insert(before, *moment);
        conditions.push(doc! { "timestamp": { "$not": passed } });
    }
    conditions
}

fn insert_range(query: &mut Document, range: TimeRange) {
    let mut bounds = Document::new();
    if let Some(start) = range.start {
        bounds.insert("$gte", start);
    }
    if let Some(end) = range.end {
        bounds.insert("$lt", end);
    }
    if !bounds.is_empty() {
        query.insert("timestamp", bounds);
    }
}

/// Absent and null both mean that a document was not deleted.
fn insert_visibility(query: &mut Document, visibility: Visibility) {
    match visibility {
        Visibility::Live => query.insert("deleted_at", Bson::Null),
        Visibility::Deleted => query.insert("deleted_at", doc! { "$ne": null }),
        Visibility::All => None,
    };
}

fn contains(terms: &Terms) -> Result<Document> {
    if terms.terms.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "at least one term is needed to search for"));
    }
    Ok(match terms.mode {
        MatchMode::Any => doc! { "$in": &terms.terms },
        MatchMode::All => doc! { "$all": &terms.terms },
    })
}

/// The projection to what a comparison of revisions needs.
pub(super) fn revisions() -> Document {
    doc! { "revision": 1, "deleted_at": 1 }
}

#[cfg(test)]
mod tests {
    use bson::DateTime;

    use super::*;

    #[test]
    fn a_user_is_looked_for_among_participants_only_with_a_range() {
        let user = Filter { user_id: Some("u".into()), ..Filter::default() };
        assert_eq!(select(&user).unwrap(), doc! { "user_id": "u", "deleted_at": null });
        let end = DateTime::from_millis(9);
        let ranged = Filter { range: TimeRange { start: None, end: Some(end) }, ..user };
        let expected = doc! {
            "$or": [{ "user_id": "u" }, { "participants": "u" }],
            "timestamp": { "$lt": end },
            "deleted_at": null,
        };
        assert_eq!(select(&ranged).unwrap(), expected);
    }

    #[test]
    fn operators_in_values_stay_values() {
        let terms = Terms { terms: vec!["$where".into()], mode: MatchMode::All };
        let filter = Filter { participants: Some(terms), visibility: Visibility::All, ..Filter::default() };
        assert_eq!(select(&filter).unwrap(), doc! { "participants": { "$all": ["$where"] } });
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let none = Some(Terms { terms: vec![], mode: MatchMode::Any });
        let backwards = TimeRange { start: Some(DateTime::MAX), end: Some(DateTime::MIN) };
        for filter in [
            Filter { keywords: none.clone(), ..Filter::default() },
            Filter { participants: none, ..Filter::default() },
            Filter { range: backwards, ..Filter::default() },
        ] {
            assert_eq!(select(&filter).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        let error = select_scope(&BulkScope::default(), Visibility::All).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
