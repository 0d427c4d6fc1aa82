//! Documents that come back: inserted as they were, and never over what is there.

use bson::RawDocumentBuf;
use mongodb::error::ErrorKind as DriverKind;

use super::connect::bounded;
use super::error::driver_error;
use super::repository::Repository;
use crate::Result;
use crate::memcell::MemCell;

/// What became of a document that was to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// It was inserted.
    Inserted,
    /// There is a document with its id, live or deleted.
    Present,
    /// MongoDB doesn't take it.
    Refused,
}

/// A duplicate key.
const DUPLICATE: i32 = 11_000;

impl Repository {
    /// Inserts each document exactly as it is, revision and times included, if there is none with its id. One answer per document, in
    /// their order. Other operations of this host on these ids wait.
    ///
    /// # Errors
    /// Those of MongoDB being away; some documents may have been inserted then.
    pub async fn insert_absent(&self, cells: Vec<MemCell>) -> Result<Vec<Returned>> {
        let ids = cells.iter().filter_map(MemCell::event_id);
        let _alone = self.documents.locks.alone_for_all(ids.collect(), self.timeout).await?;
        cells.iter().filter_map(MemCell::revision).for_each(|revision| self.documents.clock.observe(revision));
        let raw: Vec<RawDocumentBuf> = cells.into_iter().map(MemCell::into_raw).collect();
        let mut returned = vec![Returned::Inserted; raw.len()];
        if raw.is_empty() {
            return Ok(returned);
        }
        let insert = self.documents.collection.insert_many(&raw).ordered(false);
        let Err(error) = bounded(self.timeout, insert).await else { return Ok(returned) };
        match driver_error(&error).map(|error| &*error.kind) {
            Some(DriverKind::InsertMany(partial)) if partial.write_concern_error.is_none() => {
                for refused in partial.write_errors.iter().flatten() {
                    if let Some(place) = returned.get_mut(refused.index) {
                        *place = if refused.code == DUPLICATE { Returned::Present } else { Returned::Refused };
                    }
                }
                Ok(returned)
            }
            _ => Err(error),
        }
    }
}
