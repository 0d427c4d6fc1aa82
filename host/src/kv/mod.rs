//! Sandboxed key-value backends: the only place that knows WebAssembly.
//!
//! From the outside in: a [`Backend`] routes keys to shards; a shard is a thread with a bounded queue and one instance of the
//! [`Plugin`], which it replaces when it breaks; an instance is called under a deadline, within limits, and what it answers
//! is checked before it is believed. A plugin speaks the contract of `wit/kv.wit`, or plain `wasi:keyvalue`, in which case
//! the host keeps the contract for it.
//!
//! Nothing that a plugin does makes a caller here wait without bound or panic: at worst there is no answer.

mod backend;
mod bindings;
mod breaker;
mod calls;
mod cpu;
mod engine;
mod error;
mod files;
mod grants;
mod guest;
mod inspect;
mod instance;
mod intents;
mod keyvalue;
mod limits;
mod names;
mod output;
mod plugin;
mod queue;
mod sandbox;
mod secrets;
mod shard;
mod sockets;
mod status;
mod streams;
mod trial;
mod write;

pub use backend::{Backend, BackendLoad, shard_of};
pub use bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
pub use bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome, Page, Usage};
pub use bindings::memcell::kv::types::Error as GuestError;
pub use bindings::with_digests::exports::memcell::kv::digests::Digest;
pub use engine::Engine;
pub(crate) use error::shown;
pub use error::{GrantError, KvError, LoadError, StartError};
pub use inspect::{Contract, Inspection, Interface, Want};
pub use plugin::{Plugin, read_component};
pub use status::ShardState;
pub use trial::{Trial, Trials};
pub use write::{PendingWrite, Write};
