//! The envelope that a document is stored in: 32 bytes of header, then the payload.
//!
//! | offset | bytes | field    | meaning                                                                              |
//! |-------:|------:|----------|--------------------------------------------------------------------------------------|
//! |      0 |     4 | magic    | `MCEL`                                                                               |
//! |      4 |     1 | version  | 1                                                                                    |
//! |      5 |     1 | format   | of the payload: 1 canonical Extended JSON, 2 BSON                                    |
//! |      6 |     2 | flags    | bit 0: the document has a revision; all others are 0                                 |
//! |      8 |     8 | key id   | 0: the payload is not encrypted                                                      |
//! |     16 |     8 | revision | the document's own; 0 if it has none                                                 |
//! |     24 |     8 | checksum | XXH3-64 of the payload, seeded with the XXH3-64 of the 24 bytes before the checksum  |
//! |     32 |       | payload  |                                                                                      |
//!
//! Integers are little-endian. The checksum finds accidents. It can't find a backend that forges values, for which
//! nothing in here is trusted: whatever the bytes are, reading them ends in a document or in [`Corrupt`].

use bson::RawDocumentBuf;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Result;
use crate::memcell::MemCell;
use crate::memcell::extended::read_document;
use crate::memcell::json::check_document;

/// Bytes in front of the payload.
pub const HEADER_BYTES: usize = CHECKED_BYTES + 8;

/// Bytes of the header that the checksum covers.
const CHECKED_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"MCEL";
const VERSION: u8 = 1;
const HAS_REVISION: u16 = 1;

/// How the payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Canonical Extended JSON v2, which other tools can read.
    Json,
    /// The document as MongoDB has it, which costs nothing to encode.
    Bson,
}

impl Format {
    fn code(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::Bson => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Json, Self::Bson].into_iter().find(|format| format.code() == code)
    }
}

/// Why a stored value holds no document that can be trusted. The text is for the operator and has no document contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Not even a header fits.
    #[error("{bytes} bytes are too few for an envelope of at least {HEADER_BYTES}")]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// Something else than this program wrote it.
    #[error("the envelope does not begin with its magic bytes")]
    WrongMagic,
    /// The header says what this version does not know.
    #[error("the envelope has the unknown {field} {value}; a newer host may have written it")]
    Unknown {
        /// Which part of the header.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// Header or payload have changed since they were written.
    #[error("the checksum does not match")]
    Checksum,
    /// The checksum matches, and still it is no document.
    #[error("{0}")]
    Payload(String),
}

/// The envelope of a document, ready to be stored.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for a document that is malformed.
pub fn encode(format: Format, cell: &MemCell) -> Result<Vec<u8>> {
    // JSON with its types is about half as large again as BSON.
    let bson_bytes = cell.as_raw().as_bytes().len();
    let mut out = Vec::with_capacity(HEADER_BYTES + bson_bytes + bson_bytes / 2);
    encode_into(format, cell, &mut out)?;
    Ok(out)
}

/// Appends the envelope of a document to `out`; a malformed one leaves `out` as it was.
///
/// # Errors
/// As [`encode`].
pub fn encode_into(format: Format, cell: &MemCell, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let revision = cell.revision();
    let flags = if revision.is_some() { HAS_REVISION } else { 0 };
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, format.code()]);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&0_u64.to_le_bytes());
    out.extend_from_slice(&revision.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    if let Err(error) = write_payload(format, cell, out) {
        out.truncate(start);
        return Err(error);
    }
    if let Some((header, payload)) =
        out.get_mut(start..).and_then(|envelope| envelope.split_at_mut_checked(HEADER_BYTES))
    {
        let (checked, sum) = header.split_at_mut(CHECKED_BYTES);
        sum.copy_from_slice(&checksum(checked, payload).to_le_bytes());
    }
    Ok(())
}

/// Appends what an envelope of this format holds.
///
/// # Errors
/// As [`encode`]; `out` then holds a part of it.
pub fn write_payload(format: Format, cell: &MemCell, out: &mut Vec<u8>) -> Result<()> {
    match format {
        Format::Json => cell.write_canonical_json(out),
        Format::Bson => {
            out.extend_from_slice(cell.as_raw().as_bytes());
            Ok(())
        }
    }
}

fn checksum(checked: &[u8], payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, xxh3_64(checked))
}

