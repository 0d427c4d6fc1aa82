//! From a file, or what a registry has, to a component that can be instantiated: every reason why it can't be is found here, before anything runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};

use super::bindings::{OPTIONAL_INTERFACES, PACKAGE, REQUIRED_INTERFACES, VERSION};
use super::engine::Engine;
use super::error::LoadError;
use super::guest::{ContractPre, GuestPre};
use super::keyvalue::{self, Draft, KeyValuePre};
use super::sandbox::{self, Sandbox};
use crate::config::{BackendConfig, LimitsConfig, PluginSource};
use crate::hex;
use crate::metrics::BackendMetrics;
use crate::oci::Components;

/// A checked and compiled plugin.
#[derive(Clone)]
pub struct Plugin {
    pub(super) guest: GuestPre,
    /// Keeps the clock going that deadlines depend on.
    _engine: Engine,
    path: PathBuf,
    sha256: String,
}

impl Plugin {
    /// Reads, checks and compiles the component at `path`, within the default limits. With a compile cache this takes
    /// milliseconds from the second time on; without, up to seconds: call it where blocking is allowed.
    ///
    /// # Errors
    /// Each way a file can fail to be a backend has its own [`LoadError`].
    pub fn load(engine: &Engine, path: &Path, expected_sha256: Option<&[u8; 32]>) -> Result<Self, LoadError> {
        Self::load_within(engine, path, expected_sha256, &LimitsConfig::default())
    }

    /// As [`Plugin::obtain`]; what goes wrong is counted among the failures of the backend.
    ///
    /// # Errors
    /// As [`Plugin::obtain`].
    pub async fn load_for(
        engine: &Engine,
        config: &BackendConfig,
        metrics: &BackendMetrics,
    ) -> Result<Self, LoadError> {
        Self::obtain(engine, config).await.inspect_err(|error| metrics.kv_failure(error.label()))
    }

    /// The plugin of a backend, within its limits: from its file, or from its registry by way of the user's cache.
    /// What blocks is done on threads for that.
    ///
    /// # Errors
    /// As [`Plugin::load`]; [`LoadError::Registry`] if the registry doesn't give it.
    pub async fn obtain(engine: &Engine, config: &BackendConfig) -> Result<Self, LoadError> {
        let (engine, sha256, limits) = (engine.clone(), config.sha256, config.limits.clone());
        match &config.plugin {
            PluginSource::File(path) => {
                let path = path.clone();
                blocking(move || Self::load_within(&engine, &path, sha256.as_ref(), &limits)).await
            }
            PluginSource::Oci(plugin) => {
                let fetched = Components::of_user().fetch(plugin, limits.component).await?;
                let origin = PathBuf::from(fetched.reference.to_string());
                blocking(move || Self::from_bytes(&engine, &origin, fetched.bytes, sha256.as_ref(), &limits)).await
            }
        }
    }

    /// As [`Plugin::load`], within `limits`: no more than `component` bytes of the file are ever read, and the compiler is
    /// waited for no longer than `compile_timeout`.
    ///
    /// The compiler can't be interrupted. One that is too slow goes on, on a thread of its own, until it is done or the
    /// process ends, and nobody wants its result any more but the cache.
    ///
    /// # Errors
    /// As [`Plugin::load`].
    pub fn load_within(
        engine: &Engine,
        path: &Path,
        expected_sha256: Option<&[u8; 32]>,
        limits: &LimitsConfig,
    ) -> Result<Self, LoadError> {
        Self::from_bytes(engine, path, read_component(path, limits.component)?, expected_sha256, limits)
    }

