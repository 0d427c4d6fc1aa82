//! `cargo xtask demo`: the product on a fresh machine, doing its main job on real documents.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::args::{Args, Usage};
use crate::process::{cargo, run, step};
use crate::{plugins, setup};

pub(crate) const SUMMARY: &str = "set everything up and show the main job on real documents";
pub(crate) const HELP: &str = "\
usage: cargo xtask demo [--once] [--data FILE] [--port N]

Sets up what is missing, builds everything, starts a private MongoDB server and the host with the in-memory backend,
imports documents and shows what the mirror and its validation do with them.

  --once        show it and end, instead of serving until Ctrl-C
  --data FILE   the documents to import, as `memcell import` takes them; without it a set is generated
  --port N      the port to serve on; without it a free one is taken
";

/// Runs the command.
pub(crate) fn command(mut args: Args) -> Result<()> {
    let once = args.flag("--once");
    let data = args.option("--data")?.map(PathBuf::from);
    let port = args.option("--port")?;
    if let Some(port) = &port
        && port.parse::<u16>().is_err()
    {
        return Err(args.wrong(format!("--port {port:?} is not a port number")).into());
    }
    args.finish()?;

    let mut run_demo = cargo(["run", "--release", "--quiet", "-p", "memcell-tests", "--bin", "demo", "--"])?;
    if once {
        run_demo.arg("--once");
    }
    if let Some(data) = data {
        // Cargo is started in the root of the workspace, the user is somewhere else.
        let file = std::path::absolute(&data).with_context(|| format!("{} is not a path", data.display()))?;
        if !file.is_file() {
            return Err(Usage::new(format!("--data {}: there is no such file", data.display())).into());
        }
        run_demo.arg("--data").arg(file);
    }
    if let Some(port) = port {
        run_demo.args(["--port", &port]);
    }

    setup::ensure()?;
    plugins::build(false)?;
    step("building the host (a few minutes the first time)", || {
        run(&mut cargo(["build", "--release", "-p", "memcell-host", "--bin", "memcell"])?)?;
        run(&mut cargo(["build", "--release", "-p", "memcell-tests", "--bin", "demo"])?)
    })?;
    become_or_run(&mut run_demo)
}

/// Puts the demo in the place of this process: a Ctrl-C is then the demo's alone, and whoever waits for this command waits
/// until the demo has cleaned up.
#[cfg(unix)]
fn become_or_run(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;

    use crate::process::shown;

    Err(command.exec()).with_context(|| format!("can't run `{}`", shown(command)))
}

#[cfg(not(unix))]
fn become_or_run(command: &mut Command) -> Result<()> {
    crate::process::run_last(command)
}
