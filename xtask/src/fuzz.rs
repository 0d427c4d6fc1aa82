//! `cargo xtask fuzz`: libFuzzer on the targets of `tests/fuzz`, with the compiler of the workspace.
//!
//! Only our own code is instrumented: this program stands in for rustc (as `RUSTC_WORKSPACE_WRAPPER`) and adds the flags. So all
//! dependencies are those of the tests, and no nightly compiler is needed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::args::Args;
use crate::process::{become_or_run, cargo, run, step};
use crate::setup::{self, Need};
use crate::{plugins, workspace};

pub(crate) const SUMMARY: &str = "look for inputs that break something";
pub(crate) const HELP: &str = "\
usage: cargo xtask fuzz [--seconds N] [--release] [--keep] [TARGET…]

Has libFuzzer make up inputs for each target, or for those given: config, envelope, http, import, plugin. It begins with what is
in tests/fuzz/corpus and with what earlier runs have found, which is kept in target/fuzz. The first input that breaks something
ends it with exit code 1, and is kept in target/fuzz as well: put it into the corpus, and every run of the tests tries it.

  --seconds N   how long each target is tried (60)
  --release     optimised: worth its longer build from half an hour on. Arithmetic that overflows still panics
  --keep        afterwards, adds what reaches more of the code than the corpus does to the corpus, as little of it as will do
";

/// In the order of `tests/fuzz/src/lib.rs`.
const TARGETS: [&str; 5] = ["config", "envelope", "http", "import", "plugin"];

/// How long each target is tried when all tests are run.
const SHORT_SECONDS: u32 = 10;

/// With this feature, the fuzzer is compiled.
pub(crate) const FEATURE: &str = "memcell-fuzz/libfuzzer";

/// libFuzzer itself is compiled.
const NEEDS: &[Need] = &[Need { package: "g++", program: Some("c++") }];

/// Tells this program that it is called in place of rustc.
pub(crate) const WRAPPER_VARIABLE: &str = "MEMCELL_XTASK_IS_RUSTC";

/// What is instrumented.
const CRATES: [&str; 3] = ["memcell_host", "memcell_plugin", "memcell_fuzz"];

/// What libFuzzer wants to know of the code: which edges were taken, and what was compared with what.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Runs the command.
pub(crate) fn command(mut args: Args) -> Result<()> {
    let seconds = match args.option("--seconds")? {
        None => 60,
        Some(given) => match given.parse::<u32>() {
            Ok(seconds) if seconds > 0 => seconds,
            _ => return Err(args.wrong(format!("--seconds {given:?} is not a number above 0")).into()),
        },
    };
    let keep = args.flag("--keep");
    let release = args.flag("--release");
    let names = args.rest()?;
    let targets: Vec<&str> =
        TARGETS.into_iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target)).collect();
    if let Some(unknown) = names.iter().find(|name| !TARGETS.contains(&name.as_str())) {
        bail!("there is no target {unknown:?}: there are {}", TARGETS.join(", "));
    }
    setup::ensure()?;
    plugins::build(true)?;
    let fuzzer = build(release)?;
    for target in targets {
        fuzz(&fuzzer, target, seconds)?;
        if keep {
            merge(&fuzzer, target)?;
        }
    }
    Ok(())
}

/// Each target for a short time, with the components already built.
pub(crate) fn briefly() -> Result<()> {
    let fuzzer = build(false)?;
    TARGETS.into_iter().try_for_each(|target| fuzz(&fuzzer, target, SHORT_SECONDS))
}

/// Called in place of rustc, with rustc and its arguments: calls rustc, with some more where our own code is compiled.
pub(crate) fn rustc(mut words: impl Iterator<Item = OsString>) -> Result<()> {
    let rustc = words.next().context("called in place of rustc, without one")?;
    let words: Vec<OsString> = words.collect();
    let mut command = Command::new(rustc);
    command.args(&words).env_remove(WRAPPER_VARIABLE);
    if is_instrumented(&words) {
        command.args(FLAGS);
    }
    become_or_run(&mut command)
}

fn is_instrumented(words: &[OsString]) -> bool {
    let name = words.iter().position(|word| word == "--crate-name").and_then(|place| words.get(place + 1));
    name.is_some_and(|name| CRATES.iter().any(|instrumented| name == instrumented))
}

/// Makes sure that libFuzzer can be compiled.
///
/// # Errors
/// If the compiler is missing and can't be installed.
pub(crate) fn compiler() -> Result<()> {
    setup::packages(NEEDS, "fuzzing", "put a C++ compiler on PATH")
}

fn build(release: bool) -> Result<PathBuf> {
    compiler()?;
    let this = env::current_exe().context("can't tell where this program is")?;
    let mut build = cargo(["build", "-p", "memcell-fuzz", "--bin", "memcell-fuzz", "--features", FEATURE])?;
    build.env("RUSTC_WORKSPACE_WRAPPER", this).env(WRAPPER_VARIABLE, "1");
    if release {
        build.arg("--release");
    }
    step("building the fuzzer", || run(&mut build))?;
    Ok(workspace::target_dir()?.join(if release { "release" } else { "debug" }).join("memcell-fuzz"))
}

fn corpus(target: &str) -> PathBuf {
    workspace::root().join("tests/fuzz/corpus").join(target)
}

/// Where inputs are that this machine has found.
fn found(target: &str) -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("fuzz").join(target);
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(folder)
}

fn fuzz(fuzzer: &Path, target: &str, seconds: u32) -> Result<()> {
    let found = found(target)?;
    let broken = found.with_extension("broken-");
    let mut command = libfuzzer(fuzzer, target);
    command.arg(format!("-max_total_time={seconds}"));
    // A single input that takes this long is a finding, as is one that takes this much memory.
    command.args(["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", "-print_funcs=0", "-verbosity=0"]);
    command.arg(format!("-artifact_prefix={}", broken.display()));
    let dictionary = workspace::root().join("tests/fuzz/dictionaries").join(target);
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.arg(found).arg(corpus(target));
    step(&format!("fuzzing {target} for {seconds} s"), || run(&mut command)).with_context(|| {
        format!("an input breaks {target}: put {}* into {}", broken.display(), corpus(target).display())
    })
}

/// Adds to the corpus what has been found and goes beyond it.
fn merge(fuzzer: &Path, target: &str) -> Result<()> {
    let mut command = libfuzzer(fuzzer, target);
    command.args(["-merge=1", "-verbosity=0"]).arg(corpus(target)).arg(found(target)?);
    step(&format!("adding to the corpus of {target}"), || run(&mut command))
}

fn libfuzzer(fuzzer: &Path, target: &str) -> Command {
    let mut command = Command::new(fuzzer);
    command.env("MEMCELL_FUZZ_TARGET", target).env(workspace::COMPONENTS_VARIABLE, workspace::components());
    // A configuration may name it as a file to be read.
    command.stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_code_is_instrumented() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(is_instrumented(&words("--crate-name memcell_host --edition=2024 host/src/lib.rs")));
        assert!(!is_instrumented(&words("--crate-name memcell_tests --edition=2024 tests/src/lib.rs")));
        assert!(!is_instrumented(&words("- --crate-name ___ --print=file-names")));
        assert!(!is_instrumented(&words("-vV")));
    }

    #[test]
    fn every_target_has_a_corpus() {
        for target in TARGETS {
            assert!(corpus(target).is_dir(), "{}", corpus(target).display());
        }
    }
}
