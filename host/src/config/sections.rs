//! Every table of the file and every key in it: type, range, default, and what must fit together.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::auth::{auth, host_name};
use super::backend::{Ack, BackendConfig, Compression, LimitsConfig, QueueConfig, SupervisionConfig, ValueFormat};
use super::environment::Environment;
use super::grants::GrantsConfig;
use super::plugin::registry_name;
use super::problems::{ConfigError, Problem};
use super::reader::{Entry, Reading, Section, quote};
use super::registry::{RegistryConfig, RegistryLogin, SecretSource};
use super::secrets::{self, text_of_file};
use super::values::{
    boolean, bytes, collection_name, database_name, destination, digest, duration, http_url, integer, list, log_level,
    mongodb_uri, one_of, path, plugin, ratio, setting, small_bytes, socket_address, text, variable_name,
};
use super::{
    AuthConfig, Config, EncryptionConfig, HostConfig, HttpConfig, LogConfig, LogFormat, MONGODB_URI_VARIABLE,
    MongoDbConfig, MongoServer, ScheduleConfig, TlsConfig, TracesConfig, ValidationConfig, ValidationMode, defaults,
};
use crate::codec::{DEFAULT_LEVEL, EncryptionKey, LEVELS};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What any wait for a single answer may be: beyond an hour it isn't a bound any more.
const TIMEOUT: RangeInclusive<Duration> = MILLISECOND..=HOUR;
/// Shorter lives than a minute would expire while they are mirrored; ten years are as good as forever.
const LIFE: RangeInclusive<Duration> = MINUTE..=Duration::from_secs(3650 * 24 * 60 * 60);

/// What reading came to.
pub(super) struct Outcome<T> {
    pub(super) result: Result<(Config, T), ConfigError>,
    /// Every key that the reader asked for, dotted.
    #[cfg(test)]
    pub(super) known: std::collections::BTreeSet<String>,
}

/// Reads `text` as the file `origin`.
pub(super) fn read(text: &str, origin: &Path, environment: &Environment) -> Outcome<()> {
    read_with(text, origin, environment, |_| Ok(()))
}

/// As [`read`], with what `also` reads. Of a value that is wrong, it sees the default in its place.
pub(super) fn read_with<T>(
    text: &str,
    origin: &Path,
    environment: &Environment,
    also: impl FnOnce(&Config) -> Result<T, Vec<Problem>>,
) -> Outcome<T> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let reading = Reading::new(text, &errors, environment);
    let folder = origin.parent().unwrap_or(Path::new(""));
    let config = document(&reading.root(table.get_ref()), folder);
    let also = match reading.is_toml() {
        true => also(&config).map_err(|problems| problems.into_iter().for_each(|problem| reading.add(problem))),
        false => Err(()),
    };
    Outcome {
        #[cfg(test)]
        known: reading.known(),
        result: match (also, reading.finish()) {
            (Ok(also), problems) if problems.is_empty() => Ok((config, also)),
            (_, problems) => Err(ConfigError::new(origin, problems)),
        },
    }
}

fn document(root: &Section<'_>, folder: &Path) -> Config {
    let mongodb = mongodb(&root.section("mongodb"), folder);
    let section = root.section("http");
    let http = http(&section, folder);
    let auth = auth(&root.section("auth"), folder);
    refuse_open_doors(&section, &http, &auth);
    let host = host(&root.section("host"), &http);
    let (encryption, declared) = encryption(&root.section("encryption"), folder);
    let registries = registries(&root.section("registries"), folder);
    let around = Around { folder, http: &http, encryption: &encryption, declared: &declared, registries: &registries };
    let section = root.section("backends");
    let backends = backends(&section, &around);
    refuse_shared_directories(&section, &backends, &mongodb);
    let validation = validation(&root.section("validation"), &backends, &http);
    let schedule = schedule(&root.section("schedule"));
    let log = log(&root.section("log"));
    let traces = traces(&root.section("traces"));
    root.finish();
    Config { host, mongodb, http, auth, validation, schedule, log, traces, encryption, registries, backends }
}

