//! `memcell plugin pull`: a component from its registry into the cache, before a host needs it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::subject;
use super::{Exit, Failure, output};
use crate::cli::session;
use crate::config::{LimitsConfig, OciName};
use crate::hex;
use crate::oci::Components;

const AFTER_HELP: &str = "\
Prints the reference with its digest: what `plugin` takes in the configuration. A REFERENCE without a digest means what the registry has under
its tag at this moment (`latest` without one). What is fetched is kept in ~/.cache/memcell/oci, where hosts find it without the registry.

How the registry is reached, [registries] of the configuration file says, if there is one.

Exit code 1: it can't be had.

Examples:
  memcell plugin pull oci://registry.example.com/team/redis:1.2
  memcell plugin pull oci://localhost:5000/redis@sha256:9f86… --output redis.wasm";

/// Arguments of `memcell plugin pull`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct PullArgs {
    /// oci://HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]
    #[arg(value_name = "REFERENCE", value_parser = OciName::parse)]
    name: OciName,
    /// Write the component to this file, too
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The result for programs.
#[derive(Serialize)]
struct Report {
    reference: String,
    bytes: usize,
    sha256: String,
    from_cache: bool,
}

/// Carries it out.
pub(super) fn run(args: &PullArgs, config: &Path, json: bool) -> Result<Exit, Failure> {
    let registry = subject::registry(&args.name.registry, config)?;
    let components = Components::of_user();
    let limit = LimitsConfig::default().component;
    let fetched = session::runtime()?.block_on(components.resolve(&args.name, &registry, limit));
    let fetched = fetched.map_err(|error| Failure::Work(error.to_string()))?;
    if let Some(file) = &args.output {
        std::fs::write(file, &fetched.bytes).map_err(|error| Failure::io(file.display(), &error))?;
    }
    if json {
        output::json_line(&Report {
            reference: fetched.reference.to_string(),
            bytes: fetched.bytes.len(),
            sha256: hex::encode(&Sha256::digest(&fetched.bytes)),
            from_cache: fetched.from_cache,
        })?;
    } else {
        output::line(&fetched.reference.to_string())?;
    }
    Ok(Exit::Fine)
}
