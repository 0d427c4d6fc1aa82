//! What must hold for any input, however it came about: each target takes bytes, and panics if something does not hold.
//!
//! `cargo xtask fuzz` looks for bytes that do it; those that were of interest so far are in `corpus`, and every run of the tests
//! tries them again.

#![allow(clippy::panic, clippy::expect_used, reason = "a panic is how a target tells that something does not hold")]

mod config;
mod envelope;
mod http;
mod import;
mod plugin;

/// Something that takes input from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Of the target, its corpus and its dictionary.
    pub name: &'static str,
    /// Takes an input, and panics if it shows a bug.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: config::run },
    Target { name: "envelope", run: envelope::run },
    Target { name: "http", run: http::run },
    Target { name: "import", run: import::run },
    Target { name: "plugin", run: plugin::run },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
