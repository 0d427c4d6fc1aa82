//! The repository against a real server: every operation, its borders, concurrency, and what happens when the server
//! goes away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bulk;
mod changes;
mod documents;
mod foreign;
mod leases;
mod markers;
mod outages;
mod queries;
mod server;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use memcell_host::clock::Clock;
use memcell_host::memcell::{EventId, MemCell, NewMemCell, Patch};
use memcell_host::mongo::{ConnectOptions, MemCellStream, Repository};
use serde_json::{Value, json};

use server::Server;

/// A server of its own, a repository on it, and the bare collection to play another program with.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) repository: Repository,
    pub(crate) foreign: mongodb::Collection<Document>,
    pub(crate) clock: Arc<Clock>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::on(Server::start(&[])).await
    }

    pub(crate) async fn on(server: Server) -> Self {
        let clock = Arc::new(Clock::new());
        let repository = Repository::connect(&options(&server.uri()), Arc::clone(&clock)).await.unwrap();
        let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
        let foreign = client.database("memcell").collection("memcells");
        Self { server, repository, foreign, clock }
    }
}

pub(crate) fn options(uri: &str) -> ConnectOptions {
    ConnectOptions {
        uri: uri.into(),
        database: "memcell".into(),
        collection: "memcells".into(),
        connect_timeout: Duration::from_secs(2),
        operation_timeout: Duration::from_secs(4),
    }
}

/// A new document from the API form, with a timestamp unless one is given.
pub(crate) fn new(mut fields: Value) -> NewMemCell {
    let fields = fields.as_object_mut().unwrap();
    fields.entry("timestamp").or_insert_with(|| "2025-06-26T00:03:30Z".into());
    NewMemCell::from_api(fields.clone()).unwrap()
}

pub(crate) fn patch(fields: Value) -> Patch {
    Patch::from_api(fields.as_object().unwrap().clone()).unwrap()
}

pub(crate) fn document(cell: &MemCell) -> Document {
    Document::try_from(cell.as_raw()).unwrap()
}

pub(crate) async fn all(stream: MemCellStream) -> Vec<MemCell> {
    futures::TryStreamExt::try_collect(stream).await.unwrap()
}

pub(crate) async fn insert(fixture: &Fixture, fields: Value) -> EventId {
    fixture.repository.insert(new(fields)).await.unwrap().event_id().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_created_once() {
    let fixture = Fixture::new().await;
    fixture.repository.ensure_indexes().await.unwrap();
    fixture.repository.ensure_indexes().await.unwrap();
    let mut names = fixture.foreign.list_index_names().await.unwrap();
    names.sort();
    let expected = [
        "_id_",
        "created_at_1",
        "deleted_at_1",
        "expires_at_1",
        "group_id_1_deleted_at_1_timestamp_-1",
        "group_id_1_type_1_deleted_at_1_timestamp_-1",
        "participants_1",
        "updated_at_1",
        "user_id_1_deleted_at_1_timestamp_-1",
        "user_id_1_type_1_deleted_at_1_timestamp_-1",
    ];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_program_serves_as_well() {
    let fixture = Fixture::new().await;
    let options = mongodb::options::IndexOptions::builder().name("theirs".to_owned()).build();
    let theirs = mongodb::IndexModel::builder().keys(doc! { "created_at": 1.0 }).options(options).build();
    fixture.foreign.create_index(theirs).await.unwrap();
    fixture.repository.ensure_indexes().await.unwrap();
    let names = fixture.foreign.list_index_names().await.unwrap();
    assert!(names.contains(&"theirs".to_owned()) && !names.contains(&"created_at_1".to_owned()), "{names:?}");
    assert_eq!(names.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_answers_and_says_what_it_can() {
    let fixture = Fixture::new().await;
    fixture.repository.ping().await.unwrap();
    assert!(fixture.repository.supports_transactions().await.unwrap());
    let standalone = Fixture::on(Server::start(&["--standalone"])).await;
    assert!(!standalone.repository.supports_transactions().await.unwrap());
    let id = insert(&standalone, json!({})).await;
    assert!(standalone.repository.get(id, Default::default()).await.unwrap().is_some());
}
