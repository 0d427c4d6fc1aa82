//! Several writes in one MongoDB transaction.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use futures::future::BoxFuture;
use mongodb::ClientSession;
use mongodb::error::{
    Error as DriverError, ErrorKind as DriverKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT,
};
use mongodb::options::{
    Acknowledgment, ReadConcern, ReadPreference, SelectionCriteria, TransactionOptions, WriteConcern,
};
use tokio::time::{Instant, timeout_at};

use super::connect::bounded;
use super::documents::{Documents, Enlisted};
use super::error::{NO_TRANSACTIONS, convert, driver_error, repeat};
use super::repository::Repository;
use crate::change::Change;
use crate::clock::OpenInsert;
use crate::memcell::{EventId, MemCell, NewMemCell, Patch};
use crate::query::Visibility;
use crate::steps::Step;
use crate::{Error, ErrorKind, Result};

/// How many operation timeouts a transaction may take in all, retries included.
const TIME_FACTOR: u32 = 3;

/// How long to wait for the answer to an abort. The server also aborts what nobody commits.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits between attempts grow from the first to the second by half each time, as the specification of drivers has
/// them.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Who has a part in a transaction outside of MongoDB: it promises to carry the changes out before MongoDB commits them.
///
/// Nothing that it does or fails to do changes what becomes of the transaction.
pub trait Participants: Send + Sync {
    /// The attempt of this id has reached that step.
    fn reached<'a>(&'a self, step: Step, id: &'a str) -> BoxFuture<'a, ()>;

    /// The operations of an attempt are done, and these are its changes; MongoDB is about to commit them. Answers the names of those who
    /// have made a promise, and so will want to know what became of it (see `markers`). Has to return well before
    /// `deadline`, when the transaction would have to be given up.
    fn prepare<'a>(&'a self, id: &'a str, changes: &'a [Change], deadline: Instant) -> BoxFuture<'a, Vec<String>>;

    /// What was prepared last has not been committed, as far as is known. If there is another attempt, it has another id.
    fn ended(&self, ending: Ending);
}

/// How an attempt ended that was not seen to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing of it took place, or ever will.
    Aborted,
    /// Whether it was committed is unknown; [`Repository::decide`] finds out.
    Unknown,
}

/// Nobody.
impl Participants for () {
    fn reached<'a>(&'a self, _: Step, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn prepare<'a>(&'a self, _: &'a str, _: &'a [Change], _: Instant) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    fn ended(&self, _: Ending) {}
}

/// What a committed transaction did.
#[derive(Debug)]
pub struct Committed<T> {
    /// What its body returned.
    pub value: T,
    /// Its changes, in the order they were made.
    pub changes: Vec<Change>,
}

/// The operations that a transaction's body may use; they see what the transaction wrote, and answer as those of
/// [`Repository`] do.
///
/// After an operation failed in MongoDB (one that merely did not find its document did not), the server has given the
/// transaction up: every further operation returns that error again, and nothing is committed, whatever the body
/// returns.
pub struct Transaction {
    documents: Documents,
    enlisted: Enlisted,
    changes: Vec<Change>,
    /// Inserts that land when the transaction is committed.
    open_inserts: Vec<OpenInsert>,
    failure: Option<Failure>,
}

struct Failure {
    error: Error,
    is_transient: bool,
}

impl Transaction {
    /// As [`Repository::insert`].
    pub async fn insert(&mut self, cell: NewMemCell) -> Result<MemCell> {
        self.check()?;
        let outcome = self.documents.insert(cell, Some(&mut self.enlisted)).await;
        let (inserted, open) = self.note(outcome)?;
        self.open_inserts.extend(open);
        self.changes.push(Change::written(&inserted)?);
        Ok(inserted)
    }

    /// As [`Repository::update`].
    pub async fn update(&mut self, id: EventId, patch: &Patch) -> Result<MemCell> {
        self.check()?;
        let outcome = self.documents.update(id, patch, Some(&mut self.enlisted)).await;
        let updated = self.note(outcome)?;
        if !patch.is_empty() {
            self.changes.push(Change::written(&updated)?);
        }
        Ok(updated)
    }

    /// As [`Repository::soft_delete`]; the change is kept for [`Committed::changes`].
    pub async fn soft_delete(&mut self, id: EventId, deleted_by: Option<&str>) -> Result<()> {
        self.check()?;
        let outcome = self.documents.soft_delete(id, deleted_by, Some(&mut self.enlisted)).await;
        let change = self.note(outcome)?;
        self.changes.push(change);
        Ok(())
    }