fn mongodb(section: &Section<'_>, folder: &Path) -> MongoDbConfig {
    let data_directory = section.read("data_directory", folder.join(defaults::DATA_DIRECTORY), path(folder));
    let embedded = MongoServer::Embedded { data_directory: data_directory.components().collect() };
    // Not `describe`: whatever stands here may be a secret.
    let uri = |value: &DeValue<'_>| {
        mongodb_uri(value.as_str().ok_or("must be a text in quotes: a connection string, or \"embedded\"")?)
    };
    let in_file = |value: &DeValue<'_>| match section.reads_secrets() {
        true => mongodb_uri(&text_of_file(folder)(value)?),
        false => Ok(None),
    };
    let written = section.written("uri", uri);
    let named = section.optional("uri_file", in_file);
    if let Some(Some(_)) = written
        && section.has("data_directory")
    {
        section.problem("data_directory", "only goes with uri = \"embedded\": another server keeps its own data");
    }
    let chosen = section.overriding("uri", uri).unwrap_or_else(|| {
        match (section.has("uri"), section.has("uri_file")) {
            (true, true) => section.problem("uri_file", "can't go with uri: keep one of them"),
            (false, false) => {
                let what = "a connection string such as \"mongodb://127.0.0.1:27017/?replicaSet=rs0\", or \"embedded\"";
                section.problem("uri", format!("is required: {what}; uri_file and {MONGODB_URI_VARIABLE} also do"));
            }
            _ => {}
        }
        named.or(written)
    });
    let config = MongoDbConfig {
        server: chosen.flatten().map_or(embedded, MongoServer::Uri),
        database: section.read("database", defaults::DATABASE.to_owned(), database_name),
        collection: section.read("collection", defaults::COLLECTION.to_owned(), collection_name),
        connect_timeout: section.read("connect_timeout", defaults::CONNECT_TIMEOUT, duration(TIMEOUT)),
        operation_timeout: section.read("operation_timeout", defaults::OPERATION_TIMEOUT, duration(TIMEOUT)),
    };
    section.finish();
    config
}

fn http(section: &Section<'_>, folder: &Path) -> HttpConfig {
    let config = HttpConfig {
        listen: section.read("listen", defaults::LISTEN, |value| socket_address(text(value)?)),
        hosts: section.read("hosts", Vec::new(), list(MOST_GRANTS, host_name)),
        tls: tls(section, folder),
        max_body: section.read("max_body", defaults::MAX_BODY_BYTES, bytes(KIB..=GIB)),
        max_bodies: section.read("max_bodies", defaults::MAX_BODIES_BYTES, bytes(KIB..=64 * GIB)),
        // The HTTP library's buffer has at least 8 KiB.
        max_head: section.read("max_head", defaults::MAX_HEAD_BYTES, small_bytes(8 * KIB..=MIB)),
        max_headers: section.read("max_headers", defaults::MAX_HEADERS, integer(16..=10_000)),
        // Longer than 65,534 bytes no URI can be for the HTTP library.
        max_uri: section.read("max_uri", defaults::MAX_URI_BYTES, small_bytes(KIB..=63 * KIB)),
        max_connections: section.read("max_connections", defaults::MAX_CONNECTIONS, integer(1..=1_000_000)),
        max_requests: section.read("max_requests", defaults::MAX_REQUESTS, integer(1..=1_000_000)),
        rate: section.optional("rate", integer(1..=1_000_000)),
        burst: section.optional("burst", integer(1..=1_000_000)),
        idle_timeout: section.read("idle_timeout", defaults::IDLE_TIMEOUT, duration(SECOND..=DAY)),
        request_timeout: section.read("request_timeout", defaults::REQUEST_TIMEOUT, duration(TIMEOUT)),
        shutdown_grace: section.read("shutdown_grace", defaults::SHUTDOWN_GRACE, duration(Duration::ZERO..=HOUR)),
    };
    if config.max_bodies < config.max_body {
        let name = if section.has("max_bodies") { "max_bodies" } else { "max_body" };
        section.problem(
            name,
            "doesn't fit: max_bodies is for all bodies together, and must not be less than max_body for one",
        );
    }
    if section.has("burst") && config.rate.is_none() {
        section.problem("burst", "only goes with rate, which it lets a client go beyond for a moment");
    }
    section.finish();
    config
}

