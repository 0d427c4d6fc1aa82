//! Why a component can't be had from its registry.

use std::fmt;
use std::time::Duration;

use crate::hex;

/// Why a component can't be had from its registry, or brought there. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct OciError {
    name: String,
    problem: Problem,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("the registry can't be reached: {0}")]
    Unreachable(String),
    #[error("the registry took longer than {0:?}; if it is only slow, raise `timeout` in its table of [registries]")]
    Timeout(Duration),
    #[error("the connection to the registry failed: {0}")]
    Broken(String),
    /// The status is one that may be another soon.
    #[error("the registry can't answer just now: {0}")]
    Busy(String),
    #[error("the registry denies it: {answer}; {hint}")]
    Denied { answer: String, hint: String },
    #[error(
        "the registry doesn't have it: {0}; check the name, and the tag or the digest (without either, the tag is latest)"
    )]
    Missing(String),
    #[error("{what} has the SHA-256 digest {}, but {} is asked for: it is damaged, or not what it ought to be", hex::encode(.actual), hex::encode(.expected))]
    Digest { what: &'static str, expected: [u8; 32], actual: [u8; 32] },
    #[error(
        "the component is of {bytes} bytes, more than {limit}; if that is as it should be, raise `limits.component`"
    )]
    TooLarge { bytes: u64, limit: u64 },
    /// What the registry has is no component.
    #[error("{0}")]
    NoComponent(String),
    /// The other side doesn't speak the protocol.
    #[error("what answers is no registry that memcell can talk to: {0}")]
    NoRegistry(String),
    #[error("the credentials can't be read: {0}")]
    Credentials(String),
    /// Trouble of this machine.
    #[error("{0}")]
    Local(String),
}

impl OciError {
    pub(super) fn new(name: &impl fmt::Display, problem: Problem) -> Self {
        Self { name: name.to_string(), problem }
    }

    /// Whether the same may succeed later without anybody doing something about it here.
    pub fn is_passing(&self) -> bool {
        matches!(self.problem, Problem::Unreachable(_) | Problem::Timeout(_) | Problem::Broken(_) | Problem::Busy(_))
    }

    /// A short stable word for metrics.
    pub fn label(&self) -> &'static str {
        match self.problem {
            Problem::Unreachable(_) | Problem::Timeout(_) | Problem::Broken(_) | Problem::Busy(_) => {
                "load_registry_away"
            }
            Problem::Denied { .. } | Problem::Credentials(_) => "load_registry_denied",
            Problem::Missing(_) | Problem::NoComponent(_) | Problem::NoRegistry(_) => "load_registry_missing",
            Problem::Digest { .. } => "load_digest",
            Problem::TooLarge { .. } => "load_too_large",
            Problem::Local(_) => "load_engine",
        }
    }
}