    /// As [`Repository::hard_delete`]; the change is kept for [`Committed::changes`].
    pub async fn hard_delete(&mut self, id: EventId) -> Result<()> {
        self.check()?;
        let outcome = self.documents.hard_delete(id, Some(&mut self.enlisted)).await;
        let change = self.note(outcome)?;
        self.changes.push(change);
        Ok(())
    }

    /// As [`Repository::restore`].
    pub async fn restore(&mut self, id: EventId) -> Result<Option<MemCell>> {
        self.check()?;
        let outcome = self.documents.restore(id, Some(&mut self.enlisted)).await;
        let restored = self.note(outcome)?;
        if let Some(cell) = &restored {
            self.changes.push(Change::written(cell)?);
        }
        Ok(restored)
    }

    /// As [`Repository::get`].
    pub async fn get(&mut self, id: EventId, visibility: Visibility) -> Result<Option<MemCell>> {
        self.check()?;
        let outcome = self.documents.get(id, visibility, Some(&mut self.enlisted)).await;
        self.note(outcome)
    }

    fn check(&self) -> Result<()> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(repeat(&failure.error)))
    }

    /// Remembers a failure that ends the transaction: an error of the driver, an answer that did not come in time, or other
    /// operations of this host that are in its way.
    fn note<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            let driver = driver_error(error);
            let is_in_the_way = driver.is_none() && error.kind() == ErrorKind::Conflict;
            if driver.is_some() || is_in_the_way || error.kind() == ErrorKind::Timeout {
                let is_transient = is_in_the_way || driver.is_some_and(is_transient);
                self.failure = Some(Failure { error: repeat(error), is_transient });
            }
        }
        outcome
    }
}

