//! Why a call failed, as the host is told.

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The texts are for the operator: lower case, no full stop, what went wrong and how to mend it, and never a
/// stored value.
///
/// The cases are those of the contract, where the list is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The call or a setting can't be honoured as given, now or later.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// A key, a value, a batch or an answer is larger than this backend takes. Fewer or smaller items may pass.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The store can't be reached just now. The same call may pass later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The store did not answer in time. Whether a write took place is unknown.
    #[error("timeout")]
    Timeout,
    /// No room is left for the write. Reads and deletes still work.
    #[error("quota exceeded: {0}")]
    QuotaExceeded(String),
    /// What is stored can't be understood any more.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// This backend can't do what was asked, as opposed to failing at it.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// See [`Error::InvalidArgument`].
    pub fn invalid_argument(text: impl Into<String>) -> Self {
        Self::InvalidArgument(text.into())
    }

    /// See [`Error::TooLarge`].
    pub fn too_large(text: impl Into<String>) -> Self {
        Self::TooLarge(text.into())
    }

    /// See [`Error::Unavailable`].
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(text.into())
    }

    /// See [`Error::QuotaExceeded`].
    pub fn quota_exceeded(text: impl Into<String>) -> Self {
        Self::QuotaExceeded(text.into())
    }

    /// See [`Error::Corrupt`].
    pub fn corrupt(text: impl Into<String>) -> Self {
        Self::Corrupt(text.into())
    }

    /// See [`Error::Unsupported`].
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::Unsupported(text.into())
    }

    /// See [`Error::Other`].
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }
}

/// A text without the numbers that the standard library puts behind what the system says, as in «Permission denied (os error 2)»:
/// those of WASI are others than the ones that an operator would look up.
#[cfg(any(test, target_family = "wasm"))]
pub(crate) fn without_numbers(text: String) -> String {
    const BEFORE: &str = " (os error ";
    let mut parts = text.split(BEFORE);
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => told.push_str(rest),
            _ => told.extend([BEFORE, part]),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_sandbox_are_not_told() {
        for (text, expected) in [
            ("", ""),
            ("Permission denied (os error 2)", "Permission denied"),
            ("a (os error 2); b (os error 63) c", "a; b c"),
            ("a (os error x) b (os error 4", "a (os error x) b (os error 4"),
        ] {
            assert_eq!(without_numbers(text.to_owned()), expected);
        }
    }
}
