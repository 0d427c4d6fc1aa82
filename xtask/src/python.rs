//! Python: environments with pinned packages, in the user's cache, and the client in `clients/python`, which is tested and
//! checked in one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::args::Args;
use crate::process::{cargo, output, run, run_last, step};
use crate::{plugins, redis, setup, workspace};

pub(crate) const SUMMARY: &str = "test and check the Python client";
pub(crate) const HELP: &str = "\
usage: cargo xtask python [WORD…]

Builds the `memcell` program, installs the pinned test requirements of clients/python into an environment in the user's cache
(~/.cache/memcell), and runs the client's tests against a real host, then mypy and ruff. `cargo xtask test` does the same
among all others, and `cargo xtask lint` the checks.

  WORD   run only the tests whose names contain one of these, and no checks
";

/// Runs the command.
pub(crate) fn command(args: Args) -> Result<()> {
    let words = args.rest()?;
    setup::ensure()?;
    redis::ensure()?;
    plugins::build(false)?;
    step("building the host", || run(&mut cargo(["build", "-p", "memcell-host", "--bin", "memcell"])?))?;
    if words.is_empty() {
        test()?;
        return check();
    }
    run_last(pytest()?.arg("-k").arg(words.join(" or ")))
}

/// Runs the client's tests. The host and its plugins have been built.
///
/// # Errors
/// If the environment can't be made, or a test fails.
pub(crate) fn test() -> Result<()> {
    let mut pytest = pytest()?;
    step("tests of the Python client", || run(&mut pytest))
}

/// Types, lints and format of the client, and whether its synchronous half is what its asynchronous half makes.
///
/// # Errors
/// If the environment can't be made, or something is to be mended.
pub(crate) fn check() -> Result<()> {
    let tools = environment()?;
    step("types of the Python client", || run(in_client(&tools, "mypy").arg("--no-error-summary")))?;
    step("lints of the Python client", || run(in_client(&tools, "ruff").args(["check", "--quiet"])))?;
    let format = "formatting of the Python client (mend it with `ruff format`)";
    step(format, || run(in_client(&tools, "ruff").args(["format", "--check", "--quiet"])))?;
    run(in_client(&tools, "python").args(["tools/unasync.py", "--check"]))
}

fn pytest() -> Result<Command> {
    let tools = environment()?;
    let mut pytest = in_client(&tools, "pytest");
    let program = workspace::target_dir()?.join("debug").join("memcell");
    pytest.env("MEMCELL_PROGRAM", program).env(workspace::COMPONENTS_VARIABLE, workspace::components());
    pytest.args(["--quiet", "-o"]).arg(format!("cache_dir={}", tools.join("pytest").display()));
    Ok(pytest)
}

/// A program of the environment, in the client's folder. It leaves nothing there.
fn in_client(tools: &Path, program: &str) -> Command {
    let mut command = Command::new(tools.join("venv/bin").join(program));
    command.current_dir(folder());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("MYPY_CACHE_DIR", tools.join("mypy")).env("RUFF_CACHE_DIR", tools.join("ruff"));
    command
}

fn folder() -> PathBuf {
    workspace::root().join("clients/python")
}

fn environment() -> Result<PathBuf> {
    let tools = workspace::cache()?.join("tools").join("python-client");
    venv(&folder().join("requirements.txt"), &tools, "testing the Python client", (3, 11))?;
    Ok(tools)
}

/// Makes sure that `tools/venv` has the packages that `pins` names, with their digests.
///
/// # Errors
/// If there is no Python of at least that version and none can be installed, or a package can't be had.
pub(crate) fn venv(pins: &Path, tools: &Path, what_for: &str, (major, minor): (u32, u32)) -> Result<()> {
    ensure(pins, tools, &format!("Python packages for {what_for}"), || {
        let is_fit = |code: &str| output(Command::new("python3").args(["-c", code])).is_some();
        if !is_fit("import ensurepip, venv") {
            setup::install(&["python3", "python3-venv"], what_for, "put a `python3` with `venv` on PATH")?;
        }
        if !is_fit(&format!("import sys; assert sys.version_info >= ({major}, {minor})")) {
            bail!("the `python3` on PATH is older than {major}.{minor}, which {what_for} needs: put a newer one first");
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(tools.join("venv")))?;
        let mut pip = Command::new(tools.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]);
        run(pip.arg("--requirement").arg(pins)).with_context(|| {
            format!("the packages in {} can't be installed: is a Python package index within reach?", pins.display())
        })
    })
}

/// Runs `install` unless what is in `tools` is what `pins` asks for.
///
/// # Errors
/// Those of `install`, and of the files.
pub(crate) fn ensure(pins: &Path, tools: &Path, what: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read(pins).with_context(|| format!("can't read {}", pins.display()))?;
    let installed = tools.join("installed");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    match fs::remove_dir_all(tools) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't remove {}", tools.display()));
        }
        _ => {}
    }
    fs::create_dir_all(tools).with_context(|| format!("can't make {}", tools.display()))?;
    step(&format!("installing {what} (once for this user)"), install)?;
    fs::write(&installed, wanted).with_context(|| format!("can't write {}", installed.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_is_installed_once() {
        let folder = std::env::temp_dir().join(format!("xtask-python-{}", std::process::id()));
        let (pins, tools) = (folder.join("pins"), folder.join("tools"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(&pins, "1.0").unwrap();
        assert!(ensure(&pins, &tools, "a tool", || bail!("no network")).is_err());
        let installs = std::cell::Cell::new(0);
        let install = || {
            installs.set(installs.get() + 1);
            Ok(())
        };
        for _ in 0..2 {
            ensure(&pins, &tools, "a tool", install).unwrap();
        }
        assert_eq!(installs.get(), 1);
        fs::write(&pins, "1.1").unwrap();
        ensure(&pins, &tools, "a tool", install).unwrap();
        assert_eq!(installs.get(), 2);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_package_of_the_client_is_pinned_with_a_digest() {
        let pins = fs::read_to_string(folder().join("requirements.txt")).unwrap();
        let pinned =
            |name: &str| pins.lines().any(|line| line.starts_with(&format!("{name}==")) && line.ends_with('\\'));
        for name in ["anyio", "hatchling", "httpx", "mypy", "pytest", "ruff"] {
            assert!(pinned(name), "{name}");
        }
    }
}
