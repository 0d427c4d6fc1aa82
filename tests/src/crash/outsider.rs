//! Another program that changes the same documents at the same time, and doesn't wait for its turn.
//!
//! It counts up a field of its own and leaves everything else alone, so it disturbs no prediction. How far the field has come can
//! only be bounded: whoever deletes the document meanwhile takes the count along. Whether the copies follow is checked like
//! everything else.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use mongodb::Collection;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};
use tokio::sync::watch;

use super::check::Snapshot;
use crate::random::Random;

/// The field.
const COUNT: &str = "outside";

/// The longest pause between two changes.
const MAX_PAUSE_MICROS: u64 = 20_000;

/// Changes of a burst that are under way at a time.
const CONCURRENCY: usize = 16;

/// The program, and how often it has tried what.
pub(super) struct Outsider {
    collection: Collection<Document>,
    random: Random,
    tried: HashMap<ObjectId, i64>,
    tried_everywhere: i64,
}

impl Outsider {
    /// `collection` must not send anything twice.
    pub(super) fn new(collection: &Collection<Document>, seed: u64) -> Self {
        let random = Random::new(seed ^ 0x0a11_d15b_0000_0001);
        Self { collection: collection.clone(), random, tried: HashMap::new(), tried_everywhere: 0 }
    }

    /// Changes one document after the other until it is told to stop.
    pub(super) async fn work(&mut self, ids: &[ObjectId], stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Some(id) = self.random.pick(ids).copied() {
                *self.tried.entry(id).or_default() += 1;
                // Whether it takes place makes no difference here.
                let _ = self.collection.update_one(doc! { "_id": id }, doc! { "$inc": { COUNT: 1_i64 } }).await;
            }
            tokio::time::sleep(Duration::from_micros(self.random.below(MAX_PAUSE_MICROS))).await;
        }
    }

    /// Notes that [`burst`] is called.
    pub(super) fn tries_everywhere(&mut self) {
        self.tried_everywhere += 1;
    }

    /// The documents whose count is higher than was ever tried.
    pub(super) fn exceeded(&self, snapshot: &Snapshot) -> Vec<String> {
        let exceeds = |(id, document): (&ObjectId, &Document)| {
            let tried = self.tried.get(id).copied().unwrap_or(0) + self.tried_everywhere;
            let count = document.get(COUNT).and_then(Bson::as_i64).unwrap_or(0);
            (count > tried).then(|| format!("{id} is wrong in MongoDB: counted up {tried} times, it is at {count}"))
        };
        snapshot.iter().filter_map(exceeds).collect()
    }
}

/// Changes all documents as fast as it goes, which leaves the tail with as many events.
///
/// Not in one `updateMany`: in the development server, that holds back transactions which hold it back.
pub(super) async fn burst(collection: &Collection<Document>, ids: &[ObjectId]) {
    let change = async |id: &ObjectId| {
        // As above.
        let _ = collection.update_one(doc! { "_id": id }, doc! { "$inc": { COUNT: 1_i64 } }).await;
    };
    futures::stream::iter(ids).for_each_concurrent(CONCURRENCY, change).await;
}
