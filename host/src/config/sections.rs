//! Every table of the file and every key in it: type, range, default, and what must fit together.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::backend::{Ack, BackendConfig, LimitsConfig, QueueConfig, SupervisionConfig, ValueFormat};
use super::grants::GrantsConfig;
use super::problems::ConfigError;
use super::reader::{Entry, Reading, Section, quote};
use super::values::{
    boolean, bytes, collection_name, database_name, destination, digest, duration, integer, list, log_level,
    mongodb_uri, one_of, path, ratio, setting, socket_address, text, variable_name,
};
use super::{
    Config, HTTP_LISTEN_VARIABLE, HttpConfig, LogConfig, LogFormat, MONGODB_URI_VARIABLE, MongoDbConfig, MongoServer,
    Overrides, ValidationConfig, ValidationMode, defaults,
};

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
pub(super) struct Outcome {
    pub(super) result: Result<Config, ConfigError>,
    /// Every key that the reader asked for, dotted.
    #[cfg(test)]
    pub(super) known: std::collections::BTreeSet<String>,
}

/// Reads `text` as the file `origin`.
pub(super) fn read(text: &str, origin: &Path, overrides: &Overrides) -> Outcome {
    let (table, errors) = DeTable::parse_recoverable(text);
    let reading = Reading::new(text, &errors);
    let folder = origin.parent().unwrap_or(Path::new(""));
    let config = document(&reading.root(table.get_ref()), folder, overrides);
    Outcome {
        #[cfg(test)]
        known: reading.known(),
        result: reading.finish(origin).map(|()| config),
    }
}

fn document(root: &Section<'_>, folder: &Path, overrides: &Overrides) -> Config {
    let mongodb = mongodb(&root.section("mongodb"), folder, overrides);
    let http = http(&root.section("http"), overrides);
    let backends = backends(&root.section("backends"), folder, &http);
    let validation = validation(&root.section("validation"), &backends, &http);
    let log = log(&root.section("log"));
    root.finish();
    Config { mongodb, http, validation, log, backends }
}

fn mongodb(section: &Section<'_>, folder: &Path, overrides: &Overrides) -> MongoDbConfig {
    let data_directory = section.read("data_directory", folder.join(defaults::DATA_DIRECTORY), path(folder));
    let embedded = MongoServer::Embedded { data_directory: data_directory.components().collect() };
    let written = section.optional("uri", |value| {
        // Not `describe`: whatever stands here may be a secret.
        let text = value.as_str().ok_or("must be a text in quotes: a connection string, or \"embedded\"")?;
        mongodb_uri(text)
    });
    if let Some(Some(_)) = written
        && section.has("data_directory")
    {
        section.problem("data_directory", "only goes with uri = \"embedded\": another server keeps its own data");
    }
    let chosen = match &overrides.mongodb_uri {
        Some(text) => mongodb_uri(text).map_err(|reason| {
            section.problem_outside("uri", format!("the environment variable {MONGODB_URI_VARIABLE} {reason}"));
        }),
        None => {
            if !section.has("uri") {
                let what = "a connection string such as \"mongodb://127.0.0.1:27017/?replicaSet=rs0\", or \"embedded\"";
                section.problem("uri", format!("is required: {what}; {MONGODB_URI_VARIABLE} overrides it"));
            }
            Ok(written.flatten())
        }
    };
    let config = MongoDbConfig {
        server: chosen.ok().flatten().map_or(embedded, MongoServer::Uri),
        database: section.read("database", defaults::DATABASE.to_owned(), database_name),
        collection: section.read("collection", defaults::COLLECTION.to_owned(), collection_name),
        connect_timeout: section.read("connect_timeout", defaults::CONNECT_TIMEOUT, duration(TIMEOUT)),
        operation_timeout: section.read("operation_timeout", defaults::OPERATION_TIMEOUT, duration(TIMEOUT)),
    };
    section.finish();
    config
}

fn http(section: &Section<'_>, overrides: &Overrides) -> HttpConfig {
    let mut listen = section.read("listen", defaults::LISTEN, |value| socket_address(text(value)?));
    if let Some(text) = &overrides.http_listen {
        match socket_address(text) {
            Ok(address) => listen = address,
            Err(reason) => {
                section.problem_outside("listen", format!("the environment variable {HTTP_LISTEN_VARIABLE} {reason}"));
            }
        }
    }
    let config = HttpConfig {
        listen,
        max_body: section.read("max_body", defaults::MAX_BODY_BYTES, bytes(KIB..=GIB)),
        request_timeout: section.read("request_timeout", defaults::REQUEST_TIMEOUT, duration(TIMEOUT)),
        shutdown_grace: section.read("shutdown_grace", defaults::SHUTDOWN_GRACE, duration(Duration::ZERO..=HOUR)),
    };
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

fn backends(section: &Section<'_>, folder: &Path, http: &HttpConfig) -> Vec<BackendConfig> {
    let read = |entry: Entry<'_>| {
        let name = entry.name;
        let word = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !word || name.starts_with('-') || !(1..=63).contains(&name.len()) {
            section.problem(name, "must be named with 1 to 63 of a-z, 0-9 and -, the first no -");
        }
        if let Some(table) = entry.value.as_str() {
            section.problem(name, format!("must be a table: write [backends.NAME] and plugin = {}", quote(table)));
            return None;
        }
        Some(backend(&section.table_of(&entry)?, name, folder, http))
    };
    section.entries().into_iter().filter_map(read).collect()
}

fn backend(section: &Section<'_>, name: &str, folder: &Path, http: &HttpConfig) -> BackendConfig {
    let plugin =
        section.required("plugin", "the path of the component, such as \"plugins/in_memory.wasm\"", path(folder));
    let formats = [("json", ValueFormat::Json), ("bson", ValueFormat::Bson)];
    let acks = [("mongo", Ack::Mongo), ("mirrored", Ack::Mirrored)];
    let config = BackendConfig {
        name: name.to_owned(),
        plugin: plugin.unwrap_or_default(),
        sha256: section.optional("sha256", digest),
        required: section.read("required", false, boolean),
        enabled: section.read("enabled", true, boolean),
        shards: section.read("shards", defaults::SHARDS, integer(1..=256)),
        format: section.read("format", ValueFormat::default(), one_of(&formats)),
        ttl: section.optional("ttl", duration(LIFE)),
        tombstone_ttl: section.read("tombstone_ttl", defaults::TOMBSTONE_TTL, duration(LIFE)),
        ack: section.read("ack", Ack::default(), one_of(&acks)),
        ack_timeout: section.read("ack_timeout", defaults::ACK_TIMEOUT, duration(TIMEOUT)),
        queue: queue(&section.section("queue")),
        grants: grants(&section.section("grants"), folder),
        limits: limits(&section.section("limits")),
        supervision: supervision(&section.section("supervision")),
        settings: settings(&section.section("settings")),
    };
    if config.required && !config.enabled {
        section
            .problem("required", "can't be true with enabled = false: a backend that isn't loaded can't be required");
    }
    if config.ack == Ack::Mirrored && config.ack_timeout >= http.request_timeout {
        section.problem("ack_timeout", "must be shorter than http.request_timeout, or a slow backend fails the write");
    }
    section.finish();
    config
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

fn settings(section: &Section<'_>) -> Vec<(String, String)> {
    let entries = section.entries();
    let read = |entry: &Entry<'_>| Some((entry.name.to_owned(), section.optional(entry.name, setting)?));
    entries.iter().filter_map(read).collect()
}
