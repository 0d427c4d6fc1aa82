//! What the end-to-end tests, the demo and the benchmarks share.
//!
//! - [`artifacts`]: where the built components are
//! - [`sample`]: MemCells to work on, the same ones every time
//! - [`random`]: the generator of repeatable random numbers behind it
//! - [`mod@file`]: the file backend, and batches to write to it while it is killed
//! - [`host`]: a whole host for one test
//! - [`agreement`]: whether a backend holds what MongoDB has
//! - [`mongo`]: a MongoDB server that can be killed
//! - [`prometheus`]: a Prometheus that scrapes a host
//! - [`redis`]: Redis servers and clusters for one test
//! - [`work`]: jobs of a host, and documents for them
//! - [`registry`]: a registry of plugins for one test
//! - [`operations`]: every kind of operation, checked
//! - [`child`]: children that end with the test
//! - [`program`]: the `memcell` program as a user runs it
//! - [`proxy`]: a network that misbehaves
//! - [`crash`]: random writes, while what they need is killed
//! - [`two_phase`]: writes in two phases, stopped at a step
//! - [`mod@bench`]: comparing two ways of doing the same thing

pub mod agreement;
pub mod artifacts;
pub mod bench;
pub mod browser;
pub mod child;
pub mod crash;
pub mod file;
pub mod host;
pub mod mongo;
pub mod operations;
pub mod program;
pub mod prometheus;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod registry;
pub mod sample;
pub mod two_phase;
pub mod work;
