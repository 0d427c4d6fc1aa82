//! The configuration as operators may see it: in the shape of the file, every key with what is in force, and no secrets.
//!
//! Nothing is shown because nobody thought of hiding it: the structs are taken apart without `..`, so that a new key can't be
//! forgotten here. Of environment variables only names are ever known to the configuration.

use serde_json::{Map, Value, json};

use super::units::{show_bytes, show_duration};
use super::{
    Ack, AuthConfig, BackendConfig, Compression, Config, EncryptionConfig, GrantsConfig, HostConfig, HttpConfig,
    LimitsConfig, LogConfig, LogFormat, MongoDbConfig, MongoServer, QueueConfig, RegistryConfig, RegistryLogin,
    ScheduleConfig, SupervisionConfig, TlsConfig, TokenConfig, TracesConfig, ValidationConfig, ValidationMode,
    ValueFormat,
};
use crate::codec::EncryptionKey;
use crate::hex;

/// What stands in the place of a secret.
pub const REDACTED: &str = "***";

/// What the name of a setting, or its value, contains if it is about a secret.
const SECRET_WORDS: [&str; 10] =
    ["pass", "pwd", "secret", "token", "key", "credential", "auth", "private", "signature", "cookie"];

/// So many letters and digits in a row, both among them, are no name that a person chose.
const RANDOM_RUN: usize = 20;

impl Config {
    /// The sections of the file with all their keys, those that are not set as null.
    pub fn shown(&self) -> Value {
        let Self { host, mongodb, http, auth, validation, schedule, log, traces, encryption, registries, backends } =
            self;
        let HostConfig { name } = host;
        let backends = backends.iter().map(|one| (one.name.clone(), backend(one))).collect::<Map<_, _>>();
        json!({
            "host": { "name": name },
            "mongodb": mongo(mongodb),
            "http": http_section(http),
            "auth": auth_section(auth),
            "validation": validation_section(validation),
            "schedule": schedule_section(schedule),
            "log": log_section(log),
            "traces": traces_section(traces),
            "encryption": encryption_section(encryption),
            "registries": registries_section(registries),
            "backends": backends,
        })
    }
}

fn mongo(config: &MongoDbConfig) -> Value {
    let MongoDbConfig { server, database, collection, connect_timeout, operation_timeout } = config;
    let (uri, data_directory) = match server {
        MongoServer::Uri(uri) => (uri.redacted(), None),
        MongoServer::Embedded { data_directory } => ("embedded".to_owned(), Some(data_directory)),
    };
    json!({
        "uri": uri,
        "data_directory": data_directory,
        "database": database,
        "collection": collection,
        "connect_timeout": show_duration(*connect_timeout),
        "operation_timeout": show_duration(*operation_timeout),
    })
}

fn http_section(config: &HttpConfig) -> Value {
    let HttpConfig {
        listen,
        hosts,
        tls,
        max_body,
        max_bodies,
        max_head,
        max_headers,
        max_uri,
        max_connections,
        max_requests,
        rate,
        burst,
        idle_timeout,
        request_timeout,
        shutdown_grace,
    } = config;
    json!({
        "listen": listen.to_string(),
        "hosts": hosts,
        "tls": tls.as_ref().map(tls_section),
        "max_body": show_bytes(*max_body),
        "max_bodies": show_bytes(*max_bodies),
        "max_head": show_bytes(*max_head as u64),
        "max_headers": max_headers,
        "max_uri": show_bytes(*max_uri as u64),
        "max_connections": max_connections,
        "max_requests": max_requests,
        "rate": rate,
        "burst": burst,
        "idle_timeout": show_duration(*idle_timeout),
        "request_timeout": show_duration(*request_timeout),
        "shutdown_grace": show_duration(*shutdown_grace),
    })
}

/// Where certificate and key are; what is in them is read elsewhere.
fn tls_section(config: &TlsConfig) -> Value {
    let TlsConfig { certificate, key, handshake_timeout, check_interval } = config;
    json!({
        "certificate": certificate,
        "key": key,
        "handshake_timeout": show_duration(*handshake_timeout),
        "check_interval": show_duration(*check_interval),
    })
}

