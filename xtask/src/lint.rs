//! `cargo xtask lint`: everything that is checked without running the product.

use std::process::Command;

use anyhow::Result;

use crate::args::Args;
use crate::process::{cargo, run, say, step};
use crate::{fuzz, plugins, python, setup, workspace};

pub(crate) const SUMMARY: &str = "formatting, clippy, documentation, dependencies, layering, the Python client";
pub(crate) const HELP: &str = "\
usage: cargo xtask lint

Formatting, clippy (also for the components, on their own target), documentation, dependencies (with cargo-deny, if it
is installed), the layering of the sources, and types, lints and formatting of the Python client. Warnings are errors.
";

/// Runs the command.
pub(crate) fn command(args: Args) -> Result<()> {
    args.finish()?;
    step("formatting (mend it with `cargo fmt --all`)", || run(&mut cargo(["fmt", "--all", "--check"])?))?;
    fuzz::compiler()?;
    step("clippy", || {
        run(cargo(["clippy", "--all-targets", "--quiet", "--features", fuzz::FEATURE])?.args(DENY_WARNINGS))
    })?;
    setup::wasm_target()?;
    step("clippy of the components", || run(&mut components()?))?;
    step("documentation", || run(cargo(["doc", "--no-deps", "--quiet"])?.env("RUSTDOCFLAGS", "-D warnings")))?;
    dependencies()?;
    step("layering", || run(&mut cargo(["test", "--quiet", "-p", "memcell-tests", "--test", "layering"])?))?;
    python::check()?;
    say("no complaints");
    Ok(())
}

/// What follows the arguments of `cargo clippy`.
const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

/// Clippy for the SDK, the plugins and the guests, compiled for what they run on.
fn components() -> Result<Command> {
    let mut clippy = cargo(["clippy", "--quiet", "--target", setup::WASM_TARGET, "-p", "memcell-plugin"])?;
    for component in plugins::plugins()?.into_iter().chain(plugins::guests()?) {
        clippy.args(["-p", &component.package]);
    }
    clippy.args(DENY_WARNINGS);
    Ok(clippy)
}

/// Licences, sources and duplicates, and, where the database of advisories can be fetched, known vulnerabilities.
fn dependencies() -> Result<()> {
    let is_installed = workspace::find_program("cargo-deny").is_some()
        || std::env::home_dir().is_some_and(|home| home.join(".cargo/bin/cargo-deny").is_file());
    if !is_installed {
        say("dependencies: NOT checked, cargo-deny is not installed (`cargo install --locked cargo-deny`)");
        return Ok(());
    }
    step("dependencies", || run(&mut cargo(["deny", "check", "bans", "licenses", "sources"])?))?;
    if run(&mut cargo(["deny", "fetch", "db"])?).is_ok() {
        step("advisories", || run(&mut cargo(["deny", "check", "--disable-fetch", "advisories"])?))
    } else {
        say("advisories: NOT checked, their database can't be fetched from here");
        Ok(())
    }
}
