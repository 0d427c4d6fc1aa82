//! What a caller may ask for: filters, pages and their answers. Knows no driver; `mongo` turns it into queries.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc};

use crate::memcell::MemCell;
use crate::{Error, ErrorKind, Result};

/// Which documents. Every condition that is given must hold; the default matches all live documents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Documents of this user. Together with a [`range`](Self::range) also those that have the user among their
    /// participants.
    pub user_id: Option<String>,
    /// Documents of this group.
    pub group_id: Option<String>,
    /// Documents with any or all of these participants.
    pub participants: Option<Terms>,
    /// Documents with any or all of these keywords.
    pub keywords: Option<Terms>,
    /// Documents whose `type` is exactly this.
    pub memcell_type: Option<String>,
    /// Documents whose `timestamp` lies in this range.
    pub range: TimeRange,
    /// Whether soft-deleted documents are seen.
    pub visibility: Visibility,
}

impl Filter {
    /// Whether no condition but the visibility is given.
    pub fn is_unfiltered(&self) -> bool {
        self.user_id.is_none()
            && self.group_id.is_none()
            && self.participants.is_none()
            && self.keywords.is_none()
            && self.memcell_type.is_none()
            && self.range.is_unbounded()
    }
}

/// Terms that a list field is searched for, compared exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// At least one.
    pub terms: Vec<String>,
    /// Whether one of them is enough.
    pub mode: MatchMode,
}

/// How many of the [`Terms`] must be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MatchMode {
    /// One or more.
    #[default]
    Any,
    /// Every one.
    All,
}

/// The times `[start, end)`; a missing bound is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// The first moment inside.
    pub start: Option<DateTime>,
    /// The first moment after it.
    pub end: Option<DateTime>,
}

impl TimeRange {
    /// Whether every time lies in it.
    pub fn is_unbounded(&self) -> bool {
        self.start.is_none() && self.end.is_none()
    }

    /// Refuses a range that ends before it starts. An empty one (`start == end`) is fine, and matches nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`].
    pub fn check(&self) -> Result<()> {
        match (self.start, self.end) {
            (Some(start), Some(end)) if end < start => {
                Err(Error::new(ErrorKind::InvalidArgument, "the time range ends before it starts"))
            }
            _ => Ok(()),
        }
    }
}

/// Which documents are seen, judged by their soft deletion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Only those that are not deleted.
    #[default]
    Live,
    /// All.
    All,
    /// Only the soft-deleted ones.
    Deleted,
}

/// The documents that a bulk deletion or restoration is about: those of exactly this user (participants don't count)
/// within this range. At least one of the two must be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BulkScope {
    /// The user, if only one user's documents are meant.
    pub user_id: Option<String>,
    /// The times, if only some are meant.
    pub range: TimeRange,
}

impl BulkScope {
    /// Refuses a scope that means the whole collection, and a range that ends before it starts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`].
    pub fn check(&self) -> Result<()> {
        if self.user_id.is_none() && self.range.is_unbounded() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a bulk operation needs a user or a time range"));
        }
        self.range.check()
    }
}

/// By `timestamp`, then by `_id`; documents without a timestamp count as the oldest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Latest timestamp first.
    #[default]
    NewestFirst,
    /// Earliest timestamp first.
    OldestFirst,
}

/// Which part of the matching documents, in which order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The most documents; `None`: all of them.
    pub limit: Option<NonZeroU64>,
    /// How many to leave out first, counted from the cursor if there is one.
    pub skip: u64,
    /// The order. A cursor continues only the order that it was made in.
    pub order: Order,
    /// Where to go on; `None`: at the beginning.
    pub cursor: Option<Cursor>,
}

/// The longest text that [`Cursor::parse`] looks at, in bytes: about as much as the address of a request may hold.
const MAX_CURSOR_CHARS: usize = 60 * 1024;

/// The deepest that the values in a cursor may nest: as deep as MongoDB lets documents nest.
const MAX_CURSOR_DEPTH: u32 = 100;

/// A place between two documents in an [`Order`], told by the document before it. It stays usable while documents come
/// and go, and documents that share a timestamp are told apart by their `_id`, of any type.
///
/// Its text form (`Display`, [`Cursor::parse`]) is opaque base64url. Where another program made `timestamp` a list of times, the one counts
/// that MongoDB sorts by. A list of other things is beyond it: such a document may be seen twice or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    order: Order,
    timestamp: Bson,
    id: Bson,
}