fn tls(section: &Section<'_>, folder: &Path) -> Option<TlsConfig> {
    if !section.has("tls") {
        return None;
    }
    let section = section.section("tls");
    let certificate =
        section.required("certificate", "the file with the certificate and its chain, in PEM", path(folder));
    let key = section.required("key", "the file with the certificate's private key, in PEM", path(folder));
    let (handshake_timeout, check_interval) = (
        section.read("handshake_timeout", defaults::HANDSHAKE_TIMEOUT, duration(MILLISECOND..=HOUR)),
        section.read("check_interval", defaults::CHECK_INTERVAL, duration(SECOND..=DAY)),
    );
    section.finish();
    Some(TlsConfig { certificate: certificate?, key: key?, handshake_timeout, check_interval })
}

/// Nobody shall open the documents to a network by writing an address.
fn refuse_open_doors(section: &Section<'_>, http: &HttpConfig, auth: &AuthConfig) {
    if http.listen.ip().to_canonical().is_loopback() || auth.unauthenticated || !auth.is_open() {
        return;
    }
    let message = format!(
        "{} can be reached from other machines, and nothing says who may: add [auth.tokens.NAME] with role and file, or \
         listen on 127.0.0.1, or write auth.unauthenticated = true if whoever can reach it may read and change everything",
        http.listen
    );
    section.problem("listen", message);
}

fn host(section: &Section<'_>, http: &HttpConfig) -> HostConfig {
    let name = |value: &DeValue<'_>| match text(value)? {
        name if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) => {
            Err("must have 1 to 200 characters, no control characters among them".to_owned())
        }
        name => Ok(name.to_owned()),
    };
    let config = HostConfig { name: section.optional("name", name).unwrap_or_else(|| HostConfig::new(http).name) };
    section.finish();
    config
}

fn schedule(section: &Section<'_>) -> ScheduleConfig {
    let config = ScheduleConfig {
        verify: section.optional("verify", duration(MINUTE..=365 * DAY)),
        repair: section.read("repair", false, boolean),
        deep: section.read("deep", false, boolean),
        rate: section.optional("rate", integer(1..=10_000_000)),
    };
    if config.verify.is_none() {
        for name in ["repair", "deep", "rate"].into_iter().filter(|name| section.has(name)) {
            section.problem(name, "only goes with verify, which says how often: write verify = \"1d\" beside it");
        }
    }
    section.finish();
    config
}

fn validation(section: &Section<'_>, backends: &[BackendConfig], http: &HttpConfig) -> ValidationConfig {
    let modes = [("inline", ValidationMode::Inline), ("background", ValidationMode::Background)];
    let mut config = ValidationConfig {
        single_reads: section.read("single_reads", defaults::SINGLE_READS, boolean),
        batch_reads: section.read("batch_reads", defaults::BATCH_READS, boolean),
        mode: section.read("mode", ValidationMode::default(), one_of(&modes)),
        read_budget: section.read("read_budget", defaults::READ_BUDGET, duration(TIMEOUT)),
        sample: section.read("sample", defaults::SAMPLE, ratio),
        recheck_after: section.read("recheck_after", defaults::RECHECK_AFTER, duration(TIMEOUT)),
        repair: section.read("repair", false, boolean),
        mismatches: section.read("mismatches", defaults::MISMATCHES, integer(1..=100_000)),
        backend: section.optional("backend", |value| text(value).map(str::to_owned)),
    };
    if config.read_budget >= http.request_timeout
        && (section.has("read_budget") || config.mode == ValidationMode::Inline)
    {
        section.problem("read_budget", "must be shorter than http.request_timeout, or a slow backend fails the read");
    }
    match &config.backend {
        None => config.backend = backends.iter().find(|backend| backend.enabled).map(|backend| backend.name.clone()),
        Some(name) => {
            if let Some(reason) = unusable(name, backends) {
                section.problem("backend", reason);
            }
        }
    }
    section.finish();
    config
}

