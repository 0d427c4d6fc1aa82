//! What the stream of changes tells, where it goes on, and what takes its place on a standalone server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc, oid::ObjectId};
use futures::StreamExt as _;
use memcell_host::memcell::DocumentKey;
use memcell_host::mongo::{ChangeEvent, Changes, ChangesError, Position};
use serde_json::json;

use super::server::Server;
use super::{Fixture, insert, patch};

const PATIENCE: Duration = Duration::from_secs(30);

/// The next keys that change, and the position after them.
async fn keys(changes: &mut Changes, count: usize) -> (Vec<String>, Position) {
    let deadline = Instant::now() + PATIENCE;
    let mut keys = Vec::new();
    loop {
        match changes.next().await.unwrap() {
            ChangeEvent::Changed { key, position, at_millis, .. } => {
                assert!(at_millis > 1_600_000_000_000, "{at_millis}");
                keys.push(key.to_string());
                if keys.len() == count {
                    return (keys, position);
                }
            }
            ChangeEvent::Quiet { .. } => assert!(Instant::now() < deadline, "only {keys:?} came"),
            other => panic!("{other:?}"),
        }
    }
}

async fn quiet(changes: &mut Changes) -> Option<Position> {
    loop {
        if let ChangeEvent::Quiet { position, .. } = changes.next().await.unwrap() {
            return position;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_changes_are_told_in_order_and_from_any_position() {
    let fixture = Fixture::new().await;
    let first = insert(&fixture, json!({})).await;
    let mut changes = fixture.repository.changes(None).await.unwrap();
    fixture.repository.update(first, &patch(json!({ "summary": "s" }))).await.unwrap();
    fixture.foreign.insert_one(doc! { "_id": "text" }).await.unwrap();
    // The insert is told as well: a stream without a position reaches back a little.
    let (told, position) = keys(&mut changes, 3).await;
    assert_eq!(told, [first.to_string(), first.to_string(), "\"text\"".to_owned()]);
    fixture.repository.soft_delete(first, None).await.unwrap();
    fixture.foreign.delete_one(doc! { "_id": "text" }).await.unwrap();
    fixture.foreign.update_many(doc! {}, doc! { "$set": { "x": 1 } }).await.unwrap();
    let rest = [first.to_string(), "\"text\"".to_owned(), first.to_string()];
    assert_eq!(keys(&mut changes, 3).await.0, rest);
    drop(changes);

    let position = Position::from_text(&position.to_text().unwrap()).unwrap();
    let mut again = fixture.repository.changes(Some(&position)).await.unwrap();
    assert_eq!(keys(&mut again, 3).await.0, rest);
    let after = quiet(&mut again).await.expect("a quiet server says how far it has looked");
    let mut resumed = fixture.repository.changes(Some(&after)).await.unwrap();
    insert(&fixture, json!({})).await;
    assert_eq!(keys(&mut resumed, 1).await.0.len(), 1);
}

/// A copy of everything that is made after the stream was opened, and what the stream tells, leave out no change between them:
/// not even one that was being committed at that moment.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_falls_between_a_stream_and_a_copy_made_after_it() {
    const DOCUMENTS: i32 = 64;
    const WRITERS: i32 = 16;
    let fixture = Fixture::on(Server::start(&["--sync-on-commit"])).await;
    for id in 0..DOCUMENTS {
        fixture.foreign.insert_one(doc! { "_id": id, "n": 0 }).await.unwrap();
    }
    for round in 0..8 {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stop, foreign) = (Arc::clone(&stop), fixture.foreign.clone());
                tokio::spawn(async move {
                    let mut id = writer;
                    while !stop.load(Ordering::Relaxed) {
                        foreign.update_one(doc! { "_id": id }, doc! { "$inc": { "n": 1 } }).await.unwrap();
                        id = (id + WRITERS) % DOCUMENTS;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut changes = fixture.repository.changes(None).await.unwrap();
        let copied = everything(&fixture).await;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        let mut told = BTreeSet::new();
        let opened = Instant::now();
        loop {
            match changes.next().await.unwrap() {
                ChangeEvent::Changed { key, .. } => drop(told.insert(key.to_string())),
                ChangeEvent::Quiet { .. } => break,
                other => panic!("{other:?}"),
            }
            assert!(opened.elapsed() < PATIENCE);
        }
        for (key, document) in everything(&fixture).await {
            assert!(
                copied.get(&key) == Some(&document) || told.contains(&key),
                "round {round}: {key} was neither copied nor told"
            );
        }
    }
}

async fn everything(fixture: &Fixture) -> BTreeMap<String, Vec<u8>> {
    let documents: Vec<_> = fixture.repository.scan().await.unwrap().collect().await;
    let entry = |document: memcell_host::Result<memcell_host::memcell::MemCell>| {
        let document = document.unwrap();
        (document.key().unwrap().to_string(), document.as_raw().as_bytes().to_vec())
    };
    documents.into_iter().map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_transaction_is_told_and_an_aborted_one_is_not() {
    let fixture = Fixture::new().await;
    let mut changes = fixture.repository.changes(None).await.unwrap();
    let aborted = fixture.repository.transaction(|transaction| {
        Box::pin(async move {
            transaction.insert(super::new(json!({}))).await?;
            Err::<(), _>(memcell_host::Error::new(memcell_host::ErrorKind::Conflict, "on purpose"))
        })
    });
    assert!(aborted.await.is_err());
    let committed = fixture.repository.transaction(|transaction| {
        Box::pin(async move { transaction.insert(super::new(json!({}))).await.map(|cell| cell.event_id()) })
    });
    let id = committed.await.unwrap().value.unwrap();
    assert_eq!(keys(&mut changes, 1).await.0, [DocumentKey::from(id).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_collection_is_told_and_survived() {
    let fixture = Fixture::new().await;
    insert(&fixture, json!({})).await;
    let mut changes = fixture.repository.changes(None).await.unwrap();
    fixture.foreign.drop().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let end = loop {
        match changes.next().await.unwrap() {
            ChangeEvent::Ended { position } => break position,
            _ => assert!(Instant::now() < deadline, "the drop was not told"),
        }
    };
    let mut after = fixture.repository.changes(Some(&end)).await.unwrap();
    let id = insert(&fixture, json!({})).await;
    assert_eq!(keys(&mut after, 1).await.0, [id.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_nowhere_is_lost_history() {
    let fixture = Fixture::new().await;
    insert(&fixture, json!({})).await;
    for text in [r#"{"token":{"_data":"82"}}"#, r#"{"token":{"_data":"nonsense"}}"#] {
        let nowhere = Position::from_text(text).unwrap();
        match fixture.repository.changes(Some(&nowhere)).await {
            Err(ChangesError::HistoryLost(_)) => {}
            Err(other) => panic!("{text}: {other:?}"),
            Ok(mut changes) => match changes.next().await {
                Err(ChangesError::HistoryLost(_)) => {}
                other => panic!("{text}: {other:?}"),
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_server_is_polled() {
    let fixture = Fixture::on(Server::start(&["--standalone"])).await;
    let old: Document = doc! { "_id": ObjectId::new(), "updated_at": bson::DateTime::from_millis(1_700_000_000_000) };
    fixture.foreign.insert_one(old).await.unwrap();
    let mut changes = fixture.repository.changes(None).await.unwrap();
    let first = insert(&fixture, json!({})).await;
    assert_eq!(keys(&mut changes, 1).await.0, [first.to_string()]);
    quiet(&mut changes).await;
    fixture.repository.update(first, &patch(json!({ "summary": "s" }))).await.unwrap();
    let (told, position) = keys(&mut changes, 1).await;
    assert_eq!(told, [first.to_string()], "a change is told once");
    assert!(matches!(position, Position::Polled(_)));
    let mut again = fixture.repository.changes(Some(&position)).await.unwrap();
    assert_eq!(keys(&mut again, 1).await.0, [first.to_string()]);
}
