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

/// Keys that exclude others which the example has too.
const ALTERNATIVES: [&str; 3] = ["password_environment", "token_file", "token_environment"];

/// The example with its optional keys switched on, but for [`ALTERNATIVES`].
fn complete_example() -> String {
    let is_alternative = |key: &str| ALTERNATIVES.iter().any(|name| key.starts_with(name));
    let switch_on = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) && !is_alternative(key) => key.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(switch_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_the_defaults() {
    let config = parse(EXAMPLE);
    let data_directory = PathBuf::from("/etc/data/mongodb");
    let mut expected = Config::new(MongoServer::Embedded { data_directory });
    expected.registries = vec![RegistryConfig::new("localhost:5000")];
    expected.backends = vec![BackendConfig::new("local", "/etc/target/plugins/in_memory.wasm".into())];
    expected.validation.backend = Some("local".to_owned());
    assert_eq!(config, expected);
}

#[test]
fn the_example_has_every_key() {
    let text = complete_example();
    let environment = Environment::without_secrets();
    let outcome = read(&text.replace("uri = \"embedded\"\n", ""), Path::new("m.toml"), &environment);
    let (config, ()) = outcome.result.unwrap();
    assert_eq!(config.backends[0].ttl, Some(Duration::from_secs(30 * 86_400)));
    let document: toml::Table = text.parse().unwrap();
    let tokens = document["auth"]["tokens"].as_table().unwrap();
    for key in &outcome.known {
        // A token is in one place; all three places are shown.
        if let Some((name, part)) = key.strip_prefix("auth.tokens.").and_then(|key| key.split_once('.')) {
            assert!(tokens.contains_key(name) && tokens.values().any(|token| token.get(part).is_some()), "{key}");
            continue;
        }
        // A key comes from one of the two, so each is shown with one of them.
        let key = &key
            .replace("keys.second.file", "keys.first.file")
            .replace("keys.first.environment", "keys.second.environment");
        let mut names = key.split('.').map(|name| name.trim_matches('"'));
        let first = document.get(names.next().unwrap());
        let found = names.fold(first, |value, name| value.and_then(|value| value.get(name)));
        let is_alternative = ALTERNATIVES.iter().any(|name| {
            key.ends_with(&format!(".{name}")) && EXAMPLE.lines().any(|line| line.starts_with(&format!("#{name} = ")))
        });
        assert!(found.is_some() || is_alternative, "{key} is not in the example");
    }
    assert!(outcome.known.contains("backends.local.supervision.restart_window"));
    assert!(outcome.known.len() > 40);
    assert_eq!(config.auth.tokens.len(), 3);
    assert_eq!(config.http.tls.as_ref().unwrap().check_interval, Duration::from_secs(60));
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
        hosts = ["Memcell.example.com"]
        max_body = "1MB"
        max_bodies = "2MB"
        max_head = "8KiB"
        max_headers = 16
        max_uri = "1KiB"
        max_connections = 3
        max_requests = 4
        rate = 5
        burst = 6
        idle_timeout = "7s"
        tls = { certificate = "c.pem", key = "/k.pem", handshake_timeout = "1s", check_interval = "2s" }
        request_timeout = "1m"
        shutdown_grace = "0s"
        [auth]
        open_metrics = true
        tokens.a = { role = "read", file = "a.token" }
        tokens.b = { role = "write", environment = "B" }
        [auth.tokens.c]
        role = "admin"
        sha256 = "000102030405060708090A0b0c0d0e0f000102030405060708090a0b0c0d0eff"
        [validation]
        single_reads = false
        batch_reads = true
        mode = "background"
        read_budget = "1ms"
        sample = 0.25
        recheck_after = "1h"
        mismatches = 7
        repair = true
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
        compression = "zstd"
        compression_level = 9
        ttl = "1m"
        tombstone_ttl = "2d"
        ack = "mirrored"
        ack_timeout = "5s"
        two_phase = true
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
        hosts: vec!["memcell.example.com".to_owned()],
        tls: Some(TlsConfig {
            certificate: "/etc/c.pem".into(),
            key: "/k.pem".into(),
            handshake_timeout: Duration::from_secs(1),
            check_interval: Duration::from_secs(2),
        }),
        max_body: 1_000_000,
        max_bodies: 2_000_000,
        max_head: 8192,
        max_headers: 16,
        max_uri: 1024,
        max_connections: 3,
        max_requests: 4,
        rate: Some(5),
        burst: Some(6),
        idle_timeout: Duration::from_secs(7),
        request_timeout: Duration::from_secs(60),
        shutdown_grace: Duration::ZERO,
    };
    assert_eq!(config.http, http);
    let mut digest = [0_u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].repeat(2);
    digest[31] = 255;
    let digest: [u8; 32] = digest.try_into().unwrap();
    let token = |name: &str, role, source| TokenConfig { name: name.to_owned(), role, source };
    let tokens = vec![
        token("a", Role::Read, TokenSource::File("/etc/a.token".into())),
        token("b", Role::Write, TokenSource::Environment("B".to_owned())),
        token("c", Role::Admin, TokenSource::Sha256(digest)),
    ];
    assert_eq!(config.auth, AuthConfig { unauthenticated: false, open_metrics: true, tokens });
    assert!(!format!("{:?}", config.auth).contains("255"), "no digest is shown");
    let validation = ValidationConfig {
        single_reads: false,
        batch_reads: true,
        mode: ValidationMode::Background,
        read_budget: Duration::from_millis(1),
        sample: 0.25,
        recheck_after: Duration::from_secs(3600),
        repair: true,
        mismatches: 7,
        backend: Some("b".to_owned()),
    };
    assert_eq!(config.validation, validation);
    assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: "warn,memcell_host=debug".to_owned() });
    let names: Vec<&str> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["z", "b"], "in the order of the file");
    let settings = [("url", "redis://u:s3cret@h"), ("any key", "255"), ("ratio", "1.5"), ("on", "true")];
    let backend = BackendConfig {
        name: "b".to_owned(),
        plugin: "/opt/b.wasm".into(),
        sha256: Some(digest),
        required: true,
        enabled: true,
        shards: 256,
        format: ValueFormat::Bson,
        compression: Compression::Zstd,
        compression_level: 9,
        dictionary: None,
        old_dictionaries: Vec::new(),
        encryption_key: None,
        encrypted_only: false,
        decryption_keys: Vec::new(),
        ttl: Some(Duration::from_secs(60)),
        tombstone_ttl: Duration::from_secs(2 * 86_400),
        ack: Ack::Mirrored,
        ack_timeout: Duration::from_secs(5),
        two_phase: true,
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
        secrets: Vec::new(),
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
            "7: backends.local.plugin: is required: the path of the component, such as \"plugins/in_memory.wasm\", or \
             where it is in a registry, oci://…",
            "8: backends.local.shards: must be between 1 and 256, found 0",
            "9: backends.local.call_timeout: is no key here; it belongs in [backends.local.limits]",
            "11: backends.local.grants.read_only: only goes with a directory: write directory = \"./data/NAME\" beside \
             it",
            "12: backends.local.grants.connect: value 2 must be a host and a port, such as \"redis.internal:6379\" or \
             \"[::1]:6379\"; the port is missing, found \"redis\"",
            "13: backends.local.grants.network: is no key; known here: connect, directory, environment, log, read_only",
            "14: metrics: is no key; known here: auth, backends, encryption, host, http, log, mongodb, registries, schedule, traces, \
             validation",
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
    assert!(error.to_string().contains("duplicate key \"listen\": it is there already, further up"), "{error}");

    let error = Config::parse("[auth]\n[http]\n\n[auth]\nopen_metrics = true\n", Path::new("m.toml")).unwrap_err();
    assert!(error.to_string().starts_with("m.toml:4:2: duplicate key \"auth\": "), "{error}");
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
    refused("http.burst = 5", &["http.burst: only goes with rate"]);
    refused("http.max_bodies = '1MiB'", &["http.max_bodies: doesn't fit"]);
    refused("http.max_body = '1GiB'", &["http.max_body: doesn't fit"]);
    refused("http.max_head = '1KiB'", &["http.max_head: must be between 8KiB and 1MiB"]);
    refused("http.hosts = ['h:1']", &["http.hosts: value 1 must be the name of a host without port"]);
    refused("http.tls.certificate = 'x'", &["http.tls.key: is required"]);
    refused("validation.backend = 'a'", &["there is no [backends.NAME] at all"]);
    refused("validation.backend = 'b'\nbackends.a.plugin = 'x'", &["\"b\" is none of a"]);
    refused("validation.backend = 'a'\nbackends.a = { plugin = 'x', enabled = false }", &["enabled = false"]);
    refused("validation.read_budget = '30s'", &["shorter than http.request_timeout"]);
    refused("backends.a = { plugin = 'x', required = true, enabled = false }", &["backends.a.required"]);
    refused("backends.a = { plugin = 'x', ack = 'mirrored', ack_timeout = '1m' }", &["backends.a.ack_timeout"]);
    refused("backends.a = { plugin = 'x', two_phase = true, ack_timeout = '1m' }", &["backends.a.ack_timeout"]);
    refused("backends.a = { plugin = 'x', queue.batch = 5000 }", &["queue.batch: must not be larger than changes"]);
    refused("backends.a = { plugin = 'x', queue.changes = 100 }", &["backends.a.queue.changes: ", "batch"]);
    refused("backends.a = { plugin = 'x', supervision.backoff_min = '1m' }", &["supervision.backoff_min"]);
}

