//! Why a backend can't be loaded, and why a call to one failed.

#![expect(missing_docs, reason = "the fields of these errors are what their texts say of them")]

use std::path::PathBuf;
use std::time::Duration;

use super::bindings::memcell::kv::types::Error as GuestError;
use crate::oci::OciError;

/// Why a component is no backend. Each text says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file can't be read.
    #[error("can't read the plugin {path}: {source}; check `plugin`, or build it (`cargo xtask plugins`)")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// Neither the text nor the binary magic of WebAssembly.
    #[error("{path} is not a WebAssembly file: it starts with {start}")]
    NotWasm { path: PathBuf, start: String },
    /// A core module where a component is needed.
    #[error(
        "{path} is a core WebAssembly module, not a component; build it for the target wasm32-wasip2, \
         or wrap it with `wasm-tools component new`"
    )]
    CoreModule { path: PathBuf },
    /// More bytes than the operator allows.
    #[error("{path} is larger than {limit_bytes} bytes; if that is as it should be, raise `limits.component`")]
    TooLarge { path: PathBuf, limit_bytes: u64 },
    /// The compiler was not done with it in time.
    #[error(
        "{path} was not compiled within {limit:?}; raise `limits.compile_timeout`, or start again once the compiler, \
         which can't be interrupted, has left its result in the cache"
    )]
    CompileTimeout { path: PathBuf, limit: Duration },
    /// Other bytes than the operator approved.
    #[error(
        "{path} has the SHA-256 digest {actual}, but `sha256` expects {expected}; if the change is wanted, update `sha256`"
    )]
    Digest { path: PathBuf, expected: String, actual: String },
    /// The bytes don't make a valid component.
    #[error("{path} is damaged or uses WebAssembly features that this host doesn't have: {reason}")]
    Invalid { path: PathBuf, reason: String },
    /// Its compiled code can't be run.
    #[error(
        "{path} can't be run, because this process may not make memory executable: {reason}; take off what forbids it, \
         such as `MemoryDenyWriteExecute=` of systemd, or a rule of SELinux on `execmem`"
    )]
    NotExecutable { path: PathBuf, reason: String },
    /// An interface of the contract is not there at all.
    #[error("{path} doesn't export {missing}, so it is no backend; it exports {exports}")]
    MissingExport { path: PathBuf, missing: String, exports: String },
    /// An interface is there, for another version of the contract.
    #[error(
        "{path} exports {found}, but this host needs {needed}; build the plugin against the contract of this version"
    )]
    WrongVersion { path: PathBuf, found: String, needed: String },
    /// It asks for something that this host doesn't have.
    #[error("{path} imports {import}, which this host doesn't provide; only interfaces of WASI 0.2 are available")]
    UnsatisfiedImport { path: PathBuf, import: String },
    /// An interface has the right name and the wrong functions.
    #[error("{path} exports the right interfaces with the wrong shape: {reason}")]
    WrongShape { path: PathBuf, reason: String },
    /// The registry doesn't give it.
    #[error("can't fetch the plugin {0}")]
    Registry(#[from] OciError),
    /// The sandbox itself can't be set up.
    #[error("can't set up the WebAssembly engine: {0}")]
    Engine(String),
}

impl LoadError {
    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_passing())
    }

    /// A short stable word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "load_unreadable",
            Self::NotWasm { .. } => "load_not_wasm",
            Self::CoreModule { .. } => "load_core_module",
            Self::TooLarge { .. } => "load_too_large",
            Self::CompileTimeout { .. } => "load_compile_timeout",
            Self::Digest { .. } => "load_digest",
            Self::Invalid { .. } => "load_invalid",
            Self::NotExecutable { .. } => "load_not_executable",
            Self::MissingExport { .. } => "load_missing_export",
            Self::WrongVersion { .. } => "load_wrong_version",
            Self::UnsatisfiedImport { .. } => "load_unsatisfied_import",
            Self::WrongShape { .. } => "load_wrong_shape",
            Self::Registry(error) => error.label(),
            Self::Engine(_) => "load_engine",
        }
    }
}

