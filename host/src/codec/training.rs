//! Making a dictionary from documents, and finding out what it gains.

use super::compression::{self, Dictionary};
use crate::{Error, ErrorKind, Result};

/// What some payloads take, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// As they are.
    pub raw: u64,
    /// Compressed, each where that pays.
    pub zstd: u64,
    /// Compressed with the dictionary, each where that pays.
    pub dictionary: u64,
}

/// A dictionary of at most `max_bytes` that is good for payloads like these. It contains pieces of them.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if these are too few or too small to learn from.
pub fn train(payloads: &[Vec<u8>], max_bytes: usize) -> Result<Vec<u8>> {
    zstd::dict::from_samples(payloads, max_bytes).map_err(|source| {
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        let message = format!(
            "zstd can't make a dictionary from these {} documents of {bytes} bytes in all ({source}): it takes about a hundred times \
             the bytes of the dictionary, and not only documents that are the same; ask for a smaller one, or give it more",
            payloads.len()
        );
        Error::new(ErrorKind::InvalidArgument, message).with_source(source)
    })
}

/// What these payloads would take, which should not be those that it was trained on.
///
/// # Errors
/// [`ErrorKind::Internal`] if zstd can't compress.
pub fn measure(payloads: &[Vec<u8>], level: i32, dictionary: &Dictionary) -> Result<Sizes> {
    let mut sizes = Sizes::default();
    for payload in payloads {
        let raw = payload.len();
        let zstd = compression::pack(payload, level, None)?.len();
        let packed = compression::pack(payload, level, Some(dictionary))?.len() + super::header::DICTIONARY_BYTES;
        sizes.raw += raw as u64;
        sizes.zstd += zstd.min(raw) as u64;
        sizes.dictionary += packed.min(raw) as u64;
    }
    Ok(sizes)
}
