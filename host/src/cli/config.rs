//! `memcell config`: whether a configuration is fine, an example of one, and having a host take one over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::running::{HostArgs, RunningHost};
use super::{Exit, Failure, output, session};
use crate::config::{BackendConfig, Config, ConfigError, EXAMPLE, MongoServer, PluginSource, Problem, Role};
use crate::kv::LoadError;
use crate::mongo::check_uri;
use crate::oci::Components;
use crate::security::Security;
use crate::store::connect_options;

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Report everything that is wrong with the configuration, or sum up what it says
    Check,
    /// Print a commented configuration with every key
    Example,
    /// Have the running host take over what its file says by now
    #[command(after_help = AFTER_RELOAD)]
    Reload(ReloadArgs),
}

const AFTER_RELOAD: &str = "\
The host reads the file that it was started with. Either all of it is taken over or nothing is.

Exit code 1: the host refused it, or none is running.

Examples:
  memcell config check && memcell config reload";

/// Arguments of `memcell config reload`.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    host: HostArgs,
}

/// Carries one out.
pub(super) fn run(command: ConfigCommand, path: &Path, json: bool) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Reload(args) => reload(args, path, json),
        ConfigCommand::Check => check(path, json),
        ConfigCommand::Example => output::write(EXAMPLE.as_bytes()).map(|()| Exit::Fine),
    }
}

/// What a reload changed, as the host says it.
#[derive(Deserialize, Serialize)]
struct Reloaded {
    changes: Vec<Change>,
}

#[derive(Deserialize, Serialize)]
struct Change {
    key: String,
    change: String,
}

fn reload(args: ReloadArgs, path: &Path, json: bool) -> Result<Exit, Failure> {
    let config = Config::load(path)?;
    let runtime = session::runtime()?;
    let reloaded: Reloaded = runtime.block_on(async {
        let Some(host) = RunningHost::find(args.host, Role::Admin, &config).await? else {
            return Err(Failure::Work(format!("no host is running at {}", config.http.listen)));
        };
        host.post("/v1/config/reload", None).await.map_err(|refusal| host.failure(refusal))
    })?;
    if json {
        output::json_line(&reloaded)?;
    } else if reloaded.changes.is_empty() {
        output::line("nothing has changed")?;
    } else {
        for Change { key, change } in &reloaded.changes {
            output::line(&format!("{key}: {change}"))?;
        }
    }
    Ok(Exit::Fine)
}

/// The result for programs.
#[derive(Serialize)]
struct Report<'a> {
    fine: bool,
    problems: Vec<ReportedProblem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mongodb: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    backends: Vec<ReportedBackend<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<ReportedKey<'a>>,
}

#[derive(Serialize)]
struct ReportedKey<'a> {
    name: &'a str,
    id: String,
}

#[derive(Serialize)]
struct ReportedProblem<'a> {
    key: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    message: &'a str,
}

#[derive(Serialize)]
struct ReportedBackend<'a> {
    name: &'a str,
    plugin: String,
    plugin_found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    enabled: bool,
    required: bool,
}

