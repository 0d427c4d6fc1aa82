//! What a file is, as far as that can be told without running anything of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentExtern, ComponentItem};

use super::bindings::{PACKAGE, REQUIRED_INTERFACES};
use super::engine::Engine;
use super::error::LoadError;
use super::plugin::Plugin;
use crate::config::LimitsConfig;

/// What was found out about a file.
#[derive(Debug)]
pub struct Inspection {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The digest of its bytes, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// What it asks for, sorted. Nothing if it is no component.
    pub imports: Vec<Interface>,
    /// What it offers, sorted.
    pub exports: Vec<Interface>,
    /// The contract that it keeps, if it is a backend.
    pub contract: Contract,
    /// How long compiling it takes, without the cache; `None` if it can't be compiled.
    pub compile_time: Option<Duration>,
    /// Why the host won't load it; `None`: it will.
    pub problem: Option<LoadError>,
}

/// An imported or exported interface, or something that stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Such as `wasi:clocks/wall-clock@0.2.6`.
    pub name: String,
    /// The functions of it that are used or offered, sorted; methods as `[method]descriptor.read`.
    pub functions: Vec<String>,
}

/// What kind of backend a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// It exports the interfaces of `memcell:kv`, in whatever version.
    MemcellKv,
    /// It exports `wasi:keyvalue/store`, and the rules are the host's to apply.
    WasiKeyvalue,
    /// It is none.
    None,
}

/// Something outside the sandbox that a plugin may want, as its imports show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Files: `grants.directory`.
    Files,
    /// Connections to other machines: `grants.connect`.
    Connections,
    /// The addresses of host names; `grants.connect` makes those of the endpoints known.
    Names,
    /// Variables: `grants.environment`.
    Environment,
    /// The functions of an HTTP client, which no grant gives.
    Http,
}

/// Which functions show which want: of that interface, the one that begins with this.
const SIGNS: [(Want, &str, &str); 6] = [
    (Want::Files, "wasi:filesystem/types", "[method]descriptor.open-at"),
    (Want::Connections, "wasi:sockets/tcp", "[method]tcp-socket.start-connect"),
    (Want::Connections, "wasi:sockets/udp", "[method]udp-socket."),
    (Want::Names, "wasi:sockets/ip-name-lookup", "resolve-addresses"),
    (Want::Environment, "wasi:cli/environment", "get-environment"),
    (Want::Http, "wasi:http/outgoing-handler", "handle"),
];

impl Inspection {
    /// Compiles what was read from `path`, without running anything of it. `expected_sha256` and `limits` are those that it would be
    /// loaded with. Blocks, and takes up to seconds.
    ///
    /// # Errors
    /// If the engine can't be set up. That it is no backend is a finding, not an error.
    pub fn of(
        path: &Path,
        bytes: Vec<u8>,
        expected_sha256: Option<&[u8; 32]>,
        limits: &LimitsConfig,
    ) -> Result<Self, LoadError> {
        // Without a cache, so that the time is that of compiling.
        let engine = Engine::new(None)?;
        let started = Instant::now();
        let component = Component::from_binary(&engine.inner, &bytes).ok();
        let compile_time = component.is_some().then(|| started.elapsed());
        let (imports, exports) = component.as_ref().map(|component| interfaces(&engine, component)).unwrap_or_default();
        let loading = Engine::new(Engine::default_cache_directory())?;
        Ok(Self {
            path: path.to_path_buf(),
            bytes: bytes.len() as u64,
            sha256: crate::hex::encode(&Sha256::digest(&bytes)),
            contract: contract_of(&exports),
            imports,
            exports,
            compile_time,
            problem: Plugin::from_bytes(&loading, path, bytes, expected_sha256, limits).err(),
        })
    }

