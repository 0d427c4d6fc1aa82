//! `memcell plugin inspect`: what a file is, and what it would want.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::report::{Declared, declared, describe};
use super::subject::{self, Subject};
use super::{Exit, Failure, output};
use crate::cli::session;
use crate::clock::whole_millis;
use crate::config::{BackendConfig, PluginSource};
use crate::kv::{Capabilities, Contract, Inspection, Interface, Trials, Want, read_component};
use crate::oci::Components;

const AFTER_HELP: &str = "\
Reads and compiles the file, and opens it as a backend would be opened, with the settings and grants given: that tells what it declares. A
plugin that can't do without a grant says so when it is opened, and the reason is shown.

What it may want follows from the functions that it imports. The runtimes of some languages import more than the program uses, so that this is
the most that it could want.

Exit code 1: it is no backend that this host loads. Not to be opened without grants is no reason.

Examples:
  memcell plugin inspect target/plugins/in_memory.wasm
  memcell plugin inspect my.wasm --setting url=redis://127.0.0.1:6379 --connect 127.0.0.1:6379 --json";

/// Arguments of `memcell plugin inspect`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    subject: Subject,
}

/// The result for programs.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    bytes: u64,
    sha256: &'a str,
    contract: Option<&'static str>,
    loads: bool,
    problem: Option<String>,
    imports: Vec<ReportedInterface<'a>>,
    exports: Vec<ReportedInterface<'a>>,
    may_want: Vec<&'static str>,
    compile_ms: Option<u64>,
    capabilities: Option<Declared>,
    not_opened: Option<String>,
}

#[derive(Serialize)]
struct ReportedInterface<'a> {
    name: &'a str,
    functions: &'a [String],
}

/// Carries it out.
pub(super) fn run(args: &InspectArgs, config: &Path, json: bool) -> Result<Exit, Failure> {
    let backend = args.subject.config(config)?;
    let found = look(&backend)?;
    let loads = found.problem.is_none();
    let opened = loads.then(|| {
        let trials =
            Trials::new(subject::load(&backend)?, backend).map_err(|error| Failure::Work(error.to_string()))?;
        open(&trials)
    });
    let opened = match opened {
        Some(Ok(capabilities)) => Some(Ok(capabilities)),
        Some(Err(Failure::Work(reason))) => Some(Err(reason)),
        Some(Err(failure)) => return Err(failure),
        None => None,
    };
    if json {
        output::json_line(&report(&found, opened.as_ref()))?;
    } else {
        output::write(text(&found, opened.as_ref()).as_bytes())?;
    }
    Ok(Exit::fine_if(loads))
}

/// The file, or what the registry has.
fn look(backend: &BackendConfig) -> Result<Inspection, Failure> {
    let limits = &backend.limits;
    let read = match &backend.plugin {
        PluginSource::File(path) => read_component(path, limits.component).map(|bytes| (path.clone(), bytes)),
        PluginSource::Oci(plugin) => {
            let fetching = Components::of_user();
            let fetched = session::runtime()?.block_on(fetching.fetch(plugin, limits.component));
            fetched.map(|fetched| (fetched.reference.to_string().into(), fetched.bytes)).map_err(Into::into)
        }
    };
    let found = read.and_then(|(path, bytes)| Inspection::of(&path, bytes, backend.sha256.as_ref(), limits));
    found.map_err(|error| Failure::Work(error.to_string()))
}

/// What it declares.
fn open(trials: &Trials) -> Result<Capabilities, Failure> {
    let ask = || {
        let mut trial = trials.open(0)?;
        let capabilities = trial.capabilities()?;
        trial.close()?;
        Ok(capabilities)
    };
    ask().map_err(|error: crate::kv::KvError| Failure::Work(error.to_string()))
}

type Opened<'a> = Option<&'a Result<Capabilities, String>>;

fn report<'a>(found: &'a Inspection, opened: Opened<'_>) -> Report<'a> {
    let all = |interfaces: &'a [Interface]| {
        let one =
            |interface: &'a Interface| ReportedInterface { name: &interface.name, functions: &interface.functions };
        interfaces.iter().map(one).collect()
    };
    Report {
        file: found.path.display().to_string(),
        bytes: found.bytes,
        sha256: &found.sha256,
        contract: name_of(found.contract),
        loads: found.problem.is_none(),
        problem: found.problem.as_ref().map(ToString::to_string),
        imports: all(&found.imports),
        exports: all(&found.exports),
        may_want: found.wants().into_iter().map(|want| words(want).0).collect(),
        compile_ms: found.compile_time.map(whole_millis),
        capabilities: opened.and_then(|opened| opened.as_ref().ok()).map(declared),
        not_opened: opened.and_then(|opened| opened.as_ref().err().cloned()),
    }
}

fn text(found: &Inspection, opened: Opened<'_>) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(text, "{}", found.path.display());
    let _ = writeln!(text, "  size      {} bytes", found.bytes);
    let _ = writeln!(text, "  sha256    {}", found.sha256);
    if let Some(time) = found.compile_time {
        let _ = writeln!(text, "  compiles  in {} ms, once; from the cache afterwards", time.as_millis());
    }
    match &found.problem {
        None => {
            let _ = writeln!(text, "  backend   yes, of {}", name_of(found.contract).unwrap_or_default());
        }
        Some(problem) => {
            let _ = writeln!(text, "  backend   NO: {problem}");
        }
    }
    match opened {
        Some(Ok(capabilities)) => {
            let _ = writeln!(text, "  declares  {}", describe(capabilities));
        }
        Some(Err(reason)) => {
            let _ = writeln!(text, "  declares  unknown, for it can't be opened like this: {reason}");
        }
        None => {}
    }
    if found.compile_time.is_some() {
        let wants = found.wants();
        if wants.is_empty() {
            let _ = writeln!(text, "  may want  nothing: a clock and memory will do");
        }
        for (index, want) in wants.into_iter().enumerate() {
            let (_, words) = words(want);
            let label = if index == 0 { "may want" } else { "" };
            let _ = writeln!(text, "  {label:<8}  {words}");
        }
    }
    for (label, interfaces) in [("exports", &found.exports), ("imports", &found.imports)] {
        for (index, Interface { name, functions }) in interfaces.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let separator = if functions.is_empty() { "" } else { ": " };
            let _ = writeln!(text, "  {label:<8}  {name}{separator}{}", functions.join(", "));
        }
    }
    text
}

fn name_of(contract: Contract) -> Option<&'static str> {
    match contract {
        Contract::MemcellKv => Some("memcell:kv"),
        Contract::WasiKeyvalue => Some("wasi:keyvalue"),
        Contract::None => None,
    }
}

/// For programs, and for people.
fn words(want: Want) -> (&'static str, &'static str) {
    match want {
        Want::Files => ("files", "files: it opens some; grants.directory gives it a directory, as /data"),
        Want::Connections => ("connections", "connections: grants.connect names the endpoints"),
        Want::Names => ("names", "addresses of host names: those in grants.connect are known to it"),
        Want::Environment => ("environment", "environment variables: grants.environment names them"),
        Want::Http => ("http", "HTTP requests: no grant gives them, and it won't load"),
    }
}
