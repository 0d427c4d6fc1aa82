//! The `memcell` binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use memcell_host::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}
