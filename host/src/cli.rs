//! The command line: what can be typed, and which function each command is.
//!
//! Data and results go to the standard output, everything else (logs, progress, complaints) to the standard error. Nothing here knows
//! how documents are stored: a command is a caller of [`MemCellStore`](crate::store::MemCellStore) like any other.

mod codec;
mod config;
mod export;
mod failure;
mod get;
pub(crate) mod import;
mod jobs;
mod logging;
mod output;
mod plugin;
mod progress;
mod running;
mod serve;
mod session;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};

pub use failure::{Exit, Failure};

use crate::config::{Config, LogFormat};
use crate::security::Security;
use crate::trace::Exporter;

const AFTER_HELP: &str = "\
Exit codes:
  0   fine
  1   differences were found, or work failed
  2   the command line is wrong
  64  the configuration is wrong

Examples:
  memcell config example > memcell.toml
  memcell serve
  memcell import conversations.jsonl
  memcell verify
  memcell export --user-id user_001 | gzip > user_001.jsonl.gz";

/// Stores MemCells in MongoDB and mirrors them to sandboxed WebAssembly key-value backends.
#[derive(Debug, Parser)]
#[command(name = "memcell", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is unless somebody says so.
const DEFAULT_CONFIG: &str = "memcell.toml";

/// A variable that is empty counts as one that isn't set.
fn config_path(given: OsString) -> PathBuf {
    if given.is_empty() { DEFAULT_CONFIG.into() } else { given.into() }
}

/// What every command takes.
#[derive(Debug, Args)]
struct GlobalArgs {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MEMCELL_CONFIG",
        hide_env_values = true,
        default_value = DEFAULT_CONFIG,
        value_parser = OsStringValueParser::new().map(config_path)
    )]
    config: PathBuf,
    /// Write results for programs: JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    /// How much to log: off, error, warn, info, debug, trace, or such as "warn,memcell_host=debug"
    ///
    /// Without it, `serve` logs as the configuration says, and every other command only warnings and errors.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "MEMCELL_LOG",
        hide_env_values = true,
        value_parser = logging::level
    )]
    log: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host: the HTTP API, and the mirror behind it
    Serve(serve::ServeArgs),
    /// Read documents from a file into MongoDB
    Import(import::ImportArgs),
    /// Write documents from MongoDB to a file
    Export(export::ExportArgs),
    /// Print documents by their event ids
    Get(get::GetArgs),
    /// Copy all documents to a backend
    Backfill(jobs::BackfillArgs),
    /// Compare MongoDB with a backend
    Verify(jobs::VerifyArgs),
    /// Compare MongoDB with a backend, and mend what differs
    Repair(jobs::RepairArgs),
    /// Bring documents back to MongoDB that only a backend has
    Restore(jobs::RestoreArgs),
    /// Rewrite the copies that are encrypted or compressed otherwise than the configuration says by now
    Rekey(jobs::RekeyArgs),
    /// Make a dictionary for the compression of a backend
    #[command(subcommand)]
    Codec(codec::CodecCommand),
    /// Show how a running host is doing
    Status(status::StatusArgs),
    /// Check the configuration, or print an example of one
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Write a plugin, look into one, test it against the contract, measure it
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

/// Carries out a command.
///
/// # Errors
/// What kept it from being carried out; see [`Failure::exit`] for the exit code. Differences and failed parts of the work, which the
/// command has reported itself, are [`Exit::Failed`].
pub fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => {
            let (config, security) = Config::load_with(&global.config, Security::read)?;
            let (level, given) = global.level(&config.log.level);
            let spans = spans(&config)?;
            let set_level = logging::start(config.log.format, level, spans.as_ref())?;
            // What the command line says stands, whatever the file comes to say.
            let set_log_level = (!given).then_some(set_level);
            let configuration = serve::Configuration { path: global.config, config, security, set_log_level };
            let served = serve::run(args, configuration, global.json);
            if let Some(Err(error)) = spans.map(Exporter::close) {
                tracing::warn!(error, "the last spans could not be sent");
            }
            served
        }
        Command::Import(args) => import::run(&args, load(&global)?, global.json),
        Command::Export(args) => export::run(&args, load(&global)?, global.json),
        Command::Get(args) => get::run(&args, load(&global)?, global.json),
        Command::Backfill(args) => jobs::backfill(args, &load(&global)?, global.json),
        Command::Verify(args) => jobs::verify(args, &load(&global)?, global.json),
        Command::Repair(args) => jobs::repair(args, &load(&global)?, global.json),
        Command::Restore(args) => jobs::restore(args, &load(&global)?, global.json),
        Command::Rekey(args) => jobs::rekey(args, &load(&global)?, global.json),
        Command::Codec(command) => codec::run(command, load(&global)?, global.json),
        Command::Status(args) => status::run(args, &load(&global)?, global.json),
        Command::Config(command) => config::run(command, &global.config, global.json),
        Command::Plugin(command) => {
            logging::start(LogFormat::Auto, global.level(logging::QUIET).0, None).map(drop)?;
            plugin::run(command, &global.config, global.json)
        }
    }
}

impl GlobalArgs {
    /// How much to log: as is usual, unless something else was given. And whether it was.
    fn level<'a>(&'a self, usual: &'a str) -> (&'a str, bool) {
        match self.log.as_deref().filter(|directives| !directives.is_empty()) {
            Some(given) => (given, true),
            None => (usual, false),
        }
    }
}

/// Begins to send spans, if the configuration says where to.
fn spans(config: &Config) -> Result<Option<Exporter>, Failure> {
    let traces = &config.traces;
    let started = traces.endpoint.as_ref().map(|endpoint| Exporter::start(endpoint, traces, &config.host.name));
    started.transpose().map_err(|error| Failure::Work(format!("traces.endpoint: {error}")))
}

/// Reads the configuration and begins to log, for commands that are no services.
fn load(global: &GlobalArgs) -> Result<Config, Failure> {
    let config = Config::load(&global.config)?;
    logging::start(config.log.format, global.level(logging::QUIET).0, None).map(drop)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_follow_the_command() {
        let cli = Cli::try_parse_from(["memcell", "get", "685c8c52a1b2c3d4e5f60718", "--json", "--config", "x.toml"])
            .unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.config, PathBuf::from("x.toml"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, kind) in [
            (&["get"][..], ErrorKind::MissingRequiredArgument),
            (&["get", "nonsense"], ErrorKind::ValueValidation),
            (&["import"], ErrorKind::MissingRequiredArgument),
            (&["import", "-", "--batch", "0"], ErrorKind::ValueValidation),
            (&["export", "--start", "yesterday"], ErrorKind::ValueValidation),
            (&["export", "--format", "xml"], ErrorKind::InvalidValue),
            (&["serve", "--log", "loud"], ErrorKind::ValueValidation),
            (&["conquer"], ErrorKind::InvalidSubcommand),
        ] {
            let error = Cli::try_parse_from(["memcell"].iter().chain(arguments)).unwrap_err();
            assert_eq!(error.kind(), kind, "{arguments:?}: {error}");
        }
    }
}
