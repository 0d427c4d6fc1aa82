//! `memcell config`: whether a configuration is fine, and an example of one.

use std::fmt::Write as _;
use std::path::Path;

use clap::Subcommand;
use serde::Serialize;

use super::{Exit, Failure, output};
use crate::config::{BackendConfig, Config, ConfigError, EXAMPLE};

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Report everything that is wrong with the configuration, or sum up what it says
    Check,
    /// Print a commented configuration with every key
    Example,
}

/// Carries one out.
pub(super) fn run(command: &ConfigCommand, path: &Path, json: bool) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check => check(path, json),
        ConfigCommand::Example => output::write(EXAMPLE.as_bytes()).map(|()| Exit::Fine),
    }
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
    enabled: bool,
    required: bool,
}

fn check(path: &Path, json: bool) -> Result<Exit, Failure> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) if json => {
            output::json_line(&refusal(&error))?;
            return Ok(Exit::Config);
        }
        Err(error) => return Err(error.into()),
    };
    // A backend that is required and can't be there keeps the host from starting, like any other problem of its configuration.
    let absent: Vec<&BackendConfig> =
        config.backends.iter().filter(|one| one.enabled && one.required && !one.plugin.is_file()).collect();
    let exit = if absent.is_empty() { Exit::Fine } else { Exit::Config };
    if json {
        output::json_line(&summary(&config, &absent))?;
        return Ok(exit);
    }
    for backend in &absent {
        let (name, plugin) = (&backend.name, backend.plugin.display());
        eprintln!("{}: backends.{name}.plugin: {plugin}: {ABSENT}", path.display());
    }
    if absent.is_empty() {
        output::write(describe(path, &config).as_bytes())?;
    }
    Ok(exit)
}

const ABSENT: &str = "there is no such file, and the backend is required";

fn refusal(error: &ConfigError) -> Report<'_> {
    let problems = error.problems().iter().map(|problem| ReportedProblem {
        key: &problem.key,
        line: problem.line,
        column: problem.column,
        message: &problem.message,
    });
    Report { fine: false, problems: problems.collect(), mongodb: None, listen: None, backends: Vec::new() }
}

fn summary<'a>(config: &'a Config, absent: &[&'a BackendConfig]) -> Report<'a> {
    let backends = config.backends.iter().map(|backend| ReportedBackend {
        name: &backend.name,
        plugin: backend.plugin.display().to_string(),
        plugin_found: backend.plugin.is_file(),
        enabled: backend.enabled,
        required: backend.required,
    });
    let problems =
        absent.iter().map(|backend| ReportedProblem { key: &backend.name, line: None, column: None, message: ABSENT });
    Report {
        fine: absent.is_empty(),
        problems: problems.collect(),
        mongodb: Some(config.mongodb.redacted_uri()),
        listen: Some(config.http.listen.to_string()),
        backends: backends.collect(),
    }
}

fn describe(path: &Path, config: &Config) -> String {
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
    if config.backends.is_empty() {
        text.push_str("  backends  none: everything works on mongodb alone, and nothing is validated\n");
    }
    for backend in &config.backends {
        let plugin = backend.plugin.display();
        let state = match (backend.enabled, backend.plugin.is_file()) {
            (false, _) => ", not enabled",
            (true, true) => "",
            (true, false) => ", which is not there: the host starts without this backend",
        };
        let _ = writeln!(text, "  backend   {}: {plugin}{state}", backend.name);
    }
    text
}