/// Why reads can't be validated against the backend `name`.
fn unusable(name: &str, backends: &[BackendConfig]) -> Option<String> {
    match backends.iter().find(|backend| backend.name == name) {
        Some(backend) if backend.enabled => None,
        Some(_) => Some(format!("names a backend with enabled = false, {}", quote(name))),
        None if backends.is_empty() => Some(format!("names {}, but there is no [backends.NAME] at all", quote(name))),
        None => {
            let names: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
            Some(format!("names no backend of this file: {} is none of {}", quote(name), names.join(", ")))
        }
    }
}

fn log(section: &Section<'_>) -> LogConfig {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let config = LogConfig {
        format: section.read("format", LogFormat::default(), one_of(&formats)),
        level: section.read("level", defaults::LOG_LEVEL.to_owned(), log_level),
    };
    section.finish();
    config
}

fn traces(section: &Section<'_>) -> TracesConfig {
    let config = TracesConfig {
        endpoint: section.optional("endpoint", http_url),
        sample: section.read("sample", defaults::TRACES_SAMPLE, ratio),
    };
    section.finish();
    config
}

fn registries(section: &Section<'_>, folder: &Path) -> Vec<RegistryConfig> {
    let read = |entry: Entry<'_>| {
        let Some(name) = registry_name(entry.name) else {
            section.problem(
                entry.name,
                "must be named with the host of a registry, as in references: \"host\" or \"host:port\"",
            );
            return None;
        };
        Some(registry(&section.table_of(&entry)?, name, folder))
    };
    section.entries().into_iter().filter_map(read).collect()
}

fn registry(section: &Section<'_>, name: String, folder: &Path) -> RegistryConfig {
    let secret = |file: &str, environment: &str| {
        let in_file = section.optional(file, path(folder)).map(SecretSource::File);
        let variable = section.optional(environment, variable_name).map(SecretSource::Environment);
        if in_file.is_some() && variable.is_some() {
            section.problem(environment, format!("doesn't go with {file}: the secret is in one of them"));
        }
        in_file.or(variable)
    };
    let username = section.optional("username", |value| match text(value)? {
        // A name with a colon would be cut there by the other side (RFC 7617).
        name if name.is_empty() || name.contains(':') => Err("must be a name without a colon".to_owned()),
        name => Ok(name.to_owned()),
    });
    let password = secret("password_file", "password_environment");
    let token = secret("token_file", "token_environment");
    let login = match (username, password, token) {
        (None, None, token) => token.map(RegistryLogin::Token),
        (Some(username), Some(password), None) => Some(RegistryLogin::Password { username, password }),
        (_, _, Some(_)) => {
            let name = if section.has("token_file") { "token_file" } else { "token_environment" };
            section.problem(name, "doesn't go with a username and a password: the registry is shown one of them");
            None
        }
        (Some(_), None, None) => {
            section.problem("username", "needs password_file or password_environment beside it");
            None
        }
        (None, Some(_), None) => {
            let name = if section.has("password_file") { "password_file" } else { "password_environment" };
            section.problem(name, "needs a username beside it");
            None
        }
    };
    let config = RegistryConfig {
        name,
        login,
        insecure: section.read("insecure", false, boolean),
        ca_file: section.optional("ca_file", path(folder)),
        timeout: section.read("timeout", defaults::REGISTRY_TIMEOUT, duration(TIMEOUT)),
    };
    if config.insecure && config.ca_file.is_some() {
        section.problem("ca_file", "doesn't go with insecure = true: plain HTTP has no certificates");
    }
    section.finish();
    config
}

/// The keys, and the names of all that are meant to be, also of those that can't be used.
fn encryption(section: &Section<'_>, folder: &Path) -> (EncryptionConfig, Vec<String>) {
    let keys = section.section("keys");
    let mut declared = Vec::new();
    let mut config = EncryptionConfig::default();
    for entry in keys.entries() {
        check_name(&keys, entry.name);
        declared.push(entry.name.to_owned());
        let Some(table) = keys.table_of(&entry) else { continue };
        let Some(key) = encryption_key(&table, entry.name, folder) else { continue };
        match config.keys.iter().find(|other| other.id() == key.id()) {
            Some(other) => keys.problem(entry.name, format!("is the same key as {}", other.name())),
            None => config.keys.push(key),
        }
    }
    section.finish();
    (config, declared)
}

