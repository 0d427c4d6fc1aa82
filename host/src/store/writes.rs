//! Writes: to MongoDB, then to the mirrors.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use tokio::sync::oneshot;

use super::backends::Backends;
use super::two_phase::Ballot;
use super::{MemCellStore, Mirrored, Operation, Written};
use crate::change::Change;
use crate::config::Ack;
use crate::memcell::{EventId, MemCell, NewMemCell, Patch};
use crate::mirror::{Delivery, Mirror, Ticket};
use crate::mongo::ChangeSink;
use crate::query::BulkScope;
use crate::trace::carried;
use crate::{Error, ErrorKind, Result};

/// Each write runs in a task of its own: a caller that goes away (a client that hangs up, a request that takes too long) doesn't
/// leave MongoDB with a change that the mirrors were never told of.
impl MemCellStore {
    /// Stores a new document and answers it as stored. A given id is kept.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if the given id is taken; those of MongoDB being away.
    pub async fn append(&self, cell: NewMemCell) -> Result<Written<MemCell>> {
        self.single("append", Operation::Append(cell), |result, _| result.into_memcell()).await
    }

    /// Stores each document for itself: one result per document, in their order.
    ///
    /// # Errors
    /// If MongoDB is away altogether.
    pub async fn append_many(&self, cells: Vec<NewMemCell>) -> Result<Written<Vec<Result<MemCell>>>> {
        let store = self.clone();
        to_the_end(async move {
            let started = Instant::now();
            let announced = store.announce(cells.iter().filter_map(NewMemCell::event_id));
            let result = store.inner.repository.insert_many(cells).await;
            let written = result.and_then(|results| {
                let changes = results.iter().flatten().map(Change::written).collect::<Result<Vec<Change>>>()?;
                Ok((results, changes))
            });
            store.conclude("append_many", started, written, announced, None).await
        })
        .await
    }

    /// Replaces the top-level fields of the patch in a live document, in one atomic step, and answers the new document. An empty
    /// patch answers it untouched.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no live document with this id.
    pub async fn update(&self, id: EventId, patch: &Patch) -> Result<Written<MemCell>> {
        self.single("update", Operation::Update(id, patch.clone()), |result, _| result.into_memcell()).await
    }

    /// Hides a live document; [`MemCellStore::restore`] brings it back. Answers its new revision.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no live document with this id.
    pub async fn delete(&self, id: EventId, deleted_by: Option<&str>) -> Result<Written<u64>> {
        let operation = Operation::Delete(id, deleted_by.map(str::to_owned));
        self.single("delete", operation, |_, changes| changes.first().map(|change| change.stamp)).await
    }

    /// Removes a document for good, live or soft-deleted. Answers the stamp of its deletion.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no document with this id.
    pub async fn hard_delete(&self, id: EventId) -> Result<Written<u64>> {
        let stamp = |_, changes: &[Change]| changes.first().map(|change| change.stamp);
        self.single("hard_delete", Operation::HardDelete(id), stamp).await
    }

    /// Makes a soft-deleted document visible again, and answers it; `None` if it was not deleted.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no document with this id.
    pub async fn restore(&self, id: EventId) -> Result<Written<Option<MemCell>>> {
        let restored = |_, changes: &[Change]| Some(changes.first().and_then(|change| change.document.clone()));
        self.single("restore", Operation::Restore(id), restored).await
    }

    /// [`MemCellStore::delete`] for all live documents of a scope; answers how many it hid.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a scope that means everything. After an error in the middle, what was done stays done.
    pub async fn delete_many(&self, scope: &BulkScope, deleted_by: Option<&str>) -> Result<Written<u64>> {
        let store = self.clone();
        let (scope, deleted_by) = (scope.clone(), deleted_by.map(str::to_owned));
        to_the_end(async move {
            let started = Instant::now();
            let repository = &store.inner.repository;
            let result =
                store.bulk(async |sink| repository.soft_delete_many(&scope, deleted_by.as_deref(), sink).await).await;
            store.observe("delete_many", started, result)
        })
        .await
    }

    /// [`MemCellStore::hard_delete`] for all documents of a scope, live or not; answers how many it removed.
    ///
    /// # Errors
    /// As [`MemCellStore::delete_many`].
    pub async fn hard_delete_many(&self, scope: &BulkScope) -> Result<Written<u64>> {
        let store = self.clone();
        let scope = scope.clone();
        to_the_end(async move {
            let started = Instant::now();
            let repository = &store.inner.repository;
            let result = store.bulk(async |sink| repository.hard_delete_many(&scope, sink).await).await;
            store.observe("hard_delete_many", started, result)
        })
        .await
    }

    /// [`MemCellStore::restore`] for all soft-deleted documents of a scope; answers how many it brought back.
    ///
    /// # Errors
    /// As [`MemCellStore::delete_many`].
    pub async fn restore_many(&self, scope: &BulkScope) -> Result<Written<u64>> {
        let store = self.clone();
        let scope = scope.clone();
        to_the_end(async move {
            let started = Instant::now();
            let repository = &store.inner.repository;
            let result = store.bulk(async |sink| repository.restore_many(&scope, sink).await).await;
            store.observe("restore_many", started, result)
        })
        .await
    }

