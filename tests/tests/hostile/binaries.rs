//! Files that are no backend, or want more than a file may: refused before anything in them runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Engine, LoadError, Plugin};
use memcell_tests::artifacts;
use tempfile::TempDir;

use crate::stage::{Signs, contained};

/// A file made of the in-memory plugin, and where it is.
fn made(of: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<(TempDir, PathBuf)> {
    let folder = TempDir::new()?;
    let path = folder.path().join("plugin.wasm");
    std::fs::write(&path, of(std::fs::read(artifacts::plugin("in_memory")?)?))?;
    Ok((folder, path))
}

/// A test for each: the file (made of the in-memory plugin's bytes), further configuration, and what is to be seen of it.
macro_rules! refused {
    ($($name:ident: $of:expr, $adjust:expr => $label:literal, $reason:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() -> Result<()> {
                let (_folder, path) = made($of)?;
                let mut config = BackendConfig::new("hostile", path);
                config.supervision.backoff_max = Duration::from_millis(200);
                let adjust: fn(&mut BackendConfig) = $adjust;
                adjust(&mut config);
                contained(config, Signs { label: $label, reason: $reason }).await
            }
        )*
    };
}

refused! {
    empty: |_| Vec::new(), |_| {} => "load_not_wasm", "the file is empty";
    a_script: |_| b"#!/bin/sh\nreboot\n".to_vec(), |_| {} => "load_not_wasm", "starts with 23 21 2f 62";
    a_native_program: |_| b"\x7fELF\x02\x01\x01".to_vec(), |_| {} => "load_not_wasm", "starts with 7f 45 4c 46";
    the_magic_alone: |mut bytes| { bytes.truncate(4); bytes }, |_| {} => "load_invalid", "is damaged";
    the_preamble_alone: |mut bytes| { bytes.truncate(8); bytes }, |_| {} => "load_missing_export", "exports nothing";
    cut_in_half: |mut bytes| { bytes.truncate(bytes.len() / 2); bytes }, |_| {} => "load_invalid", "is damaged";
    cut_short_by_one: |mut bytes| { bytes.pop(); bytes }, |_| {} => "load_invalid", "is damaged";
    overwritten: |mut bytes| { bytes.iter_mut().skip(8).take(64).for_each(|byte| *byte = 0xff); bytes }, |_| {}
        => "load_invalid", "is damaged";
    a_core_module: |_| b"\0asm\x01\0\0\0".to_vec(), |_| {} => "load_core_module", "is a core WebAssembly module";
    another_digest: |bytes| bytes, |config| config.sha256 = Some([7; 32]) => "load_digest", "but `sha256` expects 0707";
    too_large: |mut bytes| { bytes.resize(bytes.len().max((64 << 10) + 1), 0); bytes },
        |config| config.limits.component = 64 << 10 => "load_too_large", "is larger than 65536 bytes";
    a_directory: |bytes| bytes, |config| { config.plugin = std::env::temp_dir().into(); } => "load_unreadable", "not a regular file";
    a_device_without_end: |bytes| bytes, |config| config.plugin = "/dev/zero".into()
        => "load_unreadable", "not a regular file";
    nothing_at_all: |bytes| bytes, |config| config.plugin = "/nonexistent/plugin.wasm".into()
        => "load_unreadable", "can't read the plugin /nonexistent/plugin.wasm";
    more_instances_than_allowed: |bytes| bytes, |config| config.limits.instances = 1
        => "instances", "reached `limits.instances` in start";
    more_tables_than_allowed: |bytes| bytes, |config| config.limits.tables = 1
        => "tables", "reached `limits.tables` in start";
    more_table_elements_than_allowed: |bytes| bytes, |config| config.limits.table_elements = 1
        => "table_elements", "reached `limits.table_elements` in start";
    more_memory_than_allowed: |bytes| bytes, |config| config.limits.memory = 1 << 16
        => "memory", "reached its memory limit of 65536 bytes in start";
    slow_to_compile: never_compiled_before,
        |config| config.limits.compile_timeout = Duration::from_millis(5)
        => "load_compile_timeout", "was not compiled within 5ms";
}

/// The components that were built for it.
macro_rules! refused_guests {
    ($($name:ident => $label:literal, $reason:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() -> Result<()> {
                let config = BackendConfig::new("hostile", artifacts::guest(stringify!($name))?);
                contained(config, Signs { label: $label, reason: $reason }).await
            }
        )*
    };
}

refused_guests! {
    missing_store => "load_missing_export", "doesn't export memcell:kv/store@0.1.0";
    wrong_version => "load_wrong_version", "but this host needs memcell:kv/";
    unsatisfied_import => "load_unsatisfied_import", "imports acme:radio/antenna@1.0.0, which this host doesn't provide";
}

/// The same component under a digest of its own, by means of a section that says nothing: no cache can have it.
fn never_compiled_before(mut bytes: Vec<u8>) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut section = vec![4];
    section.extend_from_slice(b"none");
    section.extend_from_slice(&now.to_le_bytes());
    section.extend_from_slice(&u64::from(std::process::id()).to_le_bytes());
    bytes.extend_from_slice(&[0, u8::try_from(section.len()).unwrap_or_default()]);
    bytes.extend_from_slice(&section);
    bytes
}

/// The compiler goes on for itself, and leaves its result in the cache: the control of `slow_to_compile`, in which the file
/// that was too slow is loaded in the end.
#[test]
fn what_was_slow_to_compile_is_loaded_from_the_cache_later() -> Result<()> {
    let (folder, path) = made(never_compiled_before)?;
    let engine = Engine::new(Some(folder.path().join("cache")))?;
    let mut limits = BackendConfig::new("slow", path.clone()).limits;
    limits.compile_timeout = Duration::from_millis(5);
    let started = Instant::now();
    let error = Plugin::load_within(&engine, &path, None, &limits).err().context("it was compiled in 5 ms")?;
    anyhow::ensure!(matches!(error, LoadError::CompileTimeout { .. }), "{error}");
    anyhow::ensure!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    limits.compile_timeout = Duration::from_secs(120);
    Plugin::load_within(&engine, &path, None, &limits)?;
    Ok(())
}