    /// As [`Plugin::load_within`], of a component that has been read; `path` says where, for messages.
    ///
    /// # Errors
    /// As [`Plugin::load`].
    pub fn from_bytes(
        engine: &Engine,
        path: &Path,
        bytes: Vec<u8>,
        expected_sha256: Option<&[u8; 32]>,
        limits: &LimitsConfig,
    ) -> Result<Self, LoadError> {
        let sha256 = hex::encode(&Sha256::digest(&bytes));
        if let Some(expected) = expected_sha256.map(|digest| hex::encode(digest))
            && expected != sha256
        {
            return Err(LoadError::Digest { path: path.to_path_buf(), expected, actual: sha256 });
        }
        check_is_component(path, &bytes)?;
        let component = compile(engine, path, bytes, limits.compile_timeout)?;
        let component_type = component.component_type();
        let exports: Vec<&str> = component_type.exports(&engine.inner).map(|(name, _)| name).collect();
        let kind = kind(path, &exports)?;
        let linker = linker(engine)?;
        check_imports(engine, path, &component, &linker)?;
        let wrong_shape = |error: wasmtime::Error| LoadError::WrongShape {
            path: path.to_path_buf(),
            reason: super::error::shown(&format!("{error:#}")),
        };
        let pre = linker.instantiate_pre(&component).map_err(wrong_shape)?;
        let guest = match kind {
            Kind::Contract => {
                let has = |interface: &str| exports.contains(&contract_interface(interface).as_str());
                GuestPre::Contract(ContractPre::new(pre, has).map_err(wrong_shape)?)
            }
            Kind::KeyValue(draft) => {
                let plain = KeyValuePre::new(pre, draft);
                let wrong_shape = |reason| LoadError::WrongShape { path: path.to_path_buf(), reason };
                GuestPre::KeyValue(plain.map_err(wrong_shape)?)
            }
        };
        Ok(Self { guest, _engine: engine.clone(), path: path.to_path_buf(), sha256 })
    }

    /// The interfaces that make it a backend, with their versions: those of the contract, or those of a plain `wasi:keyvalue`
    /// component.
    pub fn interfaces(&self) -> Vec<String> {
        match &self.guest {
            GuestPre::Contract(_) => {
                let optional = [self.guest.has_digests(), self.guest.has_fencing(), self.guest.has_two_phase()];
                let optional =
                    OPTIONAL_INTERFACES.into_iter().zip(optional).filter_map(|(name, is)| is.then_some(name));
                REQUIRED_INTERFACES.into_iter().chain(optional).map(contract_interface).collect()
            }
            GuestPre::KeyValue(plain) => plain.interfaces(),
        }
    }

    /// Whether it exports `two-phase`.
    pub fn has_two_phase(&self) -> bool {
        self.guest.has_two_phase()
    }

    /// The file it was read from; of one from a registry, the reference.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 digest of the component, 64 lowercase hexadecimal digits: what `sha256` in the configuration pins.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// The preamble that all WebAssembly binaries begin with.
const WASM_MAGIC: &[u8] = b"\0asm";
/// The version (2 bytes) and layer (2 bytes) after the magic: layer 0 is a core module, layer 1 a component.
const CORE_MODULE_LAYER: &[u8] = &[0, 0];

fn check_is_component(path: &Path, bytes: &[u8]) -> Result<(), LoadError> {
    if !bytes.starts_with(WASM_MAGIC) {
        let start: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let start = if start.is_empty() { "nothing (the file is empty)".into() } else { start.join(" ") };
        return Err(LoadError::NotWasm { path: path.to_path_buf(), start });
    }
    if bytes.get(6..8) == Some(CORE_MODULE_LAYER) {
        return Err(LoadError::CoreModule { path: path.to_path_buf() });
    }
    Ok(())
}

/// Reads a file, but never more than `limit` bytes of it, whatever its length claims to be.
///
/// # Errors
/// If it can't be read, is no regular file, or longer.
pub fn read_component(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_path_buf(), source };
    let too_large = || LoadError::TooLarge { path: path.to_path_buf(), limit_bytes: limit };
    if length_of_file(path)? > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let count = file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if count as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// How long a file is. Asked before it is opened: a named pipe would hold up the one who opens it.
///
/// # Errors
/// If there is none, or something else than a regular file.
fn length_of_file(path: &Path) -> Result<u64, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_path_buf(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    Ok(metadata.len())
}

/// What Wasmtime 48 says when the system doesn't let it make compiled code executable; it has no type for that.
const NOT_EXECUTABLE: &str = "failed to make memory executable";

fn compile(engine: &Engine, path: &Path, bytes: Vec<u8>, limit: Duration) -> Result<Component, LoadError> {
    let invalid = |reason: String| LoadError::Invalid { path: path.to_path_buf(), reason };
    let (done, result) = mpsc::sync_channel(1);
    let engine = engine.inner.clone();
    std::thread::Builder::new()
        .name("kv-compile".into())
        .spawn(move || {
            // After the timeout nobody waits for it any more.
            let _ = done.send(Component::from_binary(&engine, &bytes));
        })
        .map_err(|error| LoadError::Engine(error.to_string()))?;
    match result.recv_timeout(limit) {
        Ok(compiled) => compiled.map_err(|error| {
            let reason = super::error::shown(&format!("{error:#}"));
            if error.chain().any(|cause| cause.to_string() == NOT_EXECUTABLE) {
                return LoadError::NotExecutable { path: path.to_path_buf(), reason };
            }
            invalid(reason)
        }),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(LoadError::CompileTimeout { path: path.to_path_buf(), limit }),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(invalid("the compiler crashed on it".into())),
    }
}

/// What a component is a backend by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The contract, which goes first if both are there.
    Contract,
    /// The interfaces of a plain store, for which the host keeps the contract.
    KeyValue(Draft),
}

