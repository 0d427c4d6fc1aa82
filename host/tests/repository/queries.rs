//! Finding, counting, paging and summing up.

use std::num::NonZeroU64;

use bson::{Bson, DateTime, doc};
use memcell_host::ErrorKind;
use memcell_host::memcell::{EventId, MemCell};
use memcell_host::query::{Cursor, Filter, MatchMode, Order, Page, Terms, TimeRange, Visibility};
use serde_json::json;

use crate::{Fixture, all, document, insert};

fn at(millis: i64) -> DateTime {
    DateTime::from_millis(millis)
}

fn range(start: Option<i64>, end: Option<i64>) -> TimeRange {
    TimeRange { start: start.map(at), end: end.map(at) }
}

fn iso(millis: i64) -> String {
    at(millis).try_to_rfc3339_string().unwrap()
}

fn terms(terms: &[&str], mode: MatchMode) -> Option<Terms> {
    Some(Terms { terms: terms.iter().map(|term| (*term).to_owned()).collect(), mode })
}

/// The `summary` of what the filter finds, newest first; the count has to agree.
async fn found(fixture: &Fixture, filter: Filter) -> Vec<String> {
    let cells = all(fixture.repository.find(&filter, &Page::default()).await.unwrap()).await;
    assert_eq!(fixture.repository.count(&filter).await.unwrap(), cells.len() as u64);
    cells.iter().map(summary).collect()
}

