//! What a backend keeps for a key, and its form as bytes.

use crate::error::{Error, Result};

/// What is kept for one key: an entry, or the tombstone of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The version of this copy; larger is newer.
    pub stamp: u64,
    /// From when on the record is as good as gone, in Unix milliseconds; `None`: never.
    pub expires_at: Option<u64>,
    /// The value of an entry; `None` makes the record a tombstone. An empty value is an entry.
    pub value: Option<Vec<u8>>,
}

/// A [`Record`] without its value: all that the rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// As in the record.
    pub stamp: u64,
    /// As in the record.
    pub expires_at: Option<u64>,
    /// Length of the value; `None` for a tombstone.
    pub value_bytes: Option<usize>,
}

impl Header {
    /// Whether the record is a deletion.
    pub fn is_tombstone(&self) -> bool {
        self.value_bytes.is_none()
    }
}

/// How many bytes [`Record::encode`] puts before the value.
pub const HEADER_BYTES: usize = 18;

const VERSION: u8 = 1;
const FLAG_TOMBSTONE: u8 = 1;
const FLAG_EXPIRES: u8 = 2;

impl Record {
    /// The record without its value.
    pub fn header(&self) -> Header {
        Header { stamp: self.stamp, expires_at: self.expires_at, value_bytes: self.value.as_ref().map(Vec::len) }
    }

    /// The record as bytes, for a store that holds nothing else.
    ///
    /// Layout: version (1), flags (1 byte: 1 = tombstone, 2 = expires), stamp (8), expiry in Unix milliseconds or 0 (8), value.
    /// Numbers are big-endian, so that a store's own scripts can compare stamps as strings.
    pub fn encode(&self) -> Vec<u8> {
        let value = self.value.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len());
        bytes.extend_from_slice(&self.header().encode());
        bytes.extend_from_slice(value);
        bytes
    }

    /// The record that [`Record::encode`] made `bytes` from.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for anything that it can't have made.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (header, value) = Header::split(bytes)?;
        Ok(Self {
            stamp: header.stamp,
            expires_at: header.expires_at,
            value: header.value_bytes.is_some().then(|| value.to_vec()),
        })
    }
}

impl Header {
    /// What [`Record::encode`] puts before the value, for a store that writes the two in place.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut flags = 0;
        if self.value_bytes.is_none() {
            flags |= FLAG_TOMBSTONE;
        }
        if self.expires_at.is_some() {
            flags |= FLAG_EXPIRES;
        }
        let mut bytes = [0; HEADER_BYTES];
        let [version, flag_byte, numbers @ ..] = &mut bytes;
        (*version, *flag_byte) = (VERSION, flags);
        let both = u128::from(self.stamp) << 64 | u128::from(self.expires_at.unwrap_or_default());
        *numbers = both.to_be_bytes();
        bytes
    }

    /// The header of an encoded record, without touching its value.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::split(bytes).map(|(header, _)| header)
    }

    /// The header of an encoded record, and its value where it is; that of a tombstone is empty.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let Some((&[version, flags, ref numbers @ ..], value)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Error::corrupt(format!("a stored record of {} bytes is cut short", bytes.len())));
        };
        if version != VERSION {
            return Err(Error::corrupt(format!("a stored record has the unknown format {version}")));
        }
        let (stamp, expires_at) = two_numbers(numbers);
        let is_tombstone = flags & FLAG_TOMBSTONE != 0;
        let expires = flags & FLAG_EXPIRES != 0;
        let is_canonical = flags & !(FLAG_TOMBSTONE | FLAG_EXPIRES) == 0
            && (expires || expires_at == 0)
            && (!is_tombstone || value.is_empty());
        if !is_canonical {
            return Err(Error::corrupt("a stored record contradicts itself"));
        }
        let header = Self {
            stamp,
            expires_at: expires.then_some(expires_at),
            value_bytes: (!is_tombstone).then_some(value.len()),
        };
        Ok((header, value))
    }
}

/// Two big-endian numbers, one after the other.
fn two_numbers(bytes: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_be_bytes(*bytes);
    ((both >> 64) as u64, both as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record: &Record) {
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(record));
        assert_eq!(Header::decode(&bytes), Ok(record.header()));
    }

    #[test]
    fn records_survive_their_encoding() {
        for stamp in [0, 1, 0x0102_0304_0506_0708, u64::MAX] {
            for expires_at in [None, Some(0), Some(1), Some(u64::MAX)] {
                for value in [None, Some(vec![]), Some(vec![0; 3]), Some((0..=255).collect())] {
                    check(&Record { stamp, expires_at, value });
                }
            }
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let record = Record { stamp: 0x0102, expires_at: Some(0x0304), value: Some(b"v".to_vec()) };
        assert_eq!(record.encode(), [1, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4, b'v']);
    }

    #[test]
    fn what_was_not_encoded_is_corrupt() {
        let good = Record { stamp: 7, expires_at: None, value: None }.encode();
        let change = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let longer = [good.as_slice(), b"x"].concat();
        for bytes in [vec![], good[..17].to_vec(), change(0, 0), change(0, 2), change(1, 5), change(17, 1), longer] {
            assert!(matches!(Record::decode(&bytes), Err(Error::Corrupt(_))), "{bytes:?}");
        }
    }
}
