//! `memcell plugin push`: a component into a registry, for others to run.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::subject;
use super::{Exit, Failure, output};
use crate::cli::session;
use crate::config::{LimitsConfig, OciName};
use crate::kv::{Inspection, Interface, LoadError, read_component};
use crate::oci::{Components, Description};

const AFTER_HELP: &str = "\
Prints the reference with its digest: what `plugin` takes in the configuration. The same file gets the same digest each time.

The artifact has the layout that the CNCF's Wasm working group has agreed on (one layer application/wasm), so that other tools can read it. A
file that no host would load is refused.

How the registry is reached, and who asks, [registries] of the configuration file says, if there is one; else what `docker login` has left behind
counts.

Exit code 1: it is no backend, or the registry doesn't take it.

Example:
  memcell plugin push target/plugins/in_memory.wasm oci://localhost:5000/team/in-memory:1.0";

/// Arguments of `memcell plugin push`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct PushArgs {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// oci://HOST[:PORT]/NAME[:TAG]; without a tag, it can be had by its digest only
    #[arg(value_name = "REFERENCE", value_parser = OciName::parse)]
    name: OciName,
}

/// The result for programs.
#[derive(Serialize)]
struct Report<'a> {
    reference: String,
    sha256: &'a str,
}

/// Carries it out.
pub(super) fn run(args: &PushArgs, config: &Path, json: bool) -> Result<Exit, Failure> {
    if args.name.digest.is_some() {
        return Err(Failure::Usage("a REFERENCE to push to has no digest: it comes of what is pushed".to_owned()));
    }
    let registry = subject::registry(&args.name.registry, config)?;
    let limits = LimitsConfig::default();
    let failed = |error: LoadError| Failure::Work(error.to_string());
    let component = read_component(&args.file, limits.component).map_err(failed)?;
    let found = Inspection::of(&args.file, component.clone(), None, &limits).map_err(failed)?;
    if let Some(problem) = &found.problem {
        return Err(Failure::Work(problem.to_string()));
    }
    let names = |interfaces: &[Interface]| interfaces.iter().map(|one| one.name.clone()).collect();
    let description = Description { exports: names(&found.exports), imports: names(&found.imports) };
    let components = Components::of_user();
    let pushed = session::runtime()?.block_on(components.push(&args.name, &registry, component, &description));
    let reference = pushed.map_err(|error| Failure::Work(error.to_string()))?.to_string();
    if json {
        output::json_line(&Report { reference, sha256: &found.sha256 })?;
    } else {
        output::line(&reference)?;
    }
    Ok(Exit::Fine)
}
