//! Where the built components are. Nothing here builds anything: what is missing is an error that says what to run.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Engine, Plugin, Trials};

/// The component of a plugin, by the name users give it (`in_memory`).
///
/// # Errors
/// If it has not been built.
pub fn plugin(name: &str) -> Result<PathBuf> {
    find(&components(), "plugins", name, "cargo xtask plugins")
}

/// The component of the example backend in another language (`python`).
///
/// # Errors
/// If it has not been built.
pub fn example(language: &str) -> Result<PathBuf> {
    find(&components(), "plugins", &format!("example_{language}"), "cargo xtask plugins --examples")
}

/// The component of a misbehaving guest in `tests/guests`, by its name without `guest-`.
///
/// # Errors
/// If it has not been built.
pub fn guest(name: &str) -> Result<PathBuf> {
    find(&components(), "guests", name, "cargo xtask plugins --guests")
}

/// The component file of a backend that comes from one.
///
/// # Errors
/// If it comes from a registry.
pub fn file_of(config: &BackendConfig) -> Result<&Path> {
    config.plugin.file().with_context(|| format!("{} is no file", config.plugin))
}

/// A backend's plugin, ready to be called directly, without a host around it.
///
/// # Errors
/// If it comes from a registry, can't be loaded, or what it is granted can't be had.
pub fn trials(config: BackendConfig) -> Result<Trials> {
    let engine = Engine::new(Engine::default_cache_directory())?;
    let plugin = Plugin::load(&engine, file_of(&config)?, config.sha256.as_ref())?;
    Ok(Trials::new(plugin, config)?)
}

/// The folder with `plugins/` and `guests/`: what `MEMCELL_COMPONENTS` says, else `target/` of the workspace.
pub fn components() -> PathBuf {
    match env::var_os("MEMCELL_COMPONENTS").filter(|given| !given.is_empty()) {
        Some(given) => workspace().join(given),
        None => workspace().join("target"),
    }
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

fn find(components: &Path, kind: &str, name: &str, how_to_build: &str) -> Result<PathBuf> {
    let file = components.join(kind).join(format!("{name}.wasm"));
    if !file.is_file() {
        bail!("there is no {}: run `{how_to_build}` first", file.display());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_how_to_build_it() {
        let error = guest("no-such-guest").unwrap_err().to_string();
        assert!(error.contains("no-such-guest.wasm") && error.contains("cargo xtask plugins --guests"), "{error}");
    }

    #[test]
    fn the_workspace_is_found() {
        assert!(workspace().join("wit/kv.wit").is_file());
    }
}
