//! How one configuration differs from another, and what of it a running host can take over.

use super::{
    AuthConfig, BackendConfig, Config, EncryptionConfig, HostConfig, HttpConfig, LogConfig, MongoDbConfig, MongoServer,
    ScheduleConfig, TlsConfig, TracesConfig, ValidationConfig,
};

/// One difference between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The dotted key: of a backend its table, `backends.NAME`, else a single key such as `validation.backend`.
    pub key: String,
    /// What happens to it.
    pub kind: ChangeKind,
}

/// What happens to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A backend that wasn't there, or was not enabled; or a token that wasn't there.
    Added,
    /// A backend that is gone, or no longer enabled; or a token that is gone.
    Removed,
    /// A backend that starts anew, as its table says now.
    Replaced,
    /// Another value, from now on.
    Changed,
}

impl ChangeKind {
    /// The word for it in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Changed => "changed",
        }
    }
}

impl ConfigChange {
    /// Another value of `key`, also if the value is in another file than the configuration.
    pub(crate) fn changed(key: impl Into<String>) -> Self {
        Self { key: key.into(), kind: ChangeKind::Changed }
    }

    pub(crate) fn of_backend(name: &str, kind: ChangeKind) -> Self {
        Self { key: format!("backends.{name}"), kind }
    }

    /// Whether a host takes it over only when it starts.
    pub fn needs_restart(&self) -> bool {
        let section = self.key.split('.').next().unwrap_or_default();
        if self.key.starts_with("http.tls.") {
            return false;
        }
        matches!(section, "host" | "mongodb" | "http" | "schedule" | "traces") || self.key == "log.format"
    }
}

/// Pushes the key of each field that differs. The fields are listed without `..`, so that a new one can't be forgotten.
macro_rules! compare {
    ($changed:ident, $section:literal, $old:expr, $new:expr, $type:ident { $($field:ident),* $(, ..$special:ident)? }) => {
        let $type { $($field,)* $($special: _)? } = $old;
        $(if *$field != $new.$field {
            $changed.push(concat!($section, ".", stringify!($field)));
        })*
    };
}

impl Config {
    /// What would change if `new` took the place of this one, in the order of the sections. Backends that aren't enabled don't
    /// count, and neither does the order of backends.
    pub fn changes_to(&self, new: &Self) -> Vec<ConfigChange> {
        let Self { host, mongodb, http, auth, validation, schedule, log, traces, encryption, registries, backends } =
            self;
        let mut differing = Vec::new();
        // A name that nobody gave follows from where the host listens.
        if *host != HostConfig::new(http) || new.host != HostConfig::new(&new.http) {
            compare!(differing, "host", host, new.host, HostConfig { name });
        }
        compare!(
            differing,
            "mongodb",
            mongodb,
            new.mongodb,
            MongoDbConfig { database, collection, connect_timeout, operation_timeout, ..server }
        );
        differing.extend(server_change(&mongodb.server, &new.mongodb.server));
        compare!(
            differing,
            "http",
            http,
            new.http,
            HttpConfig {
                listen,
                hosts,
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
                ..tls
            }
        );
        match (&http.tls, &new.http.tls) {
            (Some(old), Some(new)) => {
                compare!(
                    differing,
                    "http.tls",
                    old,
                    new,
                    TlsConfig { certificate, key, handshake_timeout, check_interval }
                );
            }
            (None, None) => {}
            _ => differing.push("http.tls"),
        }
        compare!(differing, "auth", auth, new.auth, AuthConfig { unauthenticated, open_metrics, ..tokens });
        compare!(
            differing,
            "validation",
            validation,
            new.validation,
            ValidationConfig {
                single_reads,
                batch_reads,
                mode,
                read_budget,
                sample,
                recheck_after,
                repair,
                mismatches,
                backend
            }
        );
        compare!(differing, "schedule", schedule, new.schedule, ScheduleConfig { verify, repair, deep, rate });
        compare!(differing, "log", log, new.log, LogConfig { format, level });
        compare!(differing, "traces", traces, new.traces, TracesConfig { endpoint, sample });
        compare!(differing, "encryption", encryption, new.encryption, EncryptionConfig { keys });
        if *registries != new.registries {
            differing.push("registries");
        }
        let mut changes: Vec<ConfigChange> = differing.into_iter().map(ConfigChange::changed).collect();
        changes.extend(token_changes(auth, &new.auth));
        changes.extend(backend_changes(backends, &new.backends));
        changes
    }
}

