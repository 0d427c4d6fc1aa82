//! The MongoDB server that tests and demo run against: an installed one, or a development server built into the user's cache.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{output, run, step};
use crate::{setup, workspace};

/// The crate of the development server, the version that the tests were written against, and the program in it.
const CRATE: &str = "secantus-mdb";
const VERSION: &str = "0.5.3-beta.196";
const PROGRAM: &str = "secantusd-rs";

/// Makes sure that there is a server and says which.
///
/// `$MEMCELL_MONGOD` comes first, then `mongod` or the development server on `PATH`, then the development server in the cache,
/// which is built if it isn't there in exactly [`VERSION`]. The host's `embedded` server looks in the same places in this order.
///
/// # Errors
/// If `$MEMCELL_MONGOD` isn't a program that runs, or if the development server is needed and can't be built.
pub(crate) fn ensure() -> Result<String> {
    if let Some(given) = env::var_os("MEMCELL_MONGOD").filter(|given| !given.is_empty()) {
        return match version_of(Path::new(&given)) {
            Some(version) => Ok(format!("{} ({version}), named by MEMCELL_MONGOD", given.display())),
            None => {
                bail!("MEMCELL_MONGOD is {}, which doesn't answer to --version: correct or unset it", given.display())
            }
        };
    }
    for program in ["mongod", PROGRAM] {
        if let Some(found) = workspace::find_program(program) {
            return match version_of(&found) {
                Some(version) => Ok(format!("{} ({version})", found.display())),
                None => bail!("{} doesn't answer to --version: mend it or take it off PATH", found.display()),
            };
        }
    }
    let root = development_root()?;
    let program = root.join("bin").join(PROGRAM);
    if !is_wanted(version_of(&program).as_deref()) {
        build(&root)?;
        let version = version_of(&program).unwrap_or_default();
        if !is_wanted(Some(&version)) {
            bail!("{} was built but answers {version:?} to --version, not {VERSION}", program.display());
        }
    }
    Ok(format!("{} ({VERSION}), the development server", program.display()))
}

/// Builds and installs the development server below `root`.
fn build(root: &Path) -> Result<()> {
    setup::build_packages()?;
    // A folder of its own, kept until the build has succeeded: one that was interrupted goes on where it stopped.
    let target = root.join("build");
    let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install.args(["install", CRATE, "--version", VERSION, "--locked", "--force"]);
    // Its manifest asks for a newer Rust than this workspace does, without need.
    install.arg("--ignore-rust-version");
    install.arg("--root").arg(root);
    // Not in the workspace, whose cargo settings are not meant for it.
    install.current_dir(env::temp_dir()).env("CARGO_TARGET_DIR", &target);
    step("building the development MongoDB server (once for this user, about 7 minutes on two cores)", || {
        run(&mut install).context(
            "if the network or a compiler was the reason, mend it and run `cargo xtask setup` again; \
             or install MongoDB and put `mongod` on PATH",
        )
    })?;
    match std::fs::remove_dir_all(&target) {
        // Another setup that ran at the same time was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("can't remove {}", target.display())),
    }
}

/// Below which `bin/` the development server is.
fn development_root() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("tools").join("secantus"))
}

/// The first line that a program answers to `--version`.
fn version_of(program: &Path) -> Option<String> {
    output(Command::new(program).arg("--version"))?.lines().next().map(|line| line.trim().to_owned())
}

fn is_wanted(version_line: Option<&str>) -> bool {
    version_line.is_some_and(|line| line.split_whitespace().any(|word| word == VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_version_will_do() {
        assert!(is_wanted(Some("secantusd-rs 0.5.3-beta.196")));
        assert!(!is_wanted(Some("secantusd-rs 0.5.3-beta.1960")));
        assert!(!is_wanted(Some("")));
        assert!(!is_wanted(None));
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version_of(Path::new("/no/such/mongod")), None);
        assert!(version_of(Path::new("cargo")).is_some_and(|line| line.starts_with("cargo ")));
    }
}
