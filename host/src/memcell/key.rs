//! The key of a document in the key-value backends.

use std::fmt;

use bson::oid::ObjectId;
use bson::{Bson, RawBsonRef};

use super::json::{Dialect, write_value};
use super::{EventId, extended};
use crate::hex;
use crate::{Error, ErrorKind, Result};

/// The key under which a document is mirrored; one string for each `_id`, and one `_id` for each string.
///
/// An ObjectId is its 24 lowercase hexadecimal digits. Any other BSON type is the canonical Extended JSON of the id,
/// so that a string id bears its quotes and can't be mistaken for anything else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey(String);

impl DocumentKey {
    /// The key of the document with this `_id`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the id holds malformed BSON.
    pub fn from_id(id: RawBsonRef<'_>) -> Result<Self> {
        if let RawBsonRef::ObjectId(id) = id {
            return Ok(EventId::from_object_id(id).into());
        }
        let mut json = Vec::new();
        write_value(id, Dialect::Canonical, &mut json)?;
        let text = String::from_utf8(json)
            .map_err(|source| Error::new(ErrorKind::Internal, "a document key is not utf-8").with_source(source))?;
        Ok(Self(text))
    }

    /// The `_id` that this is the key of.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it is the key of none, which only a key can be that some backend made up; see
    /// [`DocumentKey::from_backend`].
    pub fn to_bson(&self) -> Result<Bson> {
        if let Ok(id) = ObjectId::parse_str(&self.0) {
            return Ok(Bson::ObjectId(id));
        }
        extended::read_value(&self.0)
            .map_err(|source| Error::new(ErrorKind::Internal, "a key is not that of any document").with_source(source))
    }

    /// A key as a backend listed it, which may be anything: [`DocumentKey::to_bson`] tells.
    pub fn from_backend(key: String) -> Self {
        Self(key)
    }

    /// The key as the backends see it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for DocumentKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<EventId> for DocumentKey {
    fn from(id: EventId) -> Self {
        Self(hex::encode(&id.object_id().bytes()))
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use bson::{RawBson, bson};

    use super::*;

    #[test]
    fn every_kind_of_id_has_its_own_key_and_comes_back() {
        let object_id = ObjectId::parse_str("685c8c52a1b2c3d4e5f60718").unwrap();
        for (id, expected) in [
            (Bson::ObjectId(object_id), "685c8c52a1b2c3d4e5f60718"),
            (bson!("685c8c52a1b2c3d4e5f60718"), r#""685c8c52a1b2c3d4e5f60718""#),
            (bson!("a \"b\"\n\u{0}é"), r#""a \"b\"\n\u0000é""#),
            (bson!(7), r#"{"$numberInt":"7"}"#),
            (Bson::Int64(7), r#"{"$numberLong":"7"}"#),
            (bson!(7.0), r#"{"$numberDouble":"7.0"}"#),
            (bson!({"a": 1, "b": [true, null]}), r#"{"a":{"$numberInt":"1"},"b":[true,null]}"#),
            (Bson::Null, "null"),
        ] {
            let raw = RawBson::try_from(id.clone()).unwrap();
            let key = DocumentKey::from_id(raw.as_raw_bson_ref()).unwrap();
            assert_eq!(key.as_str(), expected);
            assert_eq!(key.to_bson().unwrap(), id);
        }
    }

    #[test]
    fn the_key_of_an_event_id_is_its_digits() {
        let id = EventId::parse("685C8C52A1B2C3D4E5F60718").unwrap();
        let key = DocumentKey::from(id);
        assert_eq!(key.as_str(), "685c8c52a1b2c3d4e5f60718");
        assert_eq!(key.to_bson().unwrap(), Bson::ObjectId(id.object_id()));
    }

    #[test]
    fn a_key_of_no_document_is_an_error() {
        for key in ["", "hello", "685c8c52", "{\"a\":", "\"open"] {
            assert!(DocumentKey::from_backend(key.to_owned()).to_bson().is_err(), "{key:?}");
        }
    }
}
