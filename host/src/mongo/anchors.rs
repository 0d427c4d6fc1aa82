//! Whether MongoDB is still the one that a backend was mirrored from.
//!
//! A position in the stream of changes means nothing to another deployment, nor to the same one after it was brought back from an
//! older snapshot; but a server may take it all the same, and tell of no change that it doesn't know. So each time that a
//! backend notes a position, MongoDB notes the number of that note. One that knows of fewer has lost something.

use bson::{Document, doc};
use mongodb::Collection;

use super::connect::bounded;
use super::repository::Repository;
use crate::Result;

impl Repository {
    /// Notes that the store of this id is about to note its position for the `count`-th time. `false`, and nothing is noted: MongoDB
    /// doesn't know of the time before, so it isn't the one that was told of it, or has forgotten.
    ///
    /// # Errors
    /// Those of MongoDB being away. Whether it is noted is not known then; it can be noted again.
    pub async fn raise_anchor(&self, store: &str, count: u64) -> Result<bool> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let is_first = count <= 1;
        let filter = if is_first {
            doc! { "_id": store }
        } else {
            doc! { "_id": store, "count": { "$gte": count - 1 } }
        };
        let anchors = self.anchors();
        let raise = anchors.update_one(filter, doc! { "$max": { "count": count } }).upsert(is_first);
        let raised = bounded(self.timeout, raise).await?;
        Ok(is_first || raised.matched_count > 0)
    }

    /// How often the store of this id has noted its position, as far as MongoDB knows.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn anchor(&self, store: &str) -> Result<u64> {
        let found = bounded(self.timeout, self.anchors().find_one(doc! { "_id": store })).await?;
        let count = found.and_then(|anchor| anchor.get_i64("count").ok());
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    fn anchors(&self) -> Collection<Document> {
        self.beside("anchors")
    }
}
