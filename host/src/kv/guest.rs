//! What a living component is called by: the contract, or a plain `wasi:keyvalue` with the host's rules around it.

use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
use super::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome, Page, Usage};
use super::bindings::memcell::kv::types::Error as GuestError;
use super::bindings::with_digests::exports::memcell::kv::digests::Digest;
use super::bindings::with_digests::{WithDigests, WithDigestsIndices};
use super::bindings::with_fencing::{WithFencing, WithFencingIndices};
use super::bindings::with_two_phase::{WithTwoPhase, WithTwoPhaseIndices};
use super::bindings::{Backend as Bindings, BackendIndices};
use super::keyvalue::{Failure, KeyValue, KeyValuePre};
use super::sandbox::Sandbox;
use crate::config::BackendConfig;

/// A component of either kind that can be instantiated.
#[derive(Clone)]
pub(super) enum GuestPre {
    Contract(ContractPre),
    KeyValue(KeyValuePre),
}

/// A component that exports the contract: what has to be there, and what may be.
#[derive(Clone)]
pub(super) struct ContractPre {
    pre: InstancePre<Sandbox>,
    required: BackendIndices,
    digests: Option<WithDigestsIndices>,
    fencing: Option<WithFencingIndices>,
    two_phase: Option<WithTwoPhaseIndices>,
}

impl ContractPre {
    /// `has` tells whether the component exports an interface of the contract.
    ///
    /// # Errors
    /// If an interface is there and not of the contract's shape.
    pub(super) fn new(pre: InstancePre<Sandbox>, has: impl Fn(&str) -> bool) -> wasmtime::Result<Self> {
        let required = BackendIndices::new(&pre)?;
        let digests = has("digests").then(|| WithDigestsIndices::new(&pre)).transpose()?;
        let fencing = has("fencing").then(|| WithFencingIndices::new(&pre)).transpose()?;
        let two_phase = has("two-phase").then(|| WithTwoPhaseIndices::new(&pre)).transpose()?;
        Ok(Self { pre, required, digests, fencing, two_phase })
    }

    async fn instantiate(&self, mut store: &mut Store<Sandbox>) -> wasmtime::Result<Contract> {
        let instance = self.pre.instantiate_async(&mut store).await?;
        let required = self.required.load(&mut store, &instance)?;
        let digests = self.digests.as_ref().map(|digests| digests.load(&mut store, &instance)).transpose()?;
        let fencing = self.fencing.as_ref().map(|fencing| fencing.load(&mut store, &instance)).transpose()?;
        let two_phase = self.two_phase.as_ref().map(|two_phase| two_phase.load(&mut store, &instance)).transpose()?;
        Ok(Contract { required, digests, fencing, two_phase })
    }
}

impl GuestPre {
    /// Whether copies can be compared without their values.
    pub(super) fn has_digests(&self) -> bool {
        matches!(self, Self::Contract(ContractPre { digests: Some(_), .. }))
    }

    /// Whether it can keep hosts out that have lost the right to write.
    pub(super) fn has_fencing(&self) -> bool {
        matches!(self, Self::Contract(ContractPre { fencing: Some(_), .. }))
    }

    /// Whether writes can be promised first. A plugin may export the functions and answer that it has no place for that.
    pub(super) fn has_two_phase(&self) -> bool {
        matches!(self, Self::Contract(ContractPre { two_phase: Some(_), .. }))
    }

    pub(super) fn engine(&self) -> &wasmtime::Engine {
        match self {
            Self::Contract(contract) => contract.pre.engine(),
            Self::KeyValue(pre) => pre.engine(),
        }
    }

    /// An instance that is yet to be opened.
    pub(super) async fn instantiate(&self, store: &mut Store<Sandbox>) -> wasmtime::Result<Guest> {
        Ok(match self {
            Self::Contract(contract) => Guest::Contract(contract.instantiate(store).await?),
            Self::KeyValue(pre) => Guest::KeyValue(pre.instantiate(store).await?),
        })
    }
}

/// An instance. Its functions are those of the contract, and as in the contract.
pub(super) enum Guest {
    Contract(Contract),
    KeyValue(KeyValue),
}

/// The functions of the contract, as far as they are there.
pub(super) struct Contract {
    required: Bindings,
    digests: Option<WithDigests>,
    fencing: Option<WithFencing>,
    two_phase: Option<WithTwoPhase>,
}

