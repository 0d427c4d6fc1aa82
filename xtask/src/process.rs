//! Running other programs: cargo with the right environment, long steps announced and timed, failures that name the command.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::workspace;

/// A program that ran and answered with a failure.
#[derive(Debug)]
pub(crate) struct ChildFailed {
    command: String,
    status: ExitStatus,
    /// It is what the whole command was about (a test runner, the demo) and its own last words need no addition.
    pub(crate) is_runner: bool,
}

impl fmt::Display for ChildFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed ({})", self.command, self.status)
    }
}

impl std::error::Error for ChildFailed {}

/// `cargo` in the root of the workspace, building into [`workspace::target_dir`], with [`workspace::COMPONENTS_VARIABLE`] set
/// for whatever it runs.
///
/// # Errors
/// If there is no place to build into.
pub(crate) fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command.current_dir(workspace::root());
    command.env("CARGO_TARGET_DIR", workspace::target_dir()?);
    command.env(workspace::COMPONENTS_VARIABLE, workspace::components());
    // `cargo run` describes this package in the environment. Build scripts that watch these variables would run again, and
    // what depends on them be compiled again, each time a command changes between `cargo xtask …` and plain `cargo …`.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs a command to its end, its output going where ours goes.
///
/// # Errors
/// If it can't be started, or [`ChildFailed`].
pub(crate) fn run(command: &mut Command) -> Result<()> {
    finish(command, false)
}

/// Like [`run`], for the program that the whole command is about: if it fails, nothing is printed after its own output.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_last(command: &mut Command) -> Result<()> {
    finish(command, true)
}

/// Puts a program in the place of this process: a Ctrl-C is then that program's alone, and whoever waits for this command waits
/// until that program has cleaned up.
///
/// # Errors
/// If it can't be started.
#[cfg(unix)]
pub(crate) fn become_or_run(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;

    Err(command.exec()).with_context(|| format!("can't run `{}`", shown(command)))
}

/// As [`run_last`], where a process can't take another one's place.
///
/// # Errors
/// As [`run_last`].
#[cfg(not(unix))]
pub(crate) fn become_or_run(command: &mut Command) -> Result<()> {
    run_last(command)
}

/// What a command prints to its standard output, trimmed; `None` if it can't be started or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Announces `what`, does it, and says how long it took if that was worth waiting for.
///
/// # Errors
/// Those of `work`, with `what` in front.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(what);
    let start = Instant::now();
    let done = work().with_context(|| what.to_owned())?;
    let elapsed = start.elapsed();
    if elapsed >= Duration::from_secs(5) {
        say(&format!("{what}: done in {}", readable(elapsed)));
    }
    Ok(done)
}

/// One line of progress. It goes to standard error, in step with what cargo prints.
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// The command as somebody would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let mut text = program.file_stem().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        text.push(' ');
        if arg.is_empty() || arg.contains(char::is_whitespace) {
            text.push_str(&format!("{arg:?}"));
        } else {
            text.push_str(&arg);
        }
    }
    text
}

fn finish(command: &mut Command, is_runner: bool) -> Result<()> {
    let status = command.status().with_context(|| format!("can't run `{}`", shown(command)))?;
    if status.success() { Ok(()) } else { Err(failed(command, status, is_runner)) }
}

/// The error for a command that ended with `status`.
pub(crate) fn failed(command: &Command, status: ExitStatus, is_runner: bool) -> anyhow::Error {
    ChildFailed { command: shown(command), status, is_runner }.into()
}

fn readable(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_the_status() {
        let mut command = cargo(["no-such-command", "a b"]).unwrap();
        let error = run(command.stderr(Stdio::null())).unwrap_err();
        let failed = error.downcast_ref::<ChildFailed>().unwrap();
        assert!(failed.to_string().starts_with("`cargo no-such-command \"a b\"` failed"), "{failed}");
        assert!(!failed.is_runner);
        assert!(run(&mut Command::new("no-such-program")).unwrap_err().to_string().contains("`no-such-program`"));
    }

    #[test]
    fn the_package_of_this_program_is_not_the_childs() {
        let command = cargo(["build"]).unwrap();
        let name = command.get_envs().find(|(name, _)| *name == "CARGO_PKG_NAME");
        assert_eq!(name.map(|(_, value)| value), Some(None));
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(readable(Duration::from_millis(59_900)), "59 s");
        assert_eq!(readable(Duration::from_secs(61)), "1 min 1 s");
    }
}