fn encryption_key(section: &Section<'_>, name: &str, folder: &Path) -> Option<EncryptionKey> {
    let file = section.optional("file", path(folder));
    let variable = section.optional("environment", variable_name);
    section.finish();
    let (place, key) = match (file, variable) {
        _ if section.has("file") && section.has("environment") => {
            section.problem("environment", "can't stand beside file: a key comes from one of them");
            return None;
        }
        (None, None) => {
            if !section.has("file") && !section.has("environment") {
                section.problem("file", "is required, or environment: where the key is");
            }
            return None;
        }
        _ if !section.reads_secrets() => return None,
        (Some(file), _) => ("file", secrets::key_from_file(name, &file)),
        (None, Some(variable)) => ("environment", secrets::key_from_environment(name, &variable)),
    };
    key.map_err(|reason| section.problem(place, reason)).ok()
}

fn check_name(section: &Section<'_>, name: &str) {
    let word = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !word || name.starts_with('-') || !(1..=63).contains(&name.len()) {
        section.problem(name, "must be named with 1 to 63 of a-z, 0-9 and -, the first no -");
    }
}

/// What a backend has to fit to.
struct Around<'a> {
    folder: &'a Path,
    http: &'a HttpConfig,
    encryption: &'a EncryptionConfig,
    /// The names of all keys, also of those that can't be used.
    declared: &'a [String],
    registries: &'a [RegistryConfig],
}

fn backends(section: &Section<'_>, around: &Around<'_>) -> Vec<BackendConfig> {
    let read = |entry: Entry<'_>| {
        let name = entry.name;
        check_name(section, name);
        if let Some(table) = entry.value.as_str() {
            section.problem(name, format!("must be a table: write [backends.NAME] and plugin = {}", quote(table)));
            return None;
        }
        Some(backend(&section.table_of(&entry)?, name, around))
    };
    section.entries().into_iter().filter_map(read).collect()
}

fn backend(section: &Section<'_>, name: &str, around: &Around<'_>) -> BackendConfig {
    let Around { folder, http, .. } = *around;
    let what = "the path of the component, such as \"plugins/in_memory.wasm\", or where it is in a registry, oci://…";
    let plugin = section.required("plugin", what, plugin(folder, around.registries));
    let formats = [("json", ValueFormat::Json), ("bson", ValueFormat::Bson)];
    let compressions = [("none", Compression::None), ("zstd", Compression::Zstd)];
    let acks = [("mongo", Ack::Mongo), ("mirrored", Ack::Mirrored)];
    let compression_level = section.read("compression_level", DEFAULT_LEVEL, integer(LEVELS));
    let dictionary = |value: &DeValue<'_>| {
        let path = path(folder)(value)?;
        section.reads_secrets().then(|| secrets::dictionary(&path, compression_level)).transpose()
    };
    let old_dictionaries = section.optional("old_dictionaries", list(MOST_DICTIONARIES, dictionary));
    let secrets = settings(&section.section("secrets"), text_of_file(folder));
    let mut config = BackendConfig {
        name: name.to_owned(),
        plugin: plugin.unwrap_or_else(|| "".into()),
        sha256: section.optional("sha256", digest),
        required: section.read("required", false, boolean),
        enabled: section.read("enabled", true, boolean),
        shards: section.read("shards", defaults::SHARDS, integer(1..=256)),
        format: section.read("format", ValueFormat::default(), one_of(&formats)),
        compression: section.read("compression", Compression::default(), one_of(&compressions)),
        compression_level,
        dictionary: section.optional("dictionary", dictionary).flatten(),
        old_dictionaries: old_dictionaries.unwrap_or_default().into_iter().flatten().collect(),
        encryption_key: section.optional("encryption_key", |value| key_of_name(text(value)?, around)).flatten(),
        encrypted_only: section.read("encrypted_only", false, boolean),
        decryption_keys: around.encryption.keys.clone(),
        ttl: section.optional("ttl", duration(LIFE)),
        tombstone_ttl: section.read("tombstone_ttl", defaults::TOMBSTONE_TTL, duration(LIFE)),
        ack: section.read("ack", Ack::default(), one_of(&acks)),
        ack_timeout: section.read("ack_timeout", defaults::ACK_TIMEOUT, duration(TIMEOUT)),
        two_phase: section.read("two_phase", false, boolean),
        queue: queue(&section.section("queue")),
        grants: grants(&section.section("grants"), folder),
        limits: limits(&section.section("limits")),
        supervision: supervision(&section.section("supervision")),
        settings: settings(&section.section("settings"), setting),
        secrets: secrets.iter().map(|(name, _)| name.clone()).collect(),
    };
    for (secret, _) in &secrets {
        if config.settings.iter().any(|(setting, _)| setting == secret) {
            section.section("secrets").problem(secret, "is one of the settings too: keep one of them");
        }
    }
    config.settings.extend(secrets);
    if config.required && !config.enabled {
        section
            .problem("required", "can't be true with enabled = false: a backend that isn't loaded can't be required");
    }
    if config.encrypted_only && !section.has("encryption_key") {
        section.problem(
            "encrypted_only",
            "needs encryption_key: without it nothing is encrypted, so that nothing could be read",
        );
    }
    if (config.ack == Ack::Mirrored || config.two_phase) && config.ack_timeout >= http.request_timeout {
        section.problem("ack_timeout", "must be shorter than http.request_timeout, or a slow backend fails the write");
    }
    section.finish();
    config
}

