//! Plain `wasi:keyvalue` components as backends: they keep bytes by key, and the host does what the contract asks beyond that.
//!
//! - **What loads**: a component that exports `wasi:keyvalue/store` of the draft `0.2.0-draft` or `0.2.0-draft2`. If it exports
//!   `wasi:keyvalue/batch` of the same draft, that is used; `atomics` and the like are not.
//! - **Settings**: `bucket` (default `default`) names the bucket that is opened. With more than one shard it has to contain
//!   `{shard}`, in whose place the number of the shard is put: each shard has a bucket of its own. `persistent` (`true` or
//!   `false`, the default): whether what the component has answered is still there when it is opened again, also after a crash
//!   of the host. The interface has no way to ask, and none to flush, so it is the operator who knows. A bucket that is said
//!   not to persist and isn't empty at the start is refused: what it holds can't be told from what it ought to hold.
//! - **Rules**: under each key lies a record with its stamp and expiry (see [`rules`]), tombstones included. A write reads the
//!   records of its keys (whole, for nothing less can be asked for), judges, and writes what prevails. An instance has one
//!   call at a time, so judging and writing are one step as long as the bucket is this shard's alone. A store that others
//!   write to as well can't be judged by the host, so none of these backends counts as shared.
//! - **Limits**: keys of 1 KiB; values of 64 MiB, or what `limits.response` leaves room for; 256 items a call. The deadline
//!   `limits.call_timeout` is that of one call of the contract, however many calls of the component it takes.
//! - **Expiry**: an expired record is as good as gone, and deleted when a scan meets it.
//! - **Scan and statistics** read every record they pass. Counting gives up with `unsupported` before it holds up a shard.

mod interface;
mod rules;
mod scans;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use memcell_plugin::{Moment, Rule, Settings, unix_millis};
use wasmtime::Store;
use wasmtime::component::{InstancePre, ResourceAny};

pub(super) use self::interface::{Draft, PACKAGE};
use self::interface::{Exports, Functions};
use self::rules::Offer;
use self::scans::{Place, Rest, Scans};
use super::bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
use super::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome, Page, Usage};
use super::bindings::memcell::kv::types::Error as GuestError;
use super::sandbox::Sandbox;
use crate::config::BackendConfig;

/// As the SDK's default.
const MAX_KEY_BYTES: u32 = 1024;

/// As the SDK's default: room for the largest MongoDB document, 16 MiB, written out as JSON.
const MAX_VALUE_BYTES: u64 = 64 * 1024 * 1024;

/// What an answer takes besides a single value.
const ANSWER_OVERHEAD_BYTES: u64 = 4096;

/// Without batch functions each item of a call takes two calls of the component, all within one deadline.
const MAX_BATCH: u32 = 256;

/// Records read in one call of the component: with documents of ordinary size far below `limits.response`, which bounds the
/// answer and whose excess costs the instance, since the sizes aren't known before.
const READ_AT_ONCE: usize = 32;

/// The most entries in one step of a scan, whatever the caller asks: all of their values are read.
const MAX_SCAN_STEP: usize = 256;

/// How long counting may hold up the shard.
const COUNTING_BUDGET: Duration = Duration::from_millis(250);

const DEFAULT_BUCKET: &str = "default";

/// In the name of a bucket, the number of the shard.
const SHARD_PLACEHOLDER: &str = "{shard}";

/// Looked for, and never found, to see that the component answers.
const HEALTH_KEY: &str = "memcell-health";

/// Why the component's answer is none that the host can go by.
pub(super) enum Failure {
    /// The call itself failed: a trap, a limit, an answer that can't be read.
    Call(wasmtime::Error),
    /// It answered with an error.
    Refused(GuestError),
    /// It gave another number of answers than it was asked for.
    Answers { due: usize, given: usize },
    /// Its answer is none to the question otherwise.
    Contract(String),
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Call(error)
    }
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        Self::Refused(error)
    }
}

/// A plain component that can be instantiated.
#[derive(Clone)]
pub(super) struct KeyValuePre {
    pre: InstancePre<Sandbox>,
    exports: Exports,
}

