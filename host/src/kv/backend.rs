//! A backend as the rest of the host sees it: keys go in, and find their shards by themselves.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use super::bindings::exports::memcell::kv::lifecycle::Limits as Capabilities;
use super::bindings::exports::memcell::kv::store::{Condition, Entry, Outcome, Page, Usage};
use super::bindings::with_digests::exports::memcell::kv::digests::Digest;
use super::breaker::BreakerState;
use super::calls::MaxRead;
use super::error::{KvError, StartError};
use super::grants::Grants;
use super::plugin::Plugin;
use super::queue::{Queue, Reply, Request, Work};
use super::shard::Shard;
use super::status::{ShardState, ShardStatus};
use super::write::{PendingWrite, Write};
use crate::config::BackendConfig;
use crate::metrics::BackendMetrics;
use crate::trace::Origin;

/// Threads beside its own that a shard may have: for looking up names, and for files that a guest writes to without waiting.
const MAX_BLOCKING_THREADS: usize = 4;

/// How long a shard's thread has to be overdue to count as held up.
const HELD_UP_FOR: Duration = Duration::from_secs(1);

/// A running backend. Dropping it closes its queues; [`Backend::close`] also waits for what is in them.
pub struct Backend {
    pub(super) shards: Vec<ShardHandle>,
    has_digests: bool,
    has_fencing: bool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(super) struct ShardHandle {
    pub(super) queue: Arc<Queue>,
    status: Arc<ShardStatus>,
    /// Cancelled when the shard is gone, and with it what it was granted.
    ended: CancellationToken,
}

/// What all shards of a backend have in common or amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendLoad {
    /// Direct writes waiting.
    pub queue_depth: usize,
    /// Bytes they keep alive.
    pub queue_bytes: usize,
    /// Linear memory of all instances.
    pub memory_bytes: u64,
    /// Instances opened in place of lost ones.
    pub restarts: u64,
}

impl Backend {
    /// Makes ready what the plugin is granted, and starts a thread for each shard, which then opens its instance:
    /// [`Backend::watch`] tells when and whether that worked. Blocks on the file system if a directory is granted, which stays
    /// locked until the last shard has ended.
    ///
    /// # Errors
    /// [`StartError::Grant`] for what is granted and can't be had, [`StartError::Threads`] if the system gives no more threads.
    pub fn start(plugin: &Plugin, config: &Arc<BackendConfig>, metrics: &BackendMetrics) -> Result<Self, StartError> {
        let grants = Arc::new(Grants::prepare(&config.grants)?.counted_in(metrics.clone()));
        let (has_digests, has_fencing) = (plugin.guest.has_digests(), plugin.guest.has_fencing());
        let mut backend = Self { shards: Vec::new(), has_digests, has_fencing, threads: Mutex::default() };
        for number in 0..config.shards {
            let queue = Arc::new(Queue::new(&config.queue));
            let status = Arc::new(ShardStatus::new());
            let shard = Shard {
                number,
                plugin: plugin.clone(),
                config: Arc::clone(config),
                grants: Arc::clone(&grants),
                queue: Arc::clone(&queue),
                status: Arc::clone(&status),
                metrics: metrics.clone(),
                max_read: MaxRead::unlimited(),
                cpu_counted: Cell::default(),
                token: Cell::default(),
            };
            let ended = CancellationToken::new();
            let at_end = ended.clone().drop_guard();
            backend.shards.push(ShardHandle { queue, status, ended });
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(MAX_BLOCKING_THREADS)
                .build()?;
            let thread = std::thread::Builder::new().name(format!("kv-{}-{number}", config.name)).spawn(move || {
                let _at_end = at_end;
                runtime.block_on(shard.run());
            })?;
            backend.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(backend)
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }

    /// The shard that a key belongs to.
    pub fn shard_of(&self, key: &str) -> u32 {
        shard_of(key, self.shard_count())
    }

    /// The state of each shard.
    pub fn states(&self) -> Vec<ShardState> {
        self.shards.iter().map(|shard| shard.status.state()).collect()
    }

    /// The generation of the instance that answers for a shard, if one does.
    pub fn generation(&self, shard: u32) -> Option<u64> {
        match self.shards.get(shard as usize)?.status.state() {
            ShardState::Running { generation } => Some(generation),
            _ => None,
        }
    }

    /// A view of each shard's state that can be waited on.
    pub fn watch(&self) -> Vec<watch::Receiver<ShardState>> {
        self.shards.iter().map(|shard| shard.status.watch()).collect()
    }

    /// What the plugin said of itself, once its first instance is open.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.shards.iter().find_map(|shard| shard.status.capabilities())
    }

    /// Whether the thread of a shard should have been back from its plugin for a second: a deadline ends whatever a plugin computes or
    /// waits for, but not what the system does for it.
    pub fn is_held_up(&self) -> bool {
        self.shards.iter().any(|shard| shard.status.is_overdue_for(HELD_UP_FOR))
    }