/// Names and roles. Not even the digests: each would be something to try tokens against.
fn auth_section(config: &AuthConfig) -> Value {
    let AuthConfig { unauthenticated, open_metrics, tokens } = config;
    let token = |config: &TokenConfig| {
        let TokenConfig { name, role, source: _ } = config;
        (name.clone(), json!({ "role": role.as_str() }))
    };
    json!({
        "unauthenticated": unauthenticated,
        "open_metrics": open_metrics,
        "tokens": tokens.iter().map(token).collect::<Map<_, _>>(),
    })
}

fn validation_section(config: &ValidationConfig) -> Value {
    let ValidationConfig {
        single_reads,
        batch_reads,
        mode,
        read_budget,
        sample,
        recheck_after,
        repair,
        mismatches,
        backend,
    } = config;
    let mode = match mode {
        ValidationMode::Inline => "inline",
        ValidationMode::Background => "background",
    };
    json!({
        "single_reads": single_reads,
        "batch_reads": batch_reads,
        "mode": mode,
        "read_budget": show_duration(*read_budget),
        "sample": sample,
        "recheck_after": show_duration(*recheck_after),
        "repair": repair,
        "mismatches": mismatches,
        "backend": backend,
    })
}

fn schedule_section(config: &ScheduleConfig) -> Value {
    let ScheduleConfig { verify, repair, deep, rate } = config;
    json!({ "verify": verify.map(show_duration), "repair": repair, "deep": deep, "rate": rate })
}

fn log_section(config: &LogConfig) -> Value {
    let LogConfig { format, level } = config;
    let format = match format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    json!({ "format": format, "level": level })
}

fn traces_section(config: &TracesConfig) -> Value {
    let TracesConfig { endpoint, sample } = config;
    // A URL can hold a password, and a token in its query.
    let endpoint = endpoint.as_ref().map(|endpoint| match reqwest::Url::parse(endpoint) {
        Ok(url) => {
            format!("{}://{}{}", url.scheme(), url.authority().rsplit('@').next().unwrap_or_default(), url.path())
        }
        Err(_) => REDACTED.to_owned(),
    });
    json!({ "endpoint": endpoint, "sample": sample })
}

/// Names and fingerprints, by which keys are told apart.
fn encryption_section(config: &EncryptionConfig) -> Value {
    let EncryptionConfig { keys } = config;
    let keys = keys.iter().map(|key| (key.name().to_owned(), json!({ "id": key.id().to_string() })));
    json!({ "keys": keys.collect::<Map<String, Value>>() })
}

fn registries_section(configs: &[RegistryConfig]) -> Value {
    let section = |config: &RegistryConfig| {
        let RegistryConfig { name, login, insecure, ca_file, timeout } = config;
        let username = match login {
            Some(RegistryLogin::Password { username, password: _ }) => Some(username),
            Some(RegistryLogin::Token(_)) | None => None,
        };
        let section = json!({
            "username": username,
            "secret": login.as_ref().map(|_| REDACTED),
            "insecure": insecure,
            "ca_file": ca_file,
            "timeout": show_duration(*timeout),
        });
        (name.clone(), section)
    };
    configs.iter().map(section).collect::<Map<_, _>>().into()
}

fn backend(config: &BackendConfig) -> Value {
    let BackendConfig {
        name: _,
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
        decryption_keys: _,
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
    } = config;
    let format = match format {
        ValueFormat::Json => "json",
        ValueFormat::Bson => "bson",
    };
    let compression = match compression {
        Compression::None => "none",
        Compression::Zstd => "zstd",
    };
    let ack = match ack {
        Ack::Mongo => "mongo",
        Ack::Mirrored => "mirrored",
    };
    let shown = |name: &str, value: &str| if may_be_secret(secrets, name, value) { REDACTED } else { value }.to_owned();
    let settings = settings.iter().map(|(name, value)| (name.clone(), shown(name, value).into()));
    json!({
        "plugin": plugin.to_string(),
        "sha256": sha256.as_ref().map(|digest| hex::encode(digest)),
        "required": required,
        "enabled": enabled,
        "shards": shards,
        "format": format,
        "compression": compression,
        "compression_level": compression_level,
        "dictionary": dictionary.as_ref().map(|dictionary| dictionary.id().to_string()),
        "old_dictionaries": old_dictionaries.iter().map(|dictionary| dictionary.id().to_string()).collect::<Vec<_>>(),
        "encryption_key": encryption_key.as_ref().map(EncryptionKey::name),
        "encrypted_only": encrypted_only,
        "ttl": ttl.map(show_duration),
        "tombstone_ttl": show_duration(*tombstone_ttl),
        "ack": ack,
        "ack_timeout": show_duration(*ack_timeout),
        "two_phase": two_phase,
        "queue": queue_section(queue),
        "grants": grants_section(grants),
        "limits": limits_section(limits),
        "supervision": supervision_section(supervision),
        "settings": settings.collect::<Map<String, Value>>(),
    })
}

