//! The configuration: one TOML file, read completely and checked completely before anything starts.
//!
//! These are the validated types that the rest of the crate takes; whatever they hold is in range and makes sense
//! together. [`Config::load`] reports every problem of a file at once. All defaults are in `defaults`, all keys in
//! `sections`.

mod auth;
mod backend;
mod changes;
mod defaults;
mod environment;
mod grants;
mod plugin;
mod problems;
mod reader;
mod registry;
mod secrets;
mod sections;
mod shown;
#[cfg(test)]
mod tests;
mod units;
mod uri;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::environment::Environment;
pub use auth::{AuthConfig, Role, TokenConfig, TokenSource};
pub use backend::{Ack, BackendConfig, Compression, LimitsConfig, QueueConfig, SupervisionConfig, ValueFormat};
pub use changes::{ChangeKind, ConfigChange};
pub use grants::{Destination, GrantsConfig};
pub use plugin::{OciName, OciPlugin, OciReference, PluginSource};
pub use problems::{ConfigError, Problem};
pub use registry::{RegistryConfig, RegistryLogin, SecretSource};
pub use shown::REDACTED;
pub(crate) use units::parse_bytes;
pub use uri::MongoUri;

use crate::codec::EncryptionKey;

/// The commented example file with every key, which `memcell config example` prints.
pub const EXAMPLE: &str = include_str!("../../../memcell.example.toml");

/// The environment variable that replaces `mongodb.uri`, so that a password needn't be in a file.
pub const MONGODB_URI_VARIABLE: &str = "MEMCELL_MONGODB_URI";

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[host]`
    pub host: HostConfig,
    /// `[mongodb]`
    pub mongodb: MongoDbConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[auth]`
    pub auth: AuthConfig,
    /// `[validation]`
    pub validation: ValidationConfig,
    /// `[schedule]`
    pub schedule: ScheduleConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[traces]`
    pub traces: TracesConfig,
    /// `[encryption]`
    pub encryption: EncryptionConfig,
    /// `[registries."HOST"]`, in the order of the file.
    pub registries: Vec<RegistryConfig>,
    /// `[backends.NAME]`, in the order of the file; also those with `enabled = false`.
    pub backends: Vec<BackendConfig>,
}

/// What values in backends are encrypted with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionConfig {
    /// `[encryption.keys.NAME]`, in the order of the file, as they were when it was read.
    pub keys: Vec<EncryptionKey>,
}

/// This host among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// What tells it from other hosts on the same MongoDB, and stays the same when it is started again.
    pub name: String,
}

/// Jobs that are done from time to time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleConfig {
    /// How often each backend is verified; `None`: never.
    pub verify: Option<Duration>,
    /// Whether what is found is mended.
    pub repair: bool,
    /// Whether whole documents are compared.
    pub deep: bool,
    /// Documents and entries a second at the most.
    pub rate: Option<u32>,
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
    /// Names of this host that requests without authentication may be addressed to, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// With which certificate connections are encrypted; `None`: they aren't.
    pub tls: Option<TlsConfig>,
    /// Largest request body, in bytes.
    pub max_body: u64,
    /// Bytes of all request bodies that are worked on.
    pub max_bodies: u64,
    /// Largest head of a request (its line and headers), in bytes.
    pub max_head: u32,
    /// Most headers of a request.
    pub max_headers: usize,
    /// Longest path and query of a request, in bytes.
    pub max_uri: usize,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Most requests that are worked on at a time.
    pub max_requests: usize,
    /// Requests a second of each client; `None`: any number.
    pub rate: Option<u32>,
    /// How many requests a client may make at once before `rate` holds it back; `None`: as many as in a second.
    pub burst: Option<u32>,
    /// How long a connection may do nothing.
    pub idle_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long a shutdown waits for running requests and for the mirror to drain.
    pub shutdown_grace: Duration,
}

/// Encrypted connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The file with the certificate and those that vouch for it, in PEM, the host's own first.
    pub certificate: PathBuf,
    /// The file with its private key, in PEM.
    pub key: PathBuf,
    /// How long a client may take to agree on a connection.
    pub handshake_timeout: Duration,
    /// How often the files are looked at.
    pub check_interval: Duration,
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
    /// Whether a confirmed mismatch is mended at once.
    pub repair: bool,
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

/// Spans for a collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesConfig {
    /// Where OTLP is taken over HTTP; `None`: nowhere.
    pub endpoint: Option<String>,
    /// The share of requests that are traced, from 0 to 1, unless their client has decided.
    pub sample: f64,
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
    /// Reads and checks the file at `path`, and the files with secrets that it names, and the keys and dictionaries. Environment variables override single
    /// keys, such as [`MONGODB_URI_VARIABLE`]; set but empty counts as unset.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, |_| Ok(())).map(|(config, ())| config)
    }

    /// As [`Config::load`], and reads what else belongs to it: what is wrong with that is told among the other problems. Where a value
    /// is wrong, `read` sees the default.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn load_with<T>(
        path: &Path,
        read: impl FnOnce(&Self) -> Result<T, Vec<Problem>>,
    ) -> Result<(Self, T), ConfigError> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|error| ConfigError::not_utf8(path, &error))?,
            Err(error) => return Err(ConfigError::unreadable(path, &error)),
        };
        sections::read_with(&text, path, &Environment::of_process(), read).result
    }

    /// Checks `text` as if it had been read from `origin`, against whose folder relative paths are resolved. The
    /// environment has no say, but for keys that are to be found there.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        Self::parse_with(text, origin, [])
    }

    /// As [`Config::parse`], with these environment variables, for fuzzing.
    #[doc(hidden)]
    pub fn parse_with(
        text: &str,
        origin: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        sections::read(text, origin, &Environment::new(variables)).result.map(|(config, ())| config)
    }

    /// How the registry of that name is reached.
    pub fn registry(&self, name: &str) -> RegistryConfig {
        registry::named(&self.registries, name)
    }

    /// Everything at its default, and no backend.
    pub fn new(server: MongoServer) -> Self {
        let http = HttpConfig::default();
        Self {
            host: HostConfig::new(&http),
            mongodb: MongoDbConfig::new(server),
            http,
            auth: AuthConfig::default(),
            validation: ValidationConfig::default(),
            schedule: ScheduleConfig::default(),
            log: LogConfig::default(),
            traces: TracesConfig::default(),
            encryption: EncryptionConfig::default(),
            registries: Vec::new(),
            backends: Vec::new(),
        }
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

impl HostConfig {
    /// Named after the machine and the port: two hosts on one machine listen on different ones.
    pub fn new(http: &HttpConfig) -> Self {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { name: format!("{machine}:{}", http.listen.port()) }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: defaults::LISTEN,
            hosts: Vec::new(),
            tls: None,
            max_body: defaults::MAX_BODY_BYTES,
            max_bodies: defaults::MAX_BODIES_BYTES,
            max_head: defaults::MAX_HEAD_BYTES,
            max_headers: defaults::MAX_HEADERS,
            max_uri: defaults::MAX_URI_BYTES,
            max_connections: defaults::MAX_CONNECTIONS,
            max_requests: defaults::MAX_REQUESTS,
            rate: None,
            burst: None,
            idle_timeout: defaults::IDLE_TIMEOUT,
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
            repair: false,
            mismatches: defaults::MISMATCHES,
            backend: None,
        }
    }
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self { endpoint: None, sample: defaults::TRACES_SAMPLE }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: defaults::LOG_LEVEL.to_owned() }
    }
}
