//! The one converter of the driver's errors.

use std::borrow::Cow;

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};

use crate::{Error, ErrorKind};

/// An error of the driver as callers see it: a kind to act on, a text without host names, credentials or contents, and
/// the driver's own error as the source, which only logs show.
pub(super) fn convert(error: DriverError) -> Error {
    let (kind, message) = classify(&error);
    Error::new(kind, message).with_source(error)
}

/// The error of one document in an unordered insert, which bears no source of its own.
pub(super) fn refusal(code: i32, message: &str) -> Error {
    let (kind, message) = classify_refusal(code, message);
    Error::new(kind, message)
}

/// Whether something with that id or unique value is there already.
pub(super) fn is_duplicate_key(error: &Error) -> bool {
    error.kind() == ErrorKind::AlreadyExists
}

/// The same error once more, for everyone whom one failure concerns.
pub(super) fn repeat(error: &Error) -> Error {
    match driver_error(error) {
        Some(driver) => convert(driver.clone()),
        None => Error::new(error.kind(), error.message()),
    }
}

/// The driver's error in `error`, if it was made by [`convert`].
pub(super) fn driver_error(error: &Error) -> Option<&DriverError> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

fn classify(error: &DriverError) -> (ErrorKind, Cow<'static, str>) {
    match &*error.kind {
        DriverKind::Command(command) => classify_refusal(command.code, &command.message),
        DriverKind::Write(WriteFailure::WriteError(failure)) => classify_refusal(failure.code, &failure.message),
        DriverKind::InsertMany(failure) => match (failure.write_errors.as_deref(), &failure.write_concern_error) {
            (Some([first, ..]), _) => classify_refusal(first.code, &first.message),
            (_, Some(concern)) => with_text(classify_write_concern(concern.code)),
            _ => (ErrorKind::Internal, UNEXPECTED.into()),
        },
        kind => with_text(classify_other(kind)),
    }
}

fn with_text((kind, text): (ErrorKind, &'static str)) -> (ErrorKind, Cow<'static, str>) {
    (kind, text.into())
}

/// By the code, and of a value that has to be unique also by the server's message, which alone says where: its index.
fn classify_refusal(code: i32, message: &str) -> (ErrorKind, Cow<'static, str>) {
    let (kind, text) = classify_code(code);
    match index_of(message).filter(|_| kind == ErrorKind::AlreadyExists) {
        Some("_id_") => (kind, "a document with that id exists already".into()),
        Some(index) => {
            (kind, format!("a document with the same value in the unique index {index:?} exists already").into())
        }
        None => (kind, text.into()),
    }
}

/// The name of the index in «E11000 duplicate key error collection: d.c index: name_1 dup key: { … }». What follows are contents.
fn index_of(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(" index: ")?;
    let name = rest.split_once(" dup key")?.0;
    Some(name.split_once(" collation: ").map_or(name, |(name, _)| name))
}

fn classify_other(kind: &DriverKind) -> (ErrorKind, &'static str) {
    match kind {
        DriverKind::Write(WriteFailure::WriteConcernError(failure)) => classify_write_concern(failure.code),
        DriverKind::ServerSelection { .. } => {
            (ErrorKind::Unavailable, "no mongodb server that can take the operation was reached in time")
        }
        DriverKind::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            (ErrorKind::Timeout, "mongodb did not answer in time")
        }
        DriverKind::Io(_) | DriverKind::ConnectionPoolCleared { .. } | DriverKind::Shutdown => {
            (ErrorKind::Unavailable, "the connection to mongodb was lost")
        }
        DriverKind::DnsResolve { .. } => (ErrorKind::Unavailable, "the name of the mongodb server can't be resolved"),
        DriverKind::Authentication { .. } => (ErrorKind::Config, "mongodb refused the credentials"),
        DriverKind::InvalidTlsConfig { .. } => (ErrorKind::Config, "the tls options of the mongodb uri are not valid"),
        DriverKind::IncompatibleServer { .. } => (ErrorKind::Unsupported, "this version of mongodb is not supported"),
        DriverKind::SessionsNotSupported | DriverKind::Transaction { .. } => (ErrorKind::Unsupported, NO_TRANSACTIONS),
        _ => (ErrorKind::Internal, UNEXPECTED),
    }
}

const UNEXPECTED: &str = "mongodb gave an answer that nobody expected";

/// What a standalone server can't do.
pub(super) const NO_TRANSACTIONS: &str = "transactions need a mongodb replica set or sharded cluster";

