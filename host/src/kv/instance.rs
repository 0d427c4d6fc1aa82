//! One living instance of a plugin: calls under a deadline, and answers that are checked before anybody believes them.

use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, UpdateDeadline};

use super::bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
use super::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome, Page, Usage};
use super::bindings::with_digests::exports::memcell::kv::digests::Digest;
use super::cpu::{CpuBudget, CpuExhausted};
use super::error::{KvError, shown};
use super::grants::Grants;
use super::guest::Guest;
use super::keyvalue::Failure;
use super::limits::Denied;
use super::plugin::Plugin;
use super::sandbox::Sandbox;
use crate::config::{BackendConfig, LimitsConfig};

/// The fewest bytes a key may be limited to: every key of the host has to fit.
const MIN_KEY_BYTES: u32 = 256;

/// The longest name that a transaction can have.
const MAX_TRANSACTION_BYTES: usize = 64;

/// How many epoch ticks a guest computes before its processor time is looked at, and it yields to the timer around its call.
const EPOCHS_PER_YIELD: u64 = 1;

/// An open instance. After an error that [`KvError::ends_instance`] it must be dropped.
pub(super) struct Instance {
    store: Store<Sandbox>,
    guest: Guest,
    capabilities: Capabilities,
    limits: LimitsConfig,
}

/// What is taken for granted of an instance that has not been opened.
const UNOPENED: Capabilities = Capabilities {
    max_key_bytes: u32::MAX,
    max_value_bytes: u32::MAX,
    max_batch: u32::MAX,
    persistent: false,
    shared: false,
};

impl Instance {
    /// Instantiates `plugin` and opens it as shard number `shard`, all within `limits.open_timeout`.
    pub(super) async fn open(
        plugin: &Plugin,
        config: &BackendConfig,
        grants: &Grants,
        shard: u32,
    ) -> Result<Self, KvError> {
        let limits = &config.limits;
        let deadline = limits.open_timeout;
        let begun = Instant::now();
        let mut instance = Self::start(plugin, config, grants, shard).await?;
        let Self { store, guest, .. } = &mut instance;
        let open = guest.open(store, config, shard);
        let capabilities = match tokio::time::timeout(deadline.saturating_sub(begun.elapsed()), open).await {
            Err(_) => return Err(KvError::Deadline { function: "open", deadline }),
            Ok(Err(error)) => return Err(told(store, "open", limits, error)),
            Ok(Ok(capabilities)) => capabilities,
        };
        check_capabilities(&capabilities)?;
        instance.capabilities = capabilities;
        instance.store.data_mut().cpu = CpuBudget::new(limits.cpu);
        Ok(instance)
    }

