//! Random writes while the host, MongoDB or the key-value server is killed, and a comparison after each kill: `cargo xtask crash`
//! builds everything and runs it. What it does and checks is told by [`memcell_tests::crash`].

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use memcell_tests::crash::{self, Kind, Options};
use memcell_tests::random::seed_of_this_run;

/// Kills processes and compares what is left.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often something is killed, with each backend
    #[arg(long, value_name = "N", default_value_t = 20)]
    kills: u32,
    /// Repeats the operations, victims and moments of another run; a random one without it
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only this backend: in-memory, file or remote
    #[arg(long, value_name = "NAME")]
    backend: Option<Kind>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nIt failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs in this thread, with which the processes end.
#[tokio::main]
async fn run(arguments: &Arguments) -> Result<()> {
    let seed = arguments.seed.map_or_else(seed_of_this_run, Ok)?;
    eprintln!("to repeat this run: cargo xtask crash --seed {seed}");
    let all = async {
        for backend in arguments.backend.map_or(Kind::ALL.to_vec(), |backend| vec![backend]) {
            let options = Options { seed, kills: arguments.kills, backend };
            let summary = crash::run(&options, |line| eprintln!("{line}")).await?;
            eprintln!("{backend}: nothing lost, nothing made up, nothing resurrected: {summary}");
        }
        Ok(())
    };
    tokio::select! {
        ended = all => ended,
        // Returning takes the processes and their directory away.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("it was interrupted; the seed was {seed}")
        }
    }
}