impl KeyValuePre {
    /// Looks up the functions of a component that exports `store` of `draft`.
    ///
    /// # Errors
    /// What is wrong with its functions, in words.
    pub(super) fn new(pre: InstancePre<Sandbox>, draft: Draft) -> Result<Self, String> {
        let exports = Exports::find(pre.component(), draft)?;
        Ok(Self { pre, exports })
    }

    pub(super) fn engine(&self) -> &wasmtime::Engine {
        self.pre.engine()
    }

    /// The interfaces that it is a backend by.
    pub(super) fn interfaces(&self) -> Vec<String> {
        let names: &[&str] = if self.exports.has_batch() { &["store", "batch"] } else { &["store"] };
        names.iter().map(|name| self.exports.draft().interface(name)).collect()
    }

    /// An instance that has no bucket yet.
    pub(super) async fn instantiate(&self, store: &mut Store<Sandbox>) -> wasmtime::Result<KeyValue> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let functions = Functions::of(&instance, store, &self.exports)?;
        Ok(KeyValue { functions, draft: self.exports.draft(), state: State::New, scans: Scans::default() })
    }
}

/// What the settings say.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    bucket: String,
    persistent: bool,
}

impl Options {
    fn read(settings: &[(String, String)], shards: u32, shard: u32) -> Result<Self, GuestError> {
        let invalid = |error: memcell_plugin::Error| {
            let text = match error {
                memcell_plugin::Error::InvalidArgument(text) => text,
                other => other.to_string(),
            };
            GuestError::InvalidArgument(format!("{text} (of a plain {PACKAGE} component)"))
        };
        let mut settings = Settings::new(settings.iter().cloned()).map_err(invalid)?;
        let bucket = settings.string("bucket").unwrap_or_else(|| DEFAULT_BUCKET.to_owned());
        let persistent = settings.boolean("persistent").map_err(invalid)?.unwrap_or(false);
        settings.finish().map_err(invalid)?;
        if shards > 1 && !bucket.contains(SHARD_PLACEHOLDER) {
            let text = format!(
                "{shards} shards need a bucket each: put {SHARD_PLACEHOLDER} into the setting \"bucket\" (it is {bucket:?})"
            );
            return Err(GuestError::InvalidArgument(text));
        }
        Ok(Self { bucket: bucket.replace(SHARD_PLACEHOLDER, &shard.to_string()), persistent })
    }
}

/// An instance, its bucket, and the contract's rules around it. Every call may take the instance with it, as those of other
/// plugins.
pub(super) struct KeyValue {
    functions: Functions,
    draft: Draft,
    state: State,
    scans: Scans,
}

#[derive(Clone, Copy)]
enum State {
    New,
    Open(Opened),
    Closed,
}

/// What is known of an open bucket.
#[derive(Clone, Copy)]
struct Opened {
    bucket: ResourceAny,
    max_value_bytes: u32,
    response_limit: u64,
}

impl KeyValue {
    /// Opens the bucket that the settings name.
    pub(super) async fn open(
        &mut self,
        store: &mut Store<Sandbox>,
        config: &BackendConfig,
        shard: u32,
    ) -> Result<Capabilities, Failure> {
        if !matches!(self.state, State::New) {
            return Err(GuestError::InvalidArgument("it has been opened before".to_owned()).into());
        }
        let Options { bucket: name, persistent } = Options::read(&config.settings, config.shards, shard)?;
        let bucket = self.functions.open(store, &name).await?;
        if !persistent && self.has_keys(store, bucket).await? {
            let text = format!(
                "the bucket {name:?} isn't empty; if the component keeps what it is given, say `persistent = \"true\"`, \
                 else give it a bucket of its own (`bucket`)"
            );
            return Err(GuestError::InvalidArgument(text).into());
        }
        let response_limit = config.limits.response;
        let max_value_bytes = response_limit.saturating_sub(ANSWER_OVERHEAD_BYTES).clamp(1, MAX_VALUE_BYTES);
        let max_value_bytes = u32::try_from(max_value_bytes).unwrap_or(u32::MAX);
        self.state = State::Open(Opened { bucket, max_value_bytes, response_limit });
        let (max_key_bytes, max_batch) = (MAX_KEY_BYTES, MAX_BATCH);
        Ok(Capabilities { max_key_bytes, max_value_bytes, max_batch, persistent, shared: false })
    }

