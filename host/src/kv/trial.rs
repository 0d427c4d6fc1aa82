//! Instances that are called directly, without queue, batching or restarts: for trying a plugin out, not for serving with it.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
use super::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome, Page, Usage};
use super::bindings::with_digests::exports::memcell::kv::digests::Digest;
use super::error::{GrantError, KvError};
use super::grants::Grants;
use super::instance::Instance;
use super::plugin::Plugin;
use crate::config::BackendConfig;

/// A plugin and how it is configured: where [`Trial`]s come from. Clones share what was granted.
#[derive(Clone)]
pub struct Trials {
    plugin: Plugin,
    config: Arc<BackendConfig>,
    grants: Arc<Grants>,
}

/// One instance, called on the thread of the caller, which waits for each answer: not for use within an async runtime.
///
/// Deadlines and limits are those of the configuration, and answers are checked as a serving shard checks them. Dropping it without
/// [`Trial::close`] is what a crash of the host is to the plugin: it gets no chance to write anything down.
pub struct Trial {
    /// Dropped before the runtime that its calls run on.
    instance: Option<Instance>,
    lost: Option<KvError>,
    runtime: Runtime,
}

impl Trials {
    /// Instances of `plugin`, under what `config` sets, grants and limits. A granted directory is locked from now on.
    ///
    /// # Errors
    /// If what is granted can't be had.
    pub fn new(plugin: Plugin, config: BackendConfig) -> Result<Self, GrantError> {
        let grants = Arc::new(Grants::prepare(&config.grants)?);
        Ok(Self { plugin, config: Arc::new(config), grants })
    }

    /// The plugin.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Whether [`Trial::digest_many`] is to be had.
    pub fn has_digests(&self) -> bool {
        self.plugin.guest.has_digests()
    }

    /// Whether [`Trial::hold`] is to be had.
    pub fn has_fencing(&self) -> bool {
        self.plugin.guest.has_fencing()
    }

    /// Whether [`Trial::prepare`] and what belongs to it are to be had, unless the plugin says that it has no place for that.
    pub fn has_two_phase(&self) -> bool {
        self.plugin.guest.has_two_phase()
    }

    /// How it is configured.
    pub fn config(&self) -> &BackendConfig {
        &self.config
    }

    /// The same plugin with other settings.
    #[must_use]
    pub fn with_settings(&self, settings: Vec<(String, String)>) -> Self {
        let config = BackendConfig { settings, ..(*self.config).clone() };
        Self { plugin: self.plugin.clone(), config: Arc::new(config), grants: Arc::clone(&self.grants) }
    }

    /// Opens an instance as shard number `shard`.
    ///
    /// # Errors
    /// Whatever keeps it from being open.
    pub fn open(&self, shard: u32) -> Result<Trial, KvError> {
        Trial::new(|runtime| runtime.block_on(Instance::open(&self.plugin, &self.config, &self.grants, shard)))
    }

    /// Makes an instance whose `open` has not been called.
    ///
    /// # Errors
    /// If it can't be instantiated.
    pub fn unopened(&self) -> Result<Trial, KvError> {
        Trial::new(|runtime| runtime.block_on(Instance::start(&self.plugin, &self.config, &self.grants, 0)))
    }
}

impl Trial {
    fn new(make: impl FnOnce(&Runtime) -> Result<Instance, KvError>) -> Result<Self, KvError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| KvError::Down(format!("no runtime: {error}")))?;
        let instance = make(&runtime)?;
        Ok(Self { instance: Some(instance), lost: None, runtime })
    }

    /// What it said of itself at `open`.
    ///
    /// # Errors
    /// If a call before cost the instance; so with all that follow.
    pub fn capabilities(&self) -> Result<Capabilities, KvError> {
        self.instance.as_ref().map(Instance::capabilities).ok_or_else(|| self.gone())
    }

    /// Bytes of linear memory in use; 0 once the instance is lost.
    pub fn memory_bytes(&self) -> u64 {
        self.instance.as_ref().map_or(0, Instance::memory_bytes)
    }

    /// Whether a call has cost the instance, so that none is answered any more.
    pub fn is_lost(&self) -> bool {
        self.instance.is_none()
    }

    /// One answer per key, in their order.
    ///
    /// # Errors
    /// The plugin's, or what became of the call instead of an answer.
    pub fn get_many(&mut self, keys: &[String]) -> Result<Vec<Option<Entry>>, KvError> {
        self.call(async |instance| instance.get_many(keys).await)
    }

    /// One digest per key, in their order.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn digest_many(&mut self, keys: &[String], head_bytes: u32) -> Result<Vec<Option<Digest>>, KvError> {
        self.call(async |instance| instance.digest_many(keys, head_bytes).await)
    }

    /// Makes what follows under this token.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn hold(&mut self, token: u64) -> Result<(), KvError> {
        self.call(async |instance| instance.hold(token).await)
    }

    /// Has the intent of a transaction kept.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn prepare(&mut self, transaction: &str, puts: &[Entry], deletes: &[Mark]) -> Result<(), KvError> {
        self.call(async |instance| instance.prepare(transaction, puts, deletes).await)
    }

    /// Has the intent of a transaction carried out.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn commit(&mut self, transaction: &str) -> Result<(), KvError> {
        self.call(async |instance| instance.commit(transaction).await)
    }

    /// Has the intent of a transaction removed.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn abort(&mut self, transaction: &str) -> Result<(), KvError> {
        self.call(async |instance| instance.abort(transaction).await)
    }

    /// The transactions that have an intent.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn in_doubt(&mut self) -> Result<Vec<String>, KvError> {
        self.call(async |instance| instance.in_doubt().await)
    }

    /// One outcome per entry, in their order.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn put_many(&mut self, entries: &[Entry], condition: Condition) -> Result<Vec<Outcome>, KvError> {
        self.call(async |instance| instance.put_many(entries, condition).await)
    }

    /// One outcome per mark, in their order.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn delete_many(&mut self, marks: &[Mark], condition: Condition) -> Result<Vec<Outcome>, KvError> {
        self.call(async |instance| instance.delete_many(marks, condition).await)
    }

    /// One page of marks.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn scan(&mut self, cursor: Option<&str>, limit: u32) -> Result<Page, KvError> {
        self.call(async |instance| instance.scan(cursor, limit).await)
    }

    /// What it holds.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn stats(&mut self) -> Result<Usage, KvError> {
        self.call(async |instance| instance.stats().await)
    }

    /// Makes what was answered durable.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn flush(&mut self) -> Result<(), KvError> {
        self.call(async |instance| instance.flush().await)
    }

    /// Whether it thinks that it works.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn health(&mut self) -> Result<(), KvError> {
        self.call(async |instance| instance.health().await)
    }

    /// The orderly end. What is called afterwards reaches the instance still, which ought not to answer.
    ///
    /// # Errors
    /// As [`Trial::get_many`].
    pub fn close(&mut self) -> Result<(), KvError> {
        self.call(async |instance| instance.close().await)
    }

    fn call<T>(&mut self, call: impl AsyncFnOnce(&mut Instance) -> Result<T, KvError>) -> Result<T, KvError> {
        let Some(instance) = &mut self.instance else { return Err(self.gone()) };
        let answer = self.runtime.block_on(call(instance));
        if let Err(error) = &answer
            && error.ends_instance()
        {
            self.lost = Some(error.clone());
            self.instance = None;
        }
        answer
    }

    fn gone(&self) -> KvError {
        let reason = self.lost.as_ref().map(ToString::to_string).unwrap_or_default();
        KvError::Down(format!("the instance is lost since {reason}"))
    }
}