impl Cursor {
    /// The place right after `last`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it is not a well-formed document with an `_id`.
    pub fn after(order: Order, last: &MemCell) -> Result<Self> {
        let value = |field: RawBsonRef<'_>| {
            Bson::try_from(field).map_err(|source| {
                Error::new(ErrorKind::Internal, "a stored document is not well-formed BSON").with_source(source)
            })
        };
        let id = last.field("_id").ok_or_else(|| Error::new(ErrorKind::Internal, "a stored document has no _id"))?;
        let timestamp = match last.field("timestamp").map_or(Ok(Bson::Null), value)? {
            Bson::Array(items) => {
                let times = items.iter().filter_map(Bson::as_datetime).copied();
                let sorted_by = match order {
                    Order::NewestFirst => times.max(),
                    Order::OldestFirst => times.min(),
                };
                sorted_by.map_or(Bson::Null, Bson::DateTime)
            }
            timestamp => timestamp,
        };
        Ok(Self { order, timestamp, id: value(id)? })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if it is not one.
    pub fn parse(text: &str) -> Result<Self> {
        Self::decode(text).ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the cursor is not one of this API"))
    }

    /// The order that it continues.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The timestamp of the document before this place; null if it has none.
    pub(crate) fn timestamp(&self) -> &Bson {
        &self.timestamp
    }

    /// The `_id` of the document before this place.
    pub(crate) fn id(&self) -> &Bson {
        &self.id
    }

    fn decode(text: &str) -> Option<Self> {
        if text.len() > MAX_CURSOR_CHARS {
            return None;
        }
        let raw = RawDocumentBuf::from_bytes(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        if !nests_at_most(&raw, MAX_CURSOR_DEPTH) {
            return None;
        }
        let mut fields = Document::try_from(raw).ok()?;
        let order = match fields.remove("o")? {
            Bson::Int32(0) => Order::NewestFirst,
            Bson::Int32(1) => Order::OldestFirst,
            _ => return None,
        };
        let cursor = Self { order, timestamp: fields.remove("t")?, id: fields.remove("i")? };
        fields.is_empty().then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::NewestFirst => 0,
            Order::OldestFirst => 1,
        };
        let fields = doc! { "o": order, "t": self.timestamp.clone(), "i": self.id.clone() };
        let bytes = fields.to_vec().map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Whether decoding this document takes at most `levels` of recursion: what comes from outside must not exhaust the
/// stack.
fn nests_at_most(document: &RawDocument, levels: u32) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    document.iter().all(|element| match element {
        Ok((_, RawBsonRef::Document(inner))) => nests_at_most(inner, below),
        Ok((_, RawBsonRef::JavaScriptCodeWithScope(code))) => nests_at_most(code.scope, below),
        // A list is laid out as a document whose names are numbers.
        Ok((_, RawBsonRef::Array(items))) => {
            RawDocument::from_bytes(items.as_bytes()).is_ok_and(|items| nests_at_most(items, below))
        }
        Ok(_) => true,
        Err(_) => false,
    })
}

/// What one user did.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivitySummary {
    /// The user that was asked about.
    pub user_id: String,
    /// How many live documents the user has in the range.
    pub total_count: u64,
    /// How many there are of each `type`. Those without one, or with one that is not a string, count under `"unknown"`.
    pub type_distribution: BTreeMap<String, u64>,
    /// The earliest timestamp among them; `None` if there are none.
    pub earliest_activity: Option<DateTime>,
    /// The latest timestamp among them.
    pub latest_activity: Option<DateTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(timestamp: impl Into<Bson>, id: impl Into<Bson>) -> Cursor {
        Cursor { order: Order::OldestFirst, timestamp: timestamp.into(), id: id.into() }
    }

    #[test]
    fn a_cursor_survives_its_text_form() {
        for id in [Bson::ObjectId(bson::oid::ObjectId::new()), "é\"".into(), 7_i64.into(), doc! { "a": [1, 2] }.into()]
        {
            for timestamp in [Bson::Null, DateTime::from_millis(1_750_000_000_123).into(), Bson::Double(0.5)] {
                let cursor = cursor(timestamp, id.clone());
                assert_eq!(Cursor::parse(&cursor.to_string()).unwrap(), cursor);
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let mut deep = Bson::Null;
        for _ in 0..400 {
            deep = vec![deep].into();
        }
        let long = cursor(Bson::Null, "x".repeat(MAX_CURSOR_CHARS)).to_string();
        let texts = ["", "AAAA", "not base64!", &cursor(Bson::Null, deep).to_string(), &long];
        for text in texts {
            let error = Cursor::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text:.40}");
        }
        let whole = cursor(DateTime::MIN, "id").to_string();
        for end in 0..whole.len() {
            assert!(Cursor::parse(&whole[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_range_may_be_empty_but_not_backwards() {
        let at = |millis| Some(DateTime::from_millis(millis));
        assert!(TimeRange { start: at(5), end: at(5) }.check().is_ok());
        assert!(TimeRange { start: at(6), end: at(5) }.check().is_err());
        assert!(BulkScope::default().check().is_err());
        assert!(BulkScope { user_id: Some("u".into()), ..BulkScope::default() }.check().is_ok());
    }

    #[test]
    fn visibility_alone_is_no_filter() {
        assert!(Filter { visibility: Visibility::All, ..Filter::default() }.is_unfiltered());
        let ranged = TimeRange { start: Some(DateTime::MIN), end: None };
        assert!(!Filter { range: ranged, ..Filter::default() }.is_unfiltered());
    }
}
