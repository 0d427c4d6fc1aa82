//! One stored MemCell, kept as the BSON that MongoDB sent.

use std::fmt;
use std::sync::OnceLock;

use bson::{DateTime, RawBsonRef, RawDocument, RawDocumentBuf};

use super::facts::Facts;
use super::json::{Dialect, Fidelity, write_document, write_memcell};
use super::{DocumentKey, EventId};
use crate::{Error, ErrorKind, Result};

/// A document of the collection, exactly as it is stored: unknown fields, field order, and the types of numbers
/// included.
///
/// Access is lazy. A document that isn't well-formed BSON answers as if the fields behind the damage were absent, and
/// an error from everything that writes it.
#[derive(Clone)]
pub struct MemCell {
    raw: RawDocumentBuf,
    facts: OnceLock<Facts>,
}

impl MemCell {
    /// Takes a document as MongoDB or a backend has it.
    pub fn from_raw(raw: RawDocumentBuf) -> Self {
        Self { raw, facts: OnceLock::new() }
    }

    /// The document, for writing it to MongoDB.
    pub fn as_raw(&self) -> &RawDocument {
        &self.raw
    }

    /// The document, for writing it to MongoDB.
    pub fn into_raw(self) -> RawDocumentBuf {
        self.raw
    }

    fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| Facts::of(&self.raw))
    }

    /// Where the backends keep it.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] without an `_id`, which nothing in a collection can lack.
    pub fn key(&self) -> Result<DocumentKey> {
        match self.field("_id") {
            Some(id) => DocumentKey::from_id(id),
            None => Err(Error::new(ErrorKind::Internal, "a document has no _id")),
        }
    }

    /// Its `_id`, if that is an ObjectId.
    pub fn event_id(&self) -> Option<EventId> {
        self.field("_id")?.as_object_id().map(EventId::from_object_id)
    }

    /// Its revision, if it has one: any BSON number that is a whole one and not negative.
    pub fn revision(&self) -> Option<u64> {
        self.facts().revision
    }

    /// Whether it is softly deleted: `deleted_at` is there and not null.
    pub fn is_deleted(&self) -> bool {
        self.facts().is_deleted
    }

    /// When it expires, as MongoDB's index of `expires_at` sees it: at the earliest time, if there are several; never, if there is none.
    pub fn expires_at(&self) -> Option<DateTime> {
        self.facts().expires_at
    }

    /// When the conversation took place. `None` if another program stored something else than a datetime.
    pub fn timestamp(&self) -> Option<DateTime> {
        self.field("timestamp")?.as_datetime()
    }

    /// The top-level field of this name.
    pub fn field(&self, name: &str) -> Option<RawBsonRef<'_>> {
        self.raw.get(name).ok().flatten()
    }

    /// The document with nothing but `_id` and the top-level fields named, in the order they are stored in.
    ///
    /// A malformed document comes back whole, for then writing it reports the damage.
    #[must_use]
    pub fn project(&self, fields: &[String]) -> Self {
        let mut projected = RawDocumentBuf::new();
        for element in &self.raw {
            let Ok((name, value)) = element else { return self.clone() };
            if name.as_str() == "_id" || fields.iter().any(|field| field == name.as_str()) {
                projected.append(name, value);
            }
        }
        Self::from_raw(projected)
    }

    /// Appends the form that the HTTP API speaks.
    ///
    /// `event_id` stands where `_id` is stored: 24 hexadecimal digits; for an id of another type a string as it is, and
    /// canonical Extended JSON for the rest. (A stored field of that name is left out.) Datetimes are ISO 8601 in
    /// UTC, with milliseconds only where they aren't zero; years outside 0–9999 are `{"$date": {"$numberLong": …}}`.
    /// Doubles always have a fraction or an exponent. What JSON lacks is Extended JSON. All else is as it is stored,
    /// null and absent included.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the document is malformed; `out` then holds a part of it.
    pub fn write_api_json(&self, out: &mut Vec<u8>) -> Result<()> {
        write_memcell(&self.raw, out)
    }

    /// The same as a value, for callers that build on it.
    ///
    /// # Errors
    /// As [`MemCell::write_api_json`].
    pub fn api_json(&self) -> Result<serde_json::Value> {
        let mut json = Vec::new();
        self.write_api_json(&mut json)?;
        serde_json::from_slice(&json)
            .map_err(|source| Error::new(ErrorKind::Internal, "a document makes no json").with_source(source))
    }

    /// Appends canonical Extended JSON v2, from which the same document can be read again, types included; unless it is
    /// [`Fidelity::Ambiguous`].
    ///
    /// # Errors
    /// As [`MemCell::write_api_json`].
    pub fn write_canonical_json(&self, out: &mut Vec<u8>) -> Result<Fidelity> {
        write_document(&self.raw, Dialect::Canonical, out)
    }
}

/// Equal are documents of the same bytes.
impl PartialEq for MemCell {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

/// Says which document it is and how large, and nothing of what is in it.
impl fmt::Debug for MemCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.key().map_or_else(|_| "no _id".to_owned(), |key| key.to_string());
        write!(f, "MemCell({id}, {} bytes)", self.raw.as_bytes().len())
    }
}
