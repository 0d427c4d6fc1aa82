//! Calls of one instance with any number of items: cut into what one call may hold, measured, and made again where that helps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome, Page, Usage};
use super::bindings::memcell::kv::types::Error as GuestError;
use super::bindings::with_digests::exports::memcell::kv::digests::Digest;
use super::error::KvError;
use super::instance::Instance;
use super::status::ShardStatus;
use super::write::Write;
use crate::config::BackendConfig;
use crate::metrics::BackendMetrics;

/// Values handed over in one call: enough to make the call itself negligible, little enough for a small guest.
const MAX_CALL_BYTES: usize = 8 * 1024 * 1024;

/// What an answer with one value takes in memory besides it, at the most: its key, and what the engine accounts for.
const ANSWER_OVERHEAD_BYTES: u64 = 8 * 1024;

/// How many keys a shard asks for in one call at the most, whatever becomes of its instances. Shared by all that know it.
#[derive(Debug, Clone)]
pub(super) struct MaxRead(Arc<AtomicUsize>);

impl MaxRead {
    pub(super) fn unlimited() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed).max(1)
    }

    /// The answer to so many keys was larger than the host takes, which cost the instance: there must not be many of those.
    fn halve(&self, keys: usize) {
        self.0.store(keys / 2, Ordering::Relaxed);
        tracing::warn!(keys, "the answer to a read was too large; fewer keys are asked for at a time from now on");
    }
}

/// An instance, its limits, and how its calls went.
pub(super) struct Calls {
    instance: Instance,
    max_batch: usize,
    max_read: MaxRead,
    max_key_bytes: usize,
    max_value_bytes: usize,
    metrics: BackendMetrics,
    status: Arc<ShardStatus>,
    call_timeout: Duration,
    /// The last error that speaks against the backend as a whole, until somebody takes it.
    trouble: Option<KvError>,
    success: bool,
}

