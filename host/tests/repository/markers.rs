//! Markers: what became of a transaction that somebody prepared for.

use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use memcell_host::change::Change;
use memcell_host::memcell::EventId;
use memcell_host::mongo::{Decision, Ending, Participants, Repository};
use memcell_host::query::Visibility;
use memcell_host::steps::Step;
use serde_json::json;
use tokio::time::Instant;

use crate::{Fixture, new};

/// Prepares for everything, and remembers what it is told. Somebody else decides the first `given_up` attempts.
struct Prepares {
    repository: Repository,
    given_up: usize,
    attempts: Mutex<Vec<String>>,
    endings: Mutex<Vec<Ending>>,
}

impl Prepares {
    fn new(repository: &Repository, given_up: usize) -> Self {
        Self { repository: repository.clone(), given_up, attempts: Mutex::default(), endings: Mutex::default() }
    }
}

impl Participants for Prepares {
    fn reached<'a>(&'a self, _: Step, _: &'a str) -> BoxFuture<'a, ()> {
        async {}.boxed()
    }

    fn prepare<'a>(&'a self, id: &'a str, changes: &'a [Change], _: Instant) -> BoxFuture<'a, Vec<String>> {
        async move {
            assert_eq!(changes.len(), 1);
            let attempt = {
                let mut attempts = self.attempts.lock().unwrap();
                attempts.push(id.to_owned());
                attempts.len()
            };
            if attempt <= self.given_up {
                assert_eq!(self.repository.decide(id).await.unwrap(), Decision::Aborted);
            }
            vec!["one".to_owned(), "two".to_owned()]
        }
        .boxed()
    }

    fn ended(&self, ending: Ending) {
        self.endings.lock().unwrap().push(ending);
    }
}

async fn write(fixture: &Fixture, participants: &Prepares) -> EventId {
    let id = EventId::new();
    fixture
        .repository
        .transaction_with(participants, |transaction| {
            async move { transaction.insert(new(json!({ "event_id": id.to_string() }))).await.map(drop) }.boxed()
        })
        .await
        .unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_transaction_has_a_marker_until_all_have_carried_it_out() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    repository.prepare_markers().await.unwrap();
    repository.prepare_markers().await.unwrap();
    let participants = Prepares::new(repository, 0);
    write(&fixture, &participants).await;
    let id = participants.attempts.lock().unwrap()[0].clone();
    assert!(participants.endings.lock().unwrap().is_empty());
    for _ in 0..2 {
        assert_eq!(repository.decide(&id).await.unwrap(), Decision::Committed);
    }
    repository.forget(&id, &["two".to_owned()]).await.unwrap();
    assert_eq!(repository.decide(&id).await.unwrap(), Decision::Committed);
    repository.forget(&id, &["one".to_owned()]).await.unwrap();
    // Nobody can know any more, and nobody needs to.
    assert_eq!(repository.decide(&id).await.unwrap(), Decision::Aborted);
    // All at once.
    write(&fixture, &participants).await;
    let id = participants.attempts.lock().unwrap()[1].clone();
    repository.forget(&id, &["one".to_owned(), "two".to_owned()]).await.unwrap();
    assert_eq!(repository.decide(&id).await.unwrap(), Decision::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_can_not_be_committed() {
    let fixture = Fixture::new().await;
    fixture.repository.prepare_markers().await.unwrap();
    let participants = Prepares::new(&fixture.repository, 2);
    let id = write(&fixture, &participants).await;
    let attempts = participants.attempts.lock().unwrap().clone();
    assert_eq!(attempts.len(), 3, "each attempt has an id of its own");
    assert_eq!(*participants.endings.lock().unwrap(), [Ending::Aborted, Ending::Aborted]);
    let mut decisions = Vec::new();
    for attempt in &attempts {
        decisions.push(fixture.repository.decide(attempt).await.unwrap());
    }
    assert_eq!(decisions, [Decision::Aborted, Decision::Aborted, Decision::Committed]);
    assert!(fixture.repository.get(id, Visibility::Live).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_prepared_for_has_no_marker() {
    let fixture = Fixture::new().await;
    fixture.repository.prepare_markers().await.unwrap();
    let inserted = EventId::new();
    fixture
        .repository
        .transaction(|transaction| {
            async move { transaction.insert(new(json!({ "event_id": inserted.to_string() }))).await.map(drop) }.boxed()
        })
        .await
        .unwrap();
    let markers = fixture.foreign.client().database("memcell").collection::<bson::Document>("memcells.transactions");
    assert_eq!(markers.count_documents(bson::doc! {}).await.unwrap(), 0);
}
