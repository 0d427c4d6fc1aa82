//! `cargo xtask setup`: whatever a fresh machine lacks for building and testing this repository. Every other command that needs
//! it does the same first; where nothing is missing that takes a fraction of a second.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::args::Args;
use crate::process::{output, run, say, shown, step};
use crate::{browser, prometheus, redis, registry, server, workspace};

pub(crate) const SUMMARY: &str = "install what building and testing need; does nothing where it is all there";
pub(crate) const HELP: &str = "\
usage: cargo xtask setup

Installs what this repository needs beside Rust, and says what it found. Running it again does no harm.

  the wasm32-wasip2 target   with rustup
  a MongoDB server           $MEMCELL_MONGOD, or `mongod` on PATH; else a development server that speaks MongoDB's
                             protocol is built, once, into the user's cache (~/.cache/memcell)
  a Redis server             `redis-server` and `redis-cli` on PATH, version 7 or newer; else Debian's packages
  Prometheus                 `prometheus` and `promtool` on PATH; else Debian's package, whose service is not started
  a registry                 `docker-registry` on PATH; else Debian's package. None is left running
  a browser                  `chromium` and `chromedriver` on PATH; else Debian's packages
  Debian packages            only if they are missing: clang and llvm (for components), redis-server, redis-tools,
                             prometheus, docker-registry, chromium, chromium-driver; and if the development server has
                             to be built: cmake, ninja-build, libclang-dev, pkg-config; as root they are installed, else
                             you are told how to
";

/// What components are compiled for.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// A Debian package, and the program on `PATH` that shows that it is there, however it came.
pub(crate) struct Need {
    pub(crate) package: &'static str,
    pub(crate) program: Option<&'static str>,
}

/// What the development server's C library is built with.
const BUILD_NEEDS: &[Need] = &[
    Need { package: "cmake", program: Some("cmake") },
    Need { package: "ninja-build", program: Some("ninja") },
    Need { package: "clang", program: Some("clang") },
    Need { package: "pkg-config", program: Some("pkg-config") },
    Need { package: "libclang-dev", program: None },
];

/// What the C parts of components are compiled with: the cryptography of the remote plugin has some.
const WASM_NEEDS: &[Need] =
    &[Need { package: "clang", program: Some("clang") }, Need { package: "llvm", program: Some("llvm-ar") }];

/// Runs the command.
pub(crate) fn command(args: Args) -> Result<()> {
    args.finish()?;
    wasm_target()?;
    wasm_compiler()?;
    say(&format!("the Rust target {WASM_TARGET} is there"));
    let server = server::ensure()?;
    say(&format!("MongoDB server: {server}"));
    let redis = redis::ensure()?;
    say(&format!("Redis server: {redis}"));
    let prometheus = prometheus::ensure()?;
    say(&format!("Prometheus: {prometheus}"));
    let registry = registry::ensure()?;
    say(&format!("registry: {registry}"));
    let browser = browser::ensure()?;
    say(&format!("browser: {browser}"));
    Ok(())
}

/// What the commands that run a server need; silent where it is there.
///
/// # Errors
/// As [`wasm_target`] and [`server::ensure`].
pub(crate) fn ensure() -> Result<()> {
    wasm_target()?;
    server::ensure()?;
    Ok(())
}

/// Adds the target that components are compiled for.
///
/// # Errors
/// If it is missing and can't be installed.
pub(crate) fn wasm_target() -> Result<()> {
    if has_wasm_target() {
        return Ok(());
    }
    if workspace::find_program("rustup").is_none() {
        bail!(
            "the Rust target {WASM_TARGET} is missing and there is no rustup to add it: \
             install the {WASM_TARGET} standard library of your Rust, or use rustup (https://rustup.rs)"
        );
    }
    step(&format!("adding the Rust target {WASM_TARGET}"), || {
        run(Command::new("rustup").current_dir(workspace::root()).args(["target", "add", WASM_TARGET]))
            .with_context(|| format!("run `rustup target add {WASM_TARGET}` yourself and see what it says"))
    })
}

/// Installs the C compiler for components if it is missing.
///
/// # Errors
/// As [`packages`].
pub(crate) fn wasm_compiler() -> Result<()> {
    packages(WASM_NEEDS, "compiling the remote plugin", "put clang (with the target wasm32) and llvm-ar on PATH")
}

/// Asks the compiler, so that a Rust without rustup counts as well.
fn has_wasm_target() -> bool {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(workspace::root()).args(["--print", "target-libdir", "--target", WASM_TARGET]);
    let Some(folder) = output(&mut rustc) else { return false };
    let Ok(files) = Path::new(&folder).read_dir() else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Installs the packages that the development server is built with and that are missing.
///
/// # Errors
/// As [`packages`].
pub(crate) fn build_packages() -> Result<()> {
    packages(BUILD_NEEDS, "building the development MongoDB server", "install MongoDB and put `mongod` on PATH")
}

/// Installs what is missing of `needs`.
///
/// # Errors
/// As [`install`].
pub(crate) fn packages(needs: &[Need], what_for: &str, instead: &str) -> Result<()> {
    let missing: Vec<&str> = needs.iter().filter(|need| !is_there(need)).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing, what_for, instead)
}

/// Installs Debian packages.
///
/// # Errors
/// If this isn't root on a Debian-like system: the text says that `what_for` needs the packages, how to get them, and what
/// would do `instead`. If apt-get fails.
pub(crate) fn install(packages: &[&str], what_for: &str, instead: &str) -> Result<()> {
    if workspace::find_program("apt-get").is_none() {
        bail!(
            "{what_for} needs what Debian calls {}: install them with your system's package manager, or {instead}",
            packages.join(", ")
        );
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    if !is_root() {
        bail!(
            "{what_for} needs Debian packages; run `sudo apt-get update && sudo {}` and then this again, or {instead}",
            shown(&install)
        );
    }
    step(&format!("installing Debian packages: {}", packages.join(", ")), || {
        run(Command::new("apt-get").arg("update").env("DEBIAN_FRONTEND", "noninteractive"))?;
        run(&mut install)
    })
}

fn is_there(need: &Need) -> bool {
    if need.program.is_some_and(|program| workspace::find_program(program).is_some()) {
        return true;
    }
    if need.package == "libclang-dev" && env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", need.package]);
    match output(&mut query) {
        Some(status) => status == "installed",
        // Where there is no dpkg, a library can't be looked for; if it is missing, the build says so.
        None => need.program.is_none() && workspace::find_program("dpkg-query").is_none(),
    }
}

/// Whether packages can be installed by this process.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_some_and(|id| id == "0")
}
