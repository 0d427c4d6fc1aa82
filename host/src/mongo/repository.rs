//! The repository: the connection, and the writes of single documents and batches.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{RawDocumentBuf, doc};
use mongodb::error::{ErrorKind as DriverKind, InsertManyError};
use mongodb::options::{CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, Collection};

use super::connect::{ConnectOptions, bounded, client};
use super::documents::Documents;
use super::error::{driver_error, refusal, repeat};
use super::key_locks::KeyLocks;
use super::{indexes, pipelines};
use crate::change::Change;
use crate::clock::Clock;
use crate::memcell::{DocumentKey, EventId, MemCell, NewMemCell, Patch};
use crate::{Error, ErrorKind, Result};

/// The most documents, and about the most bytes, that one insert command takes. Each command gets the time of one
/// operation.
const INSERT_BATCH_DOCUMENTS: usize = 1000;
const INSERT_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The collection of MemCells in MongoDB. Cheap to clone; clones share the connections.
///
/// Every method waits at most `operation_timeout` (per step where it takes several), and answers
/// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] then; after a timeout a write may or may not have taken place.
/// Dropping a future abandons the wait, not the write.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(super) client: Client,
    pub(super) documents: Documents,
    /// The same collection read from the primary, and only what a majority has: what is mirrored must not be rolled
    /// back.
    pub(super) authority: Collection<RawDocumentBuf>,
    pub(super) timeout: Duration,
    /// Set once a server said that it can run transactions.
    transactional: Arc<AtomicBool>,
}

impl Repository {
    /// Prepares the connection. A server that is down is no error here; operations tell.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a malformed URI; [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if the DNS
    /// records of a `mongodb+srv` URI can't be read.
    pub async fn connect(options: &ConnectOptions, clock: Arc<Clock>) -> Result<Self> {
        let client = client(options).await?;
        let database = client.database(&options.database);
        let collection = database.collection(&options.collection);
        let pinned = CollectionOptions::builder()
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .read_concern(ReadConcern::majority())
            .build();
        let authority = database.collection_with_options(&options.collection, pinned);
        let timeout = options.operation_timeout;
        Ok(Self {
            client,
            documents: Documents { collection, clock, locks: KeyLocks::default(), timeout },
            authority,
            timeout,
            transactional: Arc::default(),
        })
    }

    /// Ends the sessions and the tasks of the driver, as far as that takes no longer than `limit`. A runtime that ended before they do
    /// would make them panic. Operations fail from then on.
    pub async fn disconnect(&self, limit: Duration) {
        // Those that hold a cursor may take as long as they like to let go of it.
        let ending = self.client.clone().shutdown().immediate(true);
        if tokio::time::timeout(limit, ending.into_future()).await.is_err() {
            tracing::debug!("the sessions at mongodb could not be ended in time");
        }
    }

    /// The collection's full name, `database.collection`.
    pub fn namespace(&self) -> String {
        self.authority.namespace().to_string()
    }

