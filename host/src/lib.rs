//! The MemCell storage host: MongoDB is the authority, and every change is mirrored to sandboxed WebAssembly backends.
//!
//! A map, in reading order. The document and what is said about it: [`memcell`], [`change`], [`query`]. The repository that
//! writes it twice and compares reads: [`store`], with [`validation`] and [`codec`]. What keeps a backend right: [`mirror`],
//! by the readings of the [`clock`]. Work on the collection as a whole: [`jobs`]. The two stores behind: [`mongo`] (the only place that names the driver) and [`kv`] (the only
//! place that names WebAssembly), whose plugins may come from a registry: [`oci`]. Whether a plugin keeps its contract:
//! [`conformance`]. Around it: [`http`] and [`cli`] for users, with [`security`] before
//! the former, [`config`] and [`reload`], [`error`], [`metrics`], [`trace`],
//! [`shutdown`], [`descriptors`] and [`steps`].

mod begun;
pub mod change;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod conformance;
pub mod descriptors;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
mod hex;
pub mod http;
pub mod jobs;
pub mod kv;
pub mod memcell;
pub mod metrics;
pub mod mirror;
pub mod mongo;
pub mod oci;
pub mod query;
pub mod reload;
mod secret_file;
pub mod security;
pub mod shutdown;
pub mod steps;
pub mod store;
pub mod trace;
pub mod validation;

pub use error::{Error, ErrorKind, Result};