    /// How much is waiting and in use.
    pub fn load(&self) -> BackendLoad {
        self.shards.iter().fold(BackendLoad::default(), |load, shard| {
            let (depth, bytes) = shard.queue.depth();
            BackendLoad {
                queue_depth: load.queue_depth + depth,
                queue_bytes: load.queue_bytes + bytes,
                memory_bytes: load.memory_bytes + shard.status.memory_bytes(),
                restarts: load.restarts + shard.status.restarts(),
            }
        })
    }

    /// How many shards have their breaker in each state.
    pub fn breakers(&self) -> Vec<(&'static str, usize)> {
        let states: Vec<BreakerState> = self.shards.iter().map(|shard| shard.status.breaker()).collect();
        let count = |wanted: BreakerState| states.iter().filter(|state| **state == wanted).count();
        BreakerState::ALL.map(|state| (state.as_str(), count(state))).to_vec()
    }

    fn handle(&self, key: &str) -> Result<&ShardHandle, KvError> {
        self.shards.get(self.shard_of(key) as usize).ok_or(KvError::Closed)
    }

    /// Hands over a write without waiting. It is applied if it is newer; when it can't even be queued, it comes back.
    pub fn submit(&self, write: Box<dyn PendingWrite>) -> Result<(), (Box<dyn PendingWrite>, KvError)> {
        match self.handle(write.key()) {
            Ok(shard) => shard.queue.push_direct(write),
            Err(error) => Err((write, error)),
        }
    }

    /// One answer per key, in their order.
    ///
    /// The wait is bounded by the deadlines of the calls before it, which can be seconds: callers bring their own, shorter one.
    /// Cancellation safe.
    pub async fn get_many(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Entry>>, KvError> {
        if let [key] = keys {
            let key = key.as_ref();
            return request(self.handle(key)?, |reply| get(vec![key.to_owned()], reply)).await?;
        }
        let groups = self.group(owned(keys).enumerate(), |(_, key)| key.as_str());
        let parts = groups.into_iter().map(|(shard, group)| async move {
            let (places, keys): (Vec<usize>, Vec<String>) = group.into_iter().unzip();
            let found = request(shard, |reply| get(keys, reply)).await??;
            Ok::<_, KvError>(places.into_iter().zip(found))
        });
        in_places(keys.len(), join_all(parts).await)
    }

    /// Whether [`Backend::digest_many`] is to be had.
    pub fn has_digests(&self) -> bool {
        self.has_digests
    }

    /// Whether [`Backend::hold`] is to be had.
    pub fn has_fencing(&self) -> bool {
        self.has_fencing
    }

    /// As [`Backend::get_many`], with only the first `head_bytes` of each value and a hash of the rest.
    pub async fn digest_many(&self, keys: &[impl AsRef<str>], head_bytes: u32) -> Result<Vec<Option<Digest>>, KvError> {
        let groups = self.group(owned(keys).enumerate(), |(_, key)| key.as_str());
        let parts = groups.into_iter().map(|(shard, group)| async move {
            let (places, keys): (Vec<usize>, Vec<String>) = group.into_iter().unzip();
            let found = request(shard, |reply| Request::Digest { keys, head_bytes, reply }).await??;
            Ok::<_, KvError>(places.into_iter().zip(found))
        });
        in_places(keys.len(), join_all(parts).await)
    }

    /// From now on, writes that are not `newer` are made under this token.
    ///
    /// # Errors
    /// [`KvError::Refused`] with `unsupported` if the backend has no use for it.
    pub async fn hold(&self, token: u64) -> Result<(), KvError> {
        for end in join_all(self.shards.iter().map(|shard| work(shard, |reply| Work::Hold { token, reply }))).await {
            end??;
        }
        Ok(())
    }

    /// The entry that one shard has for a key, wherever that key belongs.
    pub async fn get_from(&self, shard: u32, key: &str) -> Result<Option<Entry>, KvError> {
        let shard = self.shards.get(shard as usize).ok_or(KvError::Closed)?;
        let mut found = request(shard, |reply| get(vec![key.to_owned()], reply)).await??;
        Ok(found.pop().flatten())
    }

    /// As [`Backend::write`], to one shard, wherever the keys belong.
    pub async fn write_to(
        &self,
        shard: u32,
        writes: Vec<Write>,
        condition: Condition,
    ) -> Vec<Result<Outcome, KvError>> {
        let count = writes.len();
        let Some(shard) = self.shards.get(shard as usize) else { return vec![Err(KvError::Closed); count] };
        let ends = work(shard, |reply| Work::Batch { writes, condition, reply }).await;
        ends.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// Writes, and waits until each has come to its end. One end per write, in their order.
    pub async fn write(&self, writes: Vec<Write>, condition: Condition) -> Vec<Result<Outcome, KvError>> {
        let mut ends = vec![Err(KvError::Closed); writes.len()];
        let groups = self.group(writes.into_iter().enumerate(), |(_, write)| write.key());
        let parts = groups.into_iter().map(|(shard, group)| async move {
            let (places, writes): (Vec<usize>, Vec<Write>) = group.into_iter().unzip();
            let count = writes.len();
            let ends = work(shard, |reply| Work::Batch { writes, condition, reply }).await;
            places.into_iter().zip(ends.unwrap_or_else(|error| vec![Err(error); count]))
        });
        for (place, result) in join_all(parts).await.into_iter().flatten() {
            if let Some(end) = ends.get_mut(place) {
                *end = result;
            }
        }
        ends
    }

    /// One page of what a shard holds.
    pub async fn scan(&self, shard: u32, cursor: Option<String>, limit: u32) -> Result<Page, KvError> {
        let shard = self.shards.get(shard as usize).ok_or(KvError::Closed)?;
        request(shard, |reply| Request::Scan { cursor, limit, reply }).await?
    }

    /// What all shards hold. A shared store is counted once.
    pub async fn stats(&self) -> Result<Usage, KvError> {
        let shared = self.capabilities().is_some_and(|capabilities| capabilities.shared);
        let asked = self.shards.iter().take(if shared { 1 } else { self.shards.len() });
        let all = join_all(asked.map(|shard| request(shard, |reply| Request::Stats { reply }))).await;
        let mut sum = Usage { entries: 0, bytes: 0 };
        for stats in all {
            let stats = stats??;
            sum.entries = sum.entries.saturating_add(stats.entries);
            sum.bytes = sum.bytes.saturating_add(stats.bytes);
        }
        Ok(sum)
    }

    /// Returns once everything handed over before is applied, and durable if the plugin is persistent.
    pub async fn flush(&self) -> Result<(), KvError> {
        for end in join_all(self.shards.iter().map(|shard| work(shard, |reply| Work::Flush { reply }))).await {
            end??;
        }
        Ok(())
    }

    /// Takes nothing more, works off what is waiting, and closes the instances; gives up after `grace`.
    ///
    /// Returns whether it all came to an end in time; the directory is free again then. What didn't is left to its thread, which
    /// ends with the process.
    pub async fn close(&self, grace: Duration) -> bool {
        for shard in &self.shards {
            shard.queue.close();
        }
        let ended = async {
            for shard in &self.shards {
                shard.ended.cancelled().await;
            }
        };
        tokio::time::timeout(grace, ended).await.is_ok()
    }

    fn group<T>(&self, items: impl Iterator<Item = T>, key: impl Fn(&T) -> &str) -> Vec<(&ShardHandle, Vec<T>)> {
        let mut groups: Vec<(&ShardHandle, Vec<T>)> = self.shards.iter().map(|shard| (shard, Vec::new())).collect();
        for item in items {
            let shard = self.shard_of(key(&item)) as usize;
            if let Some((_, group)) = groups.get_mut(shard) {
                group.push(item);
            }
        }
        groups.retain(|(_, group)| !group.is_empty());
        groups
    }
}

/// Keys for the queue, which may outlive whoever asks.
fn owned(keys: &[impl AsRef<str>]) -> impl Iterator<Item = String> {
    keys.iter().map(|key| key.as_ref().to_owned())
}

impl Drop for Backend {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.queue.close();
        }
    }
}

