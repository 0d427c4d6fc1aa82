//! Operations on one document and on batches.

use std::collections::HashSet;

use bson::{Bson, DateTime, doc};
use memcell_host::ErrorKind;
use memcell_host::memcell::EventId;
use memcell_host::query::Visibility;
use serde_json::json;

use crate::{Fixture, document, insert, new, patch};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_inserted_is_read_back_byte_for_byte() {
    let fixture = Fixture::new().await;
    let given = EventId::new();
    let fields = json!({
        "event_id": given.to_string().to_uppercase(),
        "user_id": null, "summary": "", "extend": { "a": [1, 2.0, { "deep": null }], "big": 9_007_199_254_740_993_i64 },
    });
    let inserted = fixture.repository.insert(new(fields.clone())).await.unwrap();
    assert_eq!(inserted.event_id(), Some(given));
    let read = fixture.repository.get(given, Visibility::Live).await.unwrap().unwrap();
    assert_eq!(read.as_raw().as_bytes(), inserted.as_raw().as_bytes());
    let by_key = fixture.repository.get_by_key(&given.into(), Visibility::Live).await.unwrap();
    assert_eq!(by_key, Some(read));
    let taken = fixture.repository.insert(new(fields)).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    assert!(fixture.repository.get(EventId::new(), Visibility::All).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_replaces_fields_literally_and_keeps_the_others() {
    let fixture = Fixture::new().await;
    let id = insert(&fixture, json!({ "summary": "old", "extend": { "kept": true }, "own": { "a": 1, "b": 2 } })).await;
    let before = fixture.repository.get(id, Visibility::Live).await.unwrap().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let change = patch(json!({
        "summary": "$subject", "own": { "c": { "$concat": ["x", "$user_id"] } }, "user_id": null, "fresh": [],
        "timestamp": "2025-01-01T00:00:00.123456Z",
    }));
    let after = fixture.repository.update(id, &change).await.unwrap();
    let fields = document(&after);
    assert_eq!(fields.get_str("summary").unwrap(), "$subject");
    assert_eq!(fields.get_document("own").unwrap(), &doc! { "c": { "$concat": ["x", "$user_id"] } });
    assert_eq!(fields.get("user_id"), Some(&Bson::Null));
    assert_eq!(fields.get_array("fresh").unwrap().len(), 0);
    assert_eq!(fields.get_document("extend").unwrap(), &doc! { "kept": true });
    assert_eq!(fields.get_datetime("timestamp").unwrap(), &DateTime::from_millis(1_735_689_600_123));
    let old = document(&before);
    assert_eq!(fields.get("created_at"), old.get("created_at"));
    assert!(fields.get_datetime("updated_at").unwrap() > old.get_datetime("updated_at").unwrap());
    assert!(fields.get_i64("revision").unwrap() > old.get_i64("revision").unwrap());
    assert_eq!(fixture.repository.get(id, Visibility::Live).await.unwrap(), Some(after.clone()));

    let untouched = fixture.repository.update(id, &patch(json!({}))).await.unwrap();
    assert_eq!(untouched, after);
    for change in [json!({}), json!({ "summary": "x" })] {
        let missing = fixture.repository.update(EventId::new(), &patch(change)).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_deletion_hides_and_restoration_shows_again() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let id = insert(&fixture, json!({ "summary": "s" })).await;
    let first = repository.get(id, Visibility::Live).await.unwrap().unwrap().revision().unwrap();
    let deletion = repository.soft_delete(id, Some("$who")).await.unwrap();
    assert_eq!(deletion.key, id.into());
    assert!(deletion.document.is_none() && deletion.stamp > first);
    assert!(repository.get(id, Visibility::Live).await.unwrap().is_none());
    let marked = repository.get(id, Visibility::Deleted).await.unwrap().unwrap();
    assert_eq!(marked.revision(), Some(deletion.stamp));
    let fields = document(&marked);
    assert_eq!(fields.get_str("deleted_by").unwrap(), "$who");
    assert_eq!(fields.get_datetime("deleted_at").unwrap(), fields.get_datetime("updated_at").unwrap());

    for error in [
        repository.soft_delete(id, None).await.unwrap_err(),
        repository.update(id, &patch(json!({ "summary": "x" }))).await.unwrap_err(),
        repository.update(id, &patch(json!({}))).await.unwrap_err(),
        repository.restore(EventId::new()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    let restored = repository.restore(id).await.unwrap().unwrap();
    assert!(restored.revision().unwrap() > deletion.stamp);
    let fields = document(&restored);
    assert!(!fields.contains_key("deleted_at") && !fields.contains_key("deleted_by"));
    assert!(repository.restore(id).await.unwrap().is_none());
    repository.soft_delete(id, None).await.unwrap();
    let marked = repository.get(id, Visibility::All).await.unwrap().unwrap();
    assert!(marked.is_deleted() && marked.field("deleted_by").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_grow_through_deletion_and_reinsertion() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let id = EventId::new();
    let mut last = 0;
    for round in 0..20 {
        let inserted = repository.insert(new(json!({ "event_id": id.to_string() }))).await.unwrap();
        assert!(inserted.revision().unwrap() > last);
        if round % 2 == 0 {
            repository.soft_delete(id, None).await.unwrap();
        }
        let deletion = repository.hard_delete(id).await.unwrap();
        assert!(deletion.document.is_none() && deletion.stamp > inserted.revision().unwrap());
        last = deletion.stamp;
    }
    assert_eq!(repository.hard_delete(id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_from_a_faster_clock_is_passed() {
    let fixture = Fixture::new().await;
    let id = insert(&fixture, json!({})).await;
    let ahead = i64::try_from(fixture.clock.now()).unwrap() + (60_000 << 20);
    let key = doc! { "_id": id.object_id() };
    fixture.foreign.update_one(key, doc! { "$set": { "revision": ahead } }).await.unwrap();
    let updated = fixture.repository.update(id, &patch(json!({ "summary": "s" }))).await.unwrap();
    assert_eq!(updated.revision(), Some(ahead.unsigned_abs() + 1));
    assert!(fixture.clock.now() > ahead.unsigned_abs() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_updates_are_all_there_and_revisions_are_distinct() {
    let fixture = Fixture::new().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(insert(&fixture, json!({})).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let (repository, ids) = (fixture.repository.clone(), ids.clone());
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for (index, id) in ids.into_iter().enumerate() {
                let change = patch(json!({ format!("field_{task}"): task }));
                revisions.push((index, repository.update(id, &change).await.unwrap().revision().unwrap()));
            }
            revisions
        });
    }
    let revisions: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(revisions.iter().collect::<HashSet<_>>().len(), 64 * 4);
    for (index, id) in ids.into_iter().enumerate() {
        let cell = fixture.repository.get(id, Visibility::Live).await.unwrap().unwrap();
        let fields = document(&cell);
        assert!(
            (0..64).all(|task| fields.get_i32(format!("field_{task}")).is_ok_and(|value| value == task)),
            "an update was lost"
        );
        let largest = revisions.iter().filter(|(of, _)| *of == index).map(|(_, revision)| *revision).max();
        assert_eq!(cell.revision(), largest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reports_each_document_by_its_place() {
    let fixture = Fixture::new().await;
    let taken = insert(&fixture, json!({})).await;
    let twice = EventId::new();
    let cells = vec![
        new(json!({ "summary": "a" })),
        new(json!({ "event_id": taken.to_string() })),
        new(json!({ "event_id": twice.to_string(), "summary": "first" })),
        new(json!({ "event_id": twice.to_string(), "summary": "second" })),
        new(json!({ "summary": "b" })),
    ];
    let results = fixture.repository.insert_many(cells).await.unwrap();
    let outcomes: Vec<_> = results.iter().map(|result| result.as_ref().map_err(|error| error.kind()).err()).collect();
    let refused = Some(ErrorKind::AlreadyExists);
    assert_eq!(outcomes, [None, refused, None, refused, None]);
    for cell in results.into_iter().flatten() {
        let id = cell.event_id().unwrap();
        assert_eq!(fixture.repository.get(id, Visibility::Live).await.unwrap(), Some(cell));
    }
    let kept = fixture.repository.get(twice, Visibility::Live).await.unwrap().unwrap();
    assert_eq!(document(&kept).get_str("summary").unwrap(), "first");
    assert!(fixture.repository.insert_many(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_sent_in_several_commands() {
    let fixture = Fixture::new().await;
    let taken = insert(&fixture, json!({})).await;
    let mut cells: Vec<_> = (0..2500).map(|number| new(json!({ "number": number }))).collect();
    cells[2345] = new(json!({ "event_id": taken.to_string() }));
    let results = fixture.repository.insert_many(cells).await.unwrap();
    assert_eq!(results.len(), 2500);
    for (number, result) in results.iter().enumerate() {
        match result {
            Ok(cell) => assert_eq!(document(cell).get_i32("number").unwrap(), i32::try_from(number).unwrap()),
            Err(error) => assert_eq!((number, error.kind()), (2345, ErrorKind::AlreadyExists)),
        }
    }
    assert_eq!(fixture.repository.count(&Default::default()).await.unwrap(), 2500);
}
