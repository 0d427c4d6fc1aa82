//! What comes from outside, checked: a new MemCell, and a patch of one.

use bson::raw::cstr;
use bson::{Bson, DateTime, Document, RawBson, RawDocumentBuf, Timestamp};
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::extended::read_document;
use super::rules::{convert_field, found};
use super::{EventId, MemCell, Unique};
use crate::{Error, ErrorKind, Result};

/// The largest MemCell, in bytes of BSON: MongoDB's limit of 16 MiB, less 16 KiB for what the host adds to it.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024 - 16 * 1024;

/// What MongoDB takes for a request to put the time there, in a top-level field of an insert.
const EMPTY_TIMESTAMP: Timestamp = Timestamp { time: 0, increment: 0 };

/// A MemCell that isn't stored yet, whose fields are in order.
#[derive(Clone)]
pub struct NewMemCell {
    id: Bson,
    /// Whether that is not of the host's own making.
    is_id_given: bool,
    times: Times,
    /// All other fields.
    body: RawDocumentBuf,
}

/// When a document was made and changed.
#[derive(Debug, Clone, Copy)]
enum Times {
    /// As given, else now.
    Kept { created_at: Option<DateTime>, updated_at: Option<DateTime> },
    /// Whatever the other fields say of it.
    InBody,
}

impl NewMemCell {
    /// Takes a MemCell as the API has it: `event_id` is optional, `timestamp` is required, and `created_at`,
    /// `updated_at` and `revision` are the host's to set, whatever is given.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidDocument`] with the field that is wrong, or [`ErrorKind::InvalidId`].
    pub fn from_api(mut fields: Map<String, Value>) -> Result<Self> {
        if fields.contains_key("_id") {
            return Err(Error::invalid_field("_id", "the id of a MemCell is its event_id"));
        }
        for name in ["deleted_at", "deleted_by"] {
            if fields.get(name).is_some_and(|value| !value.is_null()) {
                return Err(Error::invalid_field(name, "a MemCell is appended as a live one; delete it afterwards"));
            }
        }
        for name in ["created_at", "updated_at"] {
            fields.shift_remove(name);
        }
        let id = take_event_id(&mut fields)?;
        Self::from_fields(id, fields)
    }

    /// Takes one JSON object as the API has it, or as `mongoexport` writes it (Extended JSON, relaxed or canonical),
    /// or a mixture. An `_id` may be of any type that MongoDB allows and is kept, and so are `created_at` and
    /// `updated_at`.
    ///
    /// # Errors
    /// As [`NewMemCell::from_api`].
    pub fn from_import_line(line: &str) -> Result<Self> {
        let Unique(value) = serde_json::from_str(line.trim_start_matches('\u{feff}')).map_err(not_json)?;
        let Value::Object(mut fields) = value else {
            return Err(Error::new(ErrorKind::InvalidDocument, "a MemCell is a json object"));
        };
        let event_id = take_event_id(&mut fields)?;
        let id = match fields.shift_remove("_id") {
            None => event_id,
            Some(_) if event_id.is_some() => {
                return Err(Error::invalid_field("_id", "there can be either an _id or an event_id"));
            }
            Some(given) => Some(checked_id(convert_field("_id", given)?)?),
        };
        Self::from_fields(id, fields)
    }

    fn from_fields(id: Option<Bson>, mut fields: Map<String, Value>) -> Result<Self> {
        fields.shift_remove("revision");
        if !fields.contains_key("timestamp") {
            return Err(Error::invalid_field("timestamp", "a MemCell needs a timestamp"));
        }
        let mut body = Document::new();
        let (mut created_at, mut updated_at) = (None, None);
        for (name, value) in fields {
            let converted = convert_field(&name, value)?;
            check_kept(&name, &converted)?;
            match name.as_str() {
                "created_at" => created_at = converted.as_datetime().copied(),
                "updated_at" => updated_at = converted.as_datetime().copied(),
                _ => drop(body.insert(name, converted)),
            }
        }
        Self::new(id, Times::Kept { created_at, updated_at }, &body)
    }

    /// Takes a document as it was, in canonical Extended JSON as `memcell export` writes it. The rules for MemCells don't apply,
    /// and nothing but the revision changes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidDocument`] for what is no such document, has no `_id`, or isn't kept by MongoDB as it is.
    pub fn from_exact_line(line: &str) -> Result<Self> {
        let line = line.trim_start_matches('\u{feff}');
        let raw = read_document(line.as_bytes()).map_err(|reason| match serde_json::from_str::<IgnoredAny>(line) {
            Err(source) => not_json(source),
            Ok(IgnoredAny) => Error::new(ErrorKind::InvalidDocument, reason),
        })?;
        let mut body = Document::try_from(&raw).map_err(unencodable)?;
        let Some(id) = body.remove("_id") else {
            return Err(Error::invalid_field("_id", "a document that is to be as it was has one"));
        };
        body.remove("revision");
        body.iter().try_for_each(|(name, value)| check_kept(name, value))?;
        Self::new(Some(checked_id(id)?), Times::InBody, &body)
    }

