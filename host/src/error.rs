//! The library's one error type: a flat kind that callers act on, a text that is safe to show them, and the cause for the log.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error. The HTTP API maps each kind to one status and one stable `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An event id that is not 24 hexadecimal digits, given to a write.
    InvalidId,
    /// A filter, range, limit or other argument that makes no sense.
    InvalidArgument,
    /// A document or patch that breaks the rules of its fields; [`Error::field`] names the one.
    InvalidDocument,
    /// There is no (visible) document with that id.
    NotFound,
    /// A document with that id exists already.
    AlreadyExists,
    /// Others kept interfering (a transaction that conflicted until its time was up), or hold what is needed (the data directory of an
    /// embedded server). Try again.
    Conflict,
    /// MongoDB can't be reached, or has no primary; at the start, also a required backend that can't be used. Try again.
    Unavailable,
    /// MongoDB did not answer within the bounded wait. A write may or may not have taken place.
    Timeout,
    /// The MongoDB deployment can't do this (a transaction on a standalone server).
    Unsupported,
    /// The configuration is wrong.
    Config,
    /// A change of the configuration that only a restart brings into effect.
    RestartRequired,
    /// A bug, or an answer nobody expected.
    Internal,
}

impl ErrorKind {
    /// A short stable word: the `code` of the HTTP API, and a label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::InvalidId => "invalid_id",
            Self::InvalidArgument => "invalid_argument",
            Self::InvalidDocument => "invalid_document",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::Config => "misconfigured",
            Self::RestartRequired => "restart_required",
            Self::Internal => "internal",
        }
    }
}

/// See the module documentation.
pub struct Error {
    kind: ErrorKind,
    message: String,
    field: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is shown to callers: lower case, no full stop, no secrets, no document contents.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None, source: None }
    }

    /// A document field that breaks the rules, by its dotted path.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::InvalidDocument, message);
        error.field = Some(field.into());
        error
    }

    /// An event id nobody can have.
    pub fn invalid_id(given: &str) -> Self {
        let shown: String = given.chars().take(64).collect();
        Self::new(ErrorKind::InvalidId, format!("{shown:?} is not an event id: 24 hexadecimal digits are expected"))
    }

    /// No document has this id.
    pub fn not_found(event_id: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, format!("there is no MemCell {event_id}"))
    }

    /// Adds the cause, which only logs show.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says where in a larger piece of work it happened: `operation 3: there is no MemCell …`.
    #[must_use]
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for callers, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The dotted path of the offending document field, if the kind is [`ErrorKind::InvalidDocument`].
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Whether the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
