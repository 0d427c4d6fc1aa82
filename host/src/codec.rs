//! How a document is stored: an envelope of 32 bytes, then the payload.
//!
//! | offset | bytes | field    | meaning                                                                              |
//! |-------:|------:|----------|--------------------------------------------------------------------------------------|
//! |      0 |     4 | magic    | `MCEL`                                                                               |
//! |      4 |     1 | version  | 1                                                                                    |
//! |      5 |     1 | format   | of the document: 1 canonical Extended JSON, 2 BSON (also of one that Extended JSON can't tell from another) |
//! |      6 |     2 | flags    | bit 0: the document has a revision; bit 1: it is compressed with zstd; bit 2: with a dictionary |
//! |      8 |     8 | key id   | of the key that it is encrypted with (big-endian, as it is shown); 0: it isn't       |
//! |     16 |     8 | revision | the document's own; 0 if it has none                                                 |
//! |     24 |     8 | checksum | XXH3-64 of the 24 bytes before it, seeded with the XXH3-64 of all that follows        |
//! |     32 |     8 | dictionary | its id (big-endian); only with bit 2                                               |
//! |        |    12 | nonce    | random; only if it is encrypted                                                      |
//! |        |       | payload  | the document, compressed first and encrypted then                                    |
//! |        |    16 | tag      | only if it is encrypted                                                              |
//!
//! Integers are little-endian. The checksum is one of what is stored, so it can be verified with the header and a hash of the rest
//! alone, without any key, and says nothing about a document that is encrypted ([`Header::verify`]). It finds accidents. It can't
//! find a backend that forges values, for which nothing in here is trusted: whatever the bytes are, reading them ends in a document
//! or in [`Corrupt`]. What is encrypted (AES-256-GCM-SIV) can't be forged: the header up to the checksum, the dictionary's id and the
//! key under which the value is stored are authenticated with it, so a value is good only where it was put, with the revision that it had.

mod compression;
mod encryption;
mod header;
mod inventory;
#[cfg(test)]
mod tests;
pub mod training;

use std::borrow::Cow;

use bson::RawDocumentBuf;

pub use self::compression::{
    DEFAULT_LEVEL, Dictionary, DictionaryId, LEVELS, MAX_DICTIONARY_BYTES, MAX_UNPACKED_BYTES,
};
pub use self::encryption::{EncryptionKey, KeyId};
use self::encryption::{NONCE_BYTES, TAG_BYTES};
use self::header::DICTIONARY_BYTES;
#[doc(hidden)]
pub use self::header::seal;
pub use self::header::{Corrupt, Encoding, Format, HEAD_BYTES, HEADER_BYTES, Header, Packing};
pub use self::inventory::Inventory;
use crate::Result;
use crate::memcell::extended::read_document;
use crate::memcell::json::check_document;
use crate::memcell::{Fidelity, MemCell};

/// How the values of one backend are written, and with what they can be read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Codec {
    format: Format,
    /// Level, and the dictionary if there is one; `None`: values are written as they are.
    compression: Option<(i32, Option<Dictionary>)>,
    /// Those that values may have been compressed with.
    dictionaries: Vec<Dictionary>,
    /// The one that values are encrypted with.
    key: Option<EncryptionKey>,
    /// Whether others than encrypted values are refused.
    is_encrypted_only: bool,
    /// Those that values may have been encrypted with.
    keys: Vec<EncryptionKey>,
}

/// Whether a stored value is as the codec writes it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Currency {
    /// It is.
    Current,
    /// It isn't.
    Outdated,
    /// It isn't compressed, which may be since that doesn't pay, or is BSON, which may be since Extended JSON doesn't do: only writing
    /// the document anew tells.
    Unclear,
}

impl Codec {
    /// Neither compresses nor encrypts.
    pub fn plain(format: Format) -> Self {
        Self {
            format,
            compression: None,
            dictionaries: Vec::new(),
            key: None,
            is_encrypted_only: false,
            keys: Vec::new(),
        }
    }

    /// Compresses what it writes.
    #[must_use]
    pub fn compressing(mut self, level: i32, dictionary: Option<Dictionary>) -> Self {
        self.dictionaries.extend(dictionary.clone());
        self.compression = Some((level, dictionary));
        self
    }

    /// Encrypts what it writes.
    #[must_use]
    pub fn encrypting(mut self, key: EncryptionKey) -> Self {
        self.keys.push(key.clone());
        self.key = Some(key);
        self
    }