    /// A collection of the host's own, which lies beside that of the MemCells and is named after it.
    pub(super) fn beside<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let authority = self.authority.namespace();
        let options = CollectionOptions::builder()
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .read_concern(ReadConcern::majority())
            .build();
        self.client.database(&authority.db).collection_with_options(&format!("{}.{name}", authority.coll), options)
    }

    /// Whether a server that can take writes answers.
    pub async fn ping(&self) -> Result<()> {
        bounded(self.timeout, self.client.database("admin").run_command(doc! { "ping": 1 })).await?;
        Ok(())
    }

    /// Whether [`transaction`](Self::transaction) works here: on replica sets and sharded clusters. Asks the server
    /// until it says so once.
    pub async fn supports_transactions(&self) -> Result<bool> {
        if self.transactional.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let hello = bounded(self.timeout, self.client.database("admin").run_command(doc! { "hello": 1 })).await?;
        let supported =
            hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|message| message == "isdbgrid");
        self.transactional.store(supported, Ordering::Relaxed);
        Ok(supported)
    }

    /// Creates the indexes that are missing; see `indexes`. Waits ten minutes at most, for a large collection takes its
    /// time; the server goes on by itself then.
    pub async fn ensure_indexes(&self) -> Result<()> {
        indexes::ensure(&self.documents.collection, self.timeout).await
    }

    /// Creates the indexes of a collection that has come into the place of another one, and answers whether it was such a one. Waits as
    /// [`Repository::ensure_indexes`] does.
    pub async fn restore_indexes(&self) -> Result<bool> {
        indexes::restore(&self.documents.collection, self.timeout).await
    }

    /// Inserts the document under a new revision.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if its id is taken, [`ErrorKind::InvalidDocument`] if MongoDB can't store it.
    pub async fn insert(&self, cell: NewMemCell) -> Result<MemCell> {
        self.documents.insert(cell, None).await.map(|(inserted, _)| inserted)
    }

    /// Inserts each document for itself; one result per document, in their order. A failure of one doesn't hinder the
    /// others. Of two with the same id the first is inserted, the other gets [`ErrorKind::AlreadyExists`].
    ///
    /// # Errors
    /// If a command fails as a whole while nothing was inserted before. Later, the documents of that command get its
    /// error each, and those after it are not tried and get it too.
    pub async fn insert_many(&self, cells: Vec<NewMemCell>) -> Result<Vec<Result<MemCell>>> {
        let given: Vec<EventId> = cells.iter().filter_map(NewMemCell::event_id).collect();
        // The revisions are read after this, and so are later than its reading.
        let _open = (!given.is_empty()).then(|| self.documents.clock.open_insert());
        let _alone = self.documents.locks.alone_for_all(given, self.timeout).await?;
        let mut results = Vec::with_capacity(cells.len());
        let mut keys = HashSet::with_capacity(cells.len());
        let mut batch = Batch::default();
        let mut failure: Option<Error> = None;
        for cell in cells {
            let checked = match &failure {
                Some(error) => Err(repeat(error)),
                None => self.prepare(cell, &mut keys),
            };
            match checked {
                Ok(raw) => {
                    batch.bytes += raw.as_bytes().len();
                    batch.indexes.push(results.len());
                    // Its result takes this place once the command is through.
                    results.push(Err(Error::new(ErrorKind::Internal, "the document was not sent")));
                    batch.documents.push(raw);
                }
                Err(error) => results.push(Err(error)),
            }
            if batch.is_full() {
                failure = self.flush(std::mem::take(&mut batch), &mut results).await.err();
            }
        }
        if !batch.documents.is_empty() {
            failure = self.flush(batch, &mut results).await.err();
        }
        match failure {
            Some(error) if results.iter().all(Result::is_err) => Err(error),
            _ => Ok(results),
        }
    }

    /// Replaces the fields of the patch, whole, in the live document, and answers the new one; an empty patch answers
    /// it untouched.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none or it is soft-deleted.
    pub async fn update(&self, id: EventId, patch: &Patch) -> Result<MemCell> {
        self.documents.update(id, patch, None).await
    }

    /// Marks the live document as deleted. The stamp of the change is its new revision.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none or it is soft-deleted already.
    pub async fn soft_delete(&self, id: EventId, deleted_by: Option<&str>) -> Result<Change> {
        self.documents.soft_delete(id, deleted_by, None).await
    }

    /// Deletes the document, soft-deleted or not, for good. The stamp of the change is beyond its last revision.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub async fn hard_delete(&self, id: EventId) -> Result<Change> {
        self.documents.hard_delete(id, None).await
    }

    /// Makes the soft-deleted document live again; `None` if it is live already.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub async fn restore(&self, id: EventId) -> Result<Option<MemCell>> {
        self.documents.restore(id, None).await
    }

    /// The document as it is sent, if it is valid and no earlier one has its id.
    fn prepare(&self, cell: NewMemCell, keys: &mut HashSet<DocumentKey>) -> Result<RawDocumentBuf> {
        let cell = cell.into_memcell(self.documents.clock.now(), pipelines::now_millis())?;
        if !keys.insert(cell.key()?) {
            return Err(Error::new(ErrorKind::AlreadyExists, "an earlier document of the batch has the same id"));
        }
        Ok(cell.into_raw())
    }

    /// Sends one insert command and puts each document's result in its place. Fails if the command failed as a whole.
    async fn flush(&self, batch: Batch, results: &mut [Result<MemCell>]) -> Result<()> {
        let insert = self.documents.collection.insert_many(&batch.documents).ordered(false);
        let failure = bounded(self.timeout, insert).await.err();
        let partial = failure.as_ref().and_then(partial_failure);
        let places = batch.indexes.into_iter().zip(batch.documents);
        for (position, (index, raw)) in places.enumerate() {
            let refused = partial
                .and_then(|partial| partial.write_errors.iter().flatten().find(|refused| refused.index == position));
            let outcome = match (refused, &failure) {
                (Some(refused), _) => Err(refusal(refused.code, &refused.message)),
                (None, Some(error)) if !is_confirmed(partial) => Err(repeat(error)),
                (None, _) => Ok(MemCell::from_raw(raw)),
            };
            if let Some(place) = results.get_mut(index) {
                *place = outcome;
            }
        }
        match failure {
            Some(error) if partial.is_none() => Err(repeat(&error)),
            _ => Ok(()),
        }
    }
}

/// The documents of one insert command, and where their results belong.
#[derive(Default)]
struct Batch {
    documents: Vec<RawDocumentBuf>,
    indexes: Vec<usize>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.documents.len() >= INSERT_BATCH_DOCUMENTS || self.bytes >= INSERT_BATCH_BYTES
    }
}

/// What the server said about single documents, if it carried the command out.
fn partial_failure(error: &Error) -> Option<&InsertManyError> {
    match driver_error(error).map(|error| &*error.kind) {
        Some(DriverKind::InsertMany(partial)) => Some(partial),
        _ => None,
    }
}

/// Whether a document that was not refused was also replicated as asked for.
fn is_confirmed(partial: Option<&InsertManyError>) -> bool {
    partial.is_some_and(|partial| partial.write_concern_error.is_none())
}