/// Tells the kind of a component by the names of its exports.
fn kind(path: &Path, exports: &[&str]) -> Result<Kind, LoadError> {
    let of_any_version = |interface: &str| {
        exports.iter().copied().find(|name| name.split('@').next().is_some_and(|unversioned| unversioned == interface))
    };
    let wrong_version = |found: &str, needed: String| {
        Err(LoadError::WrongVersion { path: path.to_path_buf(), found: found.to_owned(), needed })
    };
    let missing = |missing: String| {
        let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        Err(LoadError::MissingExport { path: path.to_path_buf(), missing, exports })
    };
    let plain_store = format!("{}/store", keyvalue::PACKAGE);
    if !exports.iter().any(|name| name.starts_with(&format!("{PACKAGE}/"))) {
        let drafts = || Draft::ALL.map(|draft| draft.interface("store")).join(" or ");
        let Some(found) = of_any_version(&plain_store) else {
            let [first, ..] = REQUIRED_INTERFACES.map(contract_interface);
            return missing(format!("{first}, nor {} in its place", drafts()));
        };
        let Some(draft) = Draft::ALL.into_iter().find(|draft| draft.interface("store") == found) else {
            return wrong_version(found, drafts());
        };
        return match of_any_version(&format!("{}/batch", keyvalue::PACKAGE)) {
            Some(batch) if batch != draft.interface("batch") => wrong_version(batch, draft.interface("batch")),
            _ => Ok(Kind::KeyValue(draft)),
        };
    }
    for interface in REQUIRED_INTERFACES {
        let needed = contract_interface(interface);
        if exports.contains(&needed.as_str()) {
            continue;
        }
        return match of_any_version(&format!("{PACKAGE}/{interface}")) {
            Some(found) => wrong_version(found, needed),
            None => missing(needed),
        };
    }
    Ok(Kind::Contract)
}

fn contract_interface(interface: &str) -> String {
    format!("{PACKAGE}/{interface}@{VERSION}")
}

/// Names the import that nothing here satisfies, which the engine's own text buries.
fn check_imports(
    engine: &Engine,
    path: &Path,
    component: &Component,
    linker: &Linker<Sandbox>,
) -> Result<(), LoadError> {
    let Err(error) = linker.instantiate_pre(component) else { return Ok(()) };
    let text = format!("{error:#}");
    let component_type = component.component_type();
    let mut imports = component_type.imports(&engine.inner).map(|(name, _)| name.to_owned());
    match imports.find(|name| text.contains(&format!("`{name}`"))) {
        Some(import) => Err(LoadError::UnsatisfiedImport { path: path.to_path_buf(), import }),
        None => Err(LoadError::WrongShape { path: path.to_path_buf(), reason: super::error::shown(&text) }),
    }
}

