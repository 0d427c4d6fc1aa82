//! Ways in for the fuzz targets of `tests/fuzz` to what is not public otherwise. No part of the library's interface.

use std::io::BufReader;

use crate::cli::import::parse_all;
use crate::memcell::NewMemCell;

pub use crate::codec::seal;

/// A record of an import.
pub struct Imported {
    /// The line that it begins on, from 1.
    pub line: u64,
    /// The document, or why it is none.
    pub result: Result<NewMemCell, String>,
}

/// Parses all records of a text, as `memcell import` would, through a buffer of so many bytes.
pub fn import(text: &[u8], buffer: usize) -> Vec<Imported> {
    parse_all(BufReader::with_capacity(buffer, text))
}
