//! What is wrong with a configuration: all of it, each with its place and how to mend it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use crate::error::{Error, ErrorKind};

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, such as `backends.local.shards`. Empty if the file as a whole is meant.
    pub key: String,
    /// The line it is on, from 1; of a missing key: where its table begins. `None` if it is nowhere in the file.
    pub line: Option<usize>,
    /// The column in characters, from 1. Only for what isn't TOML at all.
    pub column: Option<usize>,
    /// What is wrong and how to mend it. Shows no secrets.
    pub message: String,
}

/// Why a configuration can't be used: every [`Problem`] of it, in the order of the file.
///
/// `Display` writes one problem a line, like `memcell.toml:12: backends.local.shards: must be between 1 and 256, found
/// 0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    origin: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(origin: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self { origin: origin.to_owned(), problems }
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let message = match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no such file; `memcell config example` prints one to start from, --config names another one"
                    .to_owned()
            }
            _ => format!("can't be read: {error}"),
        };
        Self::of_file(path, None, message)
    }

    pub(super) fn not_utf8(path: &Path, error: &FromUtf8Error) -> Self {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Self::of_file(path, Some(line), "is not UTF-8 text".to_owned())
    }

    fn of_file(path: &Path, line: Option<usize>, message: String) -> Self {
        Self::new(path, vec![Problem { key: String::new(), line, column: None, message }])
    }

    /// The file.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// At least one, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.origin.display())?;
            for place in [problem.line, problem.column].into_iter().flatten() {
                write!(f, ":{place}")?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::Config, error.to_string())
    }
}
