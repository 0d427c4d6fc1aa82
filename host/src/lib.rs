//! The MemCell storage host: MongoDB is the authority, and every change is mirrored to sandboxed WebAssembly backends.
//!
//! A map, in reading order. The document and what is said about it: [`memcell`], [`change`], [`query`]. The repository that
//! writes it twice and compares reads: [`store`], with [`validation`] and [`codec`]. What keeps a backend right: [`mirror`],
//! by the readings of the [`clock`]. The two stores behind: [`mongo`] (the only place that names the driver) and [`kv`] (the only
//! place that names WebAssembly). Whether a plugin keeps its contract: [`conformance`]. Around it: [`http`] and [`cli`] for
//! users, [`config`], [`error`], [`metrics`] and [`shutdown`].

pub mod change;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod conformance;
pub mod error;
pub mod http;
pub mod kv;
pub mod memcell;
pub mod metrics;
pub mod mirror;
pub mod mongo;
pub mod query;
pub mod shutdown;
pub mod store;
pub mod validation;

pub use error::{Error, ErrorKind, Result};
