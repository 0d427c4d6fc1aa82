//! Leases, the parts of jobs, and what is restored.

use std::collections::HashMap;
use std::time::Duration;

use bson::{Bson, DateTime, RawBson, doc};
use memcell_host::memcell::{DocumentKey, MemCell};
use memcell_host::mongo::{
    Claim, Finding, IdRange, JobKind, JobRecord, JobState, Lease, LeaseNote, PartRecord, PartScope, Place, Repository,
    Returned, Route, Sighting, Tally, Walk,
};
use serde_json::json;

use super::{Fixture, insert};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

fn held(claim: Claim) -> Lease {
    match claim {
        Claim::Held(lease) => lease,
        Claim::Taken(holder) => panic!("{holder:?} has it"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_at_a_time_under_growing_tokens() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let first = held(acquire(repository, "tail", "a").await.unwrap());
    let note = LeaseNote { passed_millis: 7, newest_millis: 9, complete: true, store: "s".to_owned() };
    let first = repository.renew_lease(&first, LONG, note.clone()).await.unwrap().expect("it is still ours");
    let Claim::Taken(holder) = acquire(repository, "tail", "b").await.unwrap() else {
        panic!("two have it");
    };
    assert_eq!((holder.name.as_str(), &holder.note), ("a", &note));
    assert!(matches!(acquire(repository, "other", "b").await.unwrap(), Claim::Held(_)));

    repository.release_lease(&first).await.unwrap();
    let second = held(acquire(repository, "tail", "b").await.unwrap());
    assert!(second.token() > first.token());
    assert_eq!(
        repository.lease_holder("tail").await.unwrap().unwrap().note.passed_millis,
        7,
        "what was known stays known"
    );
    let higher = repository.raise_lease(&second, second.token() * 2, LONG).await.unwrap().expect("it is still ours");
    assert_eq!(higher.token(), second.token() * 2);
    assert_eq!(
        repository.raise_lease(&second, second.token() * 2, LONG).await.unwrap(),
        None,
        "that isn't its token any more"
    );
    assert_eq!(repository.raise_lease(&first, first.token() * 2, LONG).await.unwrap(), None, "nor is it his lease");
    let second = higher;
    // Whoever was the holder is none any more, whatever he does.
    assert_eq!(repository.renew_lease(&first, LONG, note.clone()).await.unwrap(), None);
    repository.release_lease(&first).await.unwrap();
    assert!(repository.renew_lease(&second, LONG, note).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_anybody_notes_is_told_to_every_holder() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    repository.note_loss("tail", true).await.unwrap();
    let first = held(acquire(repository, "tail", "a").await.unwrap());
    assert!(!first.loss_noted(), "of a lease that nobody ever had, nothing was lost");
    repository.note_loss("tail", true).await.unwrap();
    let first = repository.renew_lease(&first, LONG, LeaseNote::default()).await.unwrap().unwrap();
    assert!(first.loss_noted());
    repository.release_lease(&first).await.unwrap();
    let second = held(acquire(repository, "tail", "b").await.unwrap());
    assert!(second.loss_noted(), "until it was seen to");
    repository.note_loss("tail", false).await.unwrap();
    assert!(!repository.renew_lease(&second, LONG, LeaseNote::default()).await.unwrap().unwrap().loss_noted());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_renewed_ends() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let first = held(repository.acquire_lease("tail", "a", SHORT, &mut Sighting::default()).await.unwrap());
    let mut sighting = Sighting::default();
    let second = loop {
        if let Claim::Held(lease) = repository.acquire_lease("tail", "b", SHORT, &mut sighting).await.unwrap() {
            break lease;
        }
    };
    assert!(std::time::Instant::now() >= first.valid_until(), "nobody else had it while it was valid");
    assert!(second.token() > first.token());
    assert_eq!(repository.renew_lease(&first, LONG, LeaseNote::default()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ask_at_once_and_one_gets_it() {
    let fixture = Fixture::new().await;
    let ask = |n: usize| {
        let repository = fixture.repository.clone();
        tokio::spawn(async move { acquire(&repository, "tail", &format!("host {n}")).await })
    };
    let asked: Vec<_> = (0..16).map(ask).collect();
    let mut holders = 0;
    for claim in asked {
        holders += usize::from(matches!(claim.await.unwrap(), Ok(Claim::Held(_))));
    }
    assert_eq!(holders, 1);
}

async fn acquire(repository: &Repository, name: &str, holder: &str) -> memcell_host::Result<Claim> {
    repository.acquire_lease(name, holder, LONG, &mut Sighting::default()).await
}

fn job(id: &str) -> JobRecord {
    JobRecord {
        id: id.to_owned(),
        kind: JobKind::Verify,
        backend: "local".to_owned(),
        host: None,
        deep: true,
        sweep: false,
        rate: Some(100),
        state: JobState::Running,
        reason: None,
        cancel: false,
        estimate: 3,
        created_at: DateTime::now(),
        ended_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_taken_by_one_and_noted_by_him_alone() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let bounds = PartScope::Documents { after: Some(Bson::Int32(1)), up_to: Some(Bson::String("x".into())) };
    let parts = [PartRecord::new("j", 0, bounds.clone()), PartRecord::new("j", 1, PartScope::Entries { shard: 3 })];
    repository.create_job(&job("j"), &parts).await.unwrap();
    assert_eq!(repository.job("j").await.unwrap().unwrap().kind, JobKind::Verify);

    let mut seen = HashMap::new();
    let mut first = repository.take_part(&["j"], "a", SHORT, &mut seen).await.unwrap().unwrap();
    assert_eq!((first.record.scope.clone(), first.record.token), (bounds, 1));
    first.record.place = Some(Place::Id(Bson::String("$k".into())));
    first.record.tally = Tally { examined: 5, missing: 1, ..Tally::default() };
    let finding = Finding {
        event_id: "$x".into(),
        kind: "missing".into(),
        paths: vec!["a.$b".into()],
        reason: None,
        repaired: false,
    };
    first.record.findings.push(finding.clone());
    assert!(repository.advance_part(&first).await.unwrap());

    let second = repository.take_part(&["j"], "b", SHORT, &mut seen).await.unwrap().unwrap();
    assert_eq!(second.record.scope, PartScope::Entries { shard: 3 });
    // When the first one's time is over, somebody else goes on where it was, and the first one can't do any harm.
    let resumed = loop {
        if let Some(part) = repository.take_part(&["j"], "b", SHORT, &mut seen).await.unwrap() {
            break part;
        }
    };
    assert_eq!(resumed.record.place, Some(Place::Id(Bson::String("$k".into()))));
    assert_eq!((resumed.record.tally.examined, resumed.record.findings.clone()), (5, vec![finding]));
    first.record.done = true;
    assert!(!repository.advance_part(&first).await.unwrap());
    repository.release_part(&first).await.unwrap();
    assert!(repository.take_part(&["j"], "c", LONG, &mut seen).await.unwrap().is_none());
    repository.release_part(&second).await.unwrap();
    assert!(repository.take_part(&["j"], "c", LONG, &mut seen).await.unwrap().is_some());

    assert!(repository.cancel_job("j").await.unwrap());
    assert!(repository.end_job("j", JobState::Cancelled, None).await.unwrap());
    assert!(!repository.end_job("j", JobState::Done, None).await.unwrap(), "it has ended already");
    assert!(repository.list_jobs(true).await.unwrap().is_empty());
    assert_eq!(repository.list_jobs(false).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_hold_every_document_once_whatever_its_id() {
    let fixture = Fixture::new().await;
    let mut documents = Vec::new();
    for n in 0..6000_i32 {
        let id = match n % 6 {
            0 => Bson::Int32(n),
            1 => Bson::String(format!("{n}")),
            2 => Bson::Double(f64::from(n) + 0.5),
            3 => Bson::Document(doc! { "n": n }),
            4 => Bson::DateTime(DateTime::from_millis(n.into())),
            _ => Bson::ObjectId(bson::oid::ObjectId::new()),
        };
        documents.push(doc! { "_id": id, "n": n, "deleted_at": (n % 7 == 0).then(DateTime::now) });
    }
    documents.extend((0..6000).map(|n| doc! { "_id": bson::oid::ObjectId::new(), "n": 6000 + n }));
    for documents in documents.chunks(5000) {
        fixture.foreign.insert_many(documents).await.unwrap();
    }
    let ranges = fixture.repository.id_ranges(8).await.unwrap();
    assert!(ranges.len() >= 2, "{ranges:?}");
    let mut seen = HashMap::new();
    for range in ranges {
        let (whole, bounds) = walked(fixture.repository.walk(Route::Ids(range.clone()))).await;
        let (cut, _) = walked(fixture.repository.walk_revisions(Route::Ids(range.clone()), 2000)).await;
        assert_eq!(whole.len(), cut.len());
        for (whole, cut) in whole.iter().zip(&cut) {
            assert_eq!((whole.key().unwrap(), whole.is_deleted()), (cut.key().unwrap(), cut.is_deleted()));
            assert!(cut.field("n").is_none());
            assert!(seen.insert(whole.key().unwrap(), whole.is_deleted()).is_none(), "{:?} came twice", whole.key());
        }
        // From wherever it was, the rest is the rest.
        for place in bounds {
            let Place::Id(id) = place else { panic!("{place:?}") };
            let key = DocumentKey::from_id(RawBson::try_from(id.clone()).unwrap().as_raw_bson_ref()).unwrap();
            let done = whole.iter().position(|cell| cell.key().unwrap() == key).unwrap() + 1;
            let rest =
                walked(fixture.repository.walk(Route::Ids(IdRange { after: Some(id), ..range.clone() }))).await.0;
            assert_eq!(rest, whole[done..]);
        }
    }
    assert_eq!(seen.len(), 12_000);
    for walk in [fixture.repository.walk(Route::Natural), fixture.repository.walk_revisions(Route::Natural, 700)] {
        let (documents, places) = walked(walk).await;
        assert!(places.iter().all(|place| *place == Place::Natural) && !places.is_empty());
        assert_eq!(documents.len(), 12_000);
        let again: HashMap<_, _> = documents.iter().map(|cell| (cell.key().unwrap(), cell.is_deleted())).collect();
        assert_eq!(again, seen);
    }
}

/// All documents of a walk, and the places that it can be begun again at.
async fn walked(mut walk: Walk) -> (Vec<MemCell>, Vec<Place>) {
    let (mut documents, mut places) = (Vec::new(), Vec::new());
    loop {
        let batch = walk.next().await.unwrap();
        documents.extend(batch.documents);
        match batch.next {
            Some(place) => places.push(place),
            None => return (documents, places),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_never_replaces_anything() {
    let fixture = Fixture::new().await;
    let live = insert(&fixture, json!({ "summary": "live" })).await;
    let deleted = insert(&fixture, json!({ "summary": "deleted" })).await;
    fixture.repository.soft_delete(deleted, None).await.unwrap();
    let gone = insert(&fixture, json!({ "summary": "gone", "n": 1.5, "list": [] })).await;
    let all = fixture.repository.fetch(&[live.into(), deleted.into(), gone.into()]).await.unwrap();
    let was = |id: memcell_host::memcell::EventId| all.iter().find(|cell| cell.event_id() == Some(id)).unwrap().clone();
    fixture.repository.hard_delete(gone).await.unwrap();
    let returned = fixture.repository.insert_absent(vec![was(live), was(gone), was(deleted)]).await.unwrap();
    assert_eq!(returned, [Returned::Present, Returned::Inserted, Returned::Present]);
    let now = fixture.repository.fetch(&[live.into(), deleted.into(), gone.into()]).await.unwrap();
    assert_eq!(now.len(), 3);
    for cell in now {
        assert_eq!(cell, was(cell.event_id().unwrap()), "as it was, to the byte");
    }
    let existing = fixture.repository.existing(&[live.into(), deleted.into()]).await.unwrap();
    assert_eq!((existing.get(&live.into()), existing.get(&deleted.into())), (Some(&true), Some(&false)));
}
