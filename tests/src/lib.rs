//! What the end-to-end tests, the demo and the benchmarks share.
//!
//! - [`artifacts`]: where the built components are
//! - [`sample`]: MemCells to work on, the same ones every time
//! - [`random`]: the generator of repeatable random numbers behind it
//! - [`host`]: a whole host for one test
//! - [`operations`]: every kind of operation, checked
//! - [`mod@bench`]: comparing two ways of doing the same thing

pub mod artifacts;
pub mod bench;
pub mod host;
pub mod operations;
pub mod random;
pub mod sample;
