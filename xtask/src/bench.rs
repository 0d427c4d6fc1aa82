//! `cargo xtask bench`: measures what the product promises about speed.

use anyhow::Result;

use crate::args::Args;
use crate::process::{cargo, run, run_last, step};
use crate::{examples, plugins, redis, setup};

pub(crate) const SUMMARY: &str = "measure against the promised ratios";
pub(crate) const HELP: &str = "\
usage: cargo xtask bench [NAME…]

Runs the benchmarks whose names contain one of the given words, or all of them. Each compares two ways of doing the
same thing in alternating blocks of one run, prints a table and writes target/bench/NAME.json. It says when the
machine was too noisy to conclude anything: leave it alone meanwhile.
";

/// Runs the command.
pub(crate) fn command(args: Args) -> Result<()> {
    let names = args.rest()?;
    setup::ensure()?;
    redis::ensure()?;
    let with_examples = names.is_empty() || names.iter().any(|name| "examples".contains(name.as_str()));
    plugins::build(with_examples)?;
    if with_examples {
        examples::build()?;
    }
    step("building the benchmarks (a few minutes the first time)", || {
        run(&mut cargo([
            "build",
            "--release",
            "-p",
            "memcell-tests",
            "--bin",
            "bench",
            "-p",
            "memcell-host",
            "--bin",
            "memcell",
        ])?)
    })?;
    let mut bench = cargo(["run", "--release", "--quiet", "-p", "memcell-tests", "--bin", "bench", "--"])?;
    run_last(bench.args(names))
}