fn server_change(old: &MongoServer, new: &MongoServer) -> Option<&'static str> {
    match (old, new) {
        _ if old == new => None,
        (MongoServer::Embedded { .. }, MongoServer::Embedded { .. }) => Some("mongodb.data_directory"),
        _ => Some("mongodb.uri"),
    }
}

fn token_changes(old: &AuthConfig, new: &AuthConfig) -> Vec<ConfigChange> {
    let change = |name: &str, kind| ConfigChange { key: format!("auth.tokens.{name}"), kind };
    let removed = old.tokens.iter().filter(|one| !new.tokens.iter().any(|other| other.name == one.name));
    let removed = removed.map(|one| change(&one.name, ChangeKind::Removed));
    let others = new.tokens.iter().filter_map(|one| match old.tokens.iter().find(|other| other.name == one.name) {
        None => Some(change(&one.name, ChangeKind::Added)),
        Some(before) if before != one => Some(change(&one.name, ChangeKind::Changed)),
        Some(_) => None,
    });
    removed.chain(others).collect()
}

fn backend_changes(old: &[BackendConfig], new: &[BackendConfig]) -> Vec<ConfigChange> {
    let enabled = |backends: &'_ [BackendConfig], name: &str| {
        backends.iter().find(|backend| backend.enabled && backend.name == name).cloned()
    };
    let removed = old.iter().filter(|one| one.enabled && enabled(new, &one.name).is_none());
    let removed = removed.map(|one| ConfigChange::of_backend(&one.name, ChangeKind::Removed));
    let others = new.iter().filter(|one| one.enabled).filter_map(|one| {
        let kind = match enabled(old, &one.name) {
            None => ChangeKind::Added,
            Some(before) if !before.runs_as(one) => ChangeKind::Replaced,
            Some(before) if before != *one => ChangeKind::Changed,
            Some(_) => return None,
        };
        Some(ConfigChange::of_backend(&one.name, kind))
    });
    removed.chain(others).collect()
}