    /// Instantiates `plugin` without opening it: nothing but [`Instance::open`], and a trial of what comes of a call that
    /// comes too early, has a use for that.
    pub(super) async fn start(
        plugin: &Plugin,
        config: &BackendConfig,
        grants: &Grants,
        shard: u32,
    ) -> Result<Self, KvError> {
        let limits = &config.limits;
        let deadline = limits.open_timeout;
        let begun = Instant::now();
        let pins = match tokio::time::timeout(deadline, grants.pin(&config.name)).await {
            Err(_) => return Err(KvError::Down(format!("its destinations could not be resolved within {deadline:?}"))),
            Ok(pins) => pins?,
        };
        let sandbox = Sandbox::new(config, shard, grants, pins)?;
        let mut store = Store::new(plugin.guest.engine(), sandbox);
        store.limiter(|sandbox| &mut sandbox.limiter);
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().cpu.tick()?;
            Ok(UpdateDeadline::Yield(EPOCHS_PER_YIELD))
        });
        store.set_epoch_deadline(EPOCHS_PER_YIELD);
        // What the engine accounts for is the host's copy of an answer, list elements included.
        store.set_hostcall_fuel(usize::try_from(limits.response).unwrap_or(usize::MAX));
        let left = deadline.saturating_sub(begun.elapsed());
        let guest = match tokio::time::timeout(left, plugin.guest.instantiate(&mut store)).await {
            Err(_) => return Err(KvError::Deadline { function: "start", deadline }),
            Ok(Err(error)) => return Err(failure(&mut store, "start", limits, &error)),
            Ok(Ok(guest)) => guest,
        };
        Ok(Self { store, guest, capabilities: UNOPENED, limits: limits.clone() })
    }

    /// What it said of itself at `open`.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Bytes of linear memory in use.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.store.data().limiter.memory_used() as u64
    }

    /// One answer per key, in the order of the keys.
    pub(super) async fn get_many(&mut self, keys: &[String]) -> Result<Vec<Option<Entry>>, KvError> {
        let call = self.guest.get_many(&mut self.store, keys);
        let answer = within(self.limits.call_timeout, call).await;
        let found = self.conclude("get-many", answer)?;
        check_length("get-many", keys.len(), found.len())?;
        for (key, entry) in keys.iter().zip(&found) {
            let Some(entry) = entry else { continue };
            if entry.key != *key {
                return Err(contract(
                    "get-many",
                    format!("asked for {}, it answered {}", shown(key), shown(&entry.key)),
                ));
            }
            if entry.value.len() as u64 > u64::from(self.capabilities.max_value_bytes) {
                return Err(contract("get-many", "a value is larger than its own `max-value-bytes`".into()));
            }
        }
        Ok(found)
    }

    /// One answer per key, in the order of the keys, with so many bytes of each value.
    pub(super) async fn digest_many(
        &mut self,
        keys: &[String],
        head_bytes: u32,
    ) -> Result<Vec<Option<Digest>>, KvError> {
        let call = self.guest.digest_many(&mut self.store, keys, head_bytes);
        let answer = within(self.limits.call_timeout, call).await;
        let found = self.conclude("digest-many", answer)?;
        check_length("digest-many", keys.len(), found.len())?;
        for digest in found.iter().flatten() {
            if digest.head.len() as u64 != u64::from(digest.value_bytes.min(head_bytes)) {
                let (given, due) = (digest.head.len(), digest.value_bytes.min(head_bytes));
                return Err(contract("digest-many", format!("a head has {given} bytes, {due} were due")));
            }
        }
        Ok(found)
    }

    /// Makes what follows under this token.
    pub(super) async fn hold(&mut self, token: u64) -> Result<(), KvError> {
        let call = self.guest.hold(&mut self.store, token);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("hold", answer)
    }

    /// Has the intent of a transaction kept.
    pub(super) async fn prepare(&mut self, transaction: &str, puts: &[Entry], deletes: &[Mark]) -> Result<(), KvError> {
        let call = self.guest.prepare(&mut self.store, transaction, puts, deletes);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("prepare", answer)
    }

    /// Has the intent of a transaction carried out.
    pub(super) async fn commit(&mut self, transaction: &str) -> Result<(), KvError> {
        let call = self.guest.commit(&mut self.store, transaction);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("commit", answer)
    }

    /// Has the intent of a transaction removed.
    pub(super) async fn abort(&mut self, transaction: &str) -> Result<(), KvError> {
        let call = self.guest.abort(&mut self.store, transaction);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("abort", answer)
    }

    /// The transactions that have an intent.
    pub(super) async fn in_doubt(&mut self) -> Result<Vec<String>, KvError> {
        let call = self.guest.in_doubt(&mut self.store);
        let answer = within(self.limits.call_timeout, call).await;
        let transactions = self.conclude("in-doubt", answer)?;
        if transactions.iter().any(|name| name.is_empty() || name.len() > MAX_TRANSACTION_BYTES) {
            return Err(contract("in-doubt", "a name that no transaction can have".into()));
        }
        Ok(transactions)
    }

    /// One outcome per entry, in the order of the entries.
    pub(super) async fn put_many(&mut self, entries: &[Entry], condition: Condition) -> Result<Vec<Outcome>, KvError> {
        let call = self.guest.put_many(&mut self.store, entries, condition);
        let answer = within(self.limits.call_timeout, call).await;
        let outcomes = self.conclude("put-many", answer)?;
        check_length("put-many", entries.len(), outcomes.len())?;
        Ok(outcomes)
    }

    /// One outcome per mark, in the order of the marks.
    pub(super) async fn delete_many(&mut self, marks: &[Mark], condition: Condition) -> Result<Vec<Outcome>, KvError> {
        let call = self.guest.delete_many(&mut self.store, marks, condition);
        let answer = within(self.limits.call_timeout, call).await;
        let outcomes = self.conclude("delete-many", answer)?;
        check_length("delete-many", marks.len(), outcomes.len())?;
        Ok(outcomes)
    }

    /// One page of marks.
    pub(super) async fn scan(&mut self, cursor: Option<&str>, limit: u32) -> Result<Page, KvError> {
        let call = self.guest.scan(&mut self.store, cursor, limit);
        let answer = within(self.limits.call_timeout, call).await;
        let page = self.conclude("scan", answer)?;
        if page.next.is_some() && page.next.as_deref() == cursor {
            return Err(contract("scan", "the next cursor is the same as the one before".into()));
        }
        Ok(page)
    }

    /// What it holds.
    pub(super) async fn stats(&mut self) -> Result<Usage, KvError> {
        let call = self.guest.stats(&mut self.store);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("stats", answer)
    }

    /// Makes what was answered durable.
    pub(super) async fn flush(&mut self) -> Result<(), KvError> {
        let call = self.guest.flush(&mut self.store);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("flush", answer)
    }

    /// Whether it thinks that it works.
    pub(super) async fn health(&mut self) -> Result<(), KvError> {
        let call = self.guest.health(&mut self.store);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("health", answer)
    }

    /// The orderly end, after which nothing but dropping it makes sense.
    pub(super) async fn close(&mut self) -> Result<(), KvError> {
        let call = self.guest.close(&mut self.store);
        let answer = within(self.limits.call_timeout, call).await;
        self.conclude("close", answer)
    }

    fn conclude<T>(
        &mut self,
        function: &'static str,
        answer: Result<Result<T, Failure>, Elapsed>,
    ) -> Result<T, KvError> {
        self.store.data_mut().cpu.refill();
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(told(&mut self.store, function, &self.limits, error)),
            Err(_) => Err(KvError::Deadline { function, deadline: self.limits.call_timeout }),
        }
    }
}

