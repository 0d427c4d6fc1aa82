//! Bulk operations: borders, and exactness while others write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{DateTime, doc};
use memcell_host::ErrorKind;
use memcell_host::change::Change;
use memcell_host::memcell::DocumentKey;
use memcell_host::query::{BulkScope, Filter, TimeRange, Visibility};
use serde_json::json;

use crate::{Fixture, insert, patch};

fn scope(user: Option<&str>, start: Option<i64>, end: Option<i64>) -> BulkScope {
    let at = |millis: Option<i64>| millis.map(DateTime::from_millis);
    BulkScope { user_id: user.map(Into::into), range: TimeRange { start: at(start), end: at(end) } }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_kept_to_its_borders() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let mut keys: HashMap<_, DocumentKey> = HashMap::new();
    for user in ["u", "v"] {
        for moment in [99, 100, 150, 199, 200] {
            let timestamp = DateTime::from_millis(moment).try_to_rfc3339_string().unwrap();
            let fields = json!({ "user_id": user, "participants": ["u", "v"], "timestamp": timestamp });
            keys.insert((user, moment), insert(&fixture, fields).await.into());
        }
    }
    let mut changes: Vec<Change> = Vec::new();
    let borders = scope(Some("u"), Some(100), Some(200));
    assert_eq!(repository.soft_delete_many(&borders, Some("me"), &mut |change| changes.push(change)).await.unwrap(), 3);
    let deleted: HashSet<_> = changes.iter().map(|change| change.key.clone()).collect();
    let expected = [100, 150, 199].map(|moment| keys[&("u", moment)].clone());
    assert_eq!(deleted, HashSet::from(expected));
    for change in &changes {
        let cell = repository.get_by_key(&change.key, Visibility::Deleted).await.unwrap().unwrap();
        assert_eq!((cell.revision(), change.document.is_none()), (Some(change.stamp), true));
    }
    assert_eq!(repository.soft_delete_many(&borders, None, &mut |_| panic!("deleted twice")).await.unwrap(), 0);

    let mut restored = Vec::new();
    let from = scope(None, Some(150), None);
    assert_eq!(repository.restore_many(&from, &mut |change| restored.push(change)).await.unwrap(), 2);
    assert!(restored.iter().all(|change| change.document.as_ref().is_some_and(|cell| !cell.is_deleted())));
    // One is soft-deleted still; deletion for good takes it along.
    let mut gone = Vec::new();
    assert_eq!(repository.hard_delete_many(&borders, &mut |change| gone.push(change)).await.unwrap(), 3);
    for change in gone {
        let before = changes.iter().find(|earlier| earlier.key == change.key).unwrap();
        assert!(change.stamp > before.stamp && change.document.is_none());
    }
    let everything = Filter { visibility: Visibility::All, ..Filter::default() };
    assert_eq!(repository.count(&everything).await.unwrap(), 7);

    for refused in [scope(None, None, None), scope(Some("u"), Some(2), Some(1))] {
        for outcome in [
            repository.soft_delete_many(&refused, None, &mut |_| {}).await,
            repository.hard_delete_many(&refused, &mut |_| {}).await,
            repository.restore_many(&refused, &mut |_| {}).await,
        ] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_chunk_is_worked_through() {
    let fixture = Fixture::new().await;
    let cells: Vec<_> = (0..2300).map(|number| doc! { "_id": number, "user_id": "u" }).collect();
    fixture.foreign.insert_many(cells).await.unwrap();
    let mut keys = HashSet::new();
    let of_user = scope(Some("u"), None, None);
    let count = fixture
        .repository
        .soft_delete_many(&of_user, None, &mut |change| {
            keys.insert(change.key);
        })
        .await;
    assert_eq!((count.unwrap(), keys.len()), (2300, 2300));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_exact_while_others_write() {
    let fixture = Fixture::new().await;
    let mut ids = Vec::new();
    for _ in 0..400 {
        ids.push(insert(&fixture, json!({ "user_id": "u" })).await);
    }
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4_usize {
        let (repository, ids, done) = (fixture.repository.clone(), ids.clone(), Arc::clone(&done));
        writers.spawn(async move {
            let mut stolen = HashSet::new();
            for id in ids.into_iter().rev().skip(writer * 50).step_by(3) {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                // Takes the document out of the scope, unless the bulk operation was there first.
                match repository.update(id, &patch(json!({ "user_id": "stolen" }))).await {
                    Ok(_) => {
                        stolen.insert(id.into());
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
                }
            }
            stolen
        });
    }
    let mut deleted = HashSet::new();
    let of_user = scope(Some("u"), None, None);
    let count = fixture
        .repository
        .soft_delete_many(&of_user, None, &mut |change| {
            deleted.insert(change.key);
        })
        .await;
    done.store(true, Ordering::Relaxed);
    assert_eq!(count.unwrap(), deleted.len() as u64);
    let stolen: HashSet<_> = writers.join_all().await.into_iter().flatten().collect();
    assert!(stolen.is_disjoint(&deleted));
    for id in ids {
        let cell = fixture.repository.get(id, Visibility::All).await.unwrap().unwrap();
        assert_eq!(cell.is_deleted(), deleted.contains(&id.into()));
        assert_eq!(!cell.is_deleted(), stolen.contains(&id.into()));
    }
}