/// The key of this name; `None` if it is one that can't be used, which is said elsewhere.
fn key_of_name(name: &str, around: &Around<'_>) -> Result<Option<EncryptionKey>, String> {
    let Around { encryption, declared, .. } = around;
    match encryption.keys.iter().find(|key| key.name() == name) {
        Some(key) => Ok(Some(key.clone())),
        None if declared.iter().any(|other| other == name) => Ok(None),
        None if declared.is_empty() => {
            Err(format!("names {}, but there is no [encryption.keys.NAME] at all", quote(name)))
        }
        None => Err(format!("names no key of [encryption.keys]: {} is none of {}", quote(name), declared.join(", "))),
    }
}

fn queue(section: &Section<'_>) -> QueueConfig {
    let config = QueueConfig {
        changes: section.read("changes", defaults::QUEUE_CHANGES, integer(1..=1_000_000)),
        bytes: section.read("bytes", defaults::QUEUE_BYTES, bytes(MIB..=64 * GIB)),
        batch: section.read("batch", defaults::QUEUE_BATCH, integer(1..=10_000)),
    };
    if config.batch > config.changes {
        let message = format!("must not be larger than changes ({}): a batch is taken from the queue", config.changes);
        section.problem(if section.has("batch") { "batch" } else { "changes" }, message);
    }
    section.finish();
    config
}

/// More dictionaries than anybody changes to before he rewrites what the first was used for.
const MOST_DICTIONARIES: usize = 16;

/// More endpoints than any cluster has nodes, and more variables than any plugin has secrets.
const MOST_GRANTS: usize = 1000;

fn grants(section: &Section<'_>, folder: &Path) -> GrantsConfig {
    let config = GrantsConfig {
        directory: section.optional("directory", path(folder)),
        read_only: section.read("read_only", false, boolean),
        connect: section.read("connect", Vec::new(), list(MOST_GRANTS, destination)),
        environment: section.read("environment", Vec::new(), list(MOST_GRANTS, variable_name)),
        log: section.read("log", false, boolean),
    };
    if section.has("read_only") && !section.has("directory") {
        section.problem("read_only", "only goes with a directory: write directory = \"./data/NAME\" beside it");
    }
    section.finish();
    config
}

