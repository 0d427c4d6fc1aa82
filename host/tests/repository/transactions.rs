//! Transactions: all or nothing, retried in conflict.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use memcell_host::memcell::EventId;
use memcell_host::query::Visibility;
use memcell_host::{Error, ErrorKind, Result};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::server::Server;
use crate::{Fixture, document, insert, new, patch};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_there_and_told_in_order() {
    let fixture = Fixture::new().await;
    let updated = insert(&fixture, json!({ "summary": "old" })).await;
    let deleted = insert(&fixture, json!({})).await;
    let gone = insert(&fixture, json!({})).await;
    let inserted = EventId::new();
    let outside = fixture.repository.clone();
    let committed = fixture
        .repository
        .transaction(|transaction| {
            let outside = outside.clone();
            async move {
                transaction.insert(new(json!({ "event_id": inserted.to_string() }))).await?;
                transaction.update(updated, &patch(json!({ "summary": "new" }))).await?;
                transaction.soft_delete(deleted, None).await?;
                transaction.restore(deleted).await?;
                assert!(transaction.restore(deleted).await?.is_none());
                transaction.hard_delete(gone).await?;
                // An answer that something is not there is no failure of the transaction.
                let missing = transaction.update(gone, &patch(json!({ "summary": "x" }))).await.unwrap_err();
                assert_eq!(missing.kind(), ErrorKind::NotFound);
                assert!(transaction.get(inserted, Visibility::Live).await?.is_some());
                assert!(outside.get(inserted, Visibility::Live).await?.is_none());
                Ok("done")
            }
            .boxed()
        })
        .await
        .unwrap();
    assert_eq!(committed.value, "done");
    let keys: Vec<_> = committed.changes.iter().map(|change| change.key.clone()).collect();
    assert_eq!(keys, [inserted, updated, deleted, deleted, gone].map(Into::into));
    let live: Vec<_> = committed.changes.iter().map(|change| change.document.is_some()).collect();
    assert_eq!(live, [true, true, false, true, false]);
    for change in committed.changes.iter().filter(|change| change.document.is_some()) {
        let cell = fixture.repository.get_by_key(&change.key, Visibility::Live).await.unwrap();
        assert_eq!((cell.as_ref().unwrap().revision(), &cell), (Some(change.stamp), &change.document));
    }
    assert!(fixture.repository.get(gone, Visibility::All).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_aborted_transaction_is_left() {
    let fixture = Fixture::new().await;
    let taken = insert(&fixture, json!({ "summary": "old" })).await;
    let id = EventId::new();
    let calls = AtomicUsize::new(0);
    let aborted: Result<_> = fixture
        .repository
        .transaction(|transaction| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move {
                transaction.insert(new(json!({ "event_id": id.to_string() }))).await?;
                transaction.update(taken, &patch(json!({ "summary": "new" }))).await?;
                Err::<(), _>(Error::new(ErrorKind::InvalidArgument, "changed my mind"))
            }
            .boxed()
        })
        .await;
    assert_eq!(aborted.unwrap_err().message(), "changed my mind");

    // A body that ignores a failure can't commit the rest.
    let ignored = fixture
        .repository
        .transaction(|transaction| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move {
                transaction.insert(new(json!({ "event_id": id.to_string() }))).await?;
                let refused = transaction.insert(new(json!({ "event_id": taken.to_string() }))).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
                assert!(transaction.get(id, Visibility::All).await.is_err());
                Ok(())
            }
            .boxed()
        })
        .await;
    assert_eq!(ignored.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert!(fixture.repository.get(id, Visibility::All).await.unwrap().is_none());
    let kept = fixture.repository.get(taken, Visibility::Live).await.unwrap().unwrap();
    assert_eq!(document(&kept).get_str("summary").unwrap(), "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_in_conflict_are_run_again() {
    let fixture = Fixture::new().await;
    let ids = [insert(&fixture, json!({ "number": 0 })).await, insert(&fixture, json!({ "number": 0 })).await];
    let calls = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (repository, calls) = (fixture.repository.clone(), Arc::clone(&calls));
        tasks.spawn(async move {
            for _ in 0..3 {
                let committed = repository
                    .transaction(|transaction| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        async move {
                            for id in ids {
                                let cell = transaction.get(id, Visibility::Live).await?.unwrap();
                                let number = document(&cell).get_i32("number").unwrap();
                                transaction.update(id, &patch(json!({ "number": number + 1 }))).await?;
                            }
                            Ok(())
                        }
                        .boxed()
                    })
                    .await
                    .unwrap();
                assert_eq!(committed.changes.len(), 2, "changes of an earlier attempt were kept");
            }
        });
    }
    tasks.join_all().await;
    assert!(calls.load(Ordering::Relaxed) > 24, "there was no conflict to speak of");
    for id in ids {
        let cell = fixture.repository.get(id, Visibility::Live).await.unwrap().unwrap();
        assert_eq!(document(&cell).get_i32("number").unwrap(), 24);
    }
}