    /// The live entry of each key. More than `limits.response` in all is `too-large`: fewer keys may pass.
    pub(super) async fn get_many(
        &mut self,
        store: &mut Store<Sandbox>,
        keys: &[String],
    ) -> Result<Vec<Option<Entry>>, Failure> {
        let Opened { bucket, response_limit, .. } = self.opened()?;
        check_keys(keys.iter().map(String::as_str))?;
        let moment = Moment::new(unix_millis);
        let mut entries = Vec::with_capacity(keys.len());
        let mut answered_bytes = 0;
        for part in keys.chunks(READ_AT_ONCE) {
            let values = self.functions.get(store, bucket, part).await?;
            answered_bytes += values.iter().flatten().map(|value| value.len() as u64).sum::<u64>();
            if answered_bytes > response_limit && keys.len() > 1 {
                let text = format!("the values come to more than {response_limit} bytes (`limits.response`)");
                return Err(GuestError::TooLarge(text).into());
            }
            for (key, value) in part.iter().zip(values) {
                entries.push(match value {
                    Some(bytes) => rules::live(key, &bytes, &moment)?,
                    None => None,
                });
            }
        }
        Ok(entries)
    }

    /// Stores each entry if `condition` allows it.
    pub(super) async fn put_many(
        &mut self,
        store: &mut Store<Sandbox>,
        entries: &[Entry],
        condition: Condition,
    ) -> Result<Vec<Outcome>, Failure> {
        let offers: Vec<Offer<'_>> = entries.iter().map(Offer::from).collect();
        self.write_many(store, &offers, condition).await
    }

    /// Leaves a tombstone for each key if `condition` allows it.
    pub(super) async fn delete_many(
        &mut self,
        store: &mut Store<Sandbox>,
        marks: &[Mark],
        condition: Condition,
    ) -> Result<Vec<Outcome>, Failure> {
        let offers: Vec<Offer<'_>> = marks.iter().map(Offer::from).collect();
        self.write_many(store, &offers, condition).await
    }

