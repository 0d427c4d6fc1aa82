//! How a command ends: its exit code, and what is said if it could not be carried out.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::process::ExitCode;

use super::output;
use crate::config::ConfigError;
use crate::{Error, ErrorKind};

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: all is fine.
    Fine,
    /// 1: there were differences, or (a part of) the work failed.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 64: the configuration is wrong.
    Config,
}

impl Exit {
    /// Fine if there was nothing wrong.
    pub(super) fn fine_if(fine: bool) -> Self {
        if fine { Self::Fine } else { Self::Failed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Config => 64,
        })
    }
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub enum Failure {
    /// The configuration can't be used.
    Config(ConfigError),
    /// The command line asks for what there isn't; the text says what there is.
    Usage(String),
    /// The store said no.
    Store(Error),
    /// A file, a stream or a socket did; the text says which, and what was wrong.
    Work(String),
    /// Whoever read the standard output has seen enough. That is no error, and nothing is said about it.
    OutputClosed,
}

impl Failure {
    /// An error of reading or writing `what`.
    pub(super) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::Work(format!("{what}: {error}"))
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Config,
            Self::Usage(_) => Exit::Usage,
            Self::Store(error) if error.kind() == ErrorKind::Config => Exit::Config,
            Self::Store(_) | Self::Work(_) => Exit::Failed,
            Self::OutputClosed => Exit::Fine,
        }
    }

    /// Says it on the standard error. The cause of an error of the store is a matter for the log: it may quote documents.
    pub fn report(&self) {
        match self {
            // One problem a line, each with its file and line: nothing may stand before them.
            Self::Config(error) => output::note(error),
            Self::Store(error) => {
                tracing::debug!(?error, "the command failed");
                output::note(format_args!("error: {error}{}", hint(error)));
            }
            Self::Usage(message) | Self::Work(message) => output::note(format_args!("error: {message}")),
            Self::OutputClosed => {}
        }
    }
}

/// How to mend it, where the error itself is for users of the API as well.
fn hint(error: &Error) -> &'static str {
    match error.kind() {
        // One of MongoDB has a cause. What else may be away says so itself.
        ErrorKind::Unavailable if error.source().is_some() => {
            "; mongodb.uri says where it is looked for, and under which replicaSet"
        }
        _ => "",
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