/// Each backend has a directory to itself: what lies in that of another, or among MongoDB's own files, it could read and destroy.
fn refuse_shared_directories(section: &Section<'_>, backends: &[BackendConfig], mongodb: &MongoDbConfig) {
    let own = match &mongodb.server {
        MongoServer::Embedded { data_directory } => {
            Some(("mongodb.data_directory".to_owned(), located(data_directory)))
        }
        MongoServer::Uri(_) => None,
    };
    let mut taken: Vec<(String, PathBuf)> = own.into_iter().collect();
    for backend in backends.iter().filter(|backend| backend.enabled) {
        let Some(directory) = &backend.grants.directory else { continue };
        let directory = located(directory);
        if let Some((whose, other)) =
            taken.iter().find(|(_, other)| directory.starts_with(other) || other.starts_with(&directory))
        {
            let how = match () {
                () if directory == *other => "is",
                () if directory.starts_with(other) => "lies within",
                () => "contains",
            };
            let grants = section.section(&backend.name).section("grants");
            grants.problem("directory", format!("{how} the directory of {whose}: give each one of its own"));
        }
        taken.push((format!("backends.{}", backend.name), directory));
    }
}

/// Where a path leads to, as far as that can be told of one that may not be there yet.
fn located(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let is_there = absolute.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match is_there {
        Some((ancestor, real)) => real.join(absolute.strip_prefix(ancestor).unwrap_or(Path::new(""))),
        None => absolute,
    }
}

fn limits(section: &Section<'_>) -> LimitsConfig {
    let config = LimitsConfig {
        // A 32-bit memory has at most 4 GiB; less than one MiB no toolchain's output starts in.
        memory: section.read("memory", defaults::MEMORY_BYTES, bytes(MIB..=4 * GIB)),
        call_timeout: section.read("call_timeout", defaults::CALL_TIMEOUT, duration(TIMEOUT)),
        open_timeout: section.read("open_timeout", defaults::OPEN_TIMEOUT, duration(TIMEOUT)),
        // The clock that interrupts guests ticks every 10 ms: nothing shorter can be kept.
        cpu: section.read("cpu", defaults::CPU, duration(10 * MILLISECOND..=HOUR)),
        response: section.read("response", defaults::RESPONSE_BYTES, bytes(64 * KIB..=4 * GIB)),
        instances: section.read("instances", defaults::INSTANCES, integer(1..=1000)),
        tables: section.read("tables", defaults::TABLES, integer(1..=1000)),
        table_elements: section.read("table_elements", defaults::TABLE_ELEMENTS, integer(1..=10_000_000)),
        // Any component holds its standard streams and its directory.
        handles: section.read("handles", defaults::HANDLES, integer(16..=100_000)),
        component: section.read("component", defaults::COMPONENT_BYTES, bytes(64 * KIB..=4 * GIB)),
        compile_timeout: section.read("compile_timeout", defaults::COMPILE_TIMEOUT, duration(TIMEOUT)),
    };
    section.finish();
    config
}

fn supervision(section: &Section<'_>) -> SupervisionConfig {
    let config = SupervisionConfig {
        failures_to_open: section.read("failures_to_open", defaults::FAILURES_TO_OPEN, integer(1..=1000)),
        backoff_min: section.read("backoff_min", defaults::BACKOFF_MIN, duration(MILLISECOND..=HOUR)),
        backoff_max: section.read("backoff_max", defaults::BACKOFF_MAX, duration(MILLISECOND..=HOUR)),
        restart_limit: section.read("restart_limit", defaults::RESTART_LIMIT, integer(0..=10_000)),
        restart_window: section.read("restart_window", defaults::RESTART_WINDOW, duration(SECOND..=30 * DAY)),
    };
    if config.backoff_min > config.backoff_max {
        let name = if section.has("backoff_min") { "backoff_min" } else { "backoff_max" };
        section.problem(name, "doesn't fit: backoff_min must not be longer than backoff_max");
    }
    section.finish();
    config
}

/// The settings of a table, each as the text that the plugin is handed.
fn settings(section: &Section<'_>, parse: impl Fn(&DeValue<'_>) -> Result<String, String>) -> Vec<(String, String)> {
    let entries = section.entries();
    let read = |entry: &Entry<'_>| Some((entry.name.to_owned(), section.optional(entry.name, &parse)?));
    entries.iter().filter_map(read).collect()
}
