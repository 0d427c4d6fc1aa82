//! Deletions and restorations of many documents that know exactly which documents they changed.

use bson::{Bson, Document};
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::filters;
use super::repository::Repository;
use crate::Result;
use crate::change::Change;
use crate::query::{BulkScope, Visibility};

/// How many ids are looked up at a time.
const CHUNK: u32 = 1000;

/// How many documents are changed at a time: enough to hide the round trips, few enough to leave connections to others.
const CONCURRENCY: usize = 16;

/// Where a bulk operation hands each change, as soon as MongoDB acknowledged it.
pub type ChangeSink<'a> = dyn FnMut(Change) + Send + 'a;

/// Each walks through the ids that match in chunks and changes document after document, by an operation that checks the
/// scope once more. So every change is told of, the count is exact, and a document that a concurrent writer takes out
/// of the scope is left alone; one that it brings into the scope meanwhile may or may not be included.
///
/// On an error, the operations under way are awaited and their changes handed over; what was changed so far stays
/// changed. An operation that timed out may have taken place without its change being handed over. The same holds for
/// those under way when the future is dropped.
impl Repository {
    /// Soft-deletes the live documents in the scope, and returns how many it changed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a scope that means everything or whose
    /// range ends before it starts; the first error of a single operation.
    pub async fn soft_delete_many(
        &self,
        scope: &BulkScope,
        deleted_by: Option<&str>,
        sink: &mut ChangeSink<'_>,
    ) -> Result<u64> {
        let condition = &filters::select_scope(scope, Visibility::Live)?;
        let change = async |id: Bson| self.documents.soft_delete_if(&id, condition, deleted_by, None).await;
        self.for_each(condition, change, sink).await
    }

    /// Deletes the documents in the scope for good, soft-deleted ones too, and returns how many it deleted.
    ///
    /// # Errors
    /// As [`soft_delete_many`](Self::soft_delete_many).
    pub async fn hard_delete_many(&self, scope: &BulkScope, sink: &mut ChangeSink<'_>) -> Result<u64> {
        let condition = &filters::select_scope(scope, Visibility::All)?;
        let change = async |id: Bson| self.documents.hard_delete_if(&id, condition, None).await;
        self.for_each(condition, change, sink).await
    }

    /// Restores the soft-deleted documents in the scope, and returns how many it changed.
    ///
    /// # Errors
    /// As [`soft_delete_many`](Self::soft_delete_many).
    pub async fn restore_many(&self, scope: &BulkScope, sink: &mut ChangeSink<'_>) -> Result<u64> {
        let condition = &filters::select_scope(scope, Visibility::Deleted)?;
        let change = async |id: Bson| {
            let restored = self.documents.restore_if(&id, condition, None).await?;
            restored.as_ref().map(Change::written).transpose()
        };
        self.for_each(condition, change, sink).await
    }

    async fn for_each<F>(
        &self,
        condition: &Document,
        change: impl Fn(Bson) -> F + Send,
        sink: &mut ChangeSink<'_>,
    ) -> Result<u64>
    where
        F: Future<Output = Result<Option<Change>>> + Send,
    {
        let mut count = 0;
        let mut last = None;
        loop {
            let ids = self.ids_after(condition, last.as_ref(), CHUNK).await?;
            if ids.is_empty() {
                return Ok(count);
            }
            last = ids.last().cloned();
            let mut waiting = ids.into_iter();
            let mut running: FuturesUnordered<F> = waiting.by_ref().take(CONCURRENCY).map(&change).collect();
            let mut failure = None;
            while let Some(outcome) = running.next().await {
                match outcome {
                    Ok(Some(change)) => {
                        count += 1;
                        sink(change);
                    }
                    Ok(None) => {}
                    Err(error) => failure = failure.or(Some(error)),
                }
                if failure.is_none() {
                    running.extend(waiting.next().map(&change));
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }
}
