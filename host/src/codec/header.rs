//! The beginning of a stored value: how the rest is written, and a checksum over all of it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::compression::DictionaryId;
use super::encryption::{KeyId, NONCE_BYTES, TAG_BYTES};

/// Bytes of the header: what the checksum covers, and the checksum.
pub const HEADER_BYTES: usize = CHECKED_BYTES + 8;

/// Bytes of the id of a dictionary, behind the header.
pub(super) const DICTIONARY_BYTES: usize = 8;

/// As many bytes of a value tell how it is encoded.
pub const HEAD_BYTES: usize = HEADER_BYTES + DICTIONARY_BYTES;

/// Bytes of the header that the checksum covers.
pub(super) const CHECKED_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"MCEL";
const VERSION: u8 = 1;

const HAS_REVISION: u16 = 1;
const COMPRESSED: u16 = 2;
const WITH_DICTIONARY: u16 = 4;

/// How the document is written.
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
    /// Not even an envelope fits.
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
    /// Something has changed since it was written.
    #[error("the checksum does not match")]
    Checksum,
    /// It says that it isn't encrypted, where everything has to be.
    #[error("it is not encrypted, and encrypted_only is set")]
    NotEncrypted,
    /// It may be good, but nobody here can tell.
    #[error("it is encrypted with the key {id}, which [encryption.keys] doesn't have")]
    UnknownKey {
        /// The key that would be needed.
        id: KeyId,
    },
    /// It may be good, but nobody here can tell.
    #[error("it is compressed with the dictionary {id}, which is neither `dictionary` nor among `old_dictionaries`")]
    UnknownDictionary {
        /// The dictionary that would be needed.
        id: DictionaryId,
    },
    /// The checksum matches, and still it isn't what was encrypted for this place.
    #[error("it was changed, or belongs to another key or revision: what is encrypted is not authentic")]
    Forged,
    /// The checksum matches, and still it can't be decompressed.
    #[error("the payload can't be decompressed: {0}")]
    Compression(&'static str),
    /// The checksum matches, and still it is no document.
    #[error("{0}")]
    Payload(String),
}

/// What the header of an intact value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How the document is written.
    pub format: Format,
    /// The document's own revision; `None` if it has none.
    pub revision: Option<u64>,
}

/// How the payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// As it is.
    Raw,
    /// Compressed.
    Zstd,
    /// Compressed with a dictionary.
    ZstdWith(DictionaryId),
}

/// How a value is written, from the document to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// First the document is written.
    pub format: Format,
    /// Then it may be compressed.
    pub packing: Packing,
    /// Then it may be encrypted.
    pub key: Option<KeyId>,
}

/// The fields of a header, as they are.
struct Fields {
    magic: [u8; 4],
    version: u8,
    format: u8,
    flags: u16,
    key_id: [u8; 8],
    revision: u64,
    sum: u64,
}

impl Fields {
    fn of(header: &[u8; HEADER_BYTES]) -> Self {
        let mut reader = Reader(header);
        let magic = reader.take();
        let [version, format] = reader.take();
        Self {
            magic,
            version,
            format,
            flags: u16::from_le_bytes(reader.take()),
            key_id: reader.take(),
            revision: u64::from_le_bytes(reader.take()),
            sum: u64::from_le_bytes(reader.take()),
        }
    }

    /// That it is an envelope of this version.
    fn check(&self) -> Result<(), Corrupt> {
        if self.magic != MAGIC {
            return Err(Corrupt::WrongMagic);
        }
        if self.version != VERSION {
            return Err(Corrupt::Unknown { field: "version", value: self.version.into() });
        }
        Ok(())
    }

    fn header(&self) -> Result<Header, Corrupt> {
        let unknown = |field, value| Corrupt::Unknown { field, value };
        let format = Format::from_code(self.format).ok_or_else(|| unknown("format", self.format.into()))?;
        let senseless = self.flags & WITH_DICTIONARY != 0 && self.flags & COMPRESSED == 0;
        if senseless || self.flags & !(HAS_REVISION | COMPRESSED | WITH_DICTIONARY) != 0 {
            return Err(unknown("flags", self.flags.into()));
        }
        Ok(Header { format, revision: (self.flags & HAS_REVISION != 0).then_some(self.revision) })
    }

