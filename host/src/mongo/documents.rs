//! Changes of one document, each a single MongoDB operation that counts the revision up itself; with or without a
//! transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::options::ReturnDocument;
use mongodb::{ClientSession, Collection};

use super::connect::bounded;
use super::key_locks::{KeyGuard, KeyLocks};
use super::{filters, pipelines};
use crate::change::Change;
use crate::clock::{Clock, OpenInsert};
use crate::memcell::{EventId, MemCell, NewMemCell, Patch};
use crate::query::Visibility;
use crate::{Error, ErrorKind, Result};

/// How long an operation of a transaction waits for an insert of the same id. Whoever has written in a transaction keeps others
/// waiting in MongoDB, the one perhaps that this insert waits for: only giving up, and beginning anew, is sure to end that.
const WAIT_IN_TRANSACTION: Duration = Duration::from_millis(50);

/// The transaction that an operation belongs to, if it belongs to one.
pub(super) type Session<'a> = Option<&'a mut Enlisted>;

/// What the operations of a transaction have in common.
pub(super) struct Enlisted {
    pub(super) session: ClientSession,
    /// The ids of documents that it has worked on, which it keeps until it ends: they are there, and not to be waited for again.
    entered: HashMap<EventId, KeyGuard>,
}

impl Enlisted {
    pub(super) fn new(session: ClientSession) -> Self {
        Self { session, entered: HashMap::new() }
    }
}

/// The collection with what every change of it needs.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    pub(super) collection: Collection<RawDocumentBuf>,
    pub(super) clock: Arc<Clock>,
    pub(super) locks: KeyLocks,
    /// How long one operation may take.
    pub(super) timeout: Duration,
}

impl Documents {
    /// Inserts the document. The insert counts as under way, for those who read the clock, until the second value is dropped:
    /// in a transaction, that must not be before it has ended.
    pub(super) async fn insert(
        &self,
        cell: NewMemCell,
        mut session: Session<'_>,
    ) -> Result<(MemCell, Option<OpenInsert>)> {
        // An id that is made here is known to nobody yet.
        let (_alone, open) = match cell.given_event_id() {
            Some(id) => (Some(self.enter_alone(id, session.as_deref_mut()).await?), Some(self.clock.open_insert())),
            None => (None, None),
        };
        let reading = open.as_ref().map_or_else(|| self.clock.now(), OpenInsert::reading);
        let raw = cell.into_memcell(reading, pipelines::now_millis())?.into_raw();
        let insert = self.collection.insert_one(&raw);
        bounded(
            self.timeout,
            match session {
                Some(enlisted) => insert.session(&mut enlisted.session),
                None => insert,
            },
        )
        .await?;
        Ok((MemCell::from_raw(raw), open))
    }

    pub(super) async fn update(&self, id: EventId, patch: &Patch, mut session: Session<'_>) -> Result<MemCell> {
        if patch.is_empty() {
            return self.get(id, Visibility::Live, session).await?.ok_or_else(|| Error::not_found(id));
        }
        let id_value = id.object_id().into();
        let _shared = self.enter(&id_value, session.as_deref_mut()).await?;
        let live = filters::with_id(&id_value, &filters::visible(Visibility::Live));
        let pipeline = pipelines::update(patch, self.clock.now());
        self.change(live, pipeline, None, session).await?.ok_or_else(|| Error::not_found(id))
    }

    pub(super) async fn soft_delete(
        &self,
        id: EventId,
        deleted_by: Option<&str>,
        session: Session<'_>,
    ) -> Result<Change> {
        let live = filters::visible(Visibility::Live);
        let deleted = self.soft_delete_if(&id.object_id().into(), &live, deleted_by, session).await?;
        deleted.ok_or_else(|| Error::not_found(id))
    }

    pub(super) async fn hard_delete(&self, id: EventId, session: Session<'_>) -> Result<Change> {
        let deleted = self.hard_delete_if(&id.object_id().into(), &Document::new(), session).await?;
        deleted.ok_or_else(|| Error::not_found(id))
    }

    /// `None` if it is live already.
    pub(super) async fn restore(&self, id: EventId, mut session: Session<'_>) -> Result<Option<MemCell>> {
        let deleted = filters::visible(Visibility::Deleted);
        let restored = self.restore_if(&id.object_id().into(), &deleted, session.as_deref_mut()).await?;
        if restored.is_none() && self.get(id, Visibility::All, session).await?.is_none() {
            return Err(Error::not_found(id));
        }
        Ok(restored)
    }

    /// Soft-deletes the document if it meets `condition`, which must include that it is live.
    pub(super) async fn soft_delete_if(
        &self,
        id: &Bson,
        condition: &Document,
        deleted_by: Option<&str>,
        mut session: Session<'_>,
    ) -> Result<Option<Change>> {
        let _shared = self.enter(id, session.as_deref_mut()).await?;
        let pipeline = pipelines::soft_delete(deleted_by, self.clock.now());
        let deleted = self.change(filters::with_id(id, condition), pipeline, Some(version()), session).await?;
        let deletion = |cell: MemCell| Ok(Change { key: cell.key()?, stamp: revision(&cell)?, document: None });
        deleted.map(deletion).transpose()
    }