impl BackendConfig {
    /// Whether a backend that runs with this configuration runs as it should with the other one too: `required` is a matter of the
    /// start only.
    pub(crate) fn runs_as(&self, other: &Self) -> bool {
        *self == Self { required: self.required, ..other.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/memcell.toml")).unwrap()
    }

    const OLD: &str = "
        [mongodb]
        uri = \"mongodb://localhost:1/\"
        [backends.a]
        plugin = \"a.wasm\"
        [backends.b]
        plugin = \"b.wasm\"
        enabled = false";

    #[track_caller]
    fn check(new: &str, expect: &[(&str, &str)]) {
        let changes = parse(OLD).changes_to(&parse(new));
        let changes: Vec<(&str, &str)> = changes.iter().map(|one| (one.key.as_str(), one.kind.as_str())).collect();
        assert_eq!(changes, expect);
    }

    #[test]
    fn backends_come_and_go() {
        check(OLD, &[]);
        check(&OLD.replace("b.wasm", "other.wasm"), &[]);
        check(&OLD.replace("enabled = false", ""), &[("backends.b", "added")]);
        check(&OLD.replace("\"a.wasm\"", "\"a.wasm\"\nrequired = true"), &[("backends.a", "changed")]);
        let replaced = [("backends.a", "replaced")];
        check(&OLD.replace("a.wasm", "other.wasm"), &replaced);
        check(&OLD.replace("\"a.wasm\"", "\"a.wasm\"\nformat = \"bson\""), &replaced);
        check(&OLD.replace("\"a.wasm\"", "\"a.wasm\"\nsettings.x = 1"), &replaced);
        let gone = [("validation.backend", "changed"), ("backends.a", "removed")];
        check(&OLD.replace("\"a.wasm\"", "\"a.wasm\"\nenabled = false"), &gone);
        let renamed = [("validation.backend", "changed"), ("backends.a", "removed"), ("backends.c", "added")];
        check(&OLD.replace("backends.a", "backends.c"), &renamed);
    }

    #[test]
    fn a_backend_follows_its_registry() {
        let old = OLD.replace("a.wasm", &format!("oci://r/a@sha256:{}", "00".repeat(32)));
        let changes = |old: &str, new: &str| {
            let changes = parse(old).changes_to(&parse(new));
            changes.iter().map(|one| (one.key.clone(), one.kind.as_str(), one.needs_restart())).collect::<Vec<_>>()
        };
        let with = |registry: &str| format!("{old}\n[registries.{registry}]\ntimeout = \"1s\"");
        let registries = ("registries".to_owned(), "changed", false);
        assert_eq!(changes(&old, &with("other")), std::slice::from_ref(&registries));
        assert_eq!(changes(&old, &with("r")), [registries, ("backends.a".to_owned(), "replaced", false)]);
    }

    #[test]
    fn the_order_of_backends_matters_only_to_validation() {
        let both = OLD.replace("enabled = false", "");
        let (head, tail) = both.split_once("[backends.a]").unwrap();
        let (a, b) = tail.split_once("[backends.b]").unwrap();
        let turned = format!("{head}[backends.b]{b}\n[backends.a]{a}");
        let changes = parse(&both).changes_to(&parse(&turned));
        assert_eq!(changes, [ConfigChange { key: "validation.backend".into(), kind: ChangeKind::Changed }]);
        let named = |text: &str| parse(&format!("{text}\n[validation]\nbackend = \"a\""));
        assert!(named(&both).changes_to(&named(&turned)).is_empty());
    }

    #[test]
    fn what_a_running_host_cannot_take_over() {
        let new = OLD.replace("localhost:1/\"", "localhost:2/\"\ndatabase = \"other\"")
            + "\n[host]\nname = \"x\"\n[schedule]\nverify = \"1d\"\n[http]\nmax_body = \"1MiB\"\n[log]\nformat = \"json\"\nlevel = \"warn\"\n[validation]\nsample = 0.5";
        let changes = parse(OLD).changes_to(&parse(&new));
        let (restart, live): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.needs_restart());
        let keys = |changes: Vec<&ConfigChange>| changes.iter().map(|one| one.key.clone()).collect::<Vec<_>>();
        assert_eq!(
            keys(restart),
            ["host.name", "mongodb.database", "mongodb.uri", "http.max_body", "schedule.verify", "log.format"]
        );
        assert_eq!(keys(live), ["validation.sample", "log.level"]);
        let embedded = |folder: &str| parse(&format!("[mongodb]\nuri = \"embedded\"\ndata_directory = \"{folder}\""));
        let changes = embedded("/x").changes_to(&embedded("/y"));
        assert_eq!(changes.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["mongodb.data_directory"]);
        assert_eq!(embedded("/x").changes_to(&parse(OLD))[0].key, "mongodb.uri");
    }

    #[test]
    fn tokens_and_certificates_change_while_the_host_runs() {
        let with = |text: &str| parse(&format!("{OLD}\n{text}"));
        let keys = |old: &str, new: &str| -> Vec<(String, &'static str, bool)> {
            let changes = with(old).changes_to(&with(new));
            changes.into_iter().map(|one| (one.key.clone(), one.kind.as_str(), one.needs_restart())).collect()
        };
        let one = |key: &str, kind, restart| vec![(key.to_owned(), kind, restart)];
        let token = "[auth.tokens.a]\nrole = 'read'\nfile = 'a'";
        assert_eq!(keys("", token), one("auth.tokens.a", "added", false));
        assert_eq!(keys(token, ""), one("auth.tokens.a", "removed", false));
        assert_eq!(keys(token, &token.replace("read", "admin")), one("auth.tokens.a", "changed", false));
        assert_eq!(keys("", "[auth]\nopen_metrics = true"), one("auth.open_metrics", "changed", false));
        let tls = "[http.tls]\ncertificate = 'c'\nkey = 'k'";
        assert_eq!(keys("", tls), one("http.tls", "changed", true));
        assert_eq!(keys(tls, &tls.replace("'c'", "'d'")), one("http.tls.certificate", "changed", false));
        assert_eq!(keys("", "[http]\nrate = 5"), one("http.rate", "changed", true));
    }
}