impl Calls {
    pub(super) fn new(
        instance: Instance,
        config: &BackendConfig,
        max_read: MaxRead,
        metrics: BackendMetrics,
        status: Arc<ShardStatus>,
    ) -> Self {
        let capabilities = instance.capabilities();
        // What couldn't be read again isn't written.
        let readable = usize::try_from(config.limits.response.saturating_sub(ANSWER_OVERHEAD_BYTES));
        Self {
            instance,
            max_batch: config.queue.batch.min(capabilities.max_batch as usize).max(1),
            max_key_bytes: capabilities.max_key_bytes as usize,
            max_value_bytes: readable.unwrap_or(usize::MAX).min(capabilities.max_value_bytes as usize),
            max_read,
            metrics,
            status,
            call_timeout: config.limits.call_timeout,
            trouble: None,
            success: false,
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.instance.memory_bytes()
    }

    /// An error since the last time this was asked that speaks against the backend as a whole, if no call succeeded after it.
    pub(super) fn take_trouble(&mut self) -> Option<KvError> {
        self.trouble.take()
    }

    /// Whether a call has succeeded since the last time this was asked.
    pub(super) fn take_success(&mut self) -> bool {
        std::mem::take(&mut self.success)
    }

    fn note<T>(
        &mut self,
        function: &'static str,
        items: usize,
        started: Instant,
        result: Result<T, KvError>,
    ) -> Result<T, KvError> {
        let label = match &result {
            Ok(_) => "ok",
            Err(error) => error.label(),
        };
        let elapsed = started.elapsed();
        // Another call may follow.
        self.status.expect_back_within(self.call_timeout);
        self.metrics.kv_call(function, label, items, elapsed);
        tracing::debug!(function, items, result = label, ?elapsed, "plugin called");
        match &result {
            Ok(_) => {
                self.success = true;
                self.trouble = None;
            }
            Err(error) if error.counts_against_backend() => self.trouble = Some(error.clone()),
            Err(_) => {}
        }
        result
    }

    /// What `ask` answers for the keys that this instance can have an entry for; there is none for longer ones.
    async fn for_possible<T>(
        &mut self,
        keys: &[String],
        ask: impl AsyncFnOnce(&mut Self, &[String]) -> Result<Vec<Option<T>>, KvError>,
    ) -> Result<Vec<Option<T>>, KvError> {
        let fits = |key: &String| key.len() <= self.max_key_bytes;
        if keys.iter().all(fits) {
            return ask(self, keys).await;
        }
        let places: Vec<bool> = keys.iter().map(fits).collect();
        let possible: Vec<String> = keys.iter().filter(|key| fits(key)).cloned().collect();
        let mut found = ask(self, &possible).await?.into_iter();
        Ok(places.into_iter().map(|fits| if fits { found.next().flatten() } else { None }).collect())
    }

    /// One answer per key. A batch whose answer is too large for the plugin is asked for in halves; one that is too large for the
    /// host costs the instance, so that later batches are smaller.
    pub(super) async fn get(&mut self, keys: &[String]) -> Result<Vec<Option<Entry>>, KvError> {
        self.for_possible(keys, Self::get_possible).await
    }

    async fn get_possible(&mut self, keys: &[String]) -> Result<Vec<Option<Entry>>, KvError> {
        let mut found = Vec::with_capacity(keys.len());
        let mut waiting: Vec<&[String]> = keys.chunks(self.max_batch.min(self.max_read.get())).rev().collect();
        while let Some(part) = waiting.pop() {
            let started = Instant::now();
            let answer = self.instance.get_many(part).await;
            match self.note("get-many", part.len(), started, answer) {
                Ok(entries) => found.extend(entries),
                Err(KvError::Refused(GuestError::TooLarge(_))) if part.len() > 1 => {
                    waiting.extend(halves(part));
                }
                Err(error @ KvError::ResponseTooLarge { .. }) if part.len() > 1 => {
                    self.max_read.halve(part.len());
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// One digest per key. A batch of values that are too much for the plugin at a time is asked for in halves.
    pub(super) async fn digests(&mut self, keys: &[String], head_bytes: u32) -> Result<Vec<Option<Digest>>, KvError> {
        self.for_possible(keys, async |calls, keys| calls.digests_possible(keys, head_bytes).await).await
    }

    async fn digests_possible(&mut self, keys: &[String], head_bytes: u32) -> Result<Vec<Option<Digest>>, KvError> {
        let mut found = Vec::with_capacity(keys.len());
        let mut waiting: Vec<&[String]> = keys.chunks(self.max_batch).rev().collect();
        while let Some(part) = waiting.pop() {
            let started = Instant::now();
            let answer = self.instance.digest_many(part, head_bytes).await;
            match self.note("digest-many", part.len(), started, answer) {
                Err(KvError::Refused(GuestError::TooLarge(_))) if part.len() > 1 => {
                    waiting.extend(halves(part));
                }
                digests => found.extend(digests?),
            }
        }
        Ok(found)
    }

    /// Makes what follows under this token.
    pub(super) async fn hold(&mut self, token: u64) -> Result<(), KvError> {
        let started = Instant::now();
        let answer = self.instance.hold(token).await;
        self.note("hold", 0, started, answer)
    }

    /// Has the intent of a transaction kept, as a whole or not at all. It can't be cut: what is prepared again replaces what was.
    pub(super) async fn prepare(&mut self, transaction: &str, writes: Vec<Write>) -> Result<(), KvError> {
        writes.iter().try_for_each(|write| self.check(write))?;
        let (count, bytes) = (writes.len(), writes.iter().map(Write::size).sum::<usize>());
        if count > 1 && (count > self.max_batch || bytes > MAX_CALL_BYTES) {
            let most = self.max_batch;
            let text = format!(
                "{count} writes of {bytes} bytes can't be prepared together; at most {most} of {MAX_CALL_BYTES} bytes can"
            );
            return Err(KvError::Refused(GuestError::TooLarge(text)));
        }
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for write in writes {
            match write {
                Write::Put(entry) => puts.push(entry),
                Write::Delete(mark) => deletes.push(mark),
            }
        }
        let started = Instant::now();
        let answer = self.instance.prepare(transaction, &puts, &deletes).await;
        self.note("prepare", count, started, answer)
    }

    /// Has the intent of a transaction carried out.
    pub(super) async fn commit(&mut self, transaction: &str) -> Result<(), KvError> {
        let started = Instant::now();
        let answer = self.instance.commit(transaction).await;
        self.note("commit", 1, started, answer)
    }

    /// Has the intent of a transaction removed.
    pub(super) async fn abort(&mut self, transaction: &str) -> Result<(), KvError> {
        let started = Instant::now();
        let answer = self.instance.abort(transaction).await;
        self.note("abort", 1, started, answer)
    }

    /// The transactions that have an intent.
    pub(super) async fn in_doubt(&mut self) -> Result<Vec<String>, KvError> {
        let started = Instant::now();
        let answer = self.instance.in_doubt().await;
        self.note("in-doubt", 1, started, answer)
    }

    /// One end per write, in their order. Puts and deletes go in separate calls: the stamps, not the order of the calls,
    /// decide which of two writes to a key prevails.
    pub(super) async fn write(&mut self, writes: Vec<Write>, condition: Condition) -> Vec<Result<Outcome, KvError>> {
        let mut ends: Vec<Result<Outcome, KvError>> = Vec::with_capacity(writes.len());
        let deletes_due = writes.iter().filter(|write| matches!(write, Write::Delete(_))).count();
        let mut puts = Batch::with_capacity(writes.len() - deletes_due);
        let mut deletes = Batch::with_capacity(deletes_due);
        for (index, write) in writes.into_iter().enumerate() {
            match self.check(&write) {
                Ok(()) => ends.push(Err(KvError::Closed)),
                Err(error) => {
                    ends.push(Err(error));
                    continue;
                }
            }
            match write {
                Write::Put(entry) => puts.push(index, entry),
                Write::Delete(mark) => deletes.push(index, mark),
            }
        }
        let broken = self.put_batch(puts, condition, &mut ends).await;
        self.delete_batch(deletes, condition, broken, &mut ends).await;
        ends
    }

    async fn put_batch(
        &mut self,
        batch: Batch<Entry>,
        condition: Condition,
        ends: &mut [Result<Outcome, KvError>],
    ) -> Option<KvError> {
        let mut parts = batch.into_parts(self.max_batch, |entry| entry.key.len() + entry.value.len());
        while let Some(part) = parts.pop() {
            let started = Instant::now();
            let answer = self.instance.put_many(&part.items, condition).await;
            match self.note("put-many", part.items.len(), started, answer) {
                Ok(outcomes) => part.settle(outcomes.into_iter().map(Ok), ends),
                Err(error) if error.is_about_items() && part.items.len() > 1 => parts.extend(part.into_singles()),
                Err(error) => {
                    part.settle(std::iter::repeat(Err(error.clone())), ends);
                    if error.ends_instance() {
                        parts.into_iter().for_each(|part| part.settle(std::iter::repeat(Err(error.clone())), ends));
                        return Some(error);
                    }
                }
            }
        }
        None
    }

    async fn delete_batch(
        &mut self,
        batch: Batch<Mark>,
        condition: Condition,
        broken: Option<KvError>,
        ends: &mut [Result<Outcome, KvError>],
    ) {
        let mut broken = broken;
        let mut parts = batch.into_parts(self.max_batch, |mark| mark.key.len());
        while let Some(part) = parts.pop() {
            if let Some(error) = &broken {
                part.settle(std::iter::repeat(Err(error.clone())), ends);
                continue;
            }
            let started = Instant::now();
            let answer = self.instance.delete_many(&part.items, condition).await;
            match self.note("delete-many", part.items.len(), started, answer) {
                Ok(outcomes) => part.settle(outcomes.into_iter().map(Ok), ends),
                Err(error) if error.is_about_items() && part.items.len() > 1 => parts.extend(part.into_singles()),
                Err(error) => {
                    part.settle(std::iter::repeat(Err(error.clone())), ends);
                    broken = Some(error).filter(KvError::ends_instance);
                }
            }
        }
    }

    /// What the plugin said that it doesn't take is never handed to it.
    fn check(&self, write: &Write) -> Result<(), KvError> {
        let too_large = |what: &str, size: usize, limit: usize| {
            let text = format!("a {what} of {size} bytes is over the limit of {limit}");
            Err(KvError::Refused(GuestError::TooLarge(text)))
        };
        if write.key().len() > self.max_key_bytes {
            return too_large("key", write.key().len(), self.max_key_bytes);
        }
        match write {
            Write::Put(entry) if entry.value.len() > self.max_value_bytes => {
                too_large("value", entry.value.len(), self.max_value_bytes)
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn scan(&mut self, cursor: Option<&str>, limit: u32) -> Result<Page, KvError> {
        let started = Instant::now();
        let answer = self.instance.scan(cursor, limit).await;
        self.note("scan", 1, started, answer)
    }

    pub(super) async fn stats(&mut self) -> Result<Usage, KvError> {
        let started = Instant::now();
        let answer = self.instance.stats().await;
        self.note("stats", 1, started, answer)
    }

    pub(super) async fn flush(&mut self) -> Result<(), KvError> {
        let started = Instant::now();
        let answer = self.instance.flush().await;
        self.note("flush", 1, started, answer)
    }

    /// Doesn't count as a success of the backend: only real work shows that it works.
    pub(super) async fn health(&mut self) -> Result<(), KvError> {
        let started = Instant::now();
        let answer = self.instance.health().await;
        let label = answer.as_ref().err().map_or("ok", KvError::label);
        self.metrics.kv_call("health", label, 1, started.elapsed());
        answer
    }

    pub(super) async fn close(mut self) -> Result<(), KvError> {
        self.instance.close().await
    }
}

/// The second half and then the first, which is to be taken from a stack before it.
fn halves(part: &[String]) -> [&[String]; 2] {
    let (first, second) = part.split_at(part.len() / 2);
    [second, first]
}

/// The first error among these ends that ends the instance.
pub(super) fn breaking(ends: &[Result<Outcome, KvError>]) -> Option<KvError> {
    ends.iter().filter_map(|end| end.as_ref().err()).find(|error| error.ends_instance()).cloned()
}

/// Items of one kind, each with its place among all writes.
struct Batch<T> {
    places: Vec<usize>,
    items: Vec<T>,
}

impl<T> Batch<T> {
    fn with_capacity(items: usize) -> Self {
        Self { places: Vec::with_capacity(items), items: Vec::with_capacity(items) }
    }

    fn push(&mut self, place: usize, item: T) {
        self.places.push(place);
        self.items.push(item);
    }

    /// Cut into parts of at most `most` items and about [`MAX_CALL_BYTES`]; the first part is the last of the list.
    fn into_parts(self, most: usize, size: impl Fn(&T) -> usize) -> Vec<Self> {
        if self.items.is_empty() {
            return Vec::new();
        }
        if self.items.len() <= most && self.items.iter().map(&size).sum::<usize>() <= MAX_CALL_BYTES {
            return vec![self];
        }
        let mut parts: Vec<Self> = Vec::new();
        let mut bytes = 0;
        for (place, item) in self.places.into_iter().zip(self.items) {
            let item_bytes = size(&item);
            let fits = |part: &&mut Self| part.items.len() < most && bytes + item_bytes <= MAX_CALL_BYTES;
            match parts.last_mut().filter(fits) {
                Some(part) => {
                    bytes += item_bytes;
                    part.push(place, item);
                }
                None => {
                    bytes = item_bytes;
                    parts.push(Self { places: vec![place], items: vec![item] });
                }
            }
        }
        parts.reverse();
        parts
    }

    fn into_singles(self) -> impl Iterator<Item = Self> {
        self.places
            .into_iter()
            .zip(self.items)
            .rev()
            .map(|(place, item)| Self { places: vec![place], items: vec![item] })
    }

    fn settle(self, results: impl Iterator<Item = Result<Outcome, KvError>>, ends: &mut [Result<Outcome, KvError>]) {
        for (place, result) in self.places.into_iter().zip(results) {
            if let Some(end) = ends.get_mut(place) {
                *end = result;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_respect_count_and_bytes_and_keep_the_order() {
        let mut batch = Batch::with_capacity(0);
        for (place, size) in [3, 3, MAX_CALL_BYTES, 1, 1, 1].into_iter().enumerate() {
            batch.push(place, size);
        }
        let mut parts = batch.into_parts(2, |size| *size);
        let mut places = Vec::new();
        while let Some(part) = parts.pop() {
            places.push(part.places);
        }
        assert_eq!(places, [vec![0, 1], vec![2], vec![3, 4], vec![5]]);
    }

    #[test]
    fn ends_find_their_places() {
        let mut batch = Batch::with_capacity(0);
        batch.push(2, 'c');
        batch.push(0, 'a');
        let mut ends = vec![Err(KvError::Closed), Err(KvError::Closed), Err(KvError::Closed)];
        batch.settle([Ok(Outcome::Applied), Ok(Outcome::Stale)].into_iter(), &mut ends);
        assert_eq!(ends, [Ok(Outcome::Stale), Err(KvError::Closed), Ok(Outcome::Applied)]);
    }
}
