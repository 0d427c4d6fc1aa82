//! One acknowledged change of one document, as the mirrors are told of it.

use crate::memcell::{DocumentKey, MemCell};
use crate::{Error, ErrorKind, Result};

/// What a mirror has to make true for a key: that this document is there, or that nothing is.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key of the document, canonical.
    pub key: DocumentKey,
    /// The version of this state: the document's revision, or that of its deletion. Larger is newer.
    pub stamp: u64,
    /// The live document; `None` once it is deleted, softly or for good.
    pub document: Option<MemCell>,
}

impl Change {
    /// What the state that a document was just written in means for a mirror.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it has no revision, which every write gives it.
    pub fn written(document: &MemCell) -> Result<Self> {
        let revision = document.revision();
        let stamp = revision.ok_or_else(|| Error::new(ErrorKind::Internal, "mongodb answered without a revision"))?;
        Self::new(document.clone(), stamp)
    }

    /// What a document that was found means for a mirror. One without a revision is stamped with `reading`, the clock's from just
    /// before it was read.
    ///
    /// # Errors
    /// If it has no `_id` that can be a key.
    pub fn found(document: MemCell, reading: u64) -> Result<Self> {
        let stamp = document.revision().unwrap_or(reading);
        Self::new(document, stamp)
    }

    /// Mirrors hold live documents: one that is soft-deleted counts as gone.
    fn new(document: MemCell, stamp: u64) -> Result<Self> {
        Ok(Self { key: document.key()?, stamp, document: (!document.is_deleted()).then_some(document) })
    }
}
