//! The document and its forms: identity, raw BSON, JSON for the API and for storage, and checked input.

mod datetime;
mod document;
pub(crate) mod extended;
mod facts;
mod id;
mod input;
pub(crate) mod json;
mod key;
mod rules;
mod unique;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;

pub(crate) use datetime::as_time;
pub use datetime::{parse_border, parse_datetime};
pub use document::MemCell;
pub use id::EventId;
pub use input::{MAX_DOCUMENT_BYTES, NewMemCell, Patch};
pub use json::Fidelity;
pub use key::DocumentKey;
pub(crate) use unique::Unique;