/// How late a timer is when the whole process, or the machine, was stopped meanwhile, or the system kept the thread.
const LATE: Duration = Duration::from_millis(200);

/// What a call comes to within `limit`. A host that was stopped for a while gives it that time once more: what it waits for may have been
/// there all along, and to lose an instance can mean to copy everything anew.
async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::pin!(call);
    let until = tokio::time::Instant::now() + limit;
    match tokio::time::timeout_at(until, call.as_mut()).await {
        Err(_) if until.elapsed() > LATE => tokio::time::timeout(limit, call).await,
        end => end,
    }
}

/// What a call came to that gave no answer, or none to the question.
fn told(store: &mut Store<Sandbox>, function: &'static str, limits: &LimitsConfig, error: Failure) -> KvError {
    match error {
        Failure::Call(error) => failure(store, function, limits, &error),
        Failure::Refused(error) => KvError::Refused(store.data().secrets().hide_in(error)),
        Failure::Answers { due, given } => KvError::Answers { function, due, given },
        Failure::Contract(reason) => contract(function, reason),
    }
}

/// Tells apart why a call ended without an answer.
fn failure(
    store: &mut Store<Sandbox>,
    function: &'static str,
    limits: &LimitsConfig,
    error: &wasmtime::Error,
) -> KvError {
    let sandbox = store.data_mut();
    if error.is::<CpuExhausted>() {
        return KvError::Cpu { function, limit: limits.cpu };
    }
    match sandbox.limiter.take_denied() {
        Some(Denied::Memory) => return KvError::Memory { function, limit_bytes: limits.memory },
        Some(Denied::TableElements) => return KvError::Limit { function, limit: "table_elements" },
        None => {}
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return KvError::Limit { function, limit: "handles" };
    }
    // The engine has no types for these; a test with a guest that does it covers each text.
    let text = format!("{error:#}");
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        return KvError::ResponseTooLarge { function, limit_bytes: limits.response };
    }
    for (what, limit) in [("instance count too high", "instances"), ("table count too high", "tables")] {
        if text.contains("resource limit exceeded") && text.contains(what) {
            return KvError::Limit { function, limit };
        }
    }
    let cause = match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => trap.to_string(),
        None => shown(&error.root_cause().to_string()),
    };
    let said = sandbox.last_words();
    let reason = if said.is_empty() { cause } else { format!("{cause}; it said: {said}") };
    KvError::Trap { function, reason }
}

fn contract(function: &'static str, reason: String) -> KvError {
    KvError::Contract { function, reason }
}

fn check_length(function: &'static str, due: usize, given: usize) -> Result<(), KvError> {
    if due == given { Ok(()) } else { Err(KvError::Answers { function, due, given }) }
}

fn check_capabilities(capabilities: &Capabilities) -> Result<(), KvError> {
    let Capabilities { max_key_bytes, max_value_bytes, max_batch, .. } = *capabilities;
    let declared = [
        ("max-key-bytes", max_key_bytes, MIN_KEY_BYTES),
        ("max-value-bytes", max_value_bytes, 1),
        ("max-batch", max_batch, 1),
    ];
    if let Some((limit, declared, least)) = declared.into_iter().find(|(_, declared, least)| declared < least) {
        return Err(KvError::Declared { limit, declared, least });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    async fn nap(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    #[tokio::test]
    async fn who_was_stopped_has_more_time_and_who_is_slow_has_not() {
        assert_eq!(within(LIMIT, nap(10)).await, Ok(()));
        assert!(within(LIMIT, nap(200)).await.is_err());
        let stopped = async {
            nap(10).await;
            // As a process that is stopped: no timer of this thread fires meanwhile.
            std::thread::sleep(LIMIT + LATE + LIMIT);
            nap(20).await;
        };
        assert_eq!(within(LIMIT, stopped).await, Ok(()));
        let stopped_and_slow = async {
            std::thread::sleep(LIMIT + LATE + LIMIT);
            nap(500).await;
        };
        assert!(within(LIMIT, stopped_and_slow).await.is_err());
    }
}
