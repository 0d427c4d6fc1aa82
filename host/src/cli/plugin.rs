//! `memcell plugin`: for those who write a backend, or have to decide about one.

mod bench;
mod inspect;
mod junit;
mod new;
mod pull;
mod push;
mod report;
mod subject;
mod test;

use std::path::Path;

use clap::Subcommand;

use super::{Exit, Failure, output};

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Write the beginning of a plugin, which builds and passes the test
    New(new::NewArgs),
    /// Tell what a file is: imports, exports, what it declares, what it may want to be granted
    Inspect(inspect::InspectArgs),
    /// Test a plugin against the contract, one line a case
    Test(test::TestArgs),
    /// Fetch a plugin from a registry ahead of time, or learn which one a tag means
    Pull(pull::PullArgs),
    /// Bring a plugin to a registry
    Push(push::PushArgs),
    /// Measure a plugin, beside another one and a native map
    Bench(bench::BenchArgs),
}

/// Carries one out. `config` is the configuration file, which is read only if a backend of it is asked for.
pub(super) fn run(command: PluginCommand, config: &Path, json: bool) -> Result<Exit, Failure> {
    match command {
        PluginCommand::New(args) => new::run(&args, json),
        PluginCommand::Bench(args) => bench::run(&args, config, json),
        PluginCommand::Inspect(args) => inspect::run(&args, config, json),
        PluginCommand::Pull(args) => pull::run(&args, config, json),
        PluginCommand::Push(args) => push::run(&args, config, json),
        PluginCommand::Test(args) => test::run(args, config, json),
    }
}
