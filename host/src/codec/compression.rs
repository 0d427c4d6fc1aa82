//! Making payloads smaller, and large again, within bounds.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict, compress_bound, get_error_name, get_frame_content_size};

use super::header::Corrupt;
use crate::{Error, ErrorKind, Result};

/// What nothing is unpacked beyond, whatever it says of itself: a document of 16 MiB as JSON with its types, and then some.
pub const MAX_UNPACKED_BYTES: usize = 64 * 1024 * 1024;

/// The largest dictionary. The best ones have about 100 KiB.
pub const MAX_DICTIONARY_BYTES: usize = 16 * 1024 * 1024;

/// Levels of zstd that are of use here: beyond, a document costs more time than it saves room.
pub const LEVELS: RangeInclusive<i32> = 1..=19;

/// zstd's own.
pub const DEFAULT_LEVEL: i32 = 3;

/// What a dictionary that zstd has trained begins with.
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// The first bytes of the SHA-256 digest of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DictionaryId([u8; 8]);

impl DictionaryId {
    pub(super) fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub(super) fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for DictionaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// What documents have in common, so that it needn't be in each of them. Cheap to clone.
#[derive(Clone)]
pub struct Dictionary(Arc<Prepared>);

struct Prepared {
    id: DictionaryId,
    level: i32,
    packing: CDict<'static>,
    unpacking: DDict<'static>,
}

impl Dictionary {
    /// Prepares a trained dictionary, to compress at this level.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(bytes: &[u8], level: i32) -> Result<Self, &'static str> {
        if !bytes.starts_with(&DICTIONARY_MAGIC) {
            return Err("is no dictionary of zstd; `memcell codec train` makes one");
        }
        let digest = Sha256::digest(bytes);
        let id = digest.first_chunk().copied().unwrap_or_default();
        let prepared = (CDict::try_create(bytes, level), DDict::try_create(bytes));
        let (Some(packing), Some(unpacking)) = prepared else { return Err("is a damaged dictionary") };
        Ok(Self(Arc::new(Prepared { id: DictionaryId(id), level, packing, unpacking })))
    }

    /// What values that are compressed with it name it by.
    pub fn id(&self) -> DictionaryId {
        self.0.id
    }
}

impl PartialEq for Dictionary {
    fn eq(&self, other: &Self) -> bool {
        (self.0.id, self.0.level) == (other.0.id, other.0.level)
    }
}

impl Eq for Dictionary {}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dictionary").field(&self.id()).finish()
    }
}

thread_local! {
    // Making a context costs more than using it for a document.
    static PACKING: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static UNPACKING: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// Compresses; with a dictionary, at the dictionary's level.
///
/// # Errors
/// [`ErrorKind::Internal`] if zstd can't, which is a lack of memory.
pub(super) fn pack(payload: &[u8], level: i32, dictionary: Option<&Dictionary>) -> Result<Vec<u8>> {
    let failed = |reason: &str| Error::new(ErrorKind::Internal, format!("a value can't be compressed: {reason}"));
    PACKING.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(CCtx::try_create().ok_or_else(|| failed("out of memory"))?),
        };
        let mut packed = Vec::with_capacity(compress_bound(payload.len()));
        let end = match dictionary {
            None => context.compress(&mut packed, payload, level),
            Some(dictionary) => context.compress_using_cdict(&mut packed, payload, &dictionary.0.packing),
        };
        end.map_err(|code| failed(get_error_name(code)))?;
        Ok(packed)
    })
}

/// Decompresses one frame that says its size. No more memory is taken than it says, and none for one that says more than
/// [`MAX_UNPACKED_BYTES`].
///
/// # Errors
/// [`Corrupt::Compression`] for what [`pack`] can't have made.
pub(super) fn unpack(packed: &[u8], dictionary: Option<&Dictionary>) -> Result<Vec<u8>, Corrupt> {
    let size = match get_frame_content_size(packed) {
        Ok(Some(size)) => size,
        Ok(None) => return Err(Corrupt::Compression("it doesn't say its size")),
        Err(_) => return Err(Corrupt::Compression("it is no frame of zstd")),
    };
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_UNPACKED_BYTES);
    let size = size.ok_or(Corrupt::Compression("it would be larger than any document"))?;
    UNPACKING.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(DCtx::try_create().ok_or(Corrupt::Compression("out of memory"))?),
        };
        let mut payload = Vec::with_capacity(size);
        let end = match dictionary {
            None => context.decompress(&mut payload, packed),
            Some(dictionary) => context.decompress_using_ddict(&mut payload, packed, &dictionary.0.unpacking),
        };
        match end {
            Ok(_) if payload.len() == size => Ok(payload),
            Ok(_) => Err(Corrupt::Compression("it has another size than it says")),
            Err(code) => Err(Corrupt::Compression(get_error_name(code))),
        }
    })
}