    /// Reads nothing that isn't encrypted.
    #[must_use]
    pub fn encrypted_only(mut self) -> Self {
        self.is_encrypted_only = true;
        self
    }

    /// Also reads what was written with these.
    #[must_use]
    pub fn reading(mut self, keys: &[EncryptionKey], dictionaries: &[Dictionary]) -> Self {
        self.keys.extend_from_slice(keys);
        self.dictionaries.extend_from_slice(dictionaries);
        self
    }

    /// The envelope of a document, to be stored under `key` and nowhere else.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for a document that is malformed, or if the system has no random numbers.
    pub fn encode(&self, key: &str, cell: &MemCell) -> Result<Vec<u8>> {
        let bson_bytes = cell.as_raw().as_bytes().len();
        let payload_bytes = match self.format {
            Format::Bson => bson_bytes,
            // With its types, about half as large again.
            Format::Json => bson_bytes + bson_bytes / 2,
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + DICTIONARY_BYTES + NONCE_BYTES + TAG_BYTES + payload_bytes);
        let mut encoding = Encoding { format: self.format, packing: Packing::Raw, key: self.key_id() };
        encoding.begin(cell.revision(), &mut out);
        let mut start = out.len();
        if write_payload(encoding.format, cell, &mut out)? == Fidelity::Ambiguous {
            encoding.format = Format::Bson;
            out.clear();
            encoding.begin(cell.revision(), &mut out);
            start = out.len();
            write_payload(encoding.format, cell, &mut out)?;
        }
        if let Some((packing, packed)) = self.pack(out.get(start..).unwrap_or_default())? {
            encoding.packing = packing;
            out.clear();
            encoding.begin(cell.revision(), &mut out);
            out.extend_from_slice(&packed);
        }
        if let Some(cipher) = &self.key {
            cipher.encrypt(key, encoding.prefix_bytes(), &mut out)?;
        }
        seal(&mut out);
        Ok(out)
    }

    /// The payload compressed, if that is wanted and pays.
    fn pack(&self, payload: &[u8]) -> Result<Option<(Packing, Vec<u8>)>> {
        let Some((level, dictionary)) = &self.compression else { return Ok(None) };
        // What would be too large to be unpacked again is left as it is.
        if payload.len() > MAX_UNPACKED_BYTES {
            return Ok(None);
        }
        let packed = compression::pack(payload, *level, dictionary.as_ref())?;
        let packing = match dictionary {
            None => Packing::Zstd,
            Some(dictionary) => Packing::ZstdWith(dictionary.id()),
        };
        let overhead = if dictionary.is_some() { DICTIONARY_BYTES } else { 0 };
        Ok((packed.len() + overhead < payload.len()).then_some((packing, packed)))
    }

