//! Which plugin a command is about, and what it is given: from the command line, or from a backend of the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::cli::session;
use crate::config::{BackendConfig, Config, Destination, OciName, OciPlugin, PluginSource, RegistryConfig};
use crate::kv::{Plugin, Trials};

/// Arguments of the commands that open a plugin.
#[derive(Debug, Args)]
pub(super) struct Subject {
    /// The component, as a file or as a reference to a registry (oci://…@sha256:…); if left out, the one of --backend
    #[arg(value_name = "FILE|REFERENCE", required_unless_present = "backend")]
    file: Option<PathBuf>,
    /// Take settings, grants and limits from this backend of the configuration file
    ///
    /// Without it, of the configuration file only [registries] counts, for a REFERENCE, and the plugin has the default limits, but for 30 s for each call.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// A setting for the plugin, in place of the configured one of that name. May be repeated
    #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// Grant a directory, which is made if need be, in place of the configured one
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Grant connections to this endpoint, beside the configured ones. May be repeated
    #[arg(long, value_name = "HOST:PORT", value_parser = Destination::parse)]
    connect: Vec<Destination>,
    /// Grant a variable of the environment, beside the configured ones. May be repeated
    #[arg(long = "environment", value_name = "NAME")]
    environment: Vec<String>,
}

impl Subject {
    /// What the plugin would be as a backend.
    ///
    /// # Errors
    /// If the configuration is wrong, or has no such backend.
    pub(super) fn config(&self, config: &Path) -> Result<BackendConfig, Failure> {
        let mut backend = match (&self.backend, &self.file) {
            (Some(name), _) => configured(config, name)?,
            (None, Some(file)) => unconfigured("trial", source(file, config)?),
            (None, None) => return Err(Failure::Usage("neither a FILE nor a --backend is given".to_owned())),
        };
        if let Some(file) = &self.file {
            let given = source(file, config)?;
            // The digest is that of the configured component.
            backend.sha256 = backend.sha256.filter(|_| backend.plugin == given);
            backend.plugin = given;
        }
        for (name, value) in &self.settings {
            backend.settings.retain(|(other, _)| other != name);
            backend.settings.push((name.clone(), value.clone()));
        }
        if let Some(directory) = &self.directory {
            backend.grants.directory = Some(directory.clone());
            backend.grants.read_only = false;
        }
        backend.grants.connect.extend(self.connect.iter().cloned());
        backend.grants.environment.extend(self.environment.iter().cloned());
        Ok(backend)
    }

    /// Loads the plugin, without opening it.
    ///
    /// # Errors
    /// As [`Subject::config`]; or if the file is no backend.
    pub(super) fn trials(&self, config: &Path) -> Result<Trials, Failure> {
        let backend = self.config(config)?;
        let plugin = load(&backend)?;
        Trials::new(plugin, backend).map_err(|error| Failure::Work(error.to_string()))
    }
}

/// How long a call may take where nothing is configured. What is tried is whether it is right, also on a busy machine; a deadline
/// that is missed by a little says nothing.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A backend with nothing set and nothing granted.
pub(super) fn unconfigured(name: &str, plugin: PluginSource) -> BackendConfig {
    let mut backend = BackendConfig::new(name, PathBuf::new());
    backend.plugin = plugin;
    backend.limits.call_timeout = CALL_TIMEOUT;
    backend.limits.cpu = backend.limits.call_timeout;
    backend
}

/// Loads the plugin of a backend.
///
/// # Errors
/// If it can't be used as one; the text says what is wrong with the file.
pub(super) fn load(backend: &BackendConfig) -> Result<Plugin, Failure> {
    session::runtime()?.block_on(session::plugin(backend)).map_err(|error| Failure::Work(error.to_string()))
}

/// What is meant by an argument.
///
/// # Errors
/// If it is a reference without a digest, or the configuration file, which says how its registry is reached, is wrong.
fn source(argument: &Path, config: &Path) -> Result<PluginSource, Failure> {
    let Some(text) = argument.to_str().filter(|text| OciName::is_meant_by(text)) else {
        return Ok(argument.to_path_buf().into());
    };
    let reference = OciName::parse(text).and_then(OciName::pinned);
    let reference = reference.map_err(|reason| Failure::Usage(format!("{text} {reason}")))?;
    let registry = registry(&reference.registry, config)?;
    Ok(PluginSource::Oci(Box::new(OciPlugin { reference, registry })))
}

/// How a registry is reached: as the configuration file says, if there is one.
///
/// # Errors
/// If it is there and wrong.
pub(super) fn registry(name: &str, config: &Path) -> Result<RegistryConfig, Failure> {
    if !config.exists() {
        return Ok(RegistryConfig::new(name));
    }
    Ok(Config::load(config)?.registry(name))
}

fn configured(config: &Path, name: &str) -> Result<BackendConfig, Failure> {
    let loaded = Config::load(config)?;
    let names: Vec<String> = loaded.backends.iter().map(|backend| backend.name.clone()).collect();
    loaded.backends.into_iter().find(|backend| backend.name == name).ok_or_else(|| {
        let there = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        Failure::Usage(format!("{} has no backend {name:?}; {there}", config.display()))
    })
}

/// `NAME=VALUE`; the value may be empty, and may contain more `=`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_names_and_values() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn the_command_line_goes_before_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("memcell.toml");
        let digest = "00".repeat(32);
        let text = format!(
            "[mongodb]\nuri = \"embedded\"\n[backends.local]\nplugin = \"x.wasm\"\nsha256 = \"{digest}\"\n[backends.local.settings]\n\
             a = \"1\"\nb = \"2\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let subject = |file: Option<&str>, backend: Option<&str>| Subject {
            file: file.map(PathBuf::from),
            backend: backend.map(str::to_owned),
            settings: vec![("b".into(), "3".into()), ("c".into(), "4".into())],
            directory: Some("d".into()),
            connect: vec![Destination::parse("redis:6379").unwrap()],
            environment: vec!["TOKEN".into()],
        };
        let found = subject(None, Some("local")).config(&config).unwrap();
        assert_eq!(found.plugin, folder.path().join("x.wasm").into());
        assert!(found.sha256.is_some());
        let settings = [("a", "1"), ("b", "3"), ("c", "4")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.settings, settings);
        assert_eq!(found.grants.directory, Some(PathBuf::from("d")));
        assert_eq!((found.grants.connect.len(), found.grants.environment.len()), (1, 1));
        let found = subject(Some("y.wasm"), Some("local")).config(&config).unwrap();
        assert_eq!((found.plugin, found.sha256), ("y.wasm".into(), None));
        let found = subject(Some("y.wasm"), None).config(Path::new("/nonexistent")).unwrap();
        assert_eq!(found.settings.len(), 2);
        let Err(Failure::Usage(text)) = subject(None, Some("locl")).config(&config) else { panic!() };
        assert!(text.contains("it has local"), "{text}");
    }
}
