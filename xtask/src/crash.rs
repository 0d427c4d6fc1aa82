//! `cargo xtask crash`: kills the host and its servers under load, and compares what is left.

use std::process::Command;

use anyhow::Result;

use crate::args::Args;
use crate::process::{become_or_run, cargo, run, step};
use crate::{plugins, redis, setup, workspace};

pub(crate) const SUMMARY: &str = "kill host and servers under random writes, and compare everything";
pub(crate) const HELP: &str = "\
usage: cargo xtask crash [--kills N] [--seed S] [--backend NAME]

Lets random writes run against a real host, MongoDB and a backend, kills one of the processes with SIGKILL at a random moment,
starts it again, and compares MongoDB with what was acknowledged and the backend with MongoDB; again and again. It takes about
two seconds a kill. The first difference ends it with exit code 1, the seed, and the history of what differs.

  --kills N       how often something is killed, with each backend (20)
  --seed S        repeats the operations, victims and moments of the run that told this seed; without it a random one
  --backend NAME  only this backend: in-memory, file or remote
";

/// Names of backends, as the program takes them.
const BACKENDS: [&str; 3] = ["in-memory", "file", "remote"];

/// Runs the command.
pub(crate) fn command(mut args: Args) -> Result<()> {
    let mut run_crash = Command::new(workspace::target_dir()?.join("debug").join("crash"));
    run_crash.env(workspace::COMPONENTS_VARIABLE, workspace::components());
    if let Some(kills) = args.option("--kills")? {
        if kills.parse::<u32>().is_ok_and(|kills| kills > 0) {
            run_crash.args(["--kills", &kills]);
        } else {
            return Err(args.wrong(format!("--kills {kills:?} is not a number above 0")).into());
        }
    }
    if let Some(seed) = args.option("--seed")? {
        if seed.parse::<u64>().is_err() {
            return Err(args.wrong(format!("--seed {seed:?} is not a number")).into());
        }
        run_crash.args(["--seed", &seed]);
    }
    if let Some(backend) = args.option("--backend")? {
        if !BACKENDS.contains(&backend.as_str()) {
            return Err(args.wrong(format!("--backend {backend:?} is none of {}", BACKENDS.join(", "))).into());
        }
        run_crash.args(["--backend", &backend]);
    }
    args.finish()?;

    setup::ensure()?;
    redis::ensure()?;
    plugins::build(false)?;
    step("building the host", || {
        let programs = ["-p", "memcell-host", "--bin", "memcell", "-p", "memcell-tests", "--bin", "crash"];
        run(cargo(["build"])?.args(programs))
    })?;
    become_or_run(&mut run_crash)
}
