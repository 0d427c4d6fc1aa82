//! The files that a deployment begins with: they parse, name files that exist, hold no secrets, and say what the host understands.
//! Nothing here runs containers or systemd; docs/operations.md says what was.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a file that can't be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use memcell_host::config::Config;
use memcell_tests::artifacts::workspace;
use yaml_rust2::{Yaml, YamlLoader};

fn text(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

fn entries(mapping: &Yaml) -> Vec<(String, Yaml)> {
    let entries = mapping.as_hash().into_iter().flatten();
    entries.map(|(key, value)| (key.as_str().unwrap().to_owned(), value.clone())).collect()
}

fn words(list: &Yaml) -> Vec<String> {
    list.as_vec().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn services() -> Vec<(String, Yaml)> {
    let services = entries(&yaml("ops/compose.yaml")["services"]);
    assert_eq!(services.len(), 6);
    services
}

#[test]
fn the_compose_file_mounts_what_is_there() {
    for (name, service) in services() {
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            let Some(relative) = source.strip_prefix("./") else { continue };
            assert!(volume.ends_with(":ro"), "{name}: {volume} can be written to");
            let path = format!("ops/{relative}");
            assert!(workspace().join(&path).exists(), "{name} mounts {path}, which isn't there");
        }
    }
}

#[test]
fn every_service_is_hardened_and_watched() {
    for (name, service) in services() {
        // `<<: *hardened`, which this parser leaves as it is.
        let hardened = &service["<<"];
        assert_eq!(hardened["read_only"].as_bool(), Some(true), "{name}");
        assert_eq!(words(&hardened["cap_drop"]), ["ALL"], "{name}");
        let is_watched = !service["healthcheck"].is_badvalue() || ["memcell", "mongodb-init"].contains(&name.as_str());
        assert!(is_watched, "{name} has no health check");
        for port in words(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to the network at {port}");
        }
    }
    assert!(text("Dockerfile").contains("\nHEALTHCHECK "));
}

#[test]
fn no_secret_is_in_the_compose_file_and_all_are_made() {
    let declared: BTreeSet<String> =
        entries(&yaml("ops/compose.yaml")["secrets"]).into_iter().map(|(name, _)| name).collect();
    let script = text("ops/compose/secrets.sh");
    for name in &declared {
        assert!(script.split_whitespace().any(|word| word.trim_end_matches(';') == name), "nothing makes {name}");
    }
    let mut used = BTreeSet::new();
    for (service, about) in services() {
        used.extend(words(&about["secrets"]));
        for (variable, value) in entries(&about["environment"]) {
            let is_secret = ["PASSWORD", "TOKEN", "SECRET", "KEY"].iter().any(|word| variable.contains(word));
            let is_file = value.as_str().is_some_and(|value| value.starts_with("/run/secrets/"));
            assert!(!is_secret || is_file, "{service}: {variable} holds a secret");
        }
    }
    assert_eq!(used, declared);
    assert!(text(".gitignore").lines().any(|line| line == "/ops/secrets"));
    assert!(!text(".dockerignore").lines().any(|line| line.starts_with("!ops")));
}

#[test]
fn the_host_understands_its_configuration() {
    let path = workspace().join("ops/compose/memcell.toml");
    if let Err(error) = Config::load(&path) {
        panic!("{error}");
    }
}

#[test]
fn tokens_are_read_from_secrets_that_are_mounted() {
    for (name, path) in [("memcell", "ops/compose/memcell.toml"), ("prometheus", "ops/compose/prometheus.yml")] {
        let service = services().into_iter().find(|(service, _)| service == name).unwrap().1;
        let mounted = words(&service["secrets"]);
        let text = text(path);
        let named: Vec<&str> = text.split("/run/secrets/").skip(1).collect();
        assert!(!named.is_empty(), "{path} names no token");
        for rest in named {
            let secret: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(mounted.contains(&secret), "{path} names {secret}, which isn't mounted into {name}");
        }
    }
}

#[test]
fn prometheus_and_grafana_are_told_where_things_are() {
    let prometheus = yaml("ops/compose/prometheus.yml");
    let scraped = &prometheus["scrape_configs"][0];
    assert_eq!(scraped["static_configs"][0]["targets"][0].as_str(), Some("memcell:8080"));
    // The rules look for this name, and are found among what is mounted.
    assert_eq!(scraped["job_name"].as_str(), Some("memcell"));
    assert_eq!(prometheus["rule_files"][0].as_str(), Some("/etc/prometheus/memcell/*.rules.yml"));
    assert!(workspace().join("ops/prometheus/memcell.rules.yml").exists());
    let source = &yaml("ops/compose/grafana/datasources/prometheus.yaml")["datasources"][0];
    assert_eq!(source["url"].as_str(), Some("http://prometheus:9090"));
    // The dashboard has its viewer choose among the data sources of this type, and begins with the default one.
    assert_eq!((source["type"].as_str(), source["isDefault"].as_bool()), (Some("prometheus"), Some(true)));
    let dashboard: serde_json::Value = serde_json::from_str(&text("ops/grafana/memcell.json")).unwrap();
    let choice = &dashboard["templating"]["list"][0];
    assert_eq!((choice["type"].as_str(), choice["query"].as_str()), (Some("datasource"), Some("prometheus")));
    let provider = yaml("ops/compose/grafana/dashboards/memcell.yaml");
    let folder = provider["providers"][0]["options"]["path"].as_str().unwrap().to_owned();
    let grafana = services().into_iter().find(|(name, _)| name == "grafana").unwrap().1;
    assert!(words(&grafana["volumes"]).contains(&format!("./grafana:{folder}:ro")));
}

#[test]
fn the_image_is_built_from_what_is_there() {
    let ignore = text(".dockerignore");
    let kept: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &kept {
        assert!(workspace().join(path).exists(), "{path} is gone");
    }
    // What the build reads has to be let through.
    let members = ["host", "plugins", "tests", "xtask"];
    for path in members.iter().chain(&["Cargo.toml", "Cargo.lock", ".cargo", "wit", "memcell.example.toml"]) {
        assert!(kept.contains(path), "{path} isn't sent to the builder");
    }
    let dockerfile = text("Dockerfile");
    assert!(dockerfile.contains("USER 10001:10001"));
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let source = line.split_whitespace().nth(1).unwrap();
        assert!(source == "." || kept.contains(&source), "{source} isn't sent to the builder");
    }
    let rust = text("Cargo.toml");
    let version = rust.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(
        dockerfile.contains(&format!("FROM rust:{version}-")),
        "the image is built with another Rust than {version}"
    );
}

