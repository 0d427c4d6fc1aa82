//! What the end-to-end tests, the demo and the benchmarks share.
//!
//! - [`artifacts`]: where the built components are
//! - [`sample`]: MemCells to work on, the same ones every time
//! - [`random`]: the generator of repeatable random numbers behind it
//! - [`mod@file`]: the file backend, and batches to write to it while it is killed
//! - [`host`]: a whole host for one test
//! - [`redis`]: Redis servers and clusters for one test
//! - [`operations`]: every kind of operation, checked
//! - [`mod@bench`]: comparing two ways of doing the same thing

pub mod artifacts;
pub mod bench;
pub mod file;
pub mod host;
pub mod operations;
pub mod random;
pub mod redis;
pub mod sample;