impl Repository {
    /// Runs `body` in a transaction and commits it: all of its writes take place, or none. Reads within it see one
    /// snapshot.
    ///
    /// `body` is called again, from the start, when MongoDB asks for it (another writer was faster), so it must have no
    /// effects of its own. An error from `body` aborts the transaction. Dropping the future aborts it too, unless the
    /// commit is under way already.
    ///
    /// # Errors
    /// What `body` returned; [`ErrorKind::Unsupported`] on a standalone server; [`ErrorKind::Conflict`] if others kept
    /// interfering for three times the operation timeout; [`ErrorKind::Timeout`] if that time ran out otherwise. If it
    /// ran out during the commit, the writes may or may not have taken place, and the message says so.
    pub async fn transaction<T, F>(&self, body: F) -> Result<Committed<T>>
    where
        F: for<'a> FnMut(&'a mut Transaction) -> BoxFuture<'a, Result<T>> + Send,
        T: Send,
    {
        self.transaction_with(&(), body).await
    }

    /// As [`Repository::transaction`], with others who prepare what it does.
    ///
    /// # Errors
    /// As [`Repository::transaction`].
    pub async fn transaction_with<T, F>(&self, participants: &dyn Participants, mut body: F) -> Result<Committed<T>>
    where
        F: for<'a> FnMut(&'a mut Transaction) -> BoxFuture<'a, Result<T>> + Send,
        T: Send,
    {
        if !self.supports_transactions().await? {
            return Err(Error::new(ErrorKind::Unsupported, NO_TRANSACTIONS));
        }
        let deadline = Instant::now() + self.timeout * TIME_FACTOR;
        let mut attempt = 0;
        loop {
            // Each attempt has its own: what another one prepared can't be taken for what this one did.
            let id = bson::oid::ObjectId::new().to_hex();
            let mut transaction = self.begin().await?;
            participants.reached(Step::Begun, &id).await;
            let Ok(outcome) = timeout_at(deadline, body(&mut transaction)).await else {
                abort(&mut transaction.enlisted.session).await;
                return Err(Error::new(ErrorKind::Timeout, "the transaction took too long and was aborted"));
            };
            let failure = match (transaction.failure.take(), outcome) {
                (None, Ok(value)) => match self.conclude(&id, &mut transaction, participants, deadline).await {
                    Ok(()) => return Ok(Committed { value, changes: transaction.changes }),
                    Err(failure) => failure,
                },
                (failure, outcome) => {
                    abort(&mut transaction.enlisted.session).await;
                    match (failure, outcome) {
                        (Some(failure), _) if failure.is_transient => failure,
                        (_, Err(error)) => return Err(error),
                        (Some(failure), Ok(_)) => return Err(failure.error),
                        (None, Ok(_)) => {
                            return Err(Error::new(ErrorKind::Internal, "a transaction ended without an outcome"));
                        }
                    }
                }
            };
            attempt += 1;
            let pause = backoff(attempt);
            if !failure.is_transient || Instant::now() + pause >= deadline {
                return Err(failure.error);
            }
            // Whoever it was in the way of goes on meanwhile.
            drop(transaction);
            tokio::time::sleep(pause).await;
        }
    }

    async fn begin(&self) -> Result<Transaction> {
        let mut session = bounded(self.timeout, self.client.start_session()).await?;
        let options = TransactionOptions::builder()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(self.timeout).build())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        bounded(self.timeout, session.start_transaction().with_options(options)).await?;
        Ok(Transaction {
            documents: self.documents.clone(),
            enlisted: Enlisted::new(session),
            changes: Vec::new(),
            open_inserts: Vec::new(),
            failure: None,
        })
    }

    /// Has the changes prepared, leaves the marker, and commits.
    async fn conclude(
        &self,
        id: &str,
        transaction: &mut Transaction,
        participants: &dyn Participants,
        deadline: Instant,
    ) -> Result<(), Failure> {
        participants.reached(Step::Operated, id).await;
        let Transaction { enlisted: Enlisted { session, .. }, changes, .. } = transaction;
        let backends = participants.prepare(id, changes, deadline).await;
        if !backends.is_empty() {
            // Last of all, so that the marker of a process that ends before can be made by whoever finds the intent.
            if let Err(error) = self.mark(session, id, &backends).await {
                abort(session).await;
                participants.ended(Ending::Aborted);
                return Err(unmarked(error));
            }
            participants.reached(Step::Marked, id).await;
        }
        let committed = self.commit(session, deadline).await;
        match &committed {
            Ok(()) => participants.reached(Step::Committed, id).await,
            Err(failure) if failure.is_transient => participants.ended(Ending::Aborted),
            Err(_) => participants.ended(Ending::Unknown),
        }
        committed
    }

    /// Commits, asking again for as long as the result is unknown: the server answers a commit that it has carried out
    /// the same way twice.
    async fn commit(&self, session: &mut ClientSession, deadline: Instant) -> Result<(), Failure> {
        let mut attempt = 0;
        loop {
            let until = deadline.min(Instant::now() + self.timeout);
            let source = match timeout_at(until, session.commit_transaction().into_future()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => Some(error),
                Ok(Err(error)) => {
                    let is_transient = is_transient(&error);
                    return Err(Failure { error: convert(error), is_transient });
                }
                Err(_) => None,
            };
            attempt += 1;
            let pause = backoff(attempt);
            if Instant::now() + pause >= deadline {
                let unknown = Error::new(ErrorKind::Timeout, "whether the transaction was committed is unknown");
                let error = match source {
                    Some(source) => unknown.with_source(source),
                    None => unknown,
                };
                return Err(Failure { error, is_transient: false });
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Why a transaction has no marker. One of the same id was made by somebody who found the intent and took this process for gone.
fn unmarked(error: Error) -> Failure {
    let is_given_up = error.kind() == ErrorKind::AlreadyExists;
    let is_transient = is_given_up || driver_error(&error).is_some_and(is_transient);
    let error = if is_given_up {
        Error::new(ErrorKind::Conflict, "another host has given the transaction up").with_source(error)
    } else {
        error
    };
    Failure { error, is_transient }
}

/// What can't be aborted now, the server aborts when its time is up, and the session when it is dropped.
async fn abort(session: &mut ClientSession) {
    if let Err(error) = bounded(ABORT_TIMEOUT, session.abort_transaction()).await {
        tracing::debug!(error = ?error, "a transaction was left for the server to abort");
    }
}

/// Whether the whole transaction may pass if it is run again. Waiting for a server once more, right after that wait was
/// in vain, would only keep the caller waiting.
fn is_transient(error: &DriverError) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR) && !matches!(*error.kind, DriverKind::ServerSelection { .. })
}

/// A random time up to a bound that grows with the attempts, so that transactions in conflict don't meet again in step.
fn backoff(attempt: i32) -> Duration {
    let bound = BACKOFF_MIN.mul_f64(1.5_f64.powi(attempt.min(32))).min(BACKOFF_MAX);
    // Every hasher state is seeded at random.
    let random = std::hash::RandomState::new().build_hasher().finish();
    bound.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_and_differ() {
        let waits: Vec<Duration> = (1..100).map(backoff).collect();
        assert!(waits.iter().all(|wait| *wait <= BACKOFF_MAX));
        assert!(waits.iter().any(|wait| *wait > BACKOFF_MIN));
    }
}
