//! What can be said of an entry in a few bytes.

use xxhash_rust::xxh3::xxh3_64;

use crate::record::{Header, Record};
use crate::rules::Moment;

/// The most bytes of a value that a digest repeats.
pub const MAX_HEAD_BYTES: u32 = 256;

/// How many values are held at a time to make their digests: digests are small, so a call may ask for many of them.
pub const DIGESTS_AT_A_TIME: usize = 64;

/// An entry without its value, but enough of it to tell whether it is intact and what it is a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The version of this copy.
    pub stamp: u64,
    /// When it ceases to exist, in Unix milliseconds.
    pub expires_at: Option<u64>,
    /// The first bytes of the value.
    pub head: Vec<u8>,
    /// Length of the whole value, in bytes.
    pub value_bytes: u32,
    /// XXH3-64 of the bytes behind the head.
    pub rest_hash: u64,
}

impl Digest {
    /// The digest of a record; `None` of a tombstone and of what has expired at `moment`.
    pub fn of(record: &Record, head_bytes: usize, moment: &Moment) -> Option<Self> {
        Self::of_value(&record.header(), record.value.as_deref().unwrap_or_default(), head_bytes, moment)
    }

    /// As [`Digest::of`], of a record that is in two parts, as [`Header::split`] makes them.
    pub fn of_value(header: &Header, value: &[u8], head_bytes: usize, moment: &Moment) -> Option<Self> {
        if header.is_tombstone() || moment.has_passed(header.expires_at) {
            return None;
        }
        let (head, rest) = value.split_at_checked(head_bytes).unwrap_or((value, &[]));
        Some(Self {
            stamp: header.stamp,
            expires_at: header.expires_at,
            head: head.to_vec(),
            // No backend takes values of 4 GiB.
            value_bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
            rest_hash: xxh3_64(rest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_one_and_nothing_else_does() {
        let moment = Moment::new(|| 10);
        let record = Record { stamp: 7, expires_at: Some(11), value: Some(b"head and rest".to_vec()) };
        let digest = Digest::of(&record, 4, &moment).unwrap();
        assert_eq!((digest.stamp, digest.expires_at, digest.value_bytes), (7, Some(11), 13));
        assert_eq!((digest.head.as_slice(), digest.rest_hash), (b"head".as_slice(), xxh3_64(b" and rest")));
        let whole = Digest::of(&record, 256, &moment).unwrap();
        assert_eq!((whole.head.len(), whole.rest_hash), (13, xxh3_64(b"")));
        assert_eq!(Digest::of(&Record { expires_at: Some(10), ..record.clone() }, 4, &moment), None);
        assert_eq!(Digest::of(&Record { value: None, ..record }, 4, &moment), None);
    }
}