/// A stored value whose header and checksum are good.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    format: Format,
    revision: Option<u64>,
    payload: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the header and verifies the checksum.
    ///
    /// # Errors
    /// [`Corrupt`] for everything that [`encode`] can't have made.
    pub fn parse(stored: &'a [u8]) -> Result<Self, Corrupt> {
        let too_short = Corrupt::TooShort { bytes: stored.len() };
        let Some((header, payload)) = stored.split_first_chunk::<HEADER_BYTES>() else { return Err(too_short) };
        let mut reader = Reader(header);
        let magic: [u8; 4] = reader.take();
        let [version, format] = reader.take();
        let flags = u16::from_le_bytes(reader.take());
        let key_id = u64::from_le_bytes(reader.take());
        let revision = u64::from_le_bytes(reader.take());
        let sum = u64::from_le_bytes(reader.take());

        if magic != MAGIC {
            return Err(Corrupt::WrongMagic);
        }
        let unknown = |field, value| Corrupt::Unknown { field, value };
        if version != VERSION {
            return Err(unknown("version", version.into()));
        }
        let (checked, _) = header.split_at(CHECKED_BYTES);
        if checksum(checked, payload) != sum {
            return Err(Corrupt::Checksum);
        }
        let format = Format::from_code(format).ok_or_else(|| unknown("format", format.into()))?;
        if flags & !HAS_REVISION != 0 {
            return Err(unknown("flags", flags.into()));
        }
        if key_id != 0 {
            return Err(unknown("key id", key_id));
        }
        let revision = (flags & HAS_REVISION != 0).then_some(revision);
        Ok(Self { format, revision, payload })
    }

    /// The revision of the document within; `None` if it has none.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// The document as it was written.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// How it was written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The document, read to the end: no later access to it fails.
    ///
    /// # Errors
    /// [`Corrupt::Payload`] if it can't be read, or has another revision than its envelope.
    pub fn document(&self) -> Result<MemCell, Corrupt> {
        let raw = match self.format {
            Format::Json => read_document(self.payload).map_err(Corrupt::Payload)?,
            Format::Bson => {
                let broken = |source: &dyn std::fmt::Display| {
                    Corrupt::Payload(format!("the payload is no bson document: {source}"))
                };
                let raw = RawDocumentBuf::from_bytes(self.payload.to_vec()).map_err(|source| broken(&source))?;
                check_document(&raw).map_err(|source| broken(&source))?;
                raw
            }
        };
        let cell = MemCell::from_raw(raw);
        if cell.revision() != self.revision {
            return Err(Corrupt::Payload("the document has another revision than its envelope".to_owned()));
        }
        Ok(cell)
    }
}