/// Why what a plugin is granted can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The directory can't be made, opened or locked.
    #[error("the directory {path} of `grants.directory` can't be {what}: {source}")]
    Directory { path: PathBuf, what: &'static str, source: std::io::Error },
    /// Somebody else has it.
    #[error(
        "the directory {path} of `grants.directory` is in use by another process; stop that one, or give this \
         backend a directory of its own"
    )]
    DirectoryInUse { path: PathBuf },
    /// A variable is granted that isn't there.
    #[error("the environment variable {name} of `grants.environment` is not set; set it, or take it out")]
    VariableUnset { name: String },
    /// A variable that no component can be given.
    #[error("the environment variable {name} of `grants.environment` is not valid Unicode")]
    VariableNotUnicode { name: String },
}

impl GrantError {
    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::DirectoryInUse { .. })
    }
}

/// Why a backend can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What it is granted can't be had.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The system gives no more threads.
    #[error("can't start its threads: {0}")]
    Threads(#[from] std::io::Error),
}

impl StartError {
    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Grant(error) if error.is_passing())
    }
}

/// Why a call to a backend failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The plugin answered with an error of the contract.
    #[error("{}", guest_text(.0))]
    Refused(GuestError),
    /// The plugin crashed.
    #[error("the plugin crashed in {function}: {reason}")]
    Trap { function: &'static str, reason: String },
    /// The call outlived its deadline and was cut off.
    #[error("the plugin didn't answer {function} within {deadline:?}")]
    Deadline { function: &'static str, deadline: Duration },
    /// The call used up its processor time.
    #[error(
        "the plugin computed for more than {limit:?} in {function}; raise `limits.cpu`, or hand it smaller batches"
    )]
    Cpu { function: &'static str, limit: Duration },
    /// The plugin ran into its memory limit.
    #[error(
        "the plugin reached its memory limit of {limit_bytes} bytes in {function}; raise `limits.memory` or store less"
    )]
    Memory { function: &'static str, limit_bytes: u64 },
    /// The plugin ran into a limit that is a count: `handles`, `instances`, `tables`, `table_elements`.
    #[error("the plugin reached `limits.{limit}` in {function}; raise it if that many are needed")]
    Limit { function: &'static str, limit: &'static str },
    /// The plugin's answer is larger than the host takes.
    #[error("the plugin's answer to {function} is larger than {limit_bytes} bytes; raise `limits.response`")]
    ResponseTooLarge { function: &'static str, limit_bytes: u64 },
    /// The plugin gave another number of answers than it was asked for.
    #[error("the plugin broke the contract in {function}: {due} answers were due, it gave {given}")]
    Answers { function: &'static str, due: usize, given: usize },
    /// The plugin declares a limit that no backend can have.
    #[error("the plugin broke the contract in open: `{limit}` is {declared}, at least {least} must be taken")]
    Declared { limit: &'static str, declared: u32, least: u32 },
    /// The plugin broke the contract otherwise.
    #[error("the plugin broke the contract in {function}: {reason}")]
    Contract { function: &'static str, reason: String },
    /// There is no working instance just now.
    #[error("the backend is down: {0}")]
    Down(String),
    /// More work is waiting than the queue takes.
    #[error("the queue of the backend is full")]
    QueueFull,
    /// The backend has been closed.
    #[error("the backend is closed")]
    Closed,
}

impl KvError {
    /// Whether the instance can't be used any more after this.
    pub(super) fn ends_instance(&self) -> bool {
        matches!(
            self,
            Self::Trap { .. }
                | Self::Deadline { .. }
                | Self::Cpu { .. }
                | Self::Memory { .. }
                | Self::Limit { .. }
                | Self::ResponseTooLarge { .. }
                | Self::Answers { .. }
                | Self::Declared { .. }
                | Self::Contract { .. }
        )
    }

    /// Whether it tells of trouble with the backend as a whole, as opposed to one call that can't be honoured.
    pub(super) fn counts_against_backend(&self) -> bool {
        match self {
            Self::Refused(error) => {
                matches!(
                    error,
                    GuestError::Unavailable(_) | GuestError::Timeout | GuestError::Other(_) | GuestError::Corrupt(_)
                )
            }
            Self::QueueFull | Self::Closed | Self::Down(_) => false,
            _ => true,
        }
    }

    /// Whether the same write can't ever succeed (as long as nobody changes the settings of the backend).
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Refused(GuestError::InvalidArgument(_) | GuestError::TooLarge(_) | GuestError::Unsupported(_))
        )
    }

    /// Whether a batch that fails this way may pass in smaller parts.
    pub fn is_about_items(&self) -> bool {
        self.is_permanent() || matches!(self, Self::Refused(GuestError::QuotaExceeded(_)))
    }

    /// A short stable word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(error) => match error {
                GuestError::InvalidArgument(_) => "invalid_argument",
                GuestError::TooLarge(_) => "too_large",
                GuestError::Unavailable(_) => "unavailable",
                GuestError::Timeout => "timeout",
                GuestError::QuotaExceeded(_) => "quota_exceeded",
                GuestError::Corrupt(_) => "corrupt",
                GuestError::Unsupported(_) => "unsupported",
                GuestError::Other(_) => "other",
            },
            Self::Trap { .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::Cpu { .. } => "cpu",
            Self::Memory { .. } => "memory",
            Self::Limit { limit, .. } => limit,
            Self::ResponseTooLarge { .. } => "response_too_large",
            Self::Answers { .. } | Self::Declared { .. } | Self::Contract { .. } => "contract",
            Self::Down(_) => "down",
            Self::QueueFull => "queue_full",
            Self::Closed => "closed",
        }
    }
}

