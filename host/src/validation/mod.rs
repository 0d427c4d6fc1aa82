//! Comparing two copies of a document, and what a difference means.

mod difference;
mod memo;

use serde::Serialize;

pub use difference::{Difference, DifferenceKind};
use memo::PayloadMemo;

use crate::codec::{Codec, Corrupt, Envelope, Format, write_payload};
use crate::memcell::{Fidelity, MemCell};

/// The most differences that are listed for one document.
pub const MAX_DIFFERENCES: usize = 100;

/// What a validated read found out about one backend's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Both copies agree.
    Consistent,
    /// The revisions differ, and the mirror has not yet passed the newer one: no error.
    InFlight,
    /// The backend has no copy.
    Missing,
    /// The copies differ.
    Different,
    /// The copy can't be read, or fails its checksum.
    Corrupt,
    /// The backend gave no answer, or none in time.
    Unavailable,
    /// Nothing was compared: validation was not asked for, or the mirror isn't live.
    Skipped,
}

impl Outcome {
    /// All of them, for a metric per outcome.
    pub const ALL: [Self; 7] = [
        Self::Consistent,
        Self::InFlight,
        Self::Missing,
        Self::Different,
        Self::Corrupt,
        Self::Unavailable,
        Self::Skipped,
    ];

    /// The name in headers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::InFlight => "in-flight",
            Self::Missing => "missing",
            Self::Different => "different",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Skipped => "skipped",
        }
    }
}

/// The revisions of both copies; `None` where a document has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revisions {
    /// Of MongoDB's document.
    pub authority: Option<u64>,
    /// Of the stored copy.
    pub stored: Option<u64>,
}

/// What [`compare`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// The copy is faithful.
    Equal,
    /// It isn't.
    Different {
        /// Which versions were compared.
        revisions: Revisions,
        /// Where they differ, at most [`MAX_DIFFERENCES`]; never empty.
        differences: Vec<Difference>,
        /// Whether there are more than are listed.
        truncated: bool,
    },
    /// The copy is no document; the text says why, without any contents.
    Corrupt(String),
}

/// What a backend has stored, and what it takes to read it.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// How the backend's values are read.
    pub codec: &'a Codec,
    /// The key under which the value is.
    pub key: &'a str,
    /// The value.
    pub value: &'a [u8],
}

/// Compares MongoDB's document with what a backend has stored for it.
///
/// Bytes are compared first, which is nearly always the end of it. Otherwise values are, without regard to the order of
/// fields, but with regard to types: a faithful copy of the int64 1 is neither an int32 nor a double. NaN equals NaN.
///
/// `scratch` is where the document is encoded; its contents don't matter, and keeping it saves an allocation.
pub fn compare(authority: &MemCell, stored: Stored<'_>, scratch: &mut Vec<u8>) -> Comparison {
    compare_copies(authority, stored, |envelope| is_same(authority, envelope, scratch))
        .unwrap_or_else(|corrupt| Comparison::Corrupt(corrupt.to_string()))
}

/// [`compare`] for many reads of the same documents: it remembers, by digest, what documents become when they are encoded, and
/// compares digests then. Memory: 2 MiB, whatever it compares.
#[derive(Debug)]
pub struct Comparer {
    memo: PayloadMemo,
}

impl Comparer {
    /// One that remembers nothing yet.
    pub fn new() -> Self {
        Self { memo: PayloadMemo::new() }
    }

    /// As [`compare`], and with the same answer.
    pub fn compare(&self, authority: &MemCell, stored: Stored<'_>, scratch: &mut Vec<u8>) -> Comparison {
        compare_copies(authority, stored, |envelope| self.is_same(authority, envelope, scratch))
            .unwrap_or_else(|corrupt| Comparison::Corrupt(corrupt.to_string()))
    }

    fn is_same(&self, authority: &MemCell, envelope: &Envelope<'_>, scratch: &mut Vec<u8>) -> bool {
        if envelope.format() == Format::Bson {
            return is_same(authority, envelope, scratch);
        }
        let document = self.memo.digest(authority.as_raw().as_bytes());
        if let Some(expected) = self.memo.copy_of(document) {
            return expected == self.copy_digest(envelope);
        }
        let same = is_same(authority, envelope, scratch);
        if same {
            self.memo.remember(document, self.copy_digest(envelope));
        }
        same
    }

    /// Of the payload, and of the revision that the envelope bears beside it.
    fn copy_digest(&self, envelope: &Envelope<'_>) -> u128 {
        let revision = envelope.revision().map_or(0, |revision| (u128::from(revision) << 1) | 1);
        self.memo.digest(envelope.payload()) ^ revision
    }
}

impl Default for Comparer {
    fn default() -> Self {
        Self::new()
    }
}

fn compare_copies(
    authority: &MemCell,
    stored: Stored<'_>,
    is_same: impl FnOnce(&Envelope<'_>) -> bool,
) -> Result<Comparison, Corrupt> {
    let envelope = stored.codec.open(stored.key, stored.value)?;
    if is_same(&envelope) {
        return Ok(Comparison::Equal);
    }
    let revisions = Revisions { authority: authority.revision(), stored: envelope.revision() };
    let copy = envelope.document()?;
    let (differences, truncated) = difference::between(authority.as_raw(), copy.as_raw(), MAX_DIFFERENCES)
        .map_err(|error| Corrupt::Payload(format!("the copies can't be compared: {error}")))?;
    Ok(if differences.is_empty() {
        Comparison::Equal
    } else {
        Comparison::Different { revisions, differences, truncated }
    })
}

/// Whether the copy is the document, byte by byte, and bears its revision.
fn is_same(authority: &MemCell, envelope: &Envelope<'_>, scratch: &mut Vec<u8>) -> bool {
    let same_bytes = match envelope.format() {
        Format::Bson => authority.as_raw().as_bytes() == envelope.payload(),
        Format::Json => {
            scratch.clear();
            // What is ambiguous may be the same text and another document.
            matches!(write_payload(Format::Json, authority, scratch), Ok(Fidelity::Exact))
                && scratch == envelope.payload()
        }
    };
    same_bytes && authority.revision() == envelope.revision()
}

#[cfg(test)]
mod tests;
