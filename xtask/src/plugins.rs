//! `cargo xtask plugins`: compiles the WebAssembly components and puts them where host, tests and examples look for them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::args::Args;
use crate::process::{cargo, run, say, step};
use crate::{examples, setup, workspace};

pub(crate) const SUMMARY: &str = "build the WebAssembly components into target/plugins";
pub(crate) const HELP: &str = "\
usage: cargo xtask plugins [--guests] [--examples]

Compiles every crate in plugins/ (but the SDK and the examples) to a component: plugins/in-memory becomes
target/plugins/in_memory.wasm. A file whose contents would not change is left alone.

  --guests     also the misbehaving guests of the tests: tests/guests/hang becomes target/guests/hang.wasm
  --examples   also the backends in other languages: plugins/examples/python becomes target/plugins/example_python.wasm.
               Their toolchains are installed into the user's cache if they aren't there; Python 3.10 and Node.js 20 or
               newer are needed for that, and on a Debian-like system installed as well if this is root.

$MEMCELL_COMPONENTS names another folder than target/ to put plugins/ and guests/ in.
";

/// Folders in `plugins/` that aren't components of this workspace.
const NOT_COMPONENTS: &[&str] = &["sdk", "examples"];

/// A crate that becomes a component.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Component {
    /// The name of its package, like `memcell-in-memory`.
    pub(crate) package: String,
    /// `plugins` or `guests`.
    kind: &'static str,
}

impl Component {
    /// The name of the file that users refer to, like `in_memory.wasm`.
    fn file_name(&self) -> String {
        let name = self.package.strip_prefix("memcell-").or_else(|| self.package.strip_prefix("guest-"));
        format!("{}.wasm", name.unwrap_or(&self.package).replace('-', "_"))
    }

    /// The name that cargo gives it.
    fn artifact_name(&self) -> String {
        format!("{}.wasm", self.package.replace('-', "_"))
    }
}

/// Runs the command.
pub(crate) fn command(mut args: Args) -> Result<()> {
    let guests = args.flag("--guests");
    let with_examples = args.flag("--examples");
    args.finish()?;
    setup::wasm_target()?;
    let mut files = build(guests)?;
    if with_examples {
        files.extend(examples::build()?);
    }
    for file in files {
        say(&format!("built {}", file.display()));
    }
    Ok(())
}

/// Builds all plugins, and the tests' guests if asked to, and returns where they are.
///
/// # Errors
/// If one doesn't compile, isn't a component, or can't be copied.
pub(crate) fn build(guests: bool) -> Result<Vec<PathBuf>> {
    let mut components = plugins()?;
    if guests {
        components.extend(self::guests()?);
    }
    if components.is_empty() {
        return Ok(Vec::new());
    }
    setup::wasm_compiler()?;
    let mut build = cargo(["build", "--profile", "plugin", "--target", setup::WASM_TARGET])?;
    for component in &components {
        build.args(["-p", &component.package]);
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", rust_flags());
    step("building the WebAssembly components", || run(&mut build))?;
    let built = workspace::target_dir()?.join(setup::WASM_TARGET).join("plugin");
    components.iter().map(|component| publish(component, &built, &workspace::components())).collect()
}

/// The compiler's flags for components: the user's own, and that no folder of this machine is named in them. A panic tells where
/// it happened, and the same sources should make the same component everywhere.
fn rust_flags() -> String {
    let given = env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    flags.extend(cargo_home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    flags.push(format!("--remap-path-prefix={}=memcell", workspace::root().display()));
    flags.join("\u{1f}")
}

/// The plugins of the workspace.
///
/// # Errors
/// If a folder or a manifest can't be read.
pub(crate) fn plugins() -> Result<Vec<Component>> {
    discover(&workspace::root().join("plugins"), "plugins", NOT_COMPONENTS)
}

/// The guests that the tests load.
///
/// # Errors
/// If a folder or a manifest can't be read.
pub(crate) fn guests() -> Result<Vec<Component>> {
    discover(&workspace::root().join("tests/guests"), "guests", &[])
}

/// The crates directly in `folder`, by name.
fn discover(folder: &Path, kind: &'static str, except: &[&str]) -> Result<Vec<Component>> {
    let entries = fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))?;
    let mut components = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("can't list {}", folder.display()))?.path();
        let is_excluded = path.file_name().is_some_and(|name| except.iter().any(|except| name == *except));
        if !is_excluded && path.join("Cargo.toml").is_file() {
            components.push(Component { package: workspace::package_name(&path)?, kind });
        }
    }
    components.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(components)
}

/// Copies what cargo built to where it is looked for.
fn publish(component: &Component, built: &Path, components: &Path) -> Result<PathBuf> {
    let artifact = built.join(component.artifact_name());
    if !artifact.is_file() {
        bail!(
            "{} was compiled but there is no {}: its Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`",
            component.package,
            artifact.display()
        );
    }
    let bytes = fs::read(&artifact).with_context(|| format!("can't read {}", artifact.display()))?;
    place(&bytes, &components.join(component.kind), &component.file_name())
}

/// Makes `folder/file_name` contain `bytes`.
///
/// # Errors
/// If it can't be written.
pub(crate) fn place(bytes: &[u8], folder: &Path, file_name: &str) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let file = folder.join(file_name);
    // A host that runs may have the file open, and caches are keyed by its time: what didn't change isn't touched.
    if fs::read(&file).is_ok_and(|present| present == bytes) {
        return Ok(file);
    }
    // Renamed into place, so that nobody ever reads half a component.
    let partial = file.with_extension(format!("wasm.{}", std::process::id()));
    fs::write(&partial, bytes).with_context(|| format!("can't write {}", partial.display()))?;
    fs::rename(&partial, &file).with_context(|| format!("can't replace {}", file.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(package: &str) -> Component {
        Component { package: package.to_owned(), kind: "plugins" }
    }

    #[test]
    fn files_are_named_after_what_users_call_them() {
        assert_eq!(component("memcell-in-memory").file_name(), "in_memory.wasm");
        assert_eq!(component("guest-hang").file_name(), "hang.wasm");
        assert_eq!(component("other").file_name(), "other.wasm");
    }

    #[test]
    fn the_workspace_has_plugins_and_the_sdk_is_none() {
        let found = plugins().unwrap();
        assert!(found.contains(&component("memcell-in-memory")), "{found:?}");
        assert!(!found.contains(&component("memcell-plugin")), "{found:?}");
    }

    #[test]
    fn an_unchanged_file_is_not_touched() {
        let folder = env::temp_dir().join(format!("xtask-publish-{}", std::process::id()));
        let built = folder.join("built");
        fs::create_dir_all(&built).unwrap();
        fs::write(built.join("memcell_a.wasm"), b"one").unwrap();
        let file = publish(&component("memcell-a"), &built, &folder).unwrap();
        assert_eq!(file, folder.join("plugins/a.wasm"));
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        publish(&component("memcell-a"), &built, &folder).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), long_ago);
        fs::write(built.join("memcell_a.wasm"), b"two").unwrap();
        publish(&component("memcell-a"), &built, &folder).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let missing = publish(&component("memcell-b"), &built, &folder).unwrap_err();
        assert!(missing.to_string().contains("cdylib"), "{missing}");
        fs::remove_dir_all(folder).unwrap();
    }
}