fn linker(engine: &Engine) -> Result<Linker<Sandbox>, LoadError> {
    let mut linker = Linker::new(&engine.inner);
    let failed = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
    sandbox::add_to_linker(&mut linker).map_err(failed)?;
    Ok(linker)
}

/// Work that takes its time, off the threads that others wait on.
async fn blocking(load: impl FnOnce() -> Result<Plugin, LoadError> + Send + 'static) -> Result<Plugin, LoadError> {
    tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| Err(LoadError::Engine(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(bytes: &[u8]) -> LoadError {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugin.wasm");
        std::fs::write(&path, bytes).unwrap();
        Plugin::load(&Engine::new(None).unwrap(), &path, None).err().unwrap()
    }

    #[test]
    fn files_that_are_no_component() {
        assert!(matches!(load(b""), LoadError::NotWasm { .. }));
        assert!(load(b"#!/bin/sh").to_string().contains("starts with 23 21 2f 62"));
        assert!(matches!(load(b"\0asm\x01\0\0\0"), LoadError::CoreModule { .. }));
        assert!(matches!(load(b"\0asm\x0d\0\x01\0\xff\xff"), LoadError::Invalid { .. }));
        assert!(matches!(load(b"\0asm"), LoadError::Invalid { .. }));
    }

    #[test]
    fn an_empty_component_exports_too_little() {
        let error = load(b"\0asm\x0d\0\x01\0");
        assert!(matches!(error, LoadError::MissingExport { .. }), "{error}");
        assert!(error.to_string().contains("memcell:kv/lifecycle@0.1.0"));
    }

    #[test]
    fn exports_tell_the_kind() {
        const CONTRACT: [&str; 2] = ["memcell:kv/lifecycle@0.1.0", "memcell:kv/store@0.1.0"];
        const STORE: &str = "wasi:keyvalue/store@0.2.0-draft2";
        let told = |exports: &[&str]| kind(Path::new("x.wasm"), exports);
        assert_eq!(told(&CONTRACT).unwrap(), Kind::Contract);
        assert_eq!(told(&[STORE, CONTRACT[1], CONTRACT[0]]).unwrap(), Kind::Contract);
        assert_eq!(told(&[STORE]).unwrap(), Kind::KeyValue(Draft::Two));
        assert_eq!(told(&["a:b/c", "wasi:keyvalue/store@0.2.0-draft"]).unwrap(), Kind::KeyValue(Draft::One));
        let both = ["wasi:keyvalue/batch@0.2.0-draft2", "wasi:keyvalue/atomics@0.2.0-draft2", STORE];
        assert_eq!(told(&both).unwrap(), Kind::KeyValue(Draft::Two));
        let refused = |exports: &[&str]| told(exports).unwrap_err().to_string();
        let error = refused(&["a:b/c"]);
        for name in ["memcell:kv/lifecycle@0.1.0", STORE, "wasi:keyvalue/store@0.2.0-draft ", "it exports a:b/c"] {
            assert!(error.contains(name), "{error}");
        }
        // Half a contract isn't made up for by the other kind.
        assert!(refused(&[CONTRACT[0], STORE]).contains("doesn't export memcell:kv/store@0.1.0"));
        let error = refused(&["wasi:keyvalue/store@0.1.0"]);
        assert!(error.contains("exports wasi:keyvalue/store@0.1.0") && error.contains(STORE), "{error}");
        let error = refused(&[STORE, "wasi:keyvalue/batch@0.2.0-draft"]);
        assert!(error.contains("wasi:keyvalue/batch@0.2.0-draft,") && error.contains("batch@0.2.0-draft2"), "{error}");
    }

    #[test]
    fn a_missing_file_and_a_wrong_digest() {
        let engine = Engine::new(None).unwrap();
        let missing = Plugin::load(&engine, Path::new("/nonexistent/x.wasm"), None).err().unwrap();
        assert!(missing.to_string().contains("/nonexistent/x.wasm"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugin.wasm");
        std::fs::write(&path, b"\0asm").unwrap();
        let wrong = Plugin::load(&engine, &path, Some(&[0; 32])).err().unwrap();
        assert!(matches!(wrong, LoadError::Digest { .. }), "{wrong}");
    }
}