/// Texts of plugins reach logs and status pages: at most this many characters of them.
const MAX_GUEST_TEXT: usize = 300;

fn guest_text(error: &GuestError) -> String {
    let (kind, text) = match error {
        GuestError::InvalidArgument(text) => ("invalid argument", text.as_str()),
        GuestError::TooLarge(text) => ("too large", text.as_str()),
        GuestError::Unavailable(text) => ("unavailable", text.as_str()),
        GuestError::Timeout => ("timeout", "the store did not answer in time"),
        GuestError::QuotaExceeded(text) => ("quota exceeded", text.as_str()),
        GuestError::Corrupt(text) => ("corrupt", text.as_str()),
        GuestError::Unsupported(text) => ("unsupported", text.as_str()),
        GuestError::Other(text) => ("other", text.as_str()),
    };
    format!("the plugin answered «{kind}»: {}", shown(text))
}

/// A stranger's text made fit for a log line: one line, no control characters, of bounded length.
pub(crate) fn shown(text: &str) -> String {
    let mut line: String =
        text.trim().chars().take(MAX_GUEST_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.trim().chars().nth(MAX_GUEST_TEXT).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_texts_are_tamed() {
        let error = KvError::Refused(GuestError::Other(format!("a\nb\u{1b}[31m{}", "x".repeat(1000))));
        let text = error.to_string();
        assert!(text.starts_with("the plugin answered «other»: a b [31mxxx"), "{text}");
        assert!(text.ends_with('…') && text.chars().count() < 400);
    }

    #[test]
    fn only_broken_instances_are_discarded() {
        assert!(KvError::Trap { function: "get-many", reason: String::new() }.ends_instance());
        assert!(!KvError::Refused(GuestError::Timeout).ends_instance());
        assert!(KvError::Refused(GuestError::Timeout).counts_against_backend());
        assert!(!KvError::Refused(GuestError::QuotaExceeded(String::new())).counts_against_backend());
        assert!(KvError::Refused(GuestError::TooLarge(String::new())).is_permanent());
    }
}
