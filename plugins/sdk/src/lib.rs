//! What a Rust author of a MemCell backend depends on.
//!
//! A backend is a WebAssembly component that keeps a copy of what the MemCell host stores; `wit/kv.wit` is the contract between
//! the two. This crate takes care of the contract's rules (stamps, tombstones, expiry, limits, the order of calls), so that an
//! author implements [`Backend`], a handful of methods over [`Record`]s, and exports it:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::ops::Bound;
//!
//! use memcell_plugin::{Backend, Found, Header, Record, Result, Settings, Step, after_cursor, key_of_cursor};
//!
//! struct Sorted(BTreeMap<String, Vec<u8>>);
//!
//! impl Backend for Sorted {
//!     fn open(_shard: u32, _settings: &mut Settings) -> Result<Self> {
//!         Ok(Self(BTreeMap::new()))
//!     }
//!
//!     fn read(&mut self, key: &str) -> Result<Option<Record>> {
//!         self.0.get(key).map(|bytes| Record::decode(bytes)).transpose()
//!     }
//!
//!     fn write(&mut self, key: String, record: Record) -> Result<()> {
//!         self.0.insert(key, record.encode());
//!         Ok(())
//!     }
//!
//!     fn forget(&mut self, key: &str, _seen: &Header) -> Result<()> {
//!         self.0.remove(key);
//!         Ok(())
//!     }
//!
//!     fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
//!         let from = cursor.map(key_of_cursor).transpose()?.map_or(Bound::Unbounded, Bound::Excluded);
//!         let records = self.0.range::<str, _>((from, Bound::Unbounded)).take(limit);
//!         let found = records.map(|(key, bytes)| Ok(Found { key: key.clone(), header: Header::decode(bytes)? }));
//!         let found = found.collect::<Result<Vec<_>>>()?;
//!         let next = found.last().map(|last| after_cursor(&last.key));
//!         Ok(Step { found, next })
//!     }
//! }
//!
//! memcell_plugin::export!(Sorted);
//! ```
//!
//! The crate of a backend is a `cdylib`, built with `cargo build --target wasm32-wasip2`. Everything but the export also
//! builds natively, and so do the backend's own tests; the `testing` feature has a check of any backend against a model.
//!
//! In reading order: [`Backend`], [`Record`], [`Rule`], [`Session`], [`Settings`], [`Error`].

mod answer;
mod backend;
mod digest;
mod error;
mod record;
mod rules;
mod session;
mod settings;
mod units;

#[cfg(target_family = "wasm")]
pub mod guest;
#[cfg(any(test, target_family = "wasm"))]
mod memory;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use answer::{AnswerBytes, MAX_ANSWER_BYTES};
pub use backend::{Backend, Found, Limits, Stats, Step, Write, after_cursor, key_of_cursor};
pub use digest::{DIGESTS_AT_A_TIME, Digest, MAX_HEAD_BYTES};
pub use error::{Error, Result};
pub use record::{HEADER_BYTES, Header, Record};
pub use rules::{Condition, Moment, Outcome, Rule, unix_millis};
pub use session::{Entry, Mark, Page, Session};
pub use settings::{Settings, required};

/// Makes the component export the contract, answered by a backend of the given type. Once per component; does nothing in a
/// native build.
#[cfg(target_family = "wasm")]
#[macro_export]
macro_rules! export {
    ($backend:ty) => {
        const _: () = {
            ::std::thread_local! {
                static SESSION: ::std::cell::RefCell<$crate::Session<$backend>> =
                    const { ::std::cell::RefCell::new($crate::Session::new($crate::unix_millis)) };
            }

            struct Component;

            impl $crate::guest::Hosted for Component {
                type Backend = $backend;

                fn with<R>(call: impl FnOnce(&mut $crate::Session<$backend>) -> R) -> R {
                    SESSION.with_borrow_mut(call)
                }
            }

            $crate::export_component!(Component);
        };
    };
}

/// Makes the component export the contract, answered by a type that implements the generated traits itself.
#[cfg(target_family = "wasm")]
#[macro_export]
macro_rules! export_component {
    ($component:ident) => {
        $crate::guest::bindings::export_backend_component!($component with_types_in $crate::guest::bindings);
    };
}

/// Makes the component export the contract, answered by a backend of the given type. Once per component; does nothing in a
/// native build.
#[cfg(not(target_family = "wasm"))]
#[macro_export]
macro_rules! export {
    ($backend:ty) => {
        const _: () = {
            const fn is_backend<B: $crate::Backend>() {}
            is_backend::<$backend>();
        };
    };
}
