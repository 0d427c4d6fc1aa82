//! What went wrong in the storage engine, and what the host is told of it.

use std::fmt;
use std::io::ErrorKind;

use memcell_plugin::Error;

/// Why an operation on the database failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine or the file beneath it failed. The engine may refuse to go on until the file is opened again.
    Engine(Box<redb::Error>),
    /// Something that says all there is to say; the engine is fine.
    Told(Error),
}

/// What an error of the engine means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The file system has no room left.
    Full,
    /// The file is damaged, or none of ours.
    Damaged,
    /// Anything else.
    Other,
}

impl Failure {
    /// What it means.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Engine(error) => cause(error),
            Self::Told(Error::QuotaExceeded(_)) => Cause::Full,
            Self::Told(Error::Corrupt(_)) => Cause::Damaged,
            Self::Told(_) => Cause::Other,
        }
    }

    /// What the host is told. `file` is the name of the database file.
    pub(crate) fn told(self, file: &str) -> Error {
        let error = match self {
            Self::Told(Error::Corrupt(what)) => return damaged(file, what),
            Self::Told(error) => return error,
            Self::Engine(error) => error,
        };
        match (cause(&error), *error) {
            (Cause::Full, _) => full(file),
            (Cause::Damaged, error) => damaged(file, error),
            (_, redb::Error::ValueTooLarge(bytes)) => {
                Error::too_large(format!("{bytes} bytes can't be stored under one key"))
            }
            (_, error @ (redb::Error::Io(_) | redb::Error::Backend(_) | redb::Error::PreviousIo)) => {
                Error::unavailable(format!(
                    "{file} can't be read or written ({error}); it is opened again for the next call"
                ))
            }
            (_, error) => Error::other(format!("{file}: {error}")),
        }
    }
}

/// What is said when there is no room.
pub(crate) fn full(file: &str) -> Error {
    Error::quota_exceeded(format!(
        "the file system of {file} is full; puts are refused until there is room again, reads and deletes go on"
    ))
}

/// What is said of a file that is damaged in a way that `what` describes. That comes last: it may be cut off, and what the
/// engine quotes from the file can be long.
pub(crate) fn damaged(file: &str, what: impl fmt::Display) -> Error {
    Error::corrupt(format!(
        "{file} in the granted directory is damaged. Move it away: it is a copy, which the mirror makes anew from MongoDB. \
         Found: {what}"
    ))
}

fn cause(error: &redb::Error) -> Cause {
    match error {
        redb::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Cause::Full,
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Cause::Damaged,
            _ => Cause::Other,
        },
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => Cause::Damaged,
        _ => Cause::Other,
    }
}

impl fmt::Display for Failure {
    /// What went wrong, without what to do about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Told(Error::Corrupt(what)) => f.write_str(what),
            Self::Told(error) => error.fmt(f),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// The engine has an error type for each kind of operation, and one that takes in all of them.
macro_rules! from_engine {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Engine(Box::new(error.into()))
            }
        })+
    };
}

from_engine!(
    redb::CommitError,
    redb::CompactionError,
    redb::DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);
