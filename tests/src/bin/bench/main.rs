//! The benchmarks behind `BENCHMARKS.md`: `cargo xtask bench [NAME…]`, those whose names contain one of the words, or all.
//!
//! - `store`: what a backend costs the operations of one client
//! - `backend`: the in-memory plugin behind its queue, beside a native map
//! - `file`: the file plugin, beside native `redb`
//! - `examples`: backends in other languages and a plain `wasi:keyvalue` component, beside the in-memory plugin
//! - `remote`: the remote plugin, beside the `redis` crate called natively
//! - `tail`: how far the tail lags behind another program, and what a key-value server that is down costs
//! - `codec`: compression and encryption of copies, beside copies as they are
//! - `import`: the `memcell import` command, beside the driver's bare `insert_many`
//! - `jobs`: backfill and verify, beside a bare scan of the collection
//!
//! With `MEMCELL_BENCH_ROWS=TEXT` in the environment, only rows that have this text in their names are measured.
//!
//! Exits 1 if a target was missed.

mod backend;
mod codec;
mod direct;
mod examples;
mod file;
mod import;
mod jobs;
mod remote;
mod store;
mod tail;

use std::process::ExitCode;

use anyhow::{Result, bail};
use memcell_tests::bench::Summary;

const NAMES: [&str; 9] = ["store", "backend", "file", "remote", "examples", "codec", "tail", "import", "jobs"];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &&str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let names: Vec<&str> = NAMES.into_iter().filter(wanted).collect();
    if names.is_empty() {
        bail!("no benchmark has {} in its name; there are {}", words.join(" or "), NAMES.join(", "));
    }
    let mut missed = 0;
    for name in names {
        missed += run(name).await?.missed;
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(name: &str) -> Result<Summary> {
    match name {
        "store" => store::run().await,
        "backend" => backend::run().await,
        // Instances that are called directly have runtimes of their own.
        "file" => tokio::task::block_in_place(file::run),
        "examples" => examples::run().await,
        "remote" => tokio::task::block_in_place(remote::run),
        "codec" => codec::run(),
        "tail" => tail::run().await,
        "import" => import::run().await,
        "jobs" => jobs::run().await,
        other => bail!("there is no benchmark {other}; there are {}", NAMES.join(", ")),
    }
}
