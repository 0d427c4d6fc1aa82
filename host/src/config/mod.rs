//! The configuration: one TOML file, read completely and checked completely before anything starts.
//!
//! These are the validated types that the rest of the crate takes; whatever they hold is in range and makes sense
//! together. [`Config::load`] reports every problem of a file at once. All defaults are in `defaults`, all keys in
//! `sections`.

mod backend;
mod defaults;
mod grants;
mod problems;
mod reader;
mod sections;
#[cfg(test)]
mod tests;
mod units;
mod uri;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use backend::{Ack, BackendConfig, LimitsConfig, QueueConfig, SupervisionConfig, ValueFormat};
pub use grants::{Destination, GrantsConfig};
pub use problems::{ConfigError, Problem};
pub use uri::MongoUri;

/// The commented example file with every key, which `memcell config example` prints.
pub const EXAMPLE: &str = include_str!("../../../memcell.example.toml");

/// The environment variable that replaces `mongodb.uri`, so that a password needn't be in a file.
pub const MONGODB_URI_VARIABLE: &str = "MEMCELL_MONGODB_URI";

/// The environment variable that replaces `http.listen`.
pub const HTTP_LISTEN_VARIABLE: &str = "MEMCELL_HTTP_LISTEN";

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[mongodb]`
    pub mongodb: MongoDbConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[validation]`
    pub validation: ValidationConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[backends.NAME]`, in the order of the file; also those with `enabled = false`.
    pub backends: Vec<BackendConfig>,
}

/// The authoritative store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongoDbConfig {
    /// `uri` and `data_directory`: which server to use.
    pub server: MongoServer,
    /// Name of the database.
    pub database: String,
    /// Name of the collection that holds the MemCells.
    pub collection: String,
    /// How long an operation waits for a server that can take it (server selection).
    pub connect_timeout: Duration,
    /// How long one operation may take in all.
    pub operation_timeout: Duration,
}

/// Where MongoDB is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MongoServer {
    /// A deployment that somebody else runs.
    Uri(MongoUri),
    /// A private server on the loopback interface that this process starts and stops.
    Embedded {
        /// Where it keeps its data between starts.
        data_directory: PathBuf,
    },
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Largest request body, in bytes.
    pub max_body: u64,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long a shutdown waits for running requests and for the mirror to drain.
    pub shutdown_grace: Duration,
}

/// Comparing what is read from MongoDB with a backend's copy.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationConfig {
    /// Whether a read of one document is validated unless the caller says otherwise.
    pub single_reads: bool,
    /// The same for a read of many.
    pub batch_reads: bool,
    /// Whether the reader waits for the outcome.
    pub mode: ValidationMode,
    /// How long an inline validation waits for the backend at the most.
    pub read_budget: Duration,
    /// Which share of the eligible reads is validated, from 0 to 1.
    pub sample: f64,
    /// After how long a bad outcome is looked at again before it counts as confirmed.
    pub recheck_after: Duration,
    /// How many mismatches are remembered at the most.
    pub mismatches: usize,
    /// The backend to compare with: the configured one, else the first that is enabled. `None` if there is none.
    pub backend: Option<String>,
}

/// Whether a validated read waits for its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValidationMode {
    /// The answer carries the outcome; it comes up to `read_budget` later.
    #[default]
    Inline,
    /// The answer doesn't wait; a bad outcome is logged, counted and listed.
    Background,
}

/// What the process writes to its standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// In which form.
    pub format: LogFormat,
    /// How much: directives as `tracing_subscriber::EnvFilter` takes them, already checked.
    pub level: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

impl Config {
    /// Reads and checks the file at `path`, with what the environment overrides
    /// ([`MONGODB_URI_VARIABLE`], [`HTTP_LISTEN_VARIABLE`]; set but empty counts as unset).
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|error| ConfigError::not_utf8(path, &error))?,
            Err(error) => return Err(ConfigError::unreadable(path, &error)),
        };
        sections::read(&text, path, &Overrides::from_environment()).result
    }

    /// Checks `text` as if it had been read from `origin`, against whose folder relative paths are resolved. The
    /// environment has no say.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        sections::read(text, origin, &Overrides::default()).result
    }

    /// Everything at its default, and no backend.
    pub fn new(server: MongoServer) -> Self {
        Self {
            mongodb: MongoDbConfig::new(server),
            http: HttpConfig::default(),
            validation: ValidationConfig::default(),
            log: LogConfig::default(),
            backends: Vec::new(),
        }
    }
}

/// What the environment says in place of the file.
#[derive(Default)]
struct Overrides {
    mongodb_uri: Option<String>,
    http_listen: Option<String>,
}

impl Overrides {
    fn from_environment() -> Self {
        // A value that isn't Unicode is kept in a readable form, so that it is reported as wrong rather than ignored.
        let variable = |name| {
            let value = std::env::var_os(name)?;
            Some(value.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
        };
        Self { mongodb_uri: variable(MONGODB_URI_VARIABLE), http_listen: variable(HTTP_LISTEN_VARIABLE) }
    }
}

impl MongoDbConfig {
    /// Everything but the server at its default.
    pub fn new(server: MongoServer) -> Self {
        Self {
            server,
            database: defaults::DATABASE.to_owned(),
            collection: defaults::COLLECTION.to_owned(),
            connect_timeout: defaults::CONNECT_TIMEOUT,
            operation_timeout: defaults::OPERATION_TIMEOUT,
        }
    }

    /// The server as a log may show it: the URI without its secrets, or `embedded`.
    pub fn redacted_uri(&self) -> String {
        match &self.server {
            MongoServer::Uri(uri) => uri.redacted(),
            MongoServer::Embedded { .. } => "embedded".to_owned(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: defaults::LISTEN,
            max_body: defaults::MAX_BODY_BYTES,
            request_timeout: defaults::REQUEST_TIMEOUT,
            shutdown_grace: defaults::SHUTDOWN_GRACE,
        }
    }
}

impl Default for ValidationConfig {
    fn default() -> Self {
        Self {
            single_reads: defaults::SINGLE_READS,
            batch_reads: defaults::BATCH_READS,
            mode: ValidationMode::default(),
            read_budget: defaults::READ_BUDGET,
            sample: defaults::SAMPLE,
            recheck_after: defaults::RECHECK_AFTER,
            mismatches: defaults::MISMATCHES,
            backend: None,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: defaults::LOG_LEVEL.to_owned() }
    }
}