fn summary(cell: &MemCell) -> String {
    document(cell).get_str("summary").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_finds_what_it_says() {
    let fixture = Fixture::new().await;
    for (summary, fields) in [
        ("a", json!({ "user_id": "u1", "group_id": "g1", "participants": ["u1", "u2"], "keywords": ["k", "l"] })),
        ("b", json!({ "user_id": "u2", "group_id": "g1", "participants": ["u2"], "keywords": ["l"], "type": "Note" })),
        ("c", json!({ "user_id": "u1", "group_id": null, "participants": [], "type": "Conversation" })),
        ("d", json!({ "user_id": "u3", "participants": ["u1", "u3"], "type": "Conversation" })),
    ] {
        let mut fields = fields;
        fields["summary"] = summary.into();
        fields["timestamp"] = iso(1000 + i64::from(summary.as_bytes()[0])).into();
        insert(&fixture, fields).await;
    }
    let deleted = insert(&fixture, json!({ "user_id": "u1", "summary": "x", "timestamp": iso(1000) })).await;
    fixture.repository.soft_delete(deleted, None).await.unwrap();

    let user = |user: &str| Filter { user_id: Some(user.into()), ..Filter::default() };
    assert_eq!(found(&fixture, Filter::default()).await, ["d", "c", "b", "a"]);
    assert_eq!(found(&fixture, user("u1")).await, ["c", "a"]);
    let ranged = Filter { range: range(Some(0), None), ..user("u1") };
    assert_eq!(found(&fixture, ranged.clone()).await, ["d", "c", "a"]);
    let group = Filter { group_id: Some("g1".into()), ..Filter::default() };
    assert_eq!(found(&fixture, group.clone()).await, ["b", "a"]);
    assert_eq!(found(&fixture, Filter { user_id: Some("u2".into()), ..group.clone() }).await, ["b"]);
    assert_eq!(found(&fixture, Filter { memcell_type: Some("Note".into()), ..group }).await, ["b"]);
    for (mode, expected) in [(MatchMode::Any, vec!["d", "b", "a"]), (MatchMode::All, vec!["a"])] {
        let filter = Filter { participants: terms(&["u1", "u2"], mode), ..Filter::default() };
        let expected: Vec<&str> = expected;
        assert_eq!(found(&fixture, filter).await, expected);
    }
    let filter = Filter { keywords: terms(&["k", "l"], MatchMode::Any), ..Filter::default() };
    assert_eq!(found(&fixture, filter).await, ["b", "a"]);
    let filter = Filter { keywords: terms(&["k", "l"], MatchMode::All), ..Filter::default() };
    assert_eq!(found(&fixture, filter).await, ["a"]);
    assert_eq!(found(&fixture, Filter { visibility: Visibility::All, ..user("u1") }).await, ["c", "a", "x"]);
    assert_eq!(found(&fixture, Filter { visibility: Visibility::Deleted, ..ranged }).await, ["x"]);
    assert_eq!(found(&fixture, user("$ne")).await, [""; 0]);

    let newest = fixture.repository.latest_by_user("u1", NonZeroU64::new(1)).await.unwrap();
    assert_eq!(all(newest).await.iter().map(summary).collect::<Vec<_>>(), ["c"]);
    assert_eq!(all(fixture.repository.latest_by_user("u1", None).await.unwrap()).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_includes_its_start_and_excludes_its_end() {
    let fixture = Fixture::new().await;
    for moment in [999, 1000, 1001, 1999, 2000, 2001] {
        insert(&fixture, json!({ "user_id": "u", "summary": moment.to_string(), "timestamp": iso(moment) })).await;
    }
    for user_id in [None, Some("u".to_owned())] {
        let by = |start, end| Filter { user_id: user_id.clone(), range: range(start, end), ..Filter::default() };
        assert_eq!(found(&fixture, by(Some(1000), Some(2000))).await, ["1999", "1001", "1000"]);
        assert_eq!(found(&fixture, by(Some(2000), None)).await, ["2001", "2000"]);
        assert_eq!(found(&fixture, by(None, Some(1000))).await, ["999"]);
        assert_eq!(found(&fixture, by(Some(1000), Some(1000))).await, [""; 0]);
        let backwards = by(Some(2), Some(1));
        assert_eq!(fixture.repository.count(&backwards).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let error = fixture.repository.find(&backwards, &Page::default()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_without_gap_or_overlap() {
    let fixture = Fixture::new().await;
    let mut written = Vec::new();
    for number in 0..40_i32 {
        let id: Bson = match number % 4 {
            0 => number.into(),
            1 => format!("{number}").into(),
            2 => EventId::new().object_id().into(),
            _ => doc! { "n": number }.into(),
        };
        let mut cell = doc! { "_id": id, "summary": number.to_string() };
        match number % 6 {
            0 => {}
            5 => drop(cell.insert("timestamp", vec![at(1000 + i64::from(number)), at(999), at(1002)])),
            1 => drop(cell.insert("timestamp", Bson::Null)),
            2 => drop(cell.insert("timestamp", "text")),
            3 => drop(cell.insert("timestamp", at(1000))),
            _ => drop(cell.insert("timestamp", at(1000 + i64::from(number / 10)))),
        }
        written.push(cell);
    }
    fixture.foreign.insert_many(written).await.unwrap();
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let whole = Page { order, ..Page::default() };
        let whole: Vec<_> = ids(all(fixture.repository.find(&Filter::default(), &whole).await.unwrap()).await);
        assert_eq!(whole.len(), 40);
        for size in [1, 3, 7, 40] {
            let mut joined = Vec::new();
            let mut cursor = None;
            loop {
                let page = Page { limit: NonZeroU64::new(size), order, cursor, ..Page::default() };
                let cells = all(fixture.repository.find(&Filter::default(), &page).await.unwrap()).await;
                let Some(last) = cells.last() else { break };
                let text = Cursor::after(order, last).unwrap().to_string();
                cursor = Some(Cursor::parse(&text).unwrap());
                joined.extend(ids(cells));
            }
            assert_eq!(joined, whole, "{order:?}, pages of {size}");
        }
        let skipped = Page { skip: 35, order, ..Page::default() };
        assert_eq!(ids(all(fixture.repository.find(&Filter::default(), &skipped).await.unwrap()).await), whole[35..]);
    }
    let last = fixture.repository.scan().await.unwrap();
    let cursor = Cursor::after(Order::OldestFirst, &all(last).await[0]).unwrap();
    let page = Page { cursor: Some(cursor), ..Page::default() };
    let error = fixture.repository.find(&Filter::default(), &page).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

fn ids(cells: Vec<MemCell>) -> Vec<String> {
    cells.iter().map(|cell| cell.key().unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_read_by_id() {
    let fixture = Fixture::new().await;
    let mut wanted = Vec::new();
    for number in 0..5 {
        wanted.push(insert(&fixture, json!({ "summary": number.to_string(), "subject": "s" })).await);
    }
    fixture.repository.soft_delete(wanted[4], None).await.unwrap();
    let asked = [&wanted[..], &wanted[..2], &[EventId::new()]].concat();
    let mut found = fixture.repository.get_many(&asked, None).await.unwrap();
    found.sort_by_key(|cell| cell.event_id());
    assert_eq!(found.iter().map(|cell| cell.event_id().unwrap()).collect::<Vec<_>>(), wanted[..4]);
    let fields = ["summary".to_owned(), "absent".to_owned()];
    for cell in fixture.repository.get_many(&wanted, Some(&fields)).await.unwrap() {
        assert_eq!(document(&cell).keys().collect::<Vec<_>>(), ["_id", "summary"]);
    }
    for cell in fixture.repository.get_many(&wanted, Some(&[])).await.unwrap() {
        assert_eq!(document(&cell).keys().collect::<Vec<_>>(), ["_id"]);
    }
    let error = fixture.repository.get_many(&wanted, Some(&["a.b".into()])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(fixture.repository.get_many(&[], None).await.unwrap().is_empty());
    assert_eq!(fixture.repository.fetch(&[wanted[4].into(), EventId::new().into()]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn activity_is_summed_up() {
    let fixture = Fixture::new().await;
    for (moment, fields) in [
        (10, json!({ "type": "Conversation" })),
        (20, json!({ "type": "Conversation" })),
        (30, json!({ "type": "Note" })),
        (40, json!({})),
        (50, json!({ "type": null })),
    ] {
        let mut fields = fields;
        fields["user_id"] = "u".into();
        fields["timestamp"] = iso(moment).into();
        insert(&fixture, fields).await;
    }
    insert(&fixture, json!({ "user_id": "other", "participants": ["u"], "timestamp": iso(5) })).await;
    let gone = insert(&fixture, json!({ "user_id": "u", "timestamp": iso(1) })).await;
    fixture.repository.soft_delete(gone, None).await.unwrap();
    fixture.foreign.insert_one(doc! { "user_id": "u", "type": 7, "timestamp": "garbage" }).await.unwrap();

    let summary = fixture.repository.activity_summary("u", TimeRange::default()).await.unwrap();
    assert_eq!((summary.user_id.as_str(), summary.total_count), ("u", 6));
    let distribution: Vec<_> = summary.type_distribution.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(distribution, [("Conversation", 2), ("Note", 1), ("unknown", 3)]);
    assert_eq!((summary.earliest_activity, summary.latest_activity), (Some(at(10)), Some(at(50))));

    let part = fixture.repository.activity_summary("u", range(Some(20), Some(50))).await.unwrap();
    assert_eq!((part.total_count, part.earliest_activity, part.latest_activity), (3, Some(at(20)), Some(at(40))));
    let none = fixture.repository.activity_summary("nobody", TimeRange::default()).await.unwrap();
    assert_eq!((none.total_count, none.earliest_activity, none.type_distribution.len()), (0, None, 0));
}
