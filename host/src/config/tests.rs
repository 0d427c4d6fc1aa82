//! Whole files, and what they come to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sections::read;
use super::*;

/// A start for tests of one section: valid by itself.
const MONGODB: &str = "mongodb.uri = 'embedded'\n";

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/memcell.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// Every problem of `text`, one a line, without the name of the file.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let error = Config::parse(text, Path::new("m.toml")).expect_err("should be refused").to_string();
    let lines: Vec<&str> = error.lines().map(|line| line.strip_prefix("m.toml:").unwrap()).collect();
    assert_eq!(lines, expected);
}

/// As [`check`], for one problem in what follows [`MONGODB`], by what its line contains.
#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = Config::parse(&format!("{MONGODB}{text}"), Path::new("m.toml")).expect_err(text);
    assert_eq!(error.problems().len(), 1, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

/// The example with its optional keys switched on.
fn complete_example() -> String {
    let switch_on = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(switch_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_the_defaults() {
    let config = parse(EXAMPLE);
    let data_directory = PathBuf::from("/etc/data/mongodb");
    let mut expected = Config::new(MongoServer::Embedded { data_directory });
    expected.backends = vec![BackendConfig::new("local", "/etc/target/plugins/in_memory.wasm".into())];
    expected.validation.backend = Some("local".to_owned());
    assert_eq!(config, expected);
}

#[test]
fn the_example_has_every_key() {
    let text = complete_example();
    let outcome = read(&text, Path::new("m.toml"), &Overrides::default());
    let config = outcome.result.unwrap();
    assert_eq!(config.backends[0].ttl, Some(Duration::from_secs(30 * 86_400)));
    let document: toml::Table = text.parse().unwrap();
    for key in &outcome.known {
        let mut names = key.split('.');
        let first = document.get(names.next().unwrap());
        let found = names.fold(first, |value, name| value.and_then(|value| value.get(name)));
        assert!(found.is_some(), "{key} is not in the example");
    }
    assert!(outcome.known.contains("backends.local.supervision.restart_window"));
    assert!(outcome.known.len() > 40);
}

#[test]
fn a_minimal_file_has_the_defaults() {
    let config = parse(MONGODB);
    assert_eq!(config, Config::new(MongoServer::Embedded { data_directory: "/etc/data/mongodb".into() }));
}

#[test]
fn every_key_counts() {
    let config = parse(
        r#"
        [mongodb]
        uri = "mongodb://db/?replicaSet=rs0"
        database = "d"
        collection = "c"
        connect_timeout = "1s"
        operation_timeout = "2s"
        [http]
        listen = "[::1]:0"
        max_body = "1MB"
        request_timeout = "1m"
        shutdown_grace = "0s"
        [validation]
        single_reads = false
        batch_reads = true
        mode = "background"
        read_budget = "1ms"
        sample = 0.25
        recheck_after = "1h"
        mismatches = 7
        backend = "b"
        [log]
        format = "json"
        level = "warn,memcell_host=debug"
        [backends.z]
        plugin = "z.wasm"
        enabled = false
        [backends.b]
        plugin = "/opt/b.wasm"
        sha256 = "000102030405060708090A0b0c0d0e0f000102030405060708090a0b0c0d0eff"
        required = true
        shards = 256
        format = "bson"
        ttl = "1m"
        tombstone_ttl = "2d"
        ack = "mirrored"
        ack_timeout = "5s"
        queue = { changes = 10, bytes = "1MiB", batch = 10 }
        limits.memory = "4GiB"
        limits.call_timeout = "3s"
        limits.open_timeout = "4s"
        limits.cpu = "10ms"
        limits.response = "64KiB"
        limits.instances = 1
        limits.tables = 2
        limits.table_elements = 3
        limits.handles = 16
        limits.component = "4GiB"
        limits.compile_timeout = "1h"
        [backends.b.grants]
        directory = "data/b"
        read_only = true
        connect = ["Redis.internal:6379", "[::1]:7000"]
        environment = ["REDIS_PASSWORD"]
        log = true
        [backends.b.supervision]
        failures_to_open = 1
        backoff_min = "1s"
        backoff_max = "1s"
        restart_limit = 0
        restart_window = "1s"
        [backends.b.settings]
        url = "redis://u:s3cret@h"
        "any key" = 0xff
        ratio = 1.5
        on = true
        "#,
    );
    let MongoServer::Uri(uri) = &config.mongodb.server else { panic!("{:?}", config.mongodb) };
    assert_eq!(uri.expose(), "mongodb://db/?replicaSet=rs0");
    assert_eq!((config.mongodb.database.as_str(), config.mongodb.collection.as_str()), ("d", "c"));
    assert_eq!(config.mongodb.connect_timeout, Duration::from_secs(1));
    assert_eq!(config.mongodb.operation_timeout, Duration::from_secs(2));
    let http = HttpConfig {
        listen: "[::1]:0".parse().unwrap(),
        max_body: 1_000_000,
        request_timeout: Duration::from_secs(60),
        shutdown_grace: Duration::ZERO,
    };
    assert_eq!(config.http, http);
    let validation = ValidationConfig {
        single_reads: false,
        batch_reads: true,
        mode: ValidationMode::Background,
        read_budget: Duration::from_millis(1),
        sample: 0.25,
        recheck_after: Duration::from_secs(3600),
        mismatches: 7,
        backend: Some("b".to_owned()),
    };
    assert_eq!(config.validation, validation);
    assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: "warn,memcell_host=debug".to_owned() });
    let names: Vec<&str> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["z", "b"], "in the order of the file");
    let mut digest = [0_u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].repeat(2);
    digest[31] = 255;
    let settings = [("url", "redis://u:s3cret@h"), ("any key", "255"), ("ratio", "1.5"), ("on", "true")];
    let backend = BackendConfig {
        name: "b".to_owned(),
        plugin: "/opt/b.wasm".into(),
        sha256: Some(digest.try_into().unwrap()),
        required: true,
        enabled: true,
        shards: 256,
        format: ValueFormat::Bson,
        ttl: Some(Duration::from_secs(60)),
        tombstone_ttl: Duration::from_secs(2 * 86_400),
        ack: Ack::Mirrored,
        ack_timeout: Duration::from_secs(5),
        queue: QueueConfig { changes: 10, bytes: 1 << 20, batch: 10 },
        grants: GrantsConfig {
            directory: Some("/etc/data/b".into()),
            read_only: true,
            connect: [("redis.internal", 6379), ("::1", 7000)]
                .map(|(host, port)| Destination { host: host.to_owned(), port })
                .into(),
            environment: vec!["REDIS_PASSWORD".to_owned()],
            log: true,
        },
        limits: LimitsConfig {
            memory: 4 << 30,
            call_timeout: Duration::from_secs(3),
            open_timeout: Duration::from_secs(4),
            cpu: Duration::from_millis(10),
            response: 64 << 10,
            instances: 1,
            tables: 2,
            table_elements: 3,
            handles: 16,
            component: 4 << 30,
            compile_timeout: Duration::from_secs(3600),
        },
        supervision: SupervisionConfig {
            failures_to_open: 1,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(1),
            restart_limit: 0,
            restart_window: Duration::from_secs(1),
        },
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    assert_eq!(config.backends[1], backend);
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn all_problems_are_reported_at_once_with_their_lines() {
    check(
        r#"[mongodb]
uri = "localhost"
databse = "x"
[http]
max_body = 16
request_timeout = "30 seconds"
[backends.local]
shards = 0
call_timeout = "1s"
[backends.local.grants]
read_only = true
connect = ["redis:6379", "redis"]
network = true
[metrics]
on = true
"#,
        &[
            "2: mongodb.uri: must start with mongodb:// or mongodb+srv://; or write \"embedded\" for a private server",
            "3: mongodb.databse: is no key; did you mean database?",
            "5: http.max_body: needs a unit: write a size in quotes: a whole number and its unit, B, kB, KiB, MB, MiB, \
             GB, GiB, TB or TiB, such as \"64MiB\"; found 16",
            "6: http.request_timeout: must be a duration in quotes: a whole number and its unit, ms, s, m, h or d, \
             such as \"250ms\" or \"5m\"; found \"30 seconds\"",
            "7: backends.local.plugin: is required: the path of the component, such as \"plugins/in_memory.wasm\"",
            "8: backends.local.shards: must be between 1 and 256, found 0",
            "9: backends.local.call_timeout: is no key here; it belongs in [backends.local.limits]",
            "11: backends.local.grants.read_only: only goes with a directory: write directory = \"./data/NAME\" beside \
             it",
            "12: backends.local.grants.connect: value 2 must be a host and a port, such as \"redis.internal:6379\" or \
             \"[::1]:6379\"; the port is missing, found \"redis\"",
            "13: backends.local.grants.network: is no key; known here: connect, directory, environment, log, read_only",
            "14: metrics: is no key; known here: backends, http, log, mongodb, validation",
        ],
    );
}

#[test]
fn what_is_not_toml_is_reported_with_line_and_column() {
    let error = Config::parse("[mongodb]\nuri = \"mongodb://u:s3cret@h\nx = 1\n", Path::new("m.toml")).unwrap_err();
    let first = &error.problems()[0];
    assert_eq!((first.key.as_str(), first.line), ("", Some(2)), "{error}");
    assert!(first.column.is_some() && error.to_string().starts_with("m.toml:2:"), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");

    let error = Config::parse("[http]\nlisten = '127.0.0.1:1'\nlisten = '127.0.0.1:2'\n", Path::new("m.toml"));
    let error = error.unwrap_err();
    assert_eq!((error.problems().len(), error.problems()[0].line), (1, Some(3)), "{error}");
    assert!(error.to_string().contains("duplicate key"), "{error}");
}

#[test]
fn wrong_values_say_what_is_expected() {
    refused("http.listen = 'localhost:8080'", &["m.toml:2: http.listen: ", "IP address and a port", "localhost:8080"]);
    refused("http.listen = 8080", &["must be a text in quotes, found 8080"]);
    refused("http.max_body = '1TiB'", &["between 1KiB and 1GiB, found \"1TiB\""]);
    refused("http.shutdown_grace = true", &["must be a duration in quotes", "found true"]);
    refused("http = 1", &["http: must be a table ([http] on a line of its own), found 1"]);
    refused("validation.sample = 1.1", &["from 0 to 1", "found 1.1"]);
    refused("validation.sample = nan", &["from 0 to 1"]);
    refused("validation.mode = 'Inline'", &["must be \"inline\" or \"background\", found \"Inline\""]);
    refused("validation.single_reads = 'yes'", &["must be true or false (without quotes), found \"yes\""]);
    refused("validation.mismatches = '7'", &["must be a whole number (without quotes), found \"7\""]);
    refused("validation.mismatches = 9223372036854775807", &["between 1 and 100000"]);
    refused("log.level = 'warning'", &["\"warning\" is no level"]);
    refused("log.level = 'info,memcell_host=loud'", &["log.level: must be"]);
    refused("log.level = ''", &["log.level: must be off, error"]);
    refused("mongodb.database = 'a.b'", &["mongodb.database: must be 1 to 63 bytes"]);
    refused("mongodb.database = 'admin'", &["MongoDB keeps for itself"]);
    refused("mongodb.collection = 'system.x'", &["mongodb.collection: "]);
    refused("[[backends]]", &["backends: must be a table"]);
    refused("backends.a = 'x.wasm'", &["backends.a: must be a table: write [backends.NAME] and plugin = \"x.wasm\""]);
    refused("backends.A.plugin = 'x'", &["backends.A: must be named with"]);
    refused("backends.'a.b'.plugin = 'x'", &["backends.\"a.b\": must be named with"]);
    refused("backends.a.plugin = ''", &["backends.a.plugin: must be a path"]);
    refused("backends.a.plugin = '~/x.wasm'", &["~ means nothing here"]);
    refused("backends.a = { plugin = 'x', sha256 = 'abc' }", &["64 hexadecimal digits"]);
    refused("backends.a = { plugin = 'x', ttl = '59s' }", &["backends.a.ttl: must be between 1m and 3650d"]);
    refused("backends.a = { plugin = 'x', settings.list = ['s3cret'] }", &["backends.a.settings.list", "an array;"]);
    refused("backends.a = { plugin = 'x', limit = {} }", &["did you mean limits?"]);
    refused("backends.a = { plugin = 'x', limits.cpu = '9ms' }", &["limits.cpu: must be between 10ms and 1h"]);
    refused("backends.a = { plugin = 'x', limits.handles = 15 }", &["limits.handles: must be between 16 and 100000"]);
    refused(
        "backends.a = { plugin = 'x', limits.component = '1KiB' }",
        &["limits.component: must be between 64KiB and 4GiB"],
    );
    refused(
        "backends.a = { plugin = 'x', limits.compile_timeout = '0s' }",
        &["limits.compile_timeout: must be between 1ms and 1h"],
    );
    refused("backend.a.plugin = 'x'", &["backend: is no key; did you mean backends?"]);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    refused("mongodb.uri2 = ''", &["did you mean uri?"]);
    check(
        "mongodb = { uri = 'mongodb://h', data_directory = 'd' }",
        &["1: mongodb.data_directory: only goes with uri = \"embedded\": another server keeps its own data"],
    );
    refused("validation.backend = 'a'", &["there is no [backends.NAME] at all"]);
    refused("validation.backend = 'b'\nbackends.a.plugin = 'x'", &["\"b\" is none of a"]);
    refused("validation.backend = 'a'\nbackends.a = { plugin = 'x', enabled = false }", &["enabled = false"]);
    refused("validation.read_budget = '30s'", &["shorter than http.request_timeout"]);
    refused("backends.a = { plugin = 'x', required = true, enabled = false }", &["backends.a.required"]);
    refused("backends.a = { plugin = 'x', ack = 'mirrored', ack_timeout = '1m' }", &["backends.a.ack_timeout"]);
    refused("backends.a = { plugin = 'x', queue.batch = 5000 }", &["queue.batch: must not be larger than changes"]);
    refused("backends.a = { plugin = 'x', queue.changes = 100 }", &["backends.a.queue.changes: ", "batch"]);
    refused("backends.a = { plugin = 'x', supervision.backoff_min = '1m' }", &["supervision.backoff_min"]);
}

#[test]
fn the_environment_overrides_the_file() {
    let overridden = |text: &str, uri: Option<&str>, listen: Option<&str>| {
        let overrides = Overrides { mongodb_uri: uri.map(str::to_owned), http_listen: listen.map(str::to_owned) };
        read(text, Path::new("m.toml"), &overrides).result
    };
    let config = overridden(MONGODB, Some("mongodb://u:s3cret@h"), Some("0.0.0.0:1")).unwrap();
    assert_eq!(config.mongodb.redacted_uri(), "mongodb://u:***@h");
    assert_eq!(config.http.listen, SocketAddr::from(([0, 0, 0, 0], 1)));
    assert!(overridden("", Some("embedded"), None).is_ok(), "the file needn't have a URI then");

    let error = overridden("", Some("s3cret"), Some("nowhere")).unwrap_err().to_string();
    assert!(error.contains("m.toml: mongodb.uri: the environment variable MEMCELL_MONGODB_URI must start"), "{error}");
    assert!(error.contains("m.toml: http.listen: the environment variable MEMCELL_HTTP_LISTEN must be"), "{error}");
    assert!(!error.contains("s3cret"));
    let error = overridden("", None, None).unwrap_err().to_string();
    assert!(error.contains("mongodb.uri: is required") && error.contains(MONGODB_URI_VARIABLE), "{error}");
}

#[test]
fn files_that_cannot_be_read_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memcell.toml");
    let error = Config::load(&path).unwrap_err();
    assert!(error.to_string().contains("memcell config example"), "{error}");
    assert!(Config::load(folder.path()).unwrap_err().to_string().contains("can't be read"));
    std::fs::write(&path, b"[http]\n\xff").unwrap();
    assert_eq!(Config::load(&path).unwrap_err().problems()[0].line, Some(2));
    let error = crate::Error::from(Config::load(&path).unwrap_err());
    assert_eq!(error.kind(), crate::ErrorKind::Config);
}
