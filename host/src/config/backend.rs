//! The configuration of one key-value backend.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::defaults;
use super::grants::GrantsConfig;
use super::plugin::PluginSource;
use crate::codec::{Codec, DEFAULT_LEVEL, Dictionary, EncryptionKey, Format};

/// One key-value backend.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its name in the file, in metrics and in the API: 1 to 63 of `a`–`z`, `0`–`9` and `-`, the first no `-`.
    pub name: String,
    /// Where the component is.
    pub plugin: PluginSource,
    /// The SHA-256 digest that the component must have.
    pub sha256: Option<[u8; 32]>,
    /// Whether the host refuses to start when this backend can't be loaded.
    pub required: bool,
    /// Whether it is loaded at all.
    pub enabled: bool,
    /// How many instances share its keys, from 1 to 256.
    pub shards: u32,
    /// How documents are encoded in it.
    pub format: ValueFormat,
    /// Whether they are compressed.
    pub compression: Compression,
    /// How hard zstd tries, from 1 to 19.
    pub compression_level: i32,
    /// What it compresses with, if it compresses.
    pub dictionary: Option<Dictionary>,
    /// What values may have been compressed with before.
    pub old_dictionaries: Vec<Dictionary>,
    /// What values are encrypted with; `None`: they aren't.
    pub encryption_key: Option<EncryptionKey>,
    /// Whether copies that aren't encrypted are refused, and not only written no more.
    pub encrypted_only: bool,
    /// What values may have been encrypted with: all keys of `[encryption.keys]`.
    pub decryption_keys: Vec<EncryptionKey>,
    /// After how long an entry expires; `None`: never.
    pub ttl: Option<Duration>,
    /// How long the mark of a deleted key is kept.
    pub tombstone_ttl: Duration,
    /// When a write is answered.
    pub ack: Ack,
    /// How long a write with [`Ack::Mirrored`], or one in two phases, waits for this backend at the most, each time.
    pub ack_timeout: Duration,
    /// Whether writes are prepared in this backend before MongoDB commits them.
    pub two_phase: bool,
    /// `[backends.NAME.queue]`
    pub queue: QueueConfig,
    /// `[backends.NAME.grants]`
    pub grants: GrantsConfig,
    /// `[backends.NAME.limits]`
    pub limits: LimitsConfig,
    /// `[backends.NAME.supervision]`
    pub supervision: SupervisionConfig,
    /// `[backends.NAME.settings]` and after them `[backends.NAME.secrets]`: what the plugin's `open` is given, in the order of
    /// the file.
    pub settings: Vec<(String, String)>,
    /// The names of those settings that are nobody's business: their values came from files of their own.
    pub secrets: Vec<String>,
}

/// How a document is encoded for a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValueFormat {
    /// Canonical Extended JSON: readable by other tools.
    #[default]
    Json,
    /// BSON as MongoDB keeps it: no re-encoding.
    Bson,
}

/// Whether values are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// They are stored as they are.
    #[default]
    None,
    /// With zstd, each where that pays.
    Zstd,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// As soon as MongoDB has acknowledged it.
    #[default]
    Mongo,
    /// When this backend has applied it too, or `ack_timeout` has passed; the answer says which.
    Mirrored,
}

/// What waits in front of each shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Most changes waiting.
    pub changes: usize,
    /// Most bytes of keys and values waiting.
    pub bytes: u64,
    /// Most changes in one call of the plugin.
    pub batch: usize,
}

/// What each instance of the plugin may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Linear memory, in bytes.
    pub memory: u64,
    /// Deadline of one call.
    pub call_timeout: Duration,
    /// Deadline of instantiation and `open` together, for which it is the bound of their processor time as well.
    pub open_timeout: Duration,
    /// Processor time of one call. Waiting and sleeping use none.
    pub cpu: Duration,
    /// Bytes that one call may hand back.
    pub response: u64,
    /// Core instances.
    pub instances: usize,
    /// Tables.
    pub tables: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Handles held at a time: open files, sockets, streams, pollables, listings.
    pub handles: usize,
    /// Bytes of the component file.
    pub component: u64,
    /// How long compiling the component may take.
    pub compile_timeout: Duration,
}

/// What happens when calls fail or instances die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisionConfig {
    /// Failures in a row that open the breaker.
    pub failures_to_open: u32,
    /// Wait before the first restart; doubled for each further one.
    pub backoff_min: Duration,
    /// Longest wait before a restart.
    pub backoff_max: Duration,
    /// Restarts within `restart_window` after which the backend is given up as failed.
    pub restart_limit: u32,
    /// See `restart_limit`.
    pub restart_window: Duration,
}

