//! The standard output of a command, and what it notes beside it.
//!
//! Writing blocks. Commands run on the main thread, which is none of the runtime's own, so a slow reader holds up the command and nothing
//! that works for it.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use super::Failure;

/// Writes text as it is, and sees it through to the reader.
///
/// # Errors
/// [`Failure::OutputClosed`] if there is no reader any more.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| failure(&error))
}

/// Writes one line.
///
/// # Errors
/// As [`write`].
pub(super) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes one value as one line of JSON.
///
/// # Errors
/// As [`write`].
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let mut json = serde_json::to_vec(value).map_err(|error| Failure::Work(format!("the result as json: {error}")))?;
    json.push(b'\n');
    write(&json)
}

/// What was written counts, read or not: the verdict of a command is its exit code as well, and doesn't change for want of a reader.
///
/// # Errors
/// As given, but for [`Failure::OutputClosed`].
pub(super) fn though_unread(written: Result<(), Failure>) -> Result<(), Failure> {
    match written {
        Err(Failure::OutputClosed) => Ok(()),
        written => written,
    }
}

/// Writes one line to the standard error, if anybody listens there: what a command has to do, it does all the same.
pub(super) fn note(text: impl Display) {
    // One write, so that no other line gets into it.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// What an error of the standard output means.
pub(super) fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::io("the standard output", error),
    }
}
