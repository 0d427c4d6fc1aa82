//! The demonstration: a MongoDB server, the real `memcell` program and a WebAssembly backend, doing their main job on documents.
//!
//! `cargo xtask demo` builds everything and runs it. It is a test as well: each step checks what it observes, and the first one
//! that doesn't hold ends it with exit code 1. In order: [`stage`] starts the programs, [`acts`] is what is shown, through the
//! client in [`api`], and [`summary`] sums it up.

mod acts;
mod api;
mod stage;
mod story;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::stage::Stage;

/// Shows the main job of the storage host, end to end.
#[derive(Debug, Parser)]
struct Options {
    /// Show it and end, instead of serving until Ctrl-C
    #[arg(long)]
    once: bool,
    /// The documents to import, as `memcell import` takes them; without it a set is generated
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The port to serve on, 0 being a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(options: &Options) -> Result<()> {
    let mut interrupts = Interrupts::watch().context("can't watch for signals")?;
    let mut stage = Stage::build(options.port).await?;
    let held = tokio::select! {
        held = acts::play(&mut stage, options) => held,
        () = interrupts.next() => {
            stage.clear().await?;
            return Err(anyhow!("it was interrupted"));
        }
    };
    let held = match held {
        Ok(()) if !options.once => tokio::select! {
            ended = stage.host_ended() => ended,
            () = interrupts.next() => Ok(()),
        },
        held => held,
    };
    // Whether or not it went well, and without heeding further signals: it takes a few seconds at the most.
    let log = if held.is_err() { stage.host_log() } else { None };
    let cleared = stage.clear().await;
    if let Some(log) = log {
        eprintln!("\nThe end of the host's log:\n{log}");
    }
    held.and(cleared)?;
    story::line("Everything held. All processes are stopped, and the temporary directory is removed.")
}

/// The signals that ask a program to end. Watching them keeps them from ending this one before it has cleaned up.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn watch() -> Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    /// Returns when one of them comes.
    async fn next(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