impl BackendConfig {
    /// Everything but the name and the component file at its default.
    pub fn new(name: impl Into<String>, plugin: PathBuf) -> Self {
        Self {
            name: name.into(),
            plugin: plugin.into(),
            sha256: None,
            required: false,
            enabled: true,
            shards: defaults::SHARDS,
            format: ValueFormat::default(),
            compression: Compression::default(),
            compression_level: DEFAULT_LEVEL,
            dictionary: None,
            old_dictionaries: Vec::new(),
            encryption_key: None,
            encrypted_only: false,
            decryption_keys: Vec::new(),
            ttl: None,
            tombstone_ttl: defaults::TOMBSTONE_TTL,
            ack: Ack::default(),
            ack_timeout: defaults::ACK_TIMEOUT,
            two_phase: false,
            queue: QueueConfig::default(),
            grants: GrantsConfig::default(),
            limits: LimitsConfig::default(),
            supervision: SupervisionConfig::default(),
            settings: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// How its values are written and read.
    pub fn codec(&self) -> Codec {
        let format = match self.format {
            ValueFormat::Json => Format::Json,
            ValueFormat::Bson => Format::Bson,
        };
        let mut codec = Codec::plain(format);
        match self.compression {
            Compression::None => codec = codec.reading(&[], self.dictionary.as_slice()),
            Compression::Zstd => codec = codec.compressing(self.compression_level, self.dictionary.clone()),
        }
        if let Some(key) = &self.encryption_key {
            codec = codec.encrypting(key.clone());
        }
        if self.encrypted_only {
            codec = codec.encrypted_only();
        }
        codec.reading(&self.decryption_keys, &self.old_dictionaries)
    }
}

impl fmt::Debug for BackendConfig {
    /// Shows the names of the settings only: a value may be a password of the store behind the plugin.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured without `..`, so that a new field can't be forgotten here.
        let Self {
            name,
            plugin,
            sha256,
            required,
            enabled,
            shards,
            format,
            compression,
            compression_level,
            dictionary,
            old_dictionaries,
            encryption_key,
            encrypted_only,
            decryption_keys,
            ttl,
            tombstone_ttl,
            ack,
            ack_timeout,
            two_phase,
            queue,
            grants,
            limits,
            supervision,
            settings,
            secrets,
        } = self;
        f.debug_struct("BackendConfig")
            .field("name", name)
            .field("plugin", plugin)
            .field("sha256", sha256)
            .field("required", required)
            .field("enabled", enabled)
            .field("shards", shards)
            .field("format", format)
            .field("compression", compression)
            .field("compression_level", compression_level)
            .field("dictionary", dictionary)
            .field("old_dictionaries", old_dictionaries)
            .field("encryption_key", encryption_key)
            .field("encrypted_only", encrypted_only)
            .field("decryption_keys", decryption_keys)
            .field("ttl", ttl)
            .field("tombstone_ttl", tombstone_ttl)
            .field("ack", ack)
            .field("ack_timeout", ack_timeout)
            .field("two_phase", two_phase)
            .field("queue", queue)
            .field("grants", grants)
            .field("limits", limits)
            .field("supervision", supervision)
            .field("settings", &settings.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("secrets", secrets)
            .finish()
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { changes: defaults::QUEUE_CHANGES, bytes: defaults::QUEUE_BYTES, batch: defaults::QUEUE_BATCH }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            memory: defaults::MEMORY_BYTES,
            call_timeout: defaults::CALL_TIMEOUT,
            open_timeout: defaults::OPEN_TIMEOUT,
            cpu: defaults::CPU,
            response: defaults::RESPONSE_BYTES,
            instances: defaults::INSTANCES,
            tables: defaults::TABLES,
            table_elements: defaults::TABLE_ELEMENTS,
            handles: defaults::HANDLES,
            component: defaults::COMPONENT_BYTES,
            compile_timeout: defaults::COMPILE_TIMEOUT,
        }
    }
}

impl Default for SupervisionConfig {
    fn default() -> Self {
        Self {
            failures_to_open: defaults::FAILURES_TO_OPEN,
            backoff_min: defaults::BACKOFF_MIN,
            backoff_max: defaults::BACKOFF_MAX,
            restart_limit: defaults::RESTART_LIMIT,
            restart_window: defaults::RESTART_WINDOW,
        }
    }
}