    fn new(id: Option<Bson>, times: Times, body: &Document) -> Result<Self> {
        let id_bytes = match &id {
            Some(id) => encode(&bson::doc! { "_id": id.clone() })?.as_bytes().len(),
            None => 0,
        };
        let is_id_given = id.is_some();
        let id = id.unwrap_or_else(|| EventId::new().object_id().into());
        let new = Self { id, is_id_given, times, body: encode(body)? };
        check_size(new.body.as_bytes().len() + id_bytes)?;
        Ok(new)
    }

    /// The id that was given, if it is an ObjectId.
    pub fn given_event_id(&self) -> Option<EventId> {
        self.event_id().filter(|_| self.is_id_given)
    }

    /// The id that was given, or a fresh one, unless it is something else than an ObjectId.
    pub fn event_id(&self) -> Option<EventId> {
        self.id.as_object_id().map(EventId::from_object_id)
    }

    /// The document to insert: with the id that was given or the fresh one, this revision, and these times where none
    /// are kept. `now_millis` is in Unix milliseconds.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for a revision beyond the range of an int64.
    pub fn into_memcell(self, revision: u64, now_millis: i64) -> Result<MemCell> {
        let revision = i64::try_from(revision)
            .map_err(|source| Error::new(ErrorKind::Internal, "a revision is out of range").with_source(source))?;
        let now = DateTime::from_millis(now_millis);

        let mut document = RawDocumentBuf::new();
        document.append(cstr!("_id"), RawBson::try_from(self.id).map_err(unencodable)?);
        for element in &self.body {
            let (name, value) = element.map_err(unencodable)?;
            document.append(name, value);
        }
        document.append(cstr!("revision"), revision);
        if let Times::Kept { created_at, updated_at } = self.times {
            document.append(cstr!("created_at"), created_at.unwrap_or(now));
            document.append(cstr!("updated_at"), updated_at.unwrap_or(now));
        }
        Ok(MemCell::from_raw(document))
    }
}

/// New values for top-level fields of a MemCell, which replace the old ones as a whole.
#[derive(Clone)]
pub struct Patch(Vec<(String, Bson)>);

impl Patch {
    /// Takes a patch as the API has it. The fields obey the same rules as those of a new MemCell.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidDocument`] with the field that is wrong, or that is not the caller's to set.
    pub fn from_api(fields: Map<String, Value>) -> Result<Self> {
        let mut document = Document::new();
        for (name, value) in fields {
            let refusal = match name.as_str() {
                "event_id" | "_id" => "the id of a MemCell never changes; append a new one and delete this one",
                "revision" => "the host counts the revision; leave it out",
                "created_at" | "updated_at" => "the host keeps this time; leave it out",
                "deleted_at" | "deleted_by" => {
                    "to delete or bring back a MemCell, use its delete and restore operations"
                }
                dotted if dotted.contains('.') => {
                    "a patch replaces whole top-level fields, whose names have no dot; give the field around it"
                }
                _ => {
                    let converted = convert_field(&name, value)?;
                    if converted == Bson::Undefined {
                        // An update takes it for a request to remove the field.
                        return Err(Error::invalid_field(name, "an undefined value can't be set; null can"));
                    }
                    document.insert(name, converted);
                    continue;
                }
            };
            return Err(Error::invalid_field(name, refusal));
        }
        check_size(encode(&document)?.as_bytes().len())?;
        Ok(Self(document.into_iter().collect()))
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields by name, in the order given.
    pub fn fields(&self) -> &[(String, Bson)] {
        &self.0
    }
}

fn take_event_id(fields: &mut Map<String, Value>) -> Result<Option<Bson>> {
    match fields.shift_remove("event_id") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(Bson::ObjectId(EventId::parse(&text)?.object_id()))),
        Some(other) => match convert_field("event_id", other)? {
            id @ Bson::ObjectId(_) => Ok(Some(id)),
            other => {
                let message = format!("expected a string of 24 hexadecimal digits, found {}", found(&other));
                Err(Error::invalid_field("event_id", message))
            }
        },
    }
}

/// Refuses what MongoDB would store another value of, in a top-level field.
fn check_kept(name: &str, value: &Bson) -> Result<()> {
    if *value == Bson::Timestamp(EMPTY_TIMESTAMP) {
        let problem =
            "mongodb replaces an empty timestamp by the time of the insert; give one with a time, or leave it out";
        return Err(Error::invalid_field(name, problem));
    }
    Ok(())
}

/// Refuses what MongoDB takes for no document's `_id`.
fn checked_id(id: Bson) -> Result<Bson> {
    match id {
        Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined => {
            Err(Error::invalid_field("_id", format!("an _id can't be {}", found(&id))))
        }
        _ => Ok(id),
    }
}

fn encode(document: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(document).map_err(unencodable)
}

fn not_json(source: serde_json::Error) -> Error {
    let message = match source.classify() {
        Category::Data => source.to_string(),
        _ => format!("not valid json: {source}"),
    };
    Error::new(ErrorKind::InvalidDocument, message).with_source(source)
}

fn unencodable(source: bson::error::Error) -> Error {
    Error::new(ErrorKind::InvalidDocument, "the fields make no bson document").with_source(source)
}

fn check_size(bytes: usize) -> Result<()> {
    if bytes > MAX_DOCUMENT_BYTES {
        let message = format!("{bytes} bytes as bson are too many: the limit is {MAX_DOCUMENT_BYTES}");
        return Err(Error::new(ErrorKind::InvalidDocument, message));
    }
    Ok(())
}