    /// Reads what is stored under `key`.
    ///
    /// # Errors
    /// [`Corrupt`] for everything that [`Codec::encode`] can't have made for this key, and for what this codec lacks the key or the
    /// dictionary of.
    pub fn open<'a>(&self, key: &str, stored: &'a [u8]) -> Result<Envelope<'a>, Corrupt> {
        let (header, encoding, body) = header::read(stored)?;
        self.check_encrypted(stored)?;
        let mut payload = Cow::Borrowed(body);
        if let Some(id) = encoding.key {
            let cipher = self.keys.iter().find(|key| key.id() == id).ok_or(Corrupt::UnknownKey { id })?;
            payload = Cow::Owned(cipher.decrypt(key, encoding.prefix_bytes(), stored)?);
        }
        let unpacked = match encoding.packing {
            Packing::Raw => None,
            Packing::Zstd => Some(compression::unpack(&payload, None)?),
            Packing::ZstdWith(id) => {
                let known = self.dictionaries.iter().find(|dictionary| dictionary.id() == id);
                let dictionary = known.ok_or(Corrupt::UnknownDictionary { id })?;
                Some(compression::unpack(&payload, Some(dictionary))?)
            }
        };
        Ok(Envelope { header, payload: unpacked.map_or(payload, Cow::Owned) })
    }

    /// As [`Header::verify`], and that the value isn't one that this codec refuses to read since it isn't encrypted.
    ///
    /// # Errors
    /// As [`Header::verify`], and [`Corrupt::NotEncrypted`].
    pub fn verify(&self, header: &[u8], rest_hash: u64) -> Result<Header, Corrupt> {
        let verified = Header::verify(header, rest_hash)?;
        self.check_encrypted(header)?;
        Ok(verified)
    }

    fn check_encrypted(&self, head: &[u8]) -> Result<(), Corrupt> {
        if self.is_encrypted_only && !header::is_encrypted(head) { Err(Corrupt::NotEncrypted) } else { Ok(()) }
    }

    /// Whether the value that begins with these bytes ([`HEAD_BYTES`] of them, or all that there are) is as this codec writes. A value
    /// whose beginning makes no sense isn't.
    pub fn judge(&self, head: &[u8]) -> Currency {
        let Ok(stored) = Encoding::peek(head) else { return Currency::Outdated };
        // Documents that JSON can't tell from others are written as BSON in any case.
        let is_fallback = (self.format, stored.format) == (Format::Json, Format::Bson);
        if (stored.format != self.format && !is_fallback) || stored.key != self.key_id() {
            return Currency::Outdated;
        }
        let wanted = self.compression.as_ref().map(|(_, dictionary)| match dictionary {
            None => Packing::Zstd,
            Some(dictionary) => Packing::ZstdWith(dictionary.id()),
        });
        match (wanted, stored.packing) {
            (Some(_), Packing::Raw) => Currency::Unclear,
            (wanted, packing) if wanted.unwrap_or(Packing::Raw) != packing => Currency::Outdated,
            _ if is_fallback => Currency::Unclear,
            _ => Currency::Current,
        }
    }

    /// How a value is written that it pays to compress.
    pub fn writes_as(&self) -> Option<Encoding> {
        let packing = match &self.compression {
            None => Packing::Raw,
            Some((_, None)) => Packing::Zstd,
            Some((_, Some(dictionary))) => Packing::ZstdWith(dictionary.id()),
        };
        Some(Encoding { format: self.format, packing, key: self.key_id() })
    }

    /// The key and the dictionary that values may be written with from now on.
    pub fn writes(&self) -> Inventory {
        let dictionary = self.compression.as_ref().and_then(|(_, dictionary)| dictionary.as_ref());
        Inventory::of(self.key.as_ref(), dictionary)
    }

    fn key_id(&self) -> Option<KeyId> {
        self.key.as_ref().map(EncryptionKey::id)
    }
}

/// A plain envelope: what [`Codec::plain`] makes of a document, under whatever key.
///
/// # Errors
/// As [`Codec::encode`].
pub fn encode(format: Format, cell: &MemCell) -> Result<Vec<u8>> {
    Codec::plain(format).encode("", cell)
}

/// Appends what an envelope of this format holds; unless that would be ambiguous: then it holds BSON.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for a document that is malformed; `out` then holds a part of it.
pub fn write_payload(format: Format, cell: &MemCell, out: &mut Vec<u8>) -> Result<Fidelity> {
    match format {
        Format::Json => cell.write_canonical_json(out),
        Format::Bson => {
            out.extend_from_slice(cell.as_raw().as_bytes());
            Ok(Fidelity::Exact)
        }
    }
}

/// A stored value that was read: its checksum is good, and what was encrypted is authentic.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    header: Header,
    payload: Cow<'a, [u8]>,
}

impl<'a> Envelope<'a> {
    /// Reads a value that is neither compressed with a dictionary nor encrypted.
    ///
    /// # Errors
    /// As [`Codec::open`].
    pub fn parse(stored: &'a [u8]) -> Result<Self, Corrupt> {
        Codec::plain(Format::Json).open("", stored)
    }

    /// The revision of the document within; `None` if it has none.
    pub fn revision(&self) -> Option<u64> {
        self.header.revision
    }

    /// The document as it was written.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// How it was written.
    pub fn format(&self) -> Format {
        self.header.format
    }

    /// The document, read to the end: no later access to it fails.
    ///
    /// # Errors
    /// [`Corrupt::Payload`] if it can't be read, or has another revision than its envelope.
    pub fn document(&self) -> Result<MemCell, Corrupt> {
        let raw = match self.header.format {
            Format::Json => read_document(&self.payload).map_err(Corrupt::Payload)?,
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
        if cell.revision() != self.revision() {
            return Err(Corrupt::Payload("the document has another revision than its envelope".to_owned()));
        }
        Ok(cell)
    }
}
