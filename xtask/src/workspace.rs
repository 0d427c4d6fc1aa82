//! Where things are: the checkout, the compiler's output, the built components and the user's cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Names the folder that holds `plugins/NAME.wasm` and `guests/NAME.wasm`. Tests, demo and benchmarks read it; without it they
/// look into `target/` of the checkout, which is also where [`components`] puts them.
pub(crate) const COMPONENTS_VARIABLE: &str = "MEMCELL_COMPONENTS";

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR` if that is set; in CI (`CI` is set) a folder in the user's cache; else
/// `target/` of the checkout.
///
/// CI works on a fresh clone, whose `target/` is empty every time. With the folder in the cache only what changed is compiled
/// again. Nobody but the commands of this crate needs to know: what a test wants to find (the components) never goes there but
/// to [`components`], and what cargo runs (test programs, demo, `memcell`) lies side by side in one folder wherever that is.
///
/// # Errors
/// If there is no home folder to have a cache in.
pub(crate) fn target_dir() -> Result<PathBuf> {
    if let Some(given) = non_empty("CARGO_TARGET_DIR") {
        return Ok(root().join(given));
    }
    if is_ci() { Ok(cache()?.join("target")) } else { Ok(root().join("target")) }
}

/// The folder that receives the components: what `MEMCELL_COMPONENTS` says, else `target/` of the checkout.
///
/// Not the compiler's folder, which clones may share: each clone tests the components of its own sources.
pub(crate) fn components() -> PathBuf {
    root().join(non_empty(COMPONENTS_VARIABLE).unwrap_or_else(|| PathBuf::from("target")))
}

/// This product's folder in the user's cache, `$XDG_CACHE_HOME/memcell` or `~/.cache/memcell`. The host looks for the
/// development server in the same place.
///
/// # Errors
/// If neither variable tells where that is.
pub(crate) fn cache() -> Result<PathBuf> {
    // A relative path is invalid in XDG_CACHE_HOME and has to be ignored (XDG Base Directory Specification).
    if let Some(base) = non_empty("XDG_CACHE_HOME").filter(|base| base.is_absolute()) {
        return Ok(base.join("memcell"));
    }
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = home.context("there is no home folder to keep tools in: set XDG_CACHE_HOME to an absolute path")?;
    Ok(home.join(".cache").join("memcell"))
}

/// Whether this runs for a CI server, which by convention sets `CI`.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Where on `PATH` a program is.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

/// The package name in the `Cargo.toml` of a folder.
///
/// # Errors
/// If the file can't be read or has no `[package]` with a `name`.
pub(crate) fn package_name(folder: &Path) -> Result<String> {
    let manifest = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("can't read {}", manifest.display()))?;
    match name_in(&text) {
        Some(name) => Ok(name),
        None => bail!("{} has no `name` in its [package]", manifest.display()),
    }
}

/// Enough of TOML for the manifests of this workspace: the `name = "…"` between `[package]` and the next table.
fn name_in(manifest: &str) -> Option<String> {
    let package = manifest.lines().map(str::trim).skip_while(|line| *line != "[package]").skip(1);
    package.take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().strip_prefix('"')?;
        (key.trim() == "name").then(|| value.split_once('"').map(|(name, _)| name.to_owned()))?
    })
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file() || file.with_extension("exe").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("wit/kv.wit").is_file());
    }

    #[test]
    fn a_manifest_tells_its_package_name() {
        let manifest = "[dependencies]\nname = \"x\"\n[package]\nversion = \"1\"\nname = \"guest-hang\" # why\n[lib]\nname = \"y\"\n";
        assert_eq!(name_in(manifest).as_deref(), Some("guest-hang"));
        assert_eq!(name_in("[package]\nversion = \"1\"\n[lib]\nname = \"y\"\n"), None);
        assert_eq!(package_name(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap(), "xtask");
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(find_program("cargo").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
    }
}