#[test]
fn the_unit_has_sections_and_settings_that_fit() {
    let unit = text("ops/memcell.service");
    let mut section = "";
    let mut settings = BTreeSet::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no setting"));
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{line:?}");
        settings.insert((section, key, value));
    }
    for expected in [
        ("Service", "Type", "exec"),
        ("Service", "DynamicUser", "yes"),
        ("Service", "ProtectSystem", "strict"),
        ("Service", "ExecReload", "/bin/kill -HUP $MAINPID"),
        // With `yes`, no plugin could be loaded.
        ("Service", "MemoryDenyWriteExecute", "no"),
        ("Service", "WorkingDirectory", "/var/lib/memcell"),
        ("Service", "StateDirectory", "memcell"),
        ("Install", "WantedBy", "multi-user.target"),
    ] {
        assert!(settings.contains(&expected), "{expected:?}");
    }
}

#[test]
fn files_that_the_operations_guide_names_exist() {
    let guide = text("docs/operations.md");
    let links = guide.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let mut checked = 0;
    for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
        let path = link.split('#').next().unwrap();
        assert!(workspace().join("docs").join(path).exists(), "{link} leads nowhere");
        checked += 1;
    }
    assert!(checked > 3);
    for file in ["ops/compose.yaml", "ops/memcell.service", "Dockerfile"] {
        assert!(guide.contains(file) && Path::new(&workspace().join(file)).is_file(), "{file}");
    }
}