fn check(path: &Path, json: bool) -> Result<Exit, Failure> {
    let runtime = session::runtime()?;
    // Tokens and certificates are as much a part of it as what names them.
    let loaded = Config::load_with(path, |config| {
        let mut problems = Security::read(config).err().unwrap_or_default();
        problems.extend(runtime.block_on(obstacles(config)));
        if problems.is_empty() { Ok(runtime.block_on(missed(config))) } else { Err(problems) }
    });
    match loaded {
        Ok((config, missed)) if json => output::json_line(&summary(&config, &missed))?,
        Ok((config, missed)) => output::write(describe(path, &config, &missed).as_bytes())?,
        Err(error) if json => {
            output::though_unread(output::json_line(&refusal(&error)))?;
            return Ok(Exit::Config);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Fine)
}

/// What keeps a host from starting although every value in its configuration can be understood.
async fn obstacles(config: &Config) -> Vec<Problem> {
    let problem = |key: String, message: String| Problem { key, line: None, column: None, message };
    let mut obstacles = Vec::new();
    if let MongoServer::Uri(uri) = &config.mongodb.server {
        let options = connect_options(&config.mongodb, uri.expose().to_owned());
        if let Err(error) = check_uri(&options).await {
            obstacles.push(problem("mongodb.uri".to_owned(), error.message().to_owned()));
        }
    }
    for backend in config.backends.iter().filter(|backend| backend.enabled && backend.required) {
        let BackendConfig { name, plugin, grants, .. } = backend;
        match place(backend) {
            Place::NoFile if plugin.to_string().is_empty() => {}
            Place::NoFile => obstacles.push(problem(format!("backends.{name}.plugin"), format!("{plugin}: {ABSENT}"))),
            Place::Here => obstacles.extend(
                unloadable(backend)
                    .await
                    .map(|(key, error)| problem(format!("backends.{name}.{key}"), error.to_string())),
            ),
            Place::InRegistry => {}
        }
        if let Some(directory) =
            grants.directory.as_deref().filter(|directory| directory.exists() && !directory.is_dir())
        {
            let message = format!("{} is no directory, and the backend is required", directory.display());
            obstacles.push(problem(format!("backends.{name}.grants.directory"), message));
        }
    }
    obstacles
}

/// By backend, why a plugin can't be loaded that a host starts without.
async fn missed(config: &Config) -> BTreeMap<String, String> {
    let mut missed = BTreeMap::new();
    for backend in config.backends.iter().filter(|backend| backend.enabled && !backend.required) {
        if place(backend) == Place::Here
            && let Some((key, error)) = unloadable(backend).await
        {
            missed.insert(backend.name.clone(), format!("{key}: {error}"));
        }
    }
    missed
}

/// Why the plugin of a backend can't be loaded, with the key to mend.
async fn unloadable(backend: &BackendConfig) -> Option<(&'static str, LoadError)> {
    match session::plugin(backend).await.err()? {
        error @ LoadError::Digest { .. } => Some(("sha256", error)),
        error => Some(("plugin", error)),
    }
}

const ABSENT: &str = "there is no such file, and the backend is required";

/// Where the plugin of a backend is just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On this machine: in its file, or in the cache.
    Here,
    /// Still in its registry.
    InRegistry,
    NoFile,
}

fn place(backend: &BackendConfig) -> Place {
    match &backend.plugin {
        PluginSource::File(path) if path.is_file() => Place::Here,
        PluginSource::File(_) => Place::NoFile,
        PluginSource::Oci(plugin) if Components::of_user().has(&plugin.reference, backend.limits.component) => {
            Place::Here
        }
        PluginSource::Oci(_) => Place::InRegistry,
    }
}

fn refusal(error: &ConfigError) -> Report<'_> {
    let problems = error.problems().iter().map(|problem| ReportedProblem {
        key: &problem.key,
        line: problem.line,
        column: problem.column,
        message: &problem.message,
    });
    Report {
        fine: false,
        problems: problems.collect(),
        mongodb: None,
        listen: None,
        backends: Vec::new(),
        keys: Vec::new(),
    }
}

fn summary<'a>(config: &'a Config, missed: &'a BTreeMap<String, String>) -> Report<'a> {
    let backends = config.backends.iter().map(|backend| ReportedBackend {
        name: &backend.name,
        plugin: backend.plugin.to_string(),
        plugin_found: place(backend) == Place::Here,
        problem: missed.get(&backend.name).map(String::as_str),
        enabled: backend.enabled,
        required: backend.required,
    });
    let keys = config.encryption.keys.iter().map(|key| ReportedKey { name: key.name(), id: key.id().to_string() });
    Report {
        fine: true,
        problems: Vec::new(),
        mongodb: Some(config.mongodb.redacted_uri()),
        listen: Some(config.http.listen.to_string()),
        backends: backends.collect(),
        keys: keys.collect(),
    }
}

fn describe(path: &Path, config: &Config, missed: &BTreeMap<String, String>) -> String {
    let mut text = format!("{} is fine\n", path.display());
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "  mongodb   {}, collection {}.{}",
        config.mongodb.redacted_uri(),
        config.mongodb.database,
        config.mongodb.collection
    );
    let _ = writeln!(text, "  http      {}", config.http.listen);
    for key in &config.encryption.keys {
        let _ = writeln!(text, "  key       {}: {}", key.name(), key.id());
    }
    if config.backends.is_empty() {
        text.push_str("  backends  none: everything works on mongodb alone, and nothing is validated\n");
    }
    for backend in &config.backends {
        let state = match (backend.enabled, place(backend)) {
            (false, _) => ", not enabled",
            (true, Place::Here) => "",
            (true, Place::InRegistry) => {
                ", which is not in the cache: the host fetches it; so does `memcell plugin pull`"
            }
            (true, Place::NoFile) => ", which is no file that is there: the host starts without this backend",
        };
        let _ = writeln!(text, "  backend   {}: {}{state}", backend.name, backend.plugin);
        if let Some(problem) = missed.get(&backend.name) {
            let _ = writeln!(text, "            can't be loaded, and the host starts without it: {problem}");
        }
    }
    text
}