    /// Runs a bulk operation, mirroring each change as soon as it is acknowledged: an error in the middle loses none.
    async fn bulk(&self, operation: impl AsyncFnOnce(&mut ChangeSink<'_>) -> Result<u64>) -> Result<Written<u64>> {
        let announced = self.announce_any();
        let mut deliveries = Deliveries::default();
        let mut sink = |change: Change| announced.submit(change, &mut deliveries);
        let result = operation(&mut sink).await;
        let count = result?;
        Ok(Written { value: count, mirrored: deliveries.wait().await })
    }

    /// Mirrors the changes of an operation that has succeeded, waits if a backend asks for that, and counts the operation.
    pub(super) async fn conclude<T>(
        &self,
        operation: &'static str,
        started: Instant,
        result: Result<(T, Vec<Change>)>,
        announced: Announced,
        ballot: Option<Ballot>,
    ) -> Result<Written<T>> {
        let written = match result {
            Ok((value, changes)) => {
                let mut deliveries = Deliveries::default();
                match ballot {
                    None => {
                        changes.into_iter().for_each(|change| announced.submit(change, &mut deliveries));
                        Ok(Written { value, mirrored: deliveries.wait().await })
                    }
                    Some(ballot) => {
                        deliveries.worst = ballot.worst();
                        for mirror in announced.mirrors().iter().filter(|mirror| !ballot.has_prepared(mirror)) {
                            changes.iter().for_each(|change| deliveries.submit(mirror, change.clone()));
                        }
                        ballot
                            .commit(self, announced)
                            .into_iter()
                            .for_each(|(mirror, end)| deliveries.expect(&mirror, end));
                        Ok(Written { value, mirrored: deliveries.wait().await })
                    }
                }
            }
            Err(error) => Err(error),
        };
        self.observe(operation, started, written)
    }

    /// Tells the mirrors which documents are about to change.
    pub(super) fn announce(&self, ids: impl IntoIterator<Item = EventId>) -> Announced {
        let backends = self.backends_now();
        let of_all = |id: EventId| backends.mirrors.iter().map(move |mirror| mirror.announce(id.into()));
        let tickets = ids.into_iter().flat_map(of_all).collect();
        Announced { _tickets: tickets, backends }
    }

    /// Tells the mirrors that documents are about to change which nobody knows yet.
    fn announce_any(&self) -> Announced {
        let backends = self.backends_now();
        let tickets = backends.mirrors.iter().map(|mirror| mirror.announce_any()).collect();
        Announced { _tickets: tickets, backends }
    }
}

/// A write that the mirrors know of, and the mirrors that it goes to: those there were when it began.
///
/// Until it is dropped, a copy that lags behind is no mismatch: MongoDB shows a change to readers before it acknowledges it to the
/// writer.
pub(super) struct Announced {
    _tickets: Vec<Ticket>,
    backends: Arc<Backends>,
}

impl Announced {
    /// The mirrors that it goes to.
    pub(super) fn mirrors(&self) -> &[Arc<Mirror>] {
        &self.backends.mirrors
    }

    fn submit(&self, change: Change, deliveries: &mut Deliveries) {
        if let Some((last, others)) = self.backends.mirrors.split_last() {
            others.iter().for_each(|mirror| deliveries.submit(mirror, change.clone()));
            deliveries.submit(last, change);
        }
    }
}

/// Runs a write to its end, whether or not somebody still waits for it.
pub(super) async fn to_the_end<T: Send + 'static>(
    write: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let ended = tokio::spawn(carried(write)).await;
    ended.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "a write did not come to its end").with_source(error))
    })
}

/// The deliveries that a write waits for.
#[derive(Default)]
struct Deliveries {
    waiting: Vec<(oneshot::Receiver<Delivery>, std::time::Duration)>,
    queued: bool,
    /// Of the backends that were to promise the write and did not.
    worst: Option<Mirrored>,
}

impl Deliveries {
    fn submit(&mut self, mirror: &Mirror, change: Change) {
        match mirror.config().ack {
            Ack::Mongo => {
                self.queued = true;
                mirror.submit(change, None);
            }
            Ack::Mirrored => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.push((receiver, mirror.config().ack_timeout));
                mirror.submit(change, Some(sender));
            }
        }
    }

    /// Something else than a copy that is on its way to a mirror; `None`: nobody tells how it ends.
    fn expect(&mut self, mirror: &Mirror, end: Option<oneshot::Receiver<Delivery>>) {
        match end {
            Some(end) => self.waiting.push((end, mirror.config().ack_timeout)),
            None => self.queued = true,
        }
    }

    async fn wait(self) -> Mirrored {
        let all = self.waiting.into_iter().map(|(delivery, timeout)| async move {
            match tokio::time::timeout(timeout, delivery).await {
                Ok(Ok(Delivery::Applied)) => Mirrored::Applied,
                Ok(Ok(Delivery::Dropped)) => Mirrored::Dropped,
                // A sender that is gone without a word went down with its shard.
                Ok(Ok(Delivery::Failed) | Err(_)) => Mirrored::Failed,
                Err(_) => Mirrored::TimedOut,
            }
        });
        let queued = if self.queued { Mirrored::Queued } else { Mirrored::None };
        join_all(all).await.into_iter().chain(self.worst).fold(queued, Mirrored::max)
    }
}