/// Whoever waits for the transaction in MongoDB, and whoever waits for them, has to wait for its end, and not it for theirs.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_for_a_transaction_are_not_waited_for() {
    let fixture = Fixture::new().await;
    let id = insert(&fixture, json!({ "number": 0 })).await;
    let started = Instant::now();
    let others = Arc::new(Mutex::new(JoinSet::new()));
    let committed = fixture.repository.transaction(|transaction| {
        let (repository, others) = (fixture.repository.clone(), Arc::clone(&others));
        async move {
            transaction.update(id, &patch(json!({ "number": 1 }))).await?;
            let updating = repository.clone();
            let mut others = others.lock().await;
            others.spawn(async move { updating.update(id, &patch(json!({ "other": 1 }))).await.map(drop) });
            tokio::time::sleep(Duration::from_millis(200)).await;
            others.spawn(async move { repository.insert(new(json!({ "event_id": id.to_string() }))).await.map(drop) });
            tokio::time::sleep(Duration::from_millis(200)).await;
            transaction.update(id, &patch(json!({ "number": 2 }))).await
        }
        .boxed()
    });
    assert_eq!(committed.await.unwrap().changes.len(), 2);
    let mut ends = Vec::new();
    while let Some(end) = others.lock().await.join_next().await {
        ends.push(end.unwrap().map_err(|error| error.kind()));
    }
    assert_eq!(ends.len(), 2);
    assert!(ends.contains(&Ok(())) && ends.contains(&Err(ErrorKind::AlreadyExists)), "{ends:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "somebody's time ran out: {:?}", started.elapsed());
    let cell = fixture.repository.get(id, Visibility::Live).await.unwrap().unwrap();
    let number = |name: &str| document(&cell).get_i32(name).ok();
    assert_eq!((number("number"), number("other")), (Some(2), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_inserts_of_an_id_are_not_in_each_others_way() {
    let fixture = Fixture::new().await;
    let id = EventId::new();
    let started = Instant::now();
    let others = Arc::new(Mutex::new(JoinSet::new()));
    let committed = fixture.repository.transaction(|transaction| {
        let (repository, others) = (fixture.repository.clone(), Arc::clone(&others));
        async move {
            transaction.insert(new(json!({ "event_id": id.to_string(), "by": "transaction" }))).await?;
            let other = new(json!({ "event_id": id.to_string(), "by": "other" }));
            others.lock().await.spawn(async move { repository.insert(other).await.map(drop) });
            tokio::time::sleep(Duration::from_millis(200)).await;
            transaction.update(id, &patch(json!({ "number": 1 }))).await
        }
        .boxed()
    });
    let committed = committed.await.map(drop).map_err(|error| error.kind());
    // One for each attempt.
    let mut ends = Vec::new();
    while let Some(end) = others.lock().await.join_next().await {
        ends.push(end.unwrap().map_err(|error| error.kind()));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "somebody's time ran out: {:?}", started.elapsed());
    let cell = fixture.repository.get(id, Visibility::Live).await.unwrap().unwrap();
    let taken = Err(ErrorKind::AlreadyExists);
    if document(&cell).get_str("by").is_ok_and(|by| by == "transaction") {
        assert!(committed.is_ok() && ends.iter().all(|end| *end == taken), "{committed:?} {ends:?}");
    } else {
        assert!(committed == taken && ends.contains(&Ok(())), "{committed:?} {ends:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_bounded_in_time() {
    let fixture = Fixture::new().await;
    let id = insert(&fixture, json!({ "summary": "old" })).await;
    let started = Instant::now();
    let stuck: Result<_> = fixture
        .repository
        .transaction(|transaction| {
            async move {
                transaction.update(id, &patch(json!({ "summary": "new" }))).await?;
                std::future::pending::<Result<()>>().await
            }
            .boxed()
        })
        .await;
    assert_eq!(stuck.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(started.elapsed().as_secs() < 16, "{:?}", started.elapsed());
    // The abort has set the document free.
    fixture.repository.update(id, &patch(json!({ "summary": "other" }))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_server_has_none() {
    let fixture = Fixture::on(Server::start(&["--standalone"])).await;
    let refused: Result<_> =
        fixture.repository.transaction(|_| async { panic!("the body was called") as Result<()> }.boxed()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
}
