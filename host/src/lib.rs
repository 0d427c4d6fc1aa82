//! The MemCell storage host: MongoDB is the authority, and every change is mirrored to sandboxed WebAssembly backends.

pub mod clock;
pub mod error;

pub use error::{Error, ErrorKind, Result};
