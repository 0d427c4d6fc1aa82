//! What a living component is called by: the contract, or a plain `wasi:keyvalue` with the host's rules around it.

use wasmtime::Store;

use super::bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
use super::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome, Page, Usage};
use super::bindings::memcell::kv::types::Error as GuestError;
use super::bindings::{Backend as Bindings, BackendPre};
use super::keyvalue::{Failure, KeyValue, KeyValuePre};
use super::sandbox::Sandbox;
use crate::config::BackendConfig;

/// A component of either kind that can be instantiated.
#[derive(Clone)]
pub(super) enum GuestPre {
    Contract(BackendPre<Sandbox>),
    KeyValue(KeyValuePre),
}

impl GuestPre {
    pub(super) fn engine(&self) -> &wasmtime::Engine {
        match self {
            Self::Contract(pre) => pre.engine(),
            Self::KeyValue(pre) => pre.engine(),
        }
    }

    /// An instance that is yet to be opened.
    pub(super) async fn instantiate(&self, store: &mut Store<Sandbox>) -> wasmtime::Result<Guest> {
        Ok(match self {
            Self::Contract(pre) => Guest::Contract(pre.instantiate_async(store).await?),
            Self::KeyValue(pre) => Guest::KeyValue(pre.instantiate(store).await?),
        })
    }
}

/// An instance. Its functions are those of the contract, and as in the contract.
pub(super) enum Guest {
    Contract(Bindings),
    KeyValue(KeyValue),
}

impl Guest {
    pub(super) async fn open(
        &mut self,
        store: &mut Store<Sandbox>,
        config: &BackendConfig,
        shard: u32,
    ) -> Result<Capabilities, Failure> {
        match self {
            Self::Contract(bindings) => {
                answered(bindings.memcell_kv_lifecycle().call_open(store, shard, &config.settings).await)
            }
            Self::KeyValue(keyvalue) => keyvalue.open(store, config, shard).await,
        }
    }

    pub(super) async fn get_many(
        &mut self,
        store: &mut Store<Sandbox>,
        keys: &[String],
    ) -> Result<Vec<Option<Entry>>, Failure> {
        match self {
            Self::Contract(bindings) => answered(bindings.memcell_kv_store().call_get_many(store, keys).await),
            Self::KeyValue(keyvalue) => keyvalue.get_many(store, keys).await,
        }
    }

    pub(super) async fn put_many(
        &mut self,
        store: &mut Store<Sandbox>,
        entries: &[Entry],
        condition: Condition,
    ) -> Result<Vec<Outcome>, Failure> {
        match self {
            Self::Contract(bindings) => {
                answered(bindings.memcell_kv_store().call_put_many(store, entries, condition).await)
            }
            Self::KeyValue(keyvalue) => keyvalue.put_many(store, entries, condition).await,
        }
    }

    pub(super) async fn delete_many(
        &mut self,
        store: &mut Store<Sandbox>,
        marks: &[Mark],
        condition: Condition,
    ) -> Result<Vec<Outcome>, Failure> {
        match self {
            Self::Contract(bindings) => {
                answered(bindings.memcell_kv_store().call_delete_many(store, marks, condition).await)
            }
            Self::KeyValue(keyvalue) => keyvalue.delete_many(store, marks, condition).await,
        }
    }

    pub(super) async fn scan(
        &mut self,
        store: &mut Store<Sandbox>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page, Failure> {
        match self {
            Self::Contract(bindings) => answered(bindings.memcell_kv_store().call_scan(store, cursor, limit).await),
            Self::KeyValue(keyvalue) => keyvalue.scan(store, cursor, limit).await,
        }
    }

    pub(super) async fn stats(&mut self, store: &mut Store<Sandbox>) -> Result<Usage, Failure> {
        match self {
            Self::Contract(bindings) => answered(bindings.memcell_kv_store().call_stats(store).await),
            Self::KeyValue(keyvalue) => keyvalue.stats(store).await,
        }
    }

    pub(super) async fn flush(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        match self {
            Self::Contract(bindings) => answered(bindings.memcell_kv_lifecycle().call_flush(store).await),
            Self::KeyValue(keyvalue) => keyvalue.flush(),
        }
    }

    pub(super) async fn health(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        match self {
            Self::Contract(bindings) => answered(bindings.memcell_kv_lifecycle().call_health(store).await),
            Self::KeyValue(keyvalue) => keyvalue.health(store).await,
        }
    }

    pub(super) async fn close(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        match self {
            Self::Contract(bindings) => answered(bindings.memcell_kv_lifecycle().call_close(store).await),
            Self::KeyValue(keyvalue) => keyvalue.close(store).await,
        }
    }
}

fn answered<T>(answer: wasmtime::Result<Result<T, GuestError>>) -> Result<T, Failure> {
    Ok(answer??)
}