    /// What it may want to be granted. A language's runtime imports more than its program uses, so that this is the most that it
    /// could want, not the least that it needs.
    pub fn wants(&self) -> Vec<Want> {
        let mut wants: Vec<Want> = Vec::new();
        for (want, interface, function) in SIGNS {
            let is_it = |import: &&Interface| import.name.split('@').next() == Some(interface);
            let mut functions = self.imports.iter().filter(is_it).flat_map(|import| &import.functions);
            if !wants.contains(&want) && functions.any(|name| name.starts_with(function)) {
                wants.push(want);
            }
        }
        wants
    }
}

/// Imports and exports.
fn interfaces(engine: &Engine, component: &Component) -> (Vec<Interface>, Vec<Interface>) {
    let component_type = component.component_type();
    let all = |externs: Vec<(String, ComponentExtern<'_>)>| {
        let mut all: Vec<Interface> = externs
            .into_iter()
            .map(|(name, item)| Interface { name, functions: functions(engine, &item.ty) })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    };
    let imports = component_type.imports(&engine.inner).map(|(name, item)| (name.to_owned(), item)).collect();
    let exports = component_type.exports(&engine.inner).map(|(name, item)| (name.to_owned(), item)).collect();
    (all(imports), all(exports))
}

fn functions(engine: &Engine, item: &ComponentItem) -> Vec<String> {
    let ComponentItem::ComponentInstance(instance) = item else { return Vec::new() };
    let mut functions: Vec<String> = instance
        .exports(&engine.inner)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
        .map(|(name, _)| name.to_owned())
        .collect();
    functions.sort();
    functions
}

fn contract_of(exports: &[Interface]) -> Contract {
    let has = |name: &str| exports.iter().any(|export| export.name.split('@').next() == Some(name));
    if REQUIRED_INTERFACES.iter().any(|interface| has(&format!("{PACKAGE}/{interface}"))) {
        Contract::MemcellKv
    } else if has("wasi:keyvalue/store") {
        Contract::WasiKeyvalue
    } else {
        Contract::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect(bytes: &[u8]) -> Inspection {
        Inspection::of(Path::new("plugin.wasm"), bytes.to_vec(), None, &LimitsConfig::default()).unwrap()
    }

    #[test]
    fn what_is_no_component_is_a_finding() {
        let found = inspect(b"#!/bin/sh");
        assert!(matches!(found.problem, Some(LoadError::NotWasm { .. })));
        assert_eq!((found.bytes, found.contract, found.compile_time), (9, Contract::None, None));
        assert!(found.imports.is_empty() && found.exports.is_empty());
        let found = inspect(b"\0asm\x0d\0\x01\0");
        assert!(found.compile_time.is_some());
        assert!(matches!(found.problem, Some(LoadError::MissingExport { .. })));
        let pinned = Inspection::of(Path::new("x.wasm"), b"x".to_vec(), Some(&[0; 32]), &LimitsConfig::default());
        assert!(matches!(pinned.unwrap().problem, Some(LoadError::Digest { .. })));
    }

    #[test]
    fn wants_follow_from_the_functions_used() {
        let import = |name: &str, functions: &[&str]| Interface {
            name: name.to_owned(),
            functions: functions.iter().map(|function| (*function).to_owned()).collect(),
        };
        let mut found = inspect(b"\0asm\x0d\0\x01\0");
        found.imports = vec![
            import("wasi:filesystem/types@0.2.6", &["[method]descriptor.write-via-stream"]),
            import("wasi:cli/environment@0.2.6", &["get-arguments"]),
        ];
        assert_eq!(found.wants(), []);
        found.imports = vec![
            import("wasi:filesystem/types@0.2.6", &["[method]descriptor.open-at"]),
            import("wasi:sockets/tcp@0.2.6", &["[method]tcp-socket.start-connect"]),
            import("wasi:sockets/udp@0.2.6", &["[method]udp-socket.start-bind"]),
        ];
        assert_eq!(found.wants(), [Want::Files, Want::Connections]);
    }
}
