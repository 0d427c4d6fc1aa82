//! A row of the table `records`: what a key has, and where its value is.

use memcell_plugin::{Error, Header, Result};

/// A record as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row<'b> {
    /// With its value, which is empty for a tombstone: the encoding of the record itself.
    Whole(Header, &'b [u8]),
    /// With its value in a pack.
    Packed(Header, Place),
}

/// Where in the packs a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the pack.
    pub(crate) pack: u64,
    /// Of the value, from the start of the pack, in bytes.
    pub(crate) offset: u32,
    /// Of the value, in bytes.
    pub(crate) length: u32,
}

/// The first byte of the row of a packed record; that of a whole one is the version of its encoding, which is another number.
const PACKED: u8 = 0x80;

impl<'b> Row<'b> {
    /// Layout of a packed record: 0x80, number of the pack (8 bytes), offset and length of the value in it (4 bytes each), and what the
    /// encoding of a record begins with. Numbers are big-endian.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.clear();
        match self {
            Self::Whole(header, value) => {
                into.extend_from_slice(&header.encode());
                into.extend_from_slice(value);
            }
            Self::Packed(header, place) => {
                into.push(PACKED);
                into.extend_from_slice(&place.encode());
                into.extend_from_slice(&header.encode());
            }
        }
    }

    /// The row that [`Row::encode`] made `bytes` from.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for anything that it can't have made.
    pub(crate) fn decode(bytes: &'b [u8]) -> Result<Self> {
        let Some((&PACKED, rest)) = bytes.split_first() else {
            let (header, value) = Header::split(bytes)?;
            return Ok(Self::Whole(header, value));
        };
        let cut_short = || Error::corrupt(format!("a stored place of {} bytes is cut short", bytes.len()));
        let (place, rest) = rest.split_first_chunk().ok_or_else(cut_short)?;
        let place = Place::decode(*place);
        let (header, value) = Header::split(rest)?;
        if header.is_tombstone() || !value.is_empty() {
            return Err(Error::corrupt("a stored place contradicts itself"));
        }
        Ok(Self::Packed(Header { value_bytes: Some(place.length as usize), ..header }, place))
    }

    /// All but the value of a whole record.
    pub(crate) fn parts(&self) -> (Header, Option<Place>) {
        match *self {
            Self::Whole(header, _) => (header, None),
            Self::Packed(header, place) => (header, Some(place)),
        }
    }
}

impl Place {
    fn encode(self) -> [u8; 16] {
        (u128::from(self.pack) << 64 | u128::from(self.offset) << 32 | u128::from(self.length)).to_be_bytes()
    }

    fn decode(bytes: [u8; 16]) -> Self {
        let numbers = u128::from_be_bytes(bytes);
        Self { pack: (numbers >> 64) as u64, offset: (numbers >> 32) as u32, length: numbers as u32 }
    }
}

#[cfg(test)]
mod tests {
    use memcell_plugin::Record;

    use super::*;

    #[test]
    fn rows_survive_their_encoding() {
        let header = |value_bytes| Header { stamp: u64::MAX - 1, expires_at: Some(9), value_bytes };
        let place = Place { pack: u64::MAX - 2, offset: u32::MAX - 3, length: 4 };
        let mut row = Vec::new();
        for expected in [
            Row::Whole(header(None), b""),
            Row::Whole(header(Some(0)), b""),
            Row::Whole(header(Some(5)), b"value"),
            Row::Packed(header(Some(4)), place),
        ] {
            expected.encode(&mut row);
            assert_eq!(Row::decode(&row), Ok(expected));
        }
        for length in 0..row.len() {
            assert!(matches!(Row::decode(&row[..length]), Err(Error::Corrupt(_))), "{length}");
        }
        row.push(0);
        assert!(matches!(Row::decode(&row), Err(Error::Corrupt(_))));
    }

    /// As files have them of before there were packs.
    #[test]
    fn a_whole_row_is_the_encoding_of_the_record() {
        let record = Record { stamp: 7, expires_at: None, value: Some(b"v".to_vec()) };
        let mut row = Vec::new();
        Row::Whole(record.header(), b"v").encode(&mut row);
        assert_eq!(row, record.encode());
    }
}
