//! `cargo xtask demo`: the product on a fresh machine, doing its main job on real documents.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::args::{Args, Usage};
use crate::process::{become_or_run, cargo, run, step};
use crate::{plugins, setup, workspace};

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

    let program = workspace::target_dir()?.join("release").join(format!("demo{}", std::env::consts::EXE_SUFFIX));
    let mut run_demo = Command::new(program);
    run_demo.env(workspace::COMPONENTS_VARIABLE, workspace::components());
    if once {
        run_demo.arg("--once");
    }
    if let Some(data) = data {
        // Before anything is built, which can take minutes.
        if !data.is_file() {
            return Err(Usage::new(format!("--data {}: there is no such file", data.display())).into());
        }
        run_demo.arg("--data").arg(data);
    }
    if let Some(port) = port {
        run_demo.args(["--port", &port]);
    }

    setup::ensure()?;
    plugins::build(false)?;
    step("building the host (a few minutes the first time)", || {
        // In one go, and not run with cargo: what it builds for one package alone can differ in the features of what they share.
        let programs = ["-p", "memcell-host", "--bin", "memcell", "-p", "memcell-tests", "--bin", "demo"];
        run(cargo(["build", "--release"])?.args(programs))
    })?;
    become_or_run(&mut run_demo)
}
