//! A server that is gone, hangs, or comes back.

use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use memcell_host::memcell::{DocumentKey, EventId};
use memcell_host::mongo::{IdRange, Route};
use memcell_host::query::{BulkScope, Filter, Page, TimeRange, Visibility};
use memcell_host::{ErrorKind, Result};
use serde_json::json;

use crate::server::Server;
use crate::{Fixture, insert, new, patch};

/// Every operation once, with how long it took and how it ended.
async fn every_operation(fixture: &Fixture, id: EventId) -> Vec<(&'static str, Duration, Option<ErrorKind>)> {
    let repository = &fixture.repository;
    let scope = BulkScope { user_id: Some("u".into()), range: TimeRange::default() };
    let mut outcomes = Vec::new();
    macro_rules! attempt {
        ($name:literal, $operation:expr) => {{
            let started = Instant::now();
            let outcome = $operation.await.map(drop);
            outcomes.push(($name, started.elapsed(), outcome.err().map(|error| error.kind())));
        }};
    }
    attempt!("ping", repository.ping());
    attempt!("insert", repository.insert(new(json!({}))));
    attempt!("insert_many", repository.insert_many(vec![new(json!({})), new(json!({}))]));
    attempt!("update", repository.update(id, &patch(json!({ "summary": "s" }))));
    attempt!("soft_delete", repository.soft_delete(id, None));
    attempt!("restore", repository.restore(id));
    attempt!("get", repository.get(id, Visibility::Live));
    attempt!("get_many", repository.get_many(&[id], None));
    attempt!("fetch", repository.fetch(&[id.into()]));
    attempt!("scan", repository.scan());
    attempt!("find", repository.find(&Filter::default(), &Page::default()));
    attempt!("count", repository.count(&Filter::default()));
    attempt!("activity_summary", repository.activity_summary("u", TimeRange::default()));
    attempt!("soft_delete_many", repository.soft_delete_many(&scope, None, &mut |_| {}));
    attempt!(
        "transaction",
        repository.transaction(|transaction| {
            async move { transaction.update(id, &patch(json!({ "summary": "t" }))).await }.boxed()
        })
    );
    attempt!("ensure_indexes", repository.ensure_indexes());
    attempt!("hard_delete", repository.hard_delete(id));
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_unavailable_soon_and_used_again_once_it_is_back() {
    // The development server syncs its log on a timer unless told otherwise; a crash would take the document along.
    let mut fixture = Fixture::on(Server::start(&["--sync-on-commit"])).await;
    let id = insert(&fixture, json!({ "user_id": "other" })).await;
    fixture.server.kill();
    for (operation, took, ended) in every_operation(&fixture, id).await {
        assert_eq!(ended, Some(ErrorKind::Unavailable), "{operation}");
        assert!(took < Duration::from_secs(5), "{operation} took {took:?}");
    }
    fixture.server.launch();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = fixture.repository.ping().await {
        assert!(error.is_retryable() && Instant::now() < deadline, "{error:?}");
    }
    for (operation, _, ended) in every_operation(&fixture, id).await {
        assert_eq!(ended, None, "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up_in_time() {
    let fixture = Fixture::new().await;
    let id = insert(&fixture, json!({})).await;
    fixture.server.freeze();
    let repository = &fixture.repository;
    let started = Instant::now();
    let change = patch(json!({ "summary": "s" }));
    let (read, written, begun) = tokio::join!(
        repository.get(id, Visibility::Live),
        repository.update(id, &change),
        repository.transaction(|transaction| { async move { transaction.get(id, Visibility::Live).await }.boxed() }),
    );
    let took = started.elapsed();
    fixture.server.thaw();
    for error in [read.err(), written.err(), begun.err()] {
        let kind = error.map(|error| error.kind());
        assert!(matches!(kind, Some(ErrorKind::Timeout | ErrorKind::Unavailable)), "{kind:?}");
    }
    assert!(took < Duration::from_secs(16), "{took:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = repository.ping().await {
        assert!(error.is_retryable() && Instant::now() < deadline, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_says_so() {
    let mut fixture = Fixture::new().await;
    let cells = (0..400).map(|number| new(json!({ "number": number, "summary": "x".repeat(1000) }))).collect();
    fixture.repository.insert_many(cells).await.unwrap();
    let mut stream = fixture.repository.find(&Filter::default(), &Page::default()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    fixture.server.kill();
    let rest: Vec<Result<_>> = stream.collect().await;
    assert!(rest.len() < 399, "everything had been sent already");
    let (last, read) = rest.split_last().unwrap();
    assert!(read.iter().all(Result::is_ok));
    assert!(last.as_ref().unwrap_err().is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_needs_no_server() {
    let mut fixture = Fixture::new().await;
    fixture.server.kill();
    let options = crate::options(&fixture.server.uri());
    let repository = memcell_host::mongo::Repository::connect(&options, fixture.clock.clone()).await.unwrap();
    assert_eq!(repository.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_by_ids_outlives_its_query() {
    let mut fixture = Fixture::on(Server::start(&["--sync-on-commit"])).await;
    let documents: Vec<_> = (0..8000_i32).map(|n| bson::doc! { "_id": n }).collect();
    fixture.foreign.insert_many(&documents).await.unwrap();
    let mut by_ids = fixture.repository.walk(Route::Ids(IdRange::default()));
    let mut natural = fixture.repository.walk(Route::Natural);
    let first = by_ids.next().await.unwrap();
    natural.next().await.unwrap();
    // What is read ahead is there by then: a request that is under way fails with the server, and the walk with it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.server.kill();
    fixture.server.launch();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = fixture.repository.ping().await {
        assert!(error.is_retryable() && Instant::now() < deadline, "{error:?}");
    }
    let mut ids: Vec<_> = first.documents.iter().map(|cell| cell.key().unwrap()).collect();
    loop {
        let batch = by_ids.next().await.unwrap();
        ids.extend(batch.documents.iter().map(|cell| cell.key().unwrap()));
        if batch.next.is_none() {
            break;
        }
    }
    let all = documents.iter().map(|document| document.get("_id").unwrap().clone());
    let keys = all.map(|id| DocumentKey::from_id(bson::RawBson::try_from(id).unwrap().as_raw_bson_ref()).unwrap());
    assert!(ids.into_iter().eq(keys), "each once, in their order");
    let error = loop {
        match natural.next().await {
            Ok(batch) => assert!(batch.next.is_some(), "the query was forgotten before its end"),
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable(), "{error:?}");
}
