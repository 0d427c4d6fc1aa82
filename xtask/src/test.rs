//! `cargo xtask test`: all tests, with everything they need set up before.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::args::Args;
use crate::process::{cargo, failed, run, run_last, say, shown, step};
use crate::{browser, examples, fuzz, plugins, prometheus, python, redis, registry, setup, workspace};

pub(crate) const SUMMARY: &str = "run all tests, or those whose names contain a word";
pub(crate) const HELP: &str = "\
usage: cargo xtask test [FILTER…]

Sets up what is missing, builds the components, the examples in other languages, the misbehaving guests and the `memcell`
program, looks for inputs that break something for a short time, and runs the tests of the Python client and those of the
workspace: with cargo-nextest if it is installed, else with `cargo test`. The last lines are the runner's count.

  FILTER   run only the tests of the workspace whose names contain one of these; examples in the documentation are then left
           out, and the Python client (see `cargo xtask python`) and fuzzing (`cargo xtask fuzz`)
";

/// Runs the command.
pub(crate) fn command(args: Args) -> Result<()> {
    let filters = args.rest()?;
    setup::ensure()?;
    redis::ensure()?;
    prometheus::ensure()?;
    registry::ensure()?;
    browser::ensure()?;
    plugins::build(true)?;
    examples::build()?;
    // Cargo only builds a program for the tests of its own package, and the end-to-end tests are another one.
    step("building the host", || run(&mut cargo(["build", "-p", "memcell-host", "--bin", "memcell"])?))?;
    if filters.is_empty() {
        fuzz::briefly()?;
    }
    // Whatever becomes of the client, the tests of the workspace are run, and their count comes last.
    let client = if filters.is_empty() { python::test() } else { Ok(()) };
    if let Err(error) = &client {
        say(&format!("{error:#}; the other tests follow"));
    }
    workspace_tests(&filters)?;
    client
}

fn workspace_tests(filters: &[String]) -> Result<()> {
    if workspace::find_program("cargo-nextest").is_none() {
        return with_cargo_test(filters);
    }
    if filters.is_empty() {
        // Nextest leaves out the examples in the documentation.
        step("examples in the documentation", || run(&mut cargo(["test", "--doc", "--quiet"])?))?;
    }
    say("building and running the tests");
    run_last(cargo(["nextest", "run", "--no-fail-fast"])?.args(filters))
}

/// `cargo test` prints a count for each test program. They are added up, for a reader as well as for CI, into one last line
/// `N passed, N failed, N skipped`.
fn with_cargo_test(filters: &[String]) -> Result<()> {
    let mut command = cargo(["test", "--no-fail-fast"])?;
    if !filters.is_empty() {
        command.args(["--all-targets", "--"]).args(filters);
    }
    let (result, totals) = step("building and running the tests", || tally(command))?;
    writeln!(std::io::stdout(), "{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped)?;
    result
}

/// What several test programs counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Totals {
    /// Adds a line like `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`;
    /// any other line counts nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split(';') {
            match count.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.skipped += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// Runs a command, passes its standard output on line by line, and counts.
fn tally(mut command: Command) -> Result<(Result<()>, Totals)> {
    let name = shown(&command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("can't run `{name}`"))?;
    let mut totals = Totals::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("can't read what `{name}` prints"))?;
            let line = String::from_utf8_lossy(&line);
            writeln!(std::io::stdout(), "{line}")?;
            totals.add(&line);
        }
    }
    let status = child.wait().with_context(|| format!("can't wait for `{name}`"))?;
    let result = if status.success() { Ok(()) } else { Err(failed(&command, status, true)) };
    Ok((result, totals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_test_programs_add_up() {
        let mut totals = Totals::default();
        totals.add("running 5 tests");
        totals.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s");
        totals.add("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!(totals, Totals { passed: 7, failed: 2, skipped: 1 });
    }
}
