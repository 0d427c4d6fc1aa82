//! Several writes that take place together or not at all.

use std::time::Instant;

use futures::future::BoxFuture;

use super::writes::to_the_end;
use super::{MemCellStore, Written};
use crate::change::Change;
use crate::memcell::{EventId, MemCell, NewMemCell, Patch};
use crate::mongo::{Repository, Transaction};
use crate::{Error, ErrorKind, Result};

/// One step of [`MemCellStore::transact`].
#[derive(Clone)]
pub enum Operation {
    /// As [`MemCellStore::append`].
    Append(NewMemCell),
    /// As [`MemCellStore::update`].
    Update(EventId, Patch),
    /// As [`MemCellStore::delete`], with who deleted it.
    Delete(EventId, Option<String>),
    /// As [`MemCellStore::hard_delete`].
    HardDelete(EventId),
    /// As [`MemCellStore::restore`].
    Restore(EventId),
}

impl Operation {
    /// The document that it changes, or makes.
    fn event_id(&self) -> Option<EventId> {
        match self {
            Self::Append(cell) => cell.event_id(),
            Self::Update(id, _) | Self::Delete(id, _) | Self::HardDelete(id) | Self::Restore(id) => Some(*id),
        }
    }
}

/// The result of one [`Operation`].
#[derive(Debug, Clone)]
pub enum OperationResult {
    /// The document that was appended or updated.
    MemCell(MemCell),
    /// The document was deleted, softly or for good.
    Deleted,
    /// Whether the document had been deleted.
    Restored(bool),
}

impl OperationResult {
    /// The document, if it is the result of an operation that answers one.
    pub(super) fn into_memcell(self) -> Option<MemCell> {
        match self {
            Self::MemCell(cell) => Some(cell),
            Self::Deleted | Self::Restored(_) => None,
        }
    }
}

impl MemCellStore {
    /// Runs `body` in a MongoDB transaction and mirrors its changes once it is committed; of an aborted one nothing is seen.
    ///
    /// `body` is run again, from its start, when another writer was faster: it must have no effects but through its argument.
    ///
    /// # Errors
    /// What `body` returned, after the transaction was aborted; [`crate::ErrorKind::Unsupported`] on a standalone server;
    /// [`crate::ErrorKind::Conflict`] if others kept interfering.
    pub async fn transaction<T, F>(&self, body: F) -> Result<Written<T>>
    where
        F: for<'a> FnMut(&'a mut Transaction) -> BoxFuture<'a, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.transaction_of(Vec::new(), body).await
    }

    /// A transaction that changes these documents, as far as that is known beforehand.
    async fn transaction_of<T, F>(&self, ids: Vec<EventId>, body: F) -> Result<Written<T>>
    where
        F: for<'a> FnMut(&'a mut Transaction) -> BoxFuture<'a, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let store = self.clone();
        to_the_end(async move {
            let started = Instant::now();
            let announced = store.announce(ids);
            let ballot = store.ballot(announced.mirrors());
            let result = match &ballot {
                Some(ballot) => store.inner.repository.transaction_with(ballot, body).await,
                None => store.inner.repository.transaction(body).await,
            };
            let result = result.map(|committed| (committed.value, committed.changes));
            store.conclude("transaction", started, result, announced, ballot).await
        })
        .await
    }

    /// [`MemCellStore::transaction`] for a list of operations: one result per operation, in their order.
    ///
    /// # Errors
    /// The first operation that fails aborts them all; the message begins with its index, as in `operation 3: …`.
    pub async fn transact(&self, operations: Vec<Operation>) -> Result<Written<Vec<OperationResult>>> {
        let ids = operations.iter().filter_map(Operation::event_id).collect();
        self.transaction_of(ids, move |transaction| {
            let operations = operations.clone();
            Box::pin(async move {
                let mut results = Vec::with_capacity(operations.len());
                for (index, operation) in operations.into_iter().enumerate() {
                    results.push(run(transaction, operation).await.map_err(|error| at(index, error))?);
                }
                Ok(results)
            })
        })
        .await
    }
}

impl MemCellStore {
    /// One operation alone: as a transaction if a backend is to promise it first, else as what it is. `answer` makes of the
    /// result, and of the changes, what the caller gets; it can't but know the results of that operation.
    pub(super) async fn single<T: Send + 'static>(
        &self,
        name: &'static str,
        operation: Operation,
        answer: impl FnOnce(OperationResult, &[Change]) -> Option<T> + Send + 'static,
    ) -> Result<Written<T>> {
        let store = self.clone();
        to_the_end(async move {
            let started = Instant::now();
            let announced = store.announce(operation.event_id());
            let ballot = store.ballot(announced.mirrors());
            let repository = &store.inner.repository;
            let result = match &ballot {
                Some(ballot) => {
                    let committed = repository
                        .transaction_with(ballot, |transaction| Box::pin(run(transaction, operation.clone())))
                        .await;
                    committed.map(|committed| (committed.value, committed.changes))
                }
                None => run_plain(repository, operation).await,
            };
            let result = result.and_then(|(value, changes)| {
                let value = answer(value, &changes);
                let value =
                    value.ok_or_else(|| Error::new(ErrorKind::Internal, "an operation had the result of another"));
                Ok((value?, changes))
            });
            store.conclude(name, started, result, announced, ballot).await
        })
        .await
    }
}

/// The operation and its change, if it made one, without a transaction.
async fn run_plain(repository: &Repository, operation: Operation) -> Result<(OperationResult, Vec<Change>)> {
    match operation {
        Operation::Append(cell) => {
            let cell = repository.insert(cell).await?;
            let change = Change::written(&cell)?;
            Ok((OperationResult::MemCell(cell), vec![change]))
        }
        Operation::Update(id, patch) => {
            let cell = repository.update(id, &patch).await?;
            let changes = if patch.is_empty() { Vec::new() } else { vec![Change::written(&cell)?] };
            Ok((OperationResult::MemCell(cell), changes))
        }
        Operation::Delete(id, deleted_by) => {
            let change = repository.soft_delete(id, deleted_by.as_deref()).await?;
            Ok((OperationResult::Deleted, vec![change]))
        }
        Operation::HardDelete(id) => Ok((OperationResult::Deleted, vec![repository.hard_delete(id).await?])),
        Operation::Restore(id) => {
            let cell = repository.restore(id).await?;
            let changes: Vec<Change> = cell.as_ref().map(Change::written).transpose()?.into_iter().collect();
            Ok((OperationResult::Restored(cell.is_some()), changes))
        }
    }
}

async fn run(transaction: &mut Transaction, operation: Operation) -> Result<OperationResult> {
    match operation {
        Operation::Append(cell) => transaction.insert(cell).await.map(OperationResult::MemCell),
        Operation::Update(id, patch) => transaction.update(id, &patch).await.map(OperationResult::MemCell),
        Operation::Delete(id, deleted_by) => {
            transaction.soft_delete(id, deleted_by.as_deref()).await.map(|()| OperationResult::Deleted)
        }
        Operation::HardDelete(id) => transaction.hard_delete(id).await.map(|()| OperationResult::Deleted),
        Operation::Restore(id) => transaction.restore(id).await.map(|cell| OperationResult::Restored(cell.is_some())),
    }
}

fn at(index: usize, error: Error) -> Error {
    error.with_context(format!("operation {index}"))
}