/// The codes of <https://www.mongodb.com/docs/manual/reference/error-codes/>.
fn classify_code(code: i32) -> (ErrorKind, &'static str) {
    match code {
        // DuplicateKey, with its legacy forms.
        11000 | 11001 | 12582 => (ErrorKind::AlreadyExists, "a document with that id or unique value exists already"),
        // NotWritablePrimary, NotPrimaryNoSecondaryOk, LegacyNotPrimary, PrimarySteppedDown, NotPrimaryOrSecondary.
        10107 | 13435 | 10058 | 189 | 13436 => (ErrorKind::Unavailable, "mongodb has no primary just now"),
        // InterruptedAtShutdown, InterruptedDueToReplStateChange, ShutdownInProgress.
        11600 | 11602 | 91 => (ErrorKind::Unavailable, "the mongodb server is shutting down or changing its role"),
        // HostUnreachable, HostNotFound, NetworkTimeout, SocketException, FailedToSatisfyReadPreference,
        // ReadConcernMajorityNotAvailableYet, CursorNotFound, OutOfDiskSpace, ExceededMemoryLimit.
        6 | 7 | 89 | 9001 | 133 | 134 | 43 | 14031 | 146 => {
            (ErrorKind::Unavailable, "mongodb can't carry out the operation just now")
        }
        // MaxTimeMSExpired, ExceededTimeLimit.
        50 | 262 => (ErrorKind::Timeout, "mongodb did not finish in time"),
        // LockTimeout, WriteConflict, SnapshotTooOld, SnapshotUnavailable, NoSuchTransaction.
        24 | 112 | 239 | 246 | 251 => (ErrorKind::Conflict, "other writers kept interfering"),
        // BSONObjectTooLarge, and the codes of an update whose result is too large.
        10334 | 17419 | 17420 => (ErrorKind::InvalidDocument, "the document is larger than mongodb allows"),
        // TransactionTooLarge, TransactionTooLargeForCache.
        257 | 388 => (ErrorKind::InvalidDocument, "the transaction is larger than mongodb takes; write less in one"),
        // DocumentValidationFailure.
        121 => (ErrorKind::InvalidDocument, "the validation rules of the mongodb collection refuse the document"),
        // InvalidIdField, InvalidBSON, Overflow (nested too deeply).
        53 | 22 | 15 => (ErrorKind::InvalidDocument, "mongodb can't store this document"),
        // Unauthorized, AuthenticationFailed.
        13 | 18 => (ErrorKind::Config, "mongodb refuses this user"),
        // IllegalOperation (transaction numbers on a standalone), OperationNotSupportedInTransaction.
        20 | 263 => (ErrorKind::Unsupported, NO_TRANSACTIONS),
        _ => (ErrorKind::Internal, UNEXPECTED),
    }
}

/// A write that took place on the primary but was not confirmed as asked for.
fn classify_write_concern(code: i32) -> (ErrorKind, &'static str) {
    match code {
        // UnsatisfiableWriteConcern, UnknownReplWriteConcern.
        100 | 79 => (ErrorKind::Config, "the mongodb replica set can't satisfy the configured write concern"),
        // WriteConcernTimeout.
        64 => (ErrorKind::Timeout, "mongodb did not replicate the write in time"),
        code => classify_code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_connections_can_be_retried_and_keep_their_cause() {
        let lost: DriverError = std::io::Error::from(std::io::ErrorKind::ConnectionReset).into();
        let error = convert(lost);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable());
        assert!(driver_error(&error).is_some());
        let slow: DriverError = std::io::Error::from(std::io::ErrorKind::TimedOut).into();
        assert_eq!(convert(slow).kind(), ErrorKind::Timeout);
    }

    #[test]
    fn codes_tell_kinds() {
        for (code, kind) in [
            (11000, ErrorKind::AlreadyExists),
            (10107, ErrorKind::Unavailable),
            (50, ErrorKind::Timeout),
            (112, ErrorKind::Conflict),
            (121, ErrorKind::InvalidDocument),
            (388, ErrorKind::InvalidDocument),
            (13, ErrorKind::Config),
            (987_654, ErrorKind::Internal),
        ] {
            assert_eq!(refusal(code, "").kind(), kind, "{code}");
        }
    }

    #[test]
    fn of_two_that_are_the_same_the_index_is_named_and_no_contents() {
        let told = |message: &str| refusal(11000, message).message().to_owned();
        let of_index = "a document with the same value in the unique index \"by name\" exists already";
        for (message, expected) in [
            (
                "E11000 duplicate key error collection: d.c index: _id_ dup key: { _id: 5 }",
                "a document with that id exists already",
            ),
            (
                "E11000 duplicate key error collection: d.c index: by name dup key: { n: \" index: x dup key\" }",
                of_index,
            ),
            (
                "E11000 duplicate key error collection: d.c index: by name collation: { locale: \"de\" } dup key: { n: 1 }",
                of_index,
            ),
            ("something else", "a document with that id or unique value exists already"),
        ] {
            assert_eq!(told(message), expected);
        }
        assert_eq!(refusal(50, " index: a dup key").message(), refusal(50, "").message());
    }
}