/// Takes fixed parts off the front of a header, whose size is the sum of them.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((part, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *part
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};
    use proptest::prelude::*;

    use super::*;
    use crate::memcell::arbitrary;

    fn cell(document: &Document) -> MemCell {
        MemCell::from_raw(RawDocumentBuf::try_from(document).unwrap())
    }

    /// An envelope with a good checksum around anything.
    fn forged(format: Format, payload: &[u8]) -> Vec<u8> {
        let mut stored = encode(format, &cell(&Document::new())).unwrap();
        stored.truncate(HEADER_BYTES);
        stored.extend_from_slice(payload);
        seal(&mut stored);
        stored
    }

    fn seal(stored: &mut [u8]) {
        let (header, payload) = stored.split_at_mut(HEADER_BYTES);
        let (checked, sum) = header.split_at_mut(CHECKED_BYTES);
        sum.copy_from_slice(&checksum(checked, payload).to_le_bytes());
    }

    fn nested_bson(levels: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for inner in (1..=levels).rev() {
            bytes.extend_from_slice(&i32::try_from(5 + 8 * inner).unwrap().to_le_bytes());
            bytes.extend_from_slice(b"\x03a\0");
        }
        bytes.extend_from_slice(b"\x05\0\0\0\0");
        bytes.resize(bytes.len() + levels, 0);
        bytes
    }

    #[test]
    fn the_header_is_as_documented() {
        let stored = encode(Format::Json, &cell(&doc! { "_id": "x", "revision": 0x0102_i64 })).unwrap();
        assert_eq!(stored[..8], *b"MCEL\x01\x01\x01\0");
        assert_eq!(stored[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(stored[24..32], xxh3_64_with_seed(&stored[32..], xxh3_64(&stored[..24])).to_le_bytes());
        assert_eq!(stored[32..], *br#"{"_id":"x","revision":{"$numberLong":"258"}}"#);
    }

    #[test]
    fn no_revision_and_revision_zero_are_told_apart() {
        for (document, expected) in [(doc! { "_id": 1 }, None), (doc! { "_id": 1, "revision": 0 }, Some(0))] {
            let stored = encode(Format::Bson, &cell(&document)).unwrap();
            assert_eq!(Envelope::parse(&stored).unwrap().revision(), expected);
        }
    }

    #[test]
    fn appending_leaves_what_is_there() {
        let cell = cell(&doc! { "_id": 1 });
        let mut out = b"before".to_vec();
        encode_into(Format::Bson, &cell, &mut out).unwrap();
        assert_eq!(out[..6], *b"before");
        assert_eq!(Envelope::parse(&out[6..]).unwrap().document().unwrap(), cell);

        let mut broken = cell.into_raw().into_bytes();
        broken[4] = 0x77;
        let broken = MemCell::from_raw(RawDocumentBuf::from_bytes(broken).unwrap());
        let mut out = b"before".to_vec();
        assert!(encode_into(Format::Json, &broken, &mut out).is_err());
        assert_eq!(out, b"before");
    }

    #[test]
    fn what_a_newer_host_may_write_is_named() {
        let good = encode(Format::Json, &cell(&doc! { "_id": 1 })).unwrap();
        for (at, value, expected) in [(4, 2, "version 2"), (5, 9, "format 9"), (6, 4, "flags 4"), (8, 3, "key id 3")] {
            let mut stored = good.clone();
            stored[at] = value;
            seal(&mut stored);
            let error = Envelope::parse(&stored).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_forged_payload_is_corrupt() {
        let deep_json = [b"{\"a\":".repeat(5_000_000), b"1".to_vec()].concat();
        let deep_list = [b"{\"a\":".to_vec(), b"[".repeat(5_000_000)].concat();
        for payload in
            [&b""[..], b"{", b"[]", b"{} x", b"{\"a\\u0000\":1}", b"{\"revision\":7}", &deep_json, &deep_list]
        {
            let stored = forged(Format::Json, payload);
            assert!(matches!(Envelope::parse(&stored).unwrap().document(), Err(Corrupt::Payload(_))));
        }
        let invalid_utf8 = b"\x0e\0\0\0\x02a\0\x02\0\0\0\xff\0\0";
        for payload in [&b""[..], b"\x06\0\0\0\0", b"\x08\0\0\0\x77a\0\0", invalid_utf8, &nested_bson(100_000)] {
            let stored = forged(Format::Bson, payload);
            assert!(matches!(Envelope::parse(&stored).unwrap().document(), Err(Corrupt::Payload(_))));
        }
    }

    #[test]
    fn the_deepest_document_that_mongodb_takes_comes_back() {
        let deep = MemCell::from_raw(RawDocumentBuf::from_bytes(nested_bson(190)).unwrap());
        for format in [Format::Json, Format::Bson] {
            let stored = encode(format, &deep).unwrap();
            assert_eq!(Envelope::parse(&stored).unwrap().document().unwrap(), deep);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_is_encoded_comes_back(document in arbitrary::document()) {
            let cell = cell(&document);
            for format in [Format::Json, Format::Bson] {
                let stored = encode(format, &cell).unwrap();
                let envelope = Envelope::parse(&stored).unwrap();
                prop_assert_eq!(envelope.format(), format);
                prop_assert_eq!(envelope.revision(), cell.revision());
                let back = envelope.document().unwrap();
                prop_assert_eq!(back.as_raw().as_bytes(), cell.as_raw().as_bytes());
            }
        }

        #[test]
        fn any_damage_is_noticed(
            document in arbitrary::document(), at: prop::sample::Index, flip in 1_u8.., cut: prop::sample::Index,
        ) {
            for format in [Format::Json, Format::Bson] {
                let good = encode(format, &cell(&document)).unwrap();
                let mut flipped = good.clone();
                flipped[at.index(good.len())] ^= flip;
                prop_assert!(Envelope::parse(&flipped).is_err());
                prop_assert!(Envelope::parse(&good[..cut.index(good.len())]).is_err());
                prop_assert!(Envelope::parse(&[&good[..], b"x"].concat()).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(&bytes);
            for format in [Format::Json, Format::Bson] {
                let stored = forged(format, &bytes);
                let _ = Envelope::parse(&stored).unwrap().document();
            }
        }

        #[test]
        fn no_damaged_payload_panics(
            document in arbitrary::document(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            for format in [Format::Json, Format::Bson] {
                let mut payload = Vec::new();
                write_payload(format, &cell(&document), &mut payload).unwrap();
                for (at, byte) in &damage {
                    let at = at.index(payload.len());
                    payload[at] = *byte;
                }
                let stored = forged(format, &payload);
                if let Ok(back) = Envelope::parse(&stored).unwrap().document() {
                    // What was accepted can be used: that is the promise of `document`.
                    back.write_canonical_json(&mut Vec::new()).unwrap();
                    back.api_json().unwrap();
                }
            }
        }
    }
}
