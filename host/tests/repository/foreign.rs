//! Documents that another program wrote: any type of id, any kind of revision.

use bson::{Binary, Bson, DateTime, Decimal128, doc, spec::BinarySubtype};
use memcell_host::ErrorKind;
use memcell_host::memcell::{DocumentKey, EventId, MemCell};
use memcell_host::query::{BulkScope, TimeRange, Visibility};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use serde_json::json;

use crate::{Fixture, all, insert, new, patch};

fn ids() -> Vec<Bson> {
    vec![
        Bson::MinKey,
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::Int32(5),
        Bson::Int64(6),
        Bson::Double(7.5),
        Bson::Decimal128("8.5".parse::<Decimal128>().unwrap()),
        "text".into(),
        doc! { "a": 1, "b": "$c" }.into(),
        Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] }),
        bson::oid::ObjectId::new().into(),
        true.into(),
        DateTime::from_millis(5).into(),
        Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 }),
        Bson::MaxKey,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_revision_does_not_stop_it() {
    let fixture = Fixture::new().await;
    let garbage = [
        Bson::Null,
        "9999999999999999999".into(),
        "text".into(),
        Bson::Int32(-7),
        Bson::Int32(12),
        Bson::Double(12.5),
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Double(1e300),
        Bson::Decimal128("1E+6000".parse::<Decimal128>().unwrap()),
        true.into(),
        DateTime::now().into(),
        vec![1].into(),
        doc! { "$add": [1, 2] }.into(),
    ];
    for revision in garbage {
        let id = EventId::new();
        let written = doc! { "_id": id.object_id(), "timestamp": DateTime::now(), "revision": &revision };
        fixture.foreign.insert_one(written).await.unwrap();
        let reading = fixture.clock.now();
        let updated = fixture.repository.update(id, &patch(json!({ "summary": "s" }))).await.unwrap();
        assert!(matches!(updated.field("revision"), Some(bson::RawBsonRef::Int64(_))), "{revision:?}");
        assert!((reading..fixture.clock.now()).contains(&updated.revision().unwrap()), "{revision:?}");
    }
    let id = EventId::new();
    let written = doc! { "_id": id.object_id(), "timestamp": DateTime::now(), "revision": i64::MAX };
    fixture.foreign.insert_one(written).await.unwrap();
    let updated = fixture.repository.update(id, &patch(json!({ "summary": "s" }))).await.unwrap();
    assert_eq!(updated.revision(), Some(i64::MAX.unsigned_abs()));
    assert_eq!(fixture.repository.hard_delete(id).await.unwrap().stamp, i64::MAX.unsigned_abs() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_revision_gets_one_with_its_first_change() {
    let fixture = Fixture::new().await;
    let id = EventId::new();
    fixture.foreign.insert_one(doc! { "_id": id.object_id(), "timestamp": DateTime::now() }).await.unwrap();
    let reading = fixture.clock.now();
    let deletion = fixture.repository.soft_delete(id, None).await.unwrap();
    assert!((reading..fixture.clock.now()).contains(&deletion.stamp));
    fixture.foreign.update_one(doc! {}, doc! { "$unset": { "revision": 1 } }).await.unwrap();
    assert!(fixture.repository.hard_delete(id).await.unwrap().stamp > deletion.stamp);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_a_unique_index_of_others_is_told_its_name() {
    let fixture = Fixture::new().await;
    let unique = IndexOptions::builder().name("one per user".to_owned()).unique(true).build();
    let index = IndexModel::builder().keys(doc! { "user_id": 1 }).options(unique).build();
    fixture.foreign.create_index(index).await.unwrap();
    insert(&fixture, json!({ "user_id": "u" })).await;
    let other = insert(&fixture, json!({ "user_id": "v" })).await;
    let same = || new(json!({ "user_id": "u" }));
    let mut errors = vec![
        fixture.repository.insert(same()).await.unwrap_err(),
        fixture.repository.update(other, &patch(json!({ "user_id": "u" }))).await.unwrap_err(),
    ];
    errors.extend(fixture.repository.insert_many(vec![same()]).await.unwrap().into_iter().map(Result::unwrap_err));
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let told = "a document with the same value in the unique index \"one per user\" exists already";
        assert_eq!(error.message(), told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_any_type_are_scanned_fetched_and_deleted() {
    let fixture = Fixture::new().await;
    for id in ids() {
        fixture.foreign.insert_one(doc! { "_id": id, "user_id": "u", "timestamp": DateTime::now() }).await.unwrap();
    }
    let scanned = all(fixture.repository.scan().await.unwrap()).await;
    assert_eq!(scanned.len(), ids().len());
    let keys: Vec<DocumentKey> = scanned.iter().map(|cell| cell.key().unwrap()).collect();
    let mut fetched: Vec<String> =
        fixture.repository.fetch(&keys).await.unwrap().iter().map(|cell| cell.key().unwrap().to_string()).collect();
    let mut expected: Vec<String> = keys.iter().map(DocumentKey::to_string).collect();
    fetched.sort();
    expected.sort();
    assert_eq!(fetched, expected);
    for key in &keys {
        let cell = fixture.repository.get_by_key(key, Visibility::Live).await.unwrap();
        assert_eq!(cell.unwrap().key().unwrap(), *key);
    }

    // The development server reads and deletes documents under these two ids, but updates none.
    let extremes = doc! { "_id": { "$in": [Bson::MinKey, Bson::MaxKey] } };
    assert_eq!(fixture.foreign.delete_many(extremes).await.unwrap().deleted_count, 2);
    let keys = &keys[1..keys.len() - 1];
    let scope = BulkScope { user_id: Some("u".into()), range: TimeRange::default() };
    let mut changed = Vec::new();
    let count = fixture.repository.soft_delete_many(&scope, None, &mut |change| changed.push(change.key)).await;
    assert_eq!(count.unwrap(), keys.len() as u64);
    changed.sort();
    let mut keys_sorted = keys.to_vec();
    keys_sorted.sort();
    assert_eq!(changed, keys_sorted);
    assert_eq!(fixture.repository.restore_many(&scope, &mut |_| {}).await.unwrap(), keys.len() as u64);
    assert_eq!(fixture.repository.hard_delete_many(&scope, &mut |_| {}).await.unwrap(), keys.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_sees_everything_once_across_its_queries() {
    let fixture = Fixture::new().await;
    let mut written: Vec<_> = (0..1203).map(|number| doc! { "_id": number }).collect();
    written.extend((0..700).map(|number| doc! { "_id": format!("{number:04}"), "deleted_at": DateTime::now() }));
    fixture.foreign.insert_many(&written).await.unwrap();
    let scanned: Vec<Bson> = all(fixture.repository.scan().await.unwrap()).await.iter().map(id).collect();
    let expected: Vec<Bson> = written.iter().map(|cell| cell.get("_id").unwrap().clone()).collect();
    assert_eq!(scanned, expected);
    fixture.foreign.delete_many(doc! {}).await.unwrap();
    assert!(all(fixture.repository.scan().await.unwrap()).await.is_empty());
}

fn id(cell: &MemCell) -> Bson {
    Bson::try_from(cell.field("_id").unwrap()).unwrap()
}