    /// `rest`: what follows the header, or the beginning of that.
    fn encoding(&self, rest: &[u8]) -> Result<Encoding, Corrupt> {
        let format = self.header()?.format;
        let packing = match (self.flags & COMPRESSED != 0, self.flags & WITH_DICTIONARY != 0) {
            (false, _) => Packing::Raw,
            (true, false) => Packing::Zstd,
            (true, true) => {
                let id = rest.first_chunk().ok_or(Corrupt::TooShort { bytes: HEADER_BYTES + rest.len() })?;
                Packing::ZstdWith(DictionaryId::from_bytes(*id))
            }
        };
        Ok(Encoding { format, packing, key: KeyId::from_bytes(self.key_id) })
    }
}

impl Header {
    /// Reads a header, and verifies with the XXH3-64 of all that follows it that neither has changed since they were written.
    ///
    /// # Errors
    /// [`Corrupt`] for everything that no codec can have made.
    pub fn verify(header: &[u8], rest_hash: u64) -> Result<Self, Corrupt> {
        let too_short = Corrupt::TooShort { bytes: header.len() };
        let header: &[u8; HEADER_BYTES] = header.try_into().map_err(|_| too_short)?;
        let fields = Fields::of(header);
        fields.check()?;
        let (checked, _) = header.split_at(CHECKED_BYTES);
        if checksum(checked, rest_hash) != fields.sum {
            return Err(Corrupt::Checksum);
        }
        fields.header()
    }

    /// As [`Header::verify`], of a whole value.
    ///
    /// # Errors
    /// As [`Header::verify`].
    pub fn of(stored: &[u8]) -> Result<Self, Corrupt> {
        let Some((header, rest)) = stored.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Corrupt::TooShort { bytes: stored.len() });
        };
        Self::verify(header, xxh3_64(rest))
    }
}

/// Whether a value that begins with these bytes, a header at least, names a key.
pub(super) fn is_encrypted(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|header| KeyId::from_bytes(Fields::of(header).key_id).is_some())
}

/// Reads the beginning of a value, verifies its checksum, and answers what follows the prefix: the payload, if it isn't encrypted.
pub(super) fn read(stored: &[u8]) -> Result<(Header, Encoding, &[u8]), Corrupt> {
    let header = Header::of(stored)?;
    let encoding = Encoding::peek(stored)?;
    let shortest = encoding.prefix_bytes() + if encoding.key.is_some() { TAG_BYTES } else { 0 };
    match stored.get(encoding.prefix_bytes()..) {
        Some(payload) if stored.len() >= shortest => Ok((header, encoding, payload)),
        _ => Err(Corrupt::TooShort { bytes: stored.len() }),
    }
}

impl Encoding {
    /// How the value that begins with these bytes says it is written; whether it is intact is not looked at. [`HEAD_BYTES`] of a
    /// value are enough.
    ///
    /// # Errors
    /// [`Corrupt`] if it doesn't say.
    pub fn peek(head: &[u8]) -> Result<Self, Corrupt> {
        let too_short = Corrupt::TooShort { bytes: head.len() };
        let (header, rest) = head.split_first_chunk::<HEADER_BYTES>().ok_or(too_short)?;
        let fields = Fields::of(header);
        fields.check()?;
        fields.encoding(rest)
    }

    /// Appends all that stands before the payload. Nonce and checksum are still to be filled in.
    pub(super) fn begin(&self, revision: Option<u64>, out: &mut Vec<u8>) {
        let packed = match self.packing {
            Packing::Raw => 0,
            Packing::Zstd => COMPRESSED,
            Packing::ZstdWith(_) => COMPRESSED | WITH_DICTIONARY,
        };
        let flags = packed | if revision.is_some() { HAS_REVISION } else { 0 };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.format.code()]);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.key.map_or([0; 8], KeyId::to_bytes));
        out.extend_from_slice(&revision.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        if let Packing::ZstdWith(id) = self.packing {
            out.extend_from_slice(&id.to_bytes());
        }
        if self.key.is_some() {
            out.extend_from_slice(&[0; NONCE_BYTES]);
        }
    }

    /// Bytes before the payload.
    pub(super) fn prefix_bytes(&self) -> usize {
        let dictionary = if matches!(self.packing, Packing::ZstdWith(_)) { DICTIONARY_BYTES } else { 0 };
        let nonce = if self.key.is_some() { NONCE_BYTES } else { 0 };
        HEADER_BYTES + dictionary + nonce
    }
}

/// Fills the checksum in.
pub fn seal(stored: &mut [u8]) {
    if let Some((header, rest)) = stored.split_at_mut_checked(HEADER_BYTES) {
        let (checked, sum) = header.split_at_mut(CHECKED_BYTES);
        sum.copy_from_slice(&checksum(checked, xxh3_64(rest)).to_le_bytes());
    }
}

fn checksum(checked: &[u8], rest_hash: u64) -> u64 {
    xxh3_64_with_seed(checked, rest_hash)
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