fn queue_section(config: &QueueConfig) -> Value {
    let QueueConfig { changes, bytes, batch } = config;
    json!({ "changes": changes, "bytes": show_bytes(*bytes), "batch": batch })
}

fn grants_section(config: &GrantsConfig) -> Value {
    let GrantsConfig { directory, read_only, connect, environment, log } = config;
    let connect: Vec<String> = connect.iter().map(ToString::to_string).collect();
    json!({
        "directory": directory, "read_only": read_only, "connect": connect, "environment": environment, "log": log,
    })
}

fn limits_section(config: &LimitsConfig) -> Value {
    let LimitsConfig {
        memory,
        call_timeout,
        open_timeout,
        cpu,
        response,
        instances,
        tables,
        table_elements,
        handles,
        component,
        compile_timeout,
    } = config;
    json!({
        "memory": show_bytes(*memory),
        "call_timeout": show_duration(*call_timeout),
        "open_timeout": show_duration(*open_timeout),
        "cpu": show_duration(*cpu),
        "response": show_bytes(*response),
        "instances": instances,
        "tables": tables,
        "table_elements": table_elements,
        "handles": handles,
        "component": show_bytes(*component),
        "compile_timeout": show_duration(*compile_timeout),
    })
}

fn supervision_section(config: &SupervisionConfig) -> Value {
    let SupervisionConfig { failures_to_open, backoff_min, backoff_max, restart_limit, restart_window } = config;
    json!({
        "failures_to_open": failures_to_open,
        "backoff_min": show_duration(*backoff_min),
        "backoff_max": show_duration(*backoff_max),
        "restart_limit": restart_limit,
        "restart_window": show_duration(*restart_window),
    })
}

impl BackendConfig {
    /// The values of its settings that may be secrets.
    pub(crate) fn secret_settings(&self) -> impl Iterator<Item = &str> {
        let secret = self.settings.iter().filter(|(name, value)| may_be_secret(&self.secrets, name, value));
        secret.map(|(_, value)| value.as_str())
    }
}

/// Whether the value of a plugin's setting has a file of its own, or may be a secret otherwise. Plugins are other people's, so this
/// guesses, and rather hides too much: by the name, by words within the value (`?password=…`), by what stands before an `@`, and by what
/// looks random. The name of an environment variable tells nothing.
fn may_be_secret(secrets: &[String], name: &str, value: &str) -> bool {
    let has_secret_word = |text: &str| {
        let text = text.to_lowercase();
        SECRET_WORDS.iter().any(|word| text.contains(word))
    };
    let is_variable = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let names_variable = name.ends_with("_env") && value.chars().all(is_variable);
    let looks_secret = has_secret_word(name) || has_secret_word(value) || value.contains('@') || looks_random(value);
    secrets.iter().any(|secret| secret == name) || (looks_secret && !names_variable)
}