    /// Deletes the document for good if it meets `condition`.
    pub(super) async fn hard_delete_if(
        &self,
        id: &Bson,
        condition: &Document,
        mut session: Session<'_>,
    ) -> Result<Option<Change>> {
        let _shared = self.enter(id, session.as_deref_mut()).await?;
        // Read before the deletion: whoever inserts the id again afterwards reads a later one.
        let reading = self.clock.now();
        let delete = self.collection.find_one_and_delete(filters::with_id(id, condition)).projection(version());
        let deleted = bounded(
            self.timeout,
            match session {
                Some(enlisted) => delete.session(&mut enlisted.session),
                None => delete,
            },
        );
        let Some(raw) = deleted.await? else { return Ok(None) };
        let cell = MemCell::from_raw(raw);
        let stamp = cell.revision().map_or(reading, |last| reading.max(last.saturating_add(1)));
        self.clock.observe(stamp);
        Ok(Some(Change { key: cell.key()?, stamp, document: None }))
    }

    /// Restores the document if it meets `condition`, which must include that it is soft-deleted.
    pub(super) async fn restore_if(
        &self,
        id: &Bson,
        condition: &Document,
        mut session: Session<'_>,
    ) -> Result<Option<MemCell>> {
        let _shared = self.enter(id, session.as_deref_mut()).await?;
        let pipeline = pipelines::restore(self.clock.now());
        self.change(filters::with_id(id, condition), pipeline, None, session).await
    }

    /// Waits for an insert of this id that is under way. Only ids of this host's form can be inserted by it. Answers what is to be
    /// held during the operation, unless its transaction holds it.
    async fn enter(&self, id: &Bson, session: Session<'_>) -> Result<Option<KeyGuard>> {
        let Bson::ObjectId(id) = id else { return Ok(None) };
        let id = EventId::from_object_id(*id);
        let Some(enlisted) = session else { return Ok(Some(self.locks.shared(id, self.timeout).await?)) };
        if let Entry::Vacant(place) = enlisted.entered.entry(id) {
            place.insert(self.locks.shared(id, WAIT_IN_TRANSACTION).await.map_err(begin_anew)?);
        }
        Ok(None)
    }

    /// Waits for all other operations on this id.
    async fn enter_alone(&self, id: EventId, session: Session<'_>) -> Result<KeyGuard> {
        let Some(enlisted) = session else { return self.locks.alone(id, self.timeout).await };
        // It may have deleted the document that it inserts now.
        enlisted.entered.remove(&id);
        self.locks.alone(id, WAIT_IN_TRANSACTION).await.map_err(begin_anew)
    }

    pub(super) async fn get(
        &self,
        id: EventId,
        visibility: Visibility,
        session: Session<'_>,
    ) -> Result<Option<MemCell>> {
        self.get_by_id(id.object_id().into(), visibility, session).await
    }

    pub(super) async fn get_by_id(
        &self,
        id: Bson,
        visibility: Visibility,
        session: Session<'_>,
    ) -> Result<Option<MemCell>> {
        // A filter of nothing but the id takes the server's shortest way, so the visibility is judged here.
        let find = self.collection.find_one(doc! { "_id": id });
        let found = bounded(
            self.timeout,
            match session {
                Some(enlisted) => find.session(&mut enlisted.session),
                None => find,
            },
        );
        let visible = |cell: &MemCell| match visibility {
            Visibility::Live => !cell.is_deleted(),
            Visibility::Deleted => cell.is_deleted(),
            Visibility::All => true,
        };
        Ok(found.await?.map(MemCell::from_raw).filter(visible))
    }

    /// Runs the pipeline on the document that matches, and answers it as it is afterwards (as much of it as
    /// `projection` says).
    async fn change(
        &self,
        query: Document,
        pipeline: Vec<Document>,
        projection: Option<Document>,
        session: Session<'_>,
    ) -> Result<Option<MemCell>> {
        let mut change = self.collection.find_one_and_update(query, pipeline).return_document(ReturnDocument::After);
        if let Some(projection) = projection {
            change = change.projection(projection);
        }
        let changed = bounded(
            self.timeout,
            match session {
                Some(enlisted) => change.session(&mut enlisted.session),
                None => change,
            },
        );
        let Some(raw) = changed.await? else { return Ok(None) };
        let cell = MemCell::from_raw(raw);
        self.clock.observe(revision(&cell)?);
        Ok(Some(cell))
    }
}

/// Others are in the way of a transaction: see [`WAIT_IN_TRANSACTION`].
fn begin_anew(busy: Error) -> Error {
    Error::new(ErrorKind::Conflict, busy.message())
}

/// The revision of a document that this host has just written.
fn revision(cell: &MemCell) -> Result<u64> {
    cell.revision().ok_or_else(|| Error::new(ErrorKind::Internal, "mongodb answered a write without its revision"))
}

/// As much of a document as a deletion needs.
fn version() -> Document {
    doc! { "_id": 1, "revision": 1 }
}