/// Where a key lives among `shards` shards. Persistent backends depend on it: it can't change without moving all entries.
pub fn shard_of(key: &str, shards: u32) -> u32 {
    let shards = u64::from(shards.max(1));
    u32::try_from(xxh3_64(key.as_bytes()) % shards).unwrap_or(0)
}

/// Puts the parts of an answer where they belong.
fn in_places<T: Clone>(
    count: usize,
    parts: Vec<Result<impl Iterator<Item = (usize, Option<T>)>, KvError>>,
) -> Result<Vec<Option<T>>, KvError> {
    let mut answers = vec![None; count];
    for part in parts {
        for (place, found) in part? {
            if let Some(answer) = answers.get_mut(place) {
                *answer = found;
            }
        }
    }
    Ok(answers)
}

fn get(keys: Vec<String>, reply: Reply<Result<Vec<Option<Entry>>, KvError>>) -> Request {
    Request::Get { keys, origin: Origin::current(), reply }
}

async fn request<T>(shard: &ShardHandle, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, KvError> {
    let (reply, answer) = oneshot::channel();
    shard.queue.push_request(make(reply))?;
    answer.await.map_err(|_| KvError::Closed)
}

pub(super) async fn work<T>(shard: &ShardHandle, make: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, KvError> {
    let (reply, answer) = oneshot::channel();
    shard.queue.push_work(make(reply))?;
    answer.await.map_err(|_| KvError::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_where_they_are() {
        // Written down from the first version: a change here would lose track of what persistent backends hold.
        let places: Vec<u32> =
            ["507f1f77bcf86cd799439011", "", "日本", "a\0b"].iter().map(|key| shard_of(key, 7)).collect();
        assert_eq!(places, [1, 4, 3, 4]);
    }

    #[test]
    fn keys_spread_evenly() {
        let mut counts = [0; 4];
        for n in 0..4000 {
            counts[shard_of(&format!("{n:024x}"), 4) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
