//! Markers: whether a transaction that was prepared in backends has been committed.
//!
//! A transaction inserts its marker itself, so that the marker is there exactly if the transaction was committed. Whoever finds an
//! intent without knowing what became of its transaction inserts a marker of the same id that says *aborted*. There can be only
//! one: if it can be inserted, the transaction has not been committed and never will be, for its own insert would fail; if
//! there is one already, that one tells.
//!
//! A marker names the backends that have prepared, and goes when the last of them has committed. One that nobody takes away expires. For
//! an aborted one, a day is far more than a transaction can last (MongoDB ends it after a minute). One of a committed transaction
//! stays for a week: a backend that has been away for longer finds no marker, aborts, and gets the change like any other that it
//! missed, from the stream of changes or by a copy.

use std::time::Duration;

use bson::{DateTime, Document, doc};
use mongodb::options::{Acknowledgment, IndexOptions, WriteConcern};
use mongodb::{ClientSession, Collection, IndexModel};
use tokio::time::Instant;

use super::connect::bounded;
use super::indexes;
use super::repository::Repository;
use crate::clock::unix_millis;
use crate::{ErrorKind, Result};

/// How long markers stay that nobody takes away.
const ABORTED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
const COMMITTED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the server may take to say whether a marker is there. One whose transaction is still open makes it wait.
const DECISION_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause before the question is asked again.
const DECISION_RETRY: Duration = Duration::from_millis(50);

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// MongoDB has its changes.
    Committed,
    /// MongoDB doesn't have them, and never will.
    Aborted,
    /// It is still open, as far as the server knows. To be asked again later.
    Open,
}

impl Repository {
    /// Makes the collection of the markers, and the index that lets them expire. A transaction can't do that everywhere.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn prepare_markers(&self) -> Result<()> {
        let (markers, keys) = (self.markers(), doc! { "expires_at": 1 });
        // Looked for first: making one waits for a transaction that somebody has left open.
        if !indexes::keys_present(&markers, self.timeout).await?.contains(&keys) {
            let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
            let index = IndexModel::builder().keys(keys).options(options).build();
            bounded(self.timeout, markers.create_index(index)).await?;
        }
        Ok(())
    }

    /// Inserts the marker of the transaction of this session.
    pub(super) async fn mark(&self, session: &mut ClientSession, id: &str, backends: &[String]) -> Result<()> {
        let marker = doc! { "_id": id, "backends": backends, "expires_at": after(COMMITTED_FOR) };
        bounded(self.timeout, self.markers().insert_one(marker).session(session)).await?;
        Ok(())
    }

    /// Finds out what became of a transaction, and makes sure that it stays so. Not for one that this process is still at work on: it
    /// would be aborted.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn decide(&self, id: &str) -> Result<Decision> {
        let until = Instant::now() + DECISION_TIMEOUT;
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(self.timeout).build();
        let markers = self.markers();
        loop {
            let marker = doc! { "_id": id, "aborted": true, "expires_at": after(ABORTED_FOR) };
            let insert = markers.insert_one(marker).write_concern(majority.clone());
            match bounded(self.timeout.min(DECISION_TIMEOUT), insert).await {
                Ok(_) => return Ok(Decision::Aborted),
                // Read by majority, so that what it tells can't be rolled back any more.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    match bounded(self.timeout, markers.find_one(doc! { "_id": id })).await? {
                        Some(marker) if marker.get_bool("aborted").unwrap_or(false) => return Ok(Decision::Aborted),
                        Some(_) => return Ok(Decision::Committed),
                        // Not replicated yet.
                        None => {}
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Timeout) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= until {
                return Ok(Decision::Open);
            }
            tokio::time::sleep(DECISION_RETRY).await;
        }
    }

    /// Says that these backends have carried out what they had prepared for a committed transaction. With the last one, its
    /// marker goes.
    ///
    /// # Errors
    /// Those of MongoDB being away: the marker stays until it expires, which does no harm.
    pub async fn forget(&self, id: &str, backends: &[String]) -> Result<()> {
        let markers = self.markers();
        // Mostly these are all, and one step does it.
        let of_these = doc! { "_id": id, "backends": backends };
        if bounded(self.timeout, markers.delete_one(of_these)).await?.deleted_count == 1 {
            return Ok(());
        }
        let committed = doc! { "$pull": { "backends": { "$in": backends } } };
        bounded(self.timeout, markers.update_one(doc! { "_id": id }, committed)).await?;
        bounded(self.timeout, markers.delete_one(doc! { "_id": id, "backends": [] })).await?;
        Ok(())
    }

    fn markers(&self) -> Collection<Document> {
        self.beside("transactions")
    }
}

fn after(duration: Duration) -> DateTime {
    let millis = u128::from(unix_millis()) + duration.as_millis();
    DateTime::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
