//! Tells the program what it was built with: `memcell_build_info` shows it.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    let lock = Path::new("..").join("Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rustc-env=MEMCELL_RUSTC_VERSION={}", rustc().as_deref().unwrap_or("unknown"));
    let lock = fs::read_to_string(lock).unwrap_or_default();
    println!("cargo::rustc-env=MEMCELL_WASMTIME_VERSION={}", locked(&lock, "wasmtime").unwrap_or("unknown"));
}

/// `rustc 1.95.0 (hash date)` says `1.95.0`.
fn rustc() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1).map(str::to_owned)
}

/// The version of a package in `Cargo.lock`.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}