/// What a file comes to with these variables.
fn overridden(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| (format!("MEMCELL_{name}"), (*value).to_owned()));
    read(text, Path::new("/etc/m.toml"), &Environment::new(variables)).result.map(|(config, ())| config)
}

#[test]
fn doors_are_not_left_open_by_accident() {
    let token = "auth.tokens.a = { role = 'read', file = '/x' }\n";
    for address in ["0.0.0.0:8080", "[::]:8080", "192.168.1.2:80", "[::ffff:10.0.0.1]:80"] {
        let listen = format!("http.listen = '{address}'\n");
        refused(
            &listen,
            &["m.toml:2: http.listen: ", "can be reached from other machines", "auth.unauthenticated = true"],
        );
        parse(&format!("{MONGODB}{listen}{token}"));
        parse(&format!("{MONGODB}{listen}auth.unauthenticated = true"));
    }
    for address in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        parse(&format!("{MONGODB}http.listen = '{address}'"));
    }
    refused(&format!("{token}auth.unauthenticated = true"), &["m.toml:3: auth.unauthenticated: can't be true"]);
}

#[test]
fn tokens_are_in_one_place_and_never_in_the_file() {
    let token = |rest: &str| format!("auth.tokens.a = {{ {rest} }}");
    refused(&token("file = 'x'"), &["auth.tokens.a.role: is required: \"read\", \"write\" or \"admin\""]);
    refused(&token("role = 'root', file = 'x'"), &["auth.tokens.a.role: must be \"read\" or"]);
    refused(&token("role = 'read'"), &["auth.tokens.a.file: is required, or environment, or sha256"]);
    refused(&token("role = 'read', file = 'x', environment = 'X'"), &["auth.tokens.a.environment: is one too many"]);
    refused(&token("role = 'read', file = '~/x'"), &["~ means nothing here"]);
    let error = Config::parse(&format!("{MONGODB}{}", token("role = 'read', sha256 = 's3cret'")), Path::new("m.toml"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("auth.tokens.a.sha256: must be 64") && !error.contains("s3cret"), "{error}");
    let error = Config::parse(&format!("{MONGODB}{}", token("role = 'read', token = 's3cret'")), Path::new("m.toml"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the token itself is not written here") && !error.contains("s3cret"), "{error}");
    refused("auth.tokens.'a b' = { role = 'read', file = 'x' }", &["auth.tokens.\"a b\": must be named with"]);
    let error =
        Config::parse(&format!("{MONGODB}auth.tokens.a = 's3cret'"), Path::new("m.toml")).unwrap_err().to_string();
    assert!(error.contains("auth.tokens.a: must be a table") && !error.contains("s3cret"), "{error}");
}

#[test]
fn the_environment_overrides_the_file() {
    let both = [("MONGODB_URI", "mongodb://u:s3cret@h"), ("HTTP_LISTEN", "0.0.0.0:1")];
    let config = overridden(&format!("{MONGODB}auth.unauthenticated = true"), &both).unwrap();
    assert_eq!(config.mongodb.redacted_uri(), "mongodb://u:***@h");
    assert_eq!(config.http.listen, SocketAddr::from(([0, 0, 0, 0], 1)));
    assert!(overridden("", &[("MONGODB_URI", "embedded")]).is_ok(), "the file needn't have a URI then");
    assert!(overridden("", &[("MONGODB_URI", "embedded"), ("HTTP_LISTEN", "")]).is_ok(), "empty is unset");

    let error = overridden(MONGODB, &[("HTTP_LISTEN", "0.0.0.0:1")]).unwrap_err().to_string();
    assert!(error.contains("m.toml: http.listen: 0.0.0.0:1 can be reached"), "{error}");
    let error = overridden("", &[("MONGODB_URI", "s3cret"), ("HTTP_LISTEN", "nowhere")]).unwrap_err().to_string();
    assert!(error.contains("m.toml: mongodb.uri: the environment variable MEMCELL_MONGODB_URI must start"), "{error}");
    assert!(error.contains("m.toml: http.listen: the environment variable MEMCELL_HTTP_LISTEN must be"), "{error}");
    assert!(!error.contains("s3cret"));
    let error = overridden("", &[]).unwrap_err().to_string();
    assert!(error.contains("mongodb.uri: is required") && error.contains(MONGODB_URI_VARIABLE), "{error}");
}

#[test]
fn every_kind_of_value_can_be_overridden() {
    let text =
        format!("{MONGODB}[backends.my-redis]\nplugin = 'x'\nshards = 1\n[backends.my-redis.settings]\nprefix = 'a'\n");
    let config = overridden(
        &text,
        &[
            ("HTTP_MAX_BODY", "1MiB"),
            ("VALIDATION_SAMPLE", "0.5"),
            ("VALIDATION_SINGLE_READS", "false"),
            ("BACKENDS_MY_REDIS_SHARDS", "3"),
            ("BACKENDS_MY_REDIS_GRANTS_CONNECT", "[\"localhost:1\"]"),
            ("BACKENDS_MY_REDIS_GRANTS_DIRECTORY", "data/redis"),
            ("BACKENDS_MY_REDIS_SETTINGS_PREFIX", "12"),
            ("LOG_LEVEL", "warn"),
        ],
    );
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.http.max_body, config.validation.sample), (1 << 20, 0.5));
    assert!(!config.validation.single_reads);
    let backend = &config.backends[0];
    assert_eq!((backend.shards, backend.grants.connect.len()), (3, 1));
    assert_eq!(backend.grants.directory.as_deref(), Some(Path::new("/etc/data/redis")));
    assert_eq!(backend.settings, [("prefix".to_owned(), "12".to_owned())]);

    let wrong = [
        ("BACKENDS_MY_REDIS_SHARDS", "0"),
        ("HTTP_LISTN", "127.0.0.1:1"),
        ("BACKENDS_OTHER_SHARDS", "1"),
        ("VALIDATION_SAMPLE", "often"),
    ];
    let error = overridden(&text, &wrong).unwrap_err().to_string();
    for part in [
        "backends.my-redis.shards: the environment variable MEMCELL_BACKENDS_MY_REDIS_SHARDS must be between 1 and 256",
        "the environment variable MEMCELL_HTTP_LISTN overrides no key",
        "the environment variable MEMCELL_BACKENDS_OTHER_SHARDS overrides no key",
        "validation.sample: the environment variable MEMCELL_VALIDATION_SAMPLE must be a number from 0 to 1",
    ] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn secrets_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("uri"), "mongodb://u:s3cret@h\n").unwrap();
    std::fs::write(folder.path().join("password"), "hush").unwrap();
    let load = |text: &str| Config::parse(text, &folder.path().join("m.toml"));
    let backend = "[backends.a]\nplugin = 'x'\nsettings.url = 'r'\nsecrets.password = 'password'";
    let config = load(&format!("mongodb.uri_file = 'uri'\n{backend}")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.mongodb.redacted_uri(), "mongodb://u:***@h");
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(config.backends[0].settings, [setting("url", "r"), setting("password", "hush")]);
    assert_eq!(config.backends[0].secrets, ["password"]);
    assert!(!format!("{config:?}").contains("hush") && !format!("{config:?}").contains("s3cret"));

    let both =
        format!("{MONGODB}mongodb.uri_file = 'uri'\n{backend}\nsettings.password = 'x'\nsecrets.other = 'absent'");
    let error = load(&both).unwrap_err().to_string();
    for part in [
        "mongodb.uri_file: can't go with uri",
        "backends.a.secrets.password: is one of the settings too",
        "backends.a.secrets.other: names a file that can't be used: ",
    ] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(!error.contains("hush") && !error.contains("s3cret"), "{error}");
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

#[test]
fn keys_and_dictionaries_are_read_with_the_file() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("memcell.toml");
    let write = |name: &str, text: &[u8], mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let digits = "1".repeat(64);
    write("good.key", format!("{digits}\n").as_bytes(), 0o600);
    write("open.key", format!("{}\n", "2".repeat(64)).as_bytes(), 0o644);
    write("short.key", b"s3cret", 0o600);
    write("same.key", digits.as_bytes(), 0o400);
    write("none.dictionary", b"text", 0o644);
    let parse = |text: &str| Config::parse(&format!("{MONGODB}{text}"), &origin);
    let backend = "backends.a = { plugin = 'x', encryption_key = 'good' }";
    let config = parse(&format!("encryption.keys.good.file = 'good.key'\n{backend}")).unwrap();
    let key = &config.encryption.keys[0];
    assert_eq!(
        (key.name(), &config.backends[0].encryption_key, &config.backends[0].decryption_keys[..]),
        ("good", &Some(key.clone()), &[key.clone()][..])
    );
    assert!(!format!("{config:?}").contains(&digits));

    let only = backend.replace(" }", ", encrypted_only = true }");
    assert!(parse(&format!("encryption.keys.good.file = 'good.key'\n{only}")).unwrap().backends[0].encrypted_only);

    // Another key under the same name is a change, and so is a further one.
    write("good.key", "3".repeat(64).as_bytes(), 0o600);
    let changed = parse(&format!("encryption.keys.good.file = 'good.key'\n{backend}")).unwrap();
    let keys: Vec<String> = config.changes_to(&changed).into_iter().map(|change| change.key).collect();
    assert_eq!(keys, ["encryption.keys", "backends.a"]);
    write("good.key", digits.as_bytes(), 0o600);

    let wrong = [
        ("encryption.keys.a.file = 'open.key'", "open.key can be read or changed by others (its mode is 644)"),
        ("encryption.keys.a.file = 'short.key'", "short.key must be 32 random bytes"),
        ("encryption.keys.a.file = 'none.key'", "none.key can't be read"),
        ("encryption.keys.a.file = '.'", "is no file"),
        ("encryption.keys.a.environment = 'MEMCELL_NO_SUCH_KEY'", "MEMCELL_NO_SUCH_KEY is not set"),
        ("encryption.keys.a = {}", "encryption.keys.a.file: is required, or environment"),
        ("encryption.keys.a = { file = 'good.key', environment = 'X' }", "can't stand beside file"),
        ("encryption.keys.A.file = 'good.key'", "must be named with"),
        ("encryption.keys = { a.file = 'good.key', b.file = 'same.key' }", "encryption.keys.b: is the same key as a"),
        ("encryption.keys.a = 'good.key'", "encryption.keys.a: must be a table"),
        (backend, "there is no [encryption.keys.NAME] at all"),
        (
            "encryption.keys.b.file = 'good.key'\nbackends.a = { plugin = 'x', encryption_key = 'good' }",
            "\"good\" is none of b",
        ),
        ("backends.a = { plugin = 'x', encrypted_only = true }", "encrypted_only: needs encryption_key"),
        ("backends.a = { plugin = 'x', dictionary = 'none.dictionary' }", "none.dictionary is no dictionary of zstd"),
        ("backends.a = { plugin = 'x', dictionary = 'nowhere' }", "nowhere can't be read"),
        ("backends.a = { plugin = 'x', old_dictionaries = ['nowhere'] }", "old_dictionaries: value 1"),
        ("backends.a = { plugin = 'x', compression = 'gzip' }", "must be \"none\" or \"zstd\""),
        ("backends.a = { plugin = 'x', compression_level = 20 }", "between 1 and 19"),
    ];
    for (text, part) in wrong {
        let error = parse(text).unwrap_err();
        assert!(error.problems().len() == 1 && error.to_string().contains(part), "{text}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn plugins_come_from_files_and_registries() {
    const DIGEST: &str = "000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0eff";
    let config = parse(&format!(
        "{MONGODB}
        [registries.\"Reg.example.com:5000\"]
        username = 'robot'
        password_file = 'secrets/p'
        ca_file = '/etc/ca.pem'
        timeout = '5s'
        [registries.localhost]
        token_environment = 'TOKEN'
        insecure = true
        [backends.a]
        plugin = 'oci://reg.example.com:5000/team/redis:1@sha256:{DIGEST}'
        [backends.b]
        plugin = 'oci://elsewhere/redis@sha256:{DIGEST}'
        [backends.c]
        plugin = 'oci/c.wasm'"
    ));
    let PluginSource::Oci(plugin) = &config.backends[0].plugin else { panic!() };
    assert_eq!(plugin.reference.to_string(), format!("oci://reg.example.com:5000/team/redis:1@sha256:{DIGEST}"));
    assert_eq!(plugin.registry, config.registries[0]);
    let password = SecretSource::File("/etc/secrets/p".into());
    assert_eq!(plugin.registry.login, Some(RegistryLogin::Password { username: "robot".into(), password }));
    assert_eq!(plugin.registry.ca_file, Some("/etc/ca.pem".into()));
    assert_eq!(plugin.registry.timeout, Duration::from_secs(5));
    let token = SecretSource::Environment("TOKEN".into());
    assert_eq!(config.registries[1].login, Some(RegistryLogin::Token(token)));
    assert!(config.registries[1].insecure);
    let PluginSource::Oci(plugin) = &config.backends[1].plugin else { panic!() };
    assert_eq!(plugin.registry, RegistryConfig::new("elsewhere"));
    assert_eq!(config.backends[2].plugin.file(), Some(Path::new("/etc/oci/c.wasm")));
}

#[test]
fn what_a_registry_cannot_be() {
    refused(
        "backends.a.plugin = 'oci://h/a:1'",
        &["backends.a.plugin: needs the digest", "memcell plugin pull oci://h/a:1"],
    );
    refused("backends.a.plugin = 'oci://h/a@sha256:00'", &["backends.a.plugin: must be such as oci://", "64 hexa"]);
    refused("backends.a.plugin = 'https://h/a'", &["backends.a.plugin: must be a path, or a reference"]);
    refused("registries.'a/b' = {}", &["registries.\"a/b\": must be named with the host of a registry"]);
    refused("registries.a.user = 'x'", &["registries.a.user: is no key; known here: "]);
    refused("registries.a.username = 'x'", &["registries.a.username: needs password_file or"]);
    refused("registries.a.username = 'x:y'", &["registries.a.username: must be a name without a colon"]);
    refused("registries.a.password_file = 'x'", &["registries.a.password_file: needs a username"]);
    refused("registries.a = { token_file = 'x', token_environment = 'X' }", &["token_environment: doesn't go with"]);
    refused(
        "registries.a = { token_file = 'x', username = 'x', password_file = 'x' }",
        &["registries.a.token_file: doesn't go with a username"],
    );
    refused("registries.a = { insecure = true, ca_file = 'x' }", &["registries.a.ca_file: doesn't go with insecure"]);
    refused("registries.a.timeout = '2h'", &["registries.a.timeout: must be between 1ms and 1h"]);
}

#[test]
fn a_directory_belongs_to_one_backend() {
    let backend = |name: &str, directory: &str| {
        format!("[backends.{name}]\nplugin = \"f.wasm\"\ngrants.directory = \"{directory}\"\n")
    };
    let embedded = |sections: String| {
        let text = format!("[mongodb]\nuri = \"embedded\"\ndata_directory = \"data/mongodb\"\n{sections}");
        let problems = Config::parse(&text, Path::new("m.toml")).err().map(|error| error.to_string());
        problems.unwrap_or_default()
    };
    assert_eq!(embedded(backend("a", "data/a") + &backend("b", "data/ab")), "");
    assert_eq!(
        embedded(backend("a", "d") + &backend("b", "./d/")),
        "m.toml:9: backends.b.grants.directory: is the directory of backends.a: give each one of its own"
    );
    let within = embedded(backend("a", "d") + &backend("b", "d/e"));
    assert!(within.contains("backends.b.grants.directory: lies within the directory of backends.a:"), "{within}");
    let around = embedded(backend("a", "data"));
    assert!(
        around.contains("backends.a.grants.directory: contains the directory of mongodb.data_directory:"),
        "{around}"
    );
    let disabled = backend("a", "d") + &backend("b", "d") + "enabled = false\n";
    assert_eq!(embedded(disabled), "", "it isn't opened");
}

#[test]
fn what_others_find_wrong_is_told_with_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let text =
        "[mongodb]\nuri = \"embedded\"\n[http]\nmax_body = 0\n[auth.tokens.ann]\nrole = \"read\"\nfile = \"nothing\"\n";
    std::fs::write(&file, text).unwrap();
    let read = |config: &Config| -> Result<(), Vec<Problem>> {
        let mut problems = crate::security::Security::read(config).unwrap_err();
        let nowhere = Problem { key: "mongodb.database".into(), line: None, column: None, message: "is odd".into() };
        problems.push(nowhere);
        Err(problems)
    };
    let error = Config::load_with(&file, read);
    let error = error.unwrap_err();
    let found: Vec<_> = error.problems().iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    assert_eq!(found, [(None, "mongodb.database"), (Some(4), "http.max_body"), (Some(7), "auth.tokens.ann.file")]);
    std::fs::write(&file, "not toml").unwrap();
    let panics = |_: &Config| -> Result<(), Vec<Problem>> { panic!("there is nothing to look at") };
    let error = Config::load_with(&file, panics).unwrap_err();
    assert_eq!(error.problems().len(), 1, "{error}");
}
