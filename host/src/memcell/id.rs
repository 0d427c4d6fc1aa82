//! The event id: the ObjectId that names a MemCell in the API.

use std::fmt;

use bson::oid::ObjectId;

use crate::{Error, Result};

/// The identity of a MemCell that has an ObjectId, as every one has that was written through this host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(ObjectId);

impl EventId {
    /// A fresh id, which no other host or driver makes.
    #[allow(clippy::new_without_default, reason = "a default value that differs every time would surprise")]
    pub fn new() -> Self {
        Self(ObjectId::new())
    }

    /// Reads 24 hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidId`](crate::ErrorKind::InvalidId) for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        ObjectId::parse_str(text).map(Self).map_err(|_| Error::invalid_id(text))
    }

    /// The event id that this ObjectId is.
    pub fn from_object_id(id: ObjectId) -> Self {
        Self(id)
    }

    /// The `_id` of the document.
    pub fn object_id(self) -> ObjectId {
        self.0
    }
}

/// 24 lowercase hexadecimal digits.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_case_is_the_same_id() {
        let lower = EventId::parse("685c8c52a1b2c3d4e5f60718").unwrap();
        let upper = EventId::parse("685C8C52A1B2C3D4E5F60718").unwrap();
        assert_eq!(lower, upper);
        assert_eq!(upper.to_string(), "685c8c52a1b2c3d4e5f60718");
    }

    #[test]
    fn anything_but_24_digits_is_refused() {
        for text in [
            "",
            "685c",
            "685c8c52a1b2c3d4e5f6071g",
            "685c8c52a1b2c3d4e5f607180",
            "twelve bytes",
            "685c8c52a1b2c3d4e5f6071é",
        ] {
            let error = EventId::parse(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidId, "{text:?}");
        }
    }
}