fn looks_random(value: &str) -> bool {
    value.split(|c: char| !c.is_alphanumeric()).any(|run| {
        run.chars().count() >= RANDOM_RUN
            && run.contains(|c: char| c.is_ascii_digit())
            && run.contains(char::is_alphabetic)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shown(text: &str) -> Value {
        Config::parse(text, Path::new("/etc/memcell.toml")).unwrap().shown()
    }

    #[test]
    fn no_secret_is_shown() {
        let text = "
            [mongodb]
            uri = \"mongodb://ana:s3cret@db.internal/?authMechanismProperties=TOKEN:s3cret&w=1\"
            [backends.redis]
            plugin = \"remote.wasm\"
            grants.environment = [\"REDIS_PASSWORD\"]
            [backends.redis.settings]
            address = \"redis.internal:6379\"
            prefix = \"memcell:\"
            max_bytes = 64
            password = \"s3cret\"
            Redis-PassPhrase = \"s3cret\"
            api_key = \"s3cret\"
            accessToken = \"s3cret\"
            client_secret = \"s3cret\"
            url = \"redis://ana:s3cret@redis.internal:6379\"
            user_only = \"redis://s3cret@redis.internal:6379\"
            connection = \"host=a;Password=s3cret\"
            query = \"https://a/?sig_token=s3cret\"
            authorization = \"Bearer s3cret\"
            odd = \"s3cret0123456789abcdef0123\"
        ";
        let shown = shown(text);
        assert!(!shown.to_string().contains("s3cret"), "{shown:#}");
        assert_eq!(shown["mongodb"]["uri"], "mongodb://ana:***@db.internal/?authMechanismProperties=***&w=1");
        let settings = &shown["backends"]["redis"]["settings"];
        assert_eq!(
            (&settings["address"], &settings["prefix"], &settings["max_bytes"]),
            (&json!("redis.internal:6379"), &json!("memcell:"), &json!("64"))
        );
        assert_eq!(settings["password"], REDACTED);
        assert_eq!(shown["backends"]["redis"]["grants"]["environment"], json!(["REDIS_PASSWORD"]));
    }

    #[test]
    fn what_people_choose_is_not_taken_for_random() {
        for value in
            ["", "immediate", "64MiB", "true", "redis-1.memcell.internal.example:6379", "/var/lib/memcell/2026"]
        {
            assert!(!may_be_secret(&[], "name", value), "{value}");
        }
        assert!(!may_be_secret(&[], "password_env", "REDIS_PASSWORD_1"));
        assert!(may_be_secret(&[], "password_env", "hunter2"), "somebody took it for the password");
        for value in ["0af7651916cd43dd8448eb211c80319c", "sk/live/4eC39HqLyjWDarjtT1zdp7dc"] {
            assert!(may_be_secret(&[], "name", value), "{value}");
        }
    }

    /// What is shown is the file again: written as TOML it gives the same configuration.
    #[test]
    fn what_is_shown_has_the_keys_and_values_of_the_file() {
        let text = "
            [mongodb]
            uri = \"mongodb://localhost:1/\"
            operation_timeout = \"7s\"
            [http]
            max_body = \"3MiB\"
            [validation]
            sample = 0.25
            mode = \"background\"
            [schedule]
            verify = \"1d\"
            rate = 5
            [log]
            level = \"warn\"
            [backends.a]
            plugin = \"a.wasm\"
            shards = 3
            format = \"bson\"
            ttl = \"1d\"
            ack = \"mirrored\"
            queue.batch = 7
            limits.memory = \"32MiB\"
            supervision.restart_limit = 2
            grants = { directory = \"/data\", connect = [\"[::1]:6379\"] }
            settings.x = \"y\"
        ";
        let before = Config::parse(text, Path::new("/etc/memcell.toml")).unwrap();
        let shown = before.shown();
        let sections = shown.as_object().unwrap().iter();
        let written: String = sections.map(|(name, section)| format!("{name} = {}\n", as_toml(section))).collect();
        assert_eq!(Config::parse(&written, Path::new("/etc/memcell.toml")).unwrap(), before, "{written}");
    }

    fn as_toml(value: &Value) -> String {
        match value {
            Value::Object(fields) => {
                let set = fields.iter().filter(|(_, value)| !value.is_null());
                let fields: Vec<String> = set.map(|(name, value)| format!("{name} = {}", as_toml(value))).collect();
                format!("{{ {} }}", fields.join(", "))
            }
            other => other.to_string(),
        }
    }

    #[test]
    fn an_embedded_server_is_shown_with_its_directory() {
        let shown = shown("[mongodb]\nuri = \"embedded\"\ndata_directory = \"/data\"");
        assert_eq!(
            (&shown["mongodb"]["uri"], &shown["mongodb"]["data_directory"]),
            (&json!("embedded"), &json!("/data"))
        );
        assert_eq!(shown["backends"], json!({}));
    }
}
