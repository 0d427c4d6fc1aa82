//! One acknowledged change of one document, as the mirrors are told of it.

use crate::memcell::{DocumentKey, MemCell};

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