impl Guest {
    pub(super) async fn open(
        &mut self,
        store: &mut Store<Sandbox>,
        config: &BackendConfig,
        shard: u32,
    ) -> Result<Capabilities, Failure> {
        match self {
            Self::Contract(contract) => {
                answered(contract.required.memcell_kv_lifecycle().call_open(store, shard, &config.settings).await)
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
            Self::Contract(contract) => answered(contract.required.memcell_kv_store().call_get_many(store, keys).await),
            Self::KeyValue(keyvalue) => keyvalue.get_many(store, keys).await,
        }
    }

    /// An error of the contract's if it can't tell: see [`GuestPre::has_digests`].
    pub(super) async fn digest_many(
        &mut self,
        store: &mut Store<Sandbox>,
        keys: &[String],
        head_bytes: u32,
    ) -> Result<Vec<Option<Digest>>, Failure> {
        match self {
            Self::Contract(Contract { digests: Some(digests), .. }) => {
                answered(digests.memcell_kv_digests().call_digest_many(store, keys, head_bytes).await)
            }
            _ => Err(unsupported("digests")),
        }
    }

    /// As [`Guest::digest_many`].
    pub(super) async fn hold(&mut self, store: &mut Store<Sandbox>, token: u64) -> Result<(), Failure> {
        match self {
            Self::Contract(Contract { fencing: Some(fencing), .. }) => {
                answered(fencing.memcell_kv_fencing().call_hold(store, token).await)
            }
            _ => Err(unsupported("fencing")),
        }
    }

    /// As [`Guest::digest_many`]; so with the three that follow.
    pub(super) async fn prepare(
        &mut self,
        store: &mut Store<Sandbox>,
        transaction: &str,
        puts: &[Entry],
        deletes: &[Mark],
    ) -> Result<(), Failure> {
        let two_phase = self.two_phase()?.memcell_kv_two_phase();
        answered(two_phase.call_prepare(store, transaction, puts, deletes).await)
    }

    pub(super) async fn commit(&mut self, store: &mut Store<Sandbox>, transaction: &str) -> Result<(), Failure> {
        answered(self.two_phase()?.memcell_kv_two_phase().call_commit(store, transaction).await)
    }

    pub(super) async fn abort(&mut self, store: &mut Store<Sandbox>, transaction: &str) -> Result<(), Failure> {
        answered(self.two_phase()?.memcell_kv_two_phase().call_abort(store, transaction).await)
    }

    pub(super) async fn in_doubt(&mut self, store: &mut Store<Sandbox>) -> Result<Vec<String>, Failure> {
        answered(self.two_phase()?.memcell_kv_two_phase().call_in_doubt(store).await)
    }

    fn two_phase(&self) -> Result<&WithTwoPhase, Failure> {
        match self {
            Self::Contract(Contract { two_phase: Some(two_phase), .. }) => Ok(two_phase),
            _ => Err(unsupported("two-phase")),
        }
    }

    pub(super) async fn put_many(
        &mut self,
        store: &mut Store<Sandbox>,
        entries: &[Entry],
        condition: Condition,
    ) -> Result<Vec<Outcome>, Failure> {
        match self {
            Self::Contract(contract) => {
                answered(contract.required.memcell_kv_store().call_put_many(store, entries, condition).await)
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
            Self::Contract(contract) => {
                answered(contract.required.memcell_kv_store().call_delete_many(store, marks, condition).await)
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
            Self::Contract(contract) => {
                answered(contract.required.memcell_kv_store().call_scan(store, cursor, limit).await)
            }
            Self::KeyValue(keyvalue) => keyvalue.scan(store, cursor, limit).await,
        }
    }

    pub(super) async fn stats(&mut self, store: &mut Store<Sandbox>) -> Result<Usage, Failure> {
        match self {
            Self::Contract(contract) => answered(contract.required.memcell_kv_store().call_stats(store).await),
            Self::KeyValue(keyvalue) => keyvalue.stats(store).await,
        }
    }

    pub(super) async fn flush(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        match self {
            Self::Contract(contract) => answered(contract.required.memcell_kv_lifecycle().call_flush(store).await),
            Self::KeyValue(keyvalue) => keyvalue.flush(),
        }
    }

    pub(super) async fn health(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        match self {
            Self::Contract(contract) => answered(contract.required.memcell_kv_lifecycle().call_health(store).await),
            Self::KeyValue(keyvalue) => keyvalue.health(store).await,
        }
    }

    pub(super) async fn close(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        match self {
            Self::Contract(contract) => answered(contract.required.memcell_kv_lifecycle().call_close(store).await),
            Self::KeyValue(keyvalue) => keyvalue.close(store).await,
        }
    }
}

fn unsupported(interface: &str) -> Failure {
    Failure::Refused(GuestError::Unsupported(format!("the plugin does not export {interface}")))
}

fn answered<T>(answer: wasmtime::Result<Result<T, GuestError>>) -> Result<T, Failure> {
    Ok(answer??)
}