    async fn write_many(
        &mut self,
        store: &mut Store<Sandbox>,
        offers: &[Offer<'_>],
        condition: Condition,
    ) -> Result<Vec<Outcome>, Failure> {
        let Opened { bucket, max_value_bytes, .. } = self.opened()?;
        check_keys(offers.iter().map(|offer| offer.key))?;
        if let Some(bytes) = offers.iter().map(Offer::value_bytes).find(|bytes| *bytes > max_value_bytes as usize) {
            let text = format!("a value of {bytes} bytes; at most {max_value_bytes} are taken");
            return Err(GuestError::TooLarge(text).into());
        }
        let rule = Rule::new(rules::condition(condition), Moment::new(unix_millis));
        let keys = rules::distinct_keys(offers);
        let mut stored = HashMap::with_capacity(keys.len());
        for part in keys.chunks(READ_AT_ONCE) {
            let values = self.functions.get(store, bucket, part).await?;
            for (key, value) in part.iter().zip(values) {
                if let Some(bytes) = value {
                    stored.insert(key.clone(), rules::header(key, &bytes)?);
                }
            }
        }
        let judgement = rules::judge(offers, stored, &rule);
        self.functions.set(store, bucket, judgement.records).await?;
        Ok(judgement.outcomes)
    }

    /// One step through the live entries; what it meets expired is deleted.
    pub(super) async fn scan(
        &mut self,
        store: &mut Store<Sandbox>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page, Failure> {
        let Opened { bucket, .. } = self.opened()?;
        if limit == 0 {
            return Err(GuestError::InvalidArgument("the limit of a scan is at least 1".to_owned()).into());
        }
        let place = self
            .scans
            .resume(cursor, self.draft)
            .map_err(|()| GuestError::InvalidArgument("the cursor is not one of this backend's".to_owned()))?;
        let mut rest = match place {
            Place::Within(rest) => rest,
            Place::Page(page) => {
                let (keys, next) = self.functions.list_keys(store, bucket, page.clone()).await?;
                Rest { page, keys: keys.into(), next }
            }
        };
        let step = (limit as usize).min(MAX_SCAN_STEP).min(rest.keys.len());
        let keys: Vec<String> = rest.keys.drain(..step).collect();
        let next = self.scans.suspend(rest);
        let moment = Moment::new(unix_millis);
        let mut marks = Vec::with_capacity(keys.len());
        let mut expired = Vec::new();
        for part in keys.chunks(READ_AT_ONCE) {
            let values = self.functions.get(store, bucket, part).await?;
            for (key, value) in part.iter().zip(values) {
                let Some(bytes) = value else { continue };
                let header = rules::header(key, &bytes)?;
                if moment.has_passed(header.expires_at) {
                    expired.push(key.clone());
                } else if !header.is_tombstone() {
                    marks.push(Mark { key: key.clone(), stamp: header.stamp, expires_at: header.expires_at });
                }
            }
        }
        // A page may name a key twice.
        expired.sort_unstable();
        expired.dedup();
        self.functions.delete(store, bucket, expired).await?;
        Ok(Page { marks, next })
    }

    /// Counts the live entries.
    pub(super) async fn stats(&mut self, store: &mut Store<Sandbox>) -> Result<Usage, Failure> {
        let Opened { bucket, .. } = self.opened()?;
        let started = Instant::now();
        let moment = Moment::new(unix_millis);
        let mut usage = Usage { entries: 0, bytes: 0 };
        let mut cursor = None;
        loop {
            let (keys, next) = self.functions.list_keys(store, bucket, cursor).await?;
            for part in keys.chunks(READ_AT_ONCE) {
                let values = self.functions.get(store, bucket, part).await?;
                for (key, value) in part.iter().zip(values) {
                    let Some(bytes) = value else { continue };
                    let header = rules::header(key, &bytes)?;
                    if let Some(value_bytes) = header.value_bytes
                        && !moment.has_passed(header.expires_at)
                    {
                        usage.entries += 1;
                        usage.bytes += (key.len() + value_bytes) as u64;
                    }
                }
                if started.elapsed() > COUNTING_BUDGET {
                    let text = format!("counting the entries would take longer than {COUNTING_BUDGET:?}");
                    return Err(GuestError::Unsupported(text).into());
                }
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(usage),
            }
        }
    }

    /// There is nothing to call: what it has answered is as durable as it will get.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        self.opened().map(|_| ())
    }

    /// Whether it answers.
    pub(super) async fn health(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        let Opened { bucket, .. } = self.opened()?;
        self.functions.exists(store, bucket, HEALTH_KEY).await?;
        Ok(())
    }

    /// Gives the bucket back.
    pub(super) async fn close(&mut self, store: &mut Store<Sandbox>) -> Result<(), Failure> {
        let Opened { bucket, .. } = self.opened()?;
        self.state = State::Closed;
        Ok(bucket.resource_drop_async(store).await?)
    }

    fn opened(&self) -> Result<Opened, Failure> {
        match self.state {
            State::Open(opened) => Ok(opened),
            State::New => Err(GuestError::Other("the backend has not been opened".to_owned()).into()),
            State::Closed => Err(GuestError::Other("the backend is closed".to_owned()).into()),
        }
    }

    async fn has_keys(&self, store: &mut Store<Sandbox>, bucket: ResourceAny) -> Result<bool, Failure> {
        let mut cursor = None;
        loop {
            let (keys, next) = self.functions.list_keys(store, bucket, cursor).await?;
            if !keys.is_empty() {
                return Ok(true);
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(false),
            }
        }
    }
}

/// Holds the items of a call against what was declared of the backend.
fn check_keys<'a>(keys: impl ExactSizeIterator<Item = &'a str>) -> Result<(), GuestError> {
    if keys.len() > MAX_BATCH as usize {
        return Err(GuestError::TooLarge(format!("a call of {} items; at most {MAX_BATCH} are taken", keys.len())));
    }
    for key in keys {
        if key.is_empty() {
            return Err(GuestError::InvalidArgument("an empty key".to_owned()));
        }
        if key.len() > MAX_KEY_BYTES as usize {
            return Err(GuestError::TooLarge(format!(
                "a key of {} bytes; at most {MAX_KEY_BYTES} are taken",
                key.len()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
