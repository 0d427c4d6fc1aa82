//! The bounded queue in front of a shard: many threads put work in, one thread takes out what has gathered.
//!
//! To wake a thread costs whoever does it, and the processor that it had for itself. A writer shouldn't pay that for each of its
//! writes, which nobody waits for: after some work, the taker looks by itself for a while for such writes, and is woken only for
//! what somebody does wait for, or when a good deal has gathered.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::bindings::exports::memcell::kv::store::{Condition, Entry, Outcome, Page, Usage};
use super::bindings::with_digests::exports::memcell::kv::digests::Digest;
use super::error::KvError;
use super::write::{PendingWrite, Write};
use crate::config::QueueConfig;
use crate::trace::Origin;

/// How many reads may wait. They have short deadlines, so more would only be answered too late.
const MAX_WAITING_READS: usize = 1024;

/// How long writes that nobody waits for may gather after the work before them, unless there are so many.
const GATHERING: Duration = Duration::from_millis(4);
const GATHERED: usize = 64;

/// Where an answer goes. Nobody may be there any more to take it.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// A read, or a question about the instance.
pub(super) enum Request {
    Get { keys: Vec<String>, origin: Origin, reply: Reply<Result<Vec<Option<Entry>>, KvError>> },
    Digest { keys: Vec<String>, head_bytes: u32, reply: Reply<Result<Vec<Option<Digest>>, KvError>> },
    Scan { cursor: Option<String>, limit: u32, reply: Reply<Result<Page, KvError>> },
    Stats { reply: Reply<Result<Usage, KvError>> },
}

/// How a transaction that was prepared ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Commit,
    Abort,
}

/// What changes something, in order.
pub(super) enum Work {
    /// A write nobody waits for.
    Direct(Box<dyn PendingWrite>),
    /// Writes that somebody waits for, each with its own end.
    Batch { writes: Vec<Write>, condition: Condition, reply: Reply<Vec<Result<Outcome, KvError>>> },
    /// Writes to be kept as the intent of a transaction, for a writer who waits for a while. Bounded like those nobody waits for.
    Prepare {
        transaction: String,
        writes: Vec<Write>,
        bytes: usize,
        origin: Box<Origin>,
        reply: Reply<Result<(), KvError>>,
    },
    /// What comes after a transaction's `Prepare`.
    Conclude { transaction: String, end: End, origin: Box<Origin>, reply: Reply<Result<(), KvError>> },
    /// Which transactions have an intent.
    InDoubt { reply: Reply<Result<Vec<String>, KvError>> },
    /// Later work is done under this token.
    Hold { token: u64, reply: Reply<Result<(), KvError>> },
    /// Answered once all work before it has been done and is durable.
    Flush { reply: Reply<Result<(), KvError>> },
}

/// What one turn of the shard works on.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) requests: Vec<Request>,
    pub(super) work: Vec<Work>,
}

/// Requests and work wait apart from each other, so that a read needn't wait for all writes before it.
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    arrived: Notify,
    max_changes: usize,
    max_bytes: usize,
    gathering: Duration,
}

#[derive(Default)]
struct Lanes {
    requests: VecDeque<Request>,
    work: VecDeque<Work>,
    direct_count: usize,
    direct_bytes: usize,
    closed: bool,
    taker: Taker,
}

/// What the thread does that takes things out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Taker {
    /// It will look before it sleeps.
    #[default]
    Working,
    /// It looks again in a moment.
    Gathering,
    /// It has to be woken.
    Sleeping,
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.work.is_empty()
    }
}

impl Queue {
    pub(super) fn new(config: &QueueConfig) -> Self {
        Self {
            lanes: Mutex::default(),
            arrived: Notify::new(),
            max_changes: config.changes,
            max_bytes: usize::try_from(config.bytes).unwrap_or(usize::MAX),
            gathering: GATHERING,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits: a full or closed queue hands the write back.
    pub(super) fn push_direct(&self, write: Box<dyn PendingWrite>) -> Result<(), (Box<dyn PendingWrite>, KvError)> {
        let is_awaited = write.is_awaited();
        match self.push_bounded(write.size(), Work::Direct(write), is_awaited) {
            Err((Work::Direct(write), error)) => Err((write, error)),
            // Nothing else comes back than what was handed over.
            _ => Ok(()),
        }
    }

    /// Takes a `Prepare` if there is room. Whoever waits for its end may give up before, so that it has to be bounded here.
    pub(super) fn push_prepare(&self, size: usize, work: Work) -> Result<(), KvError> {
        self.push_bounded(size, work, true).map_err(|(_, error)| error)
    }

    fn push_bounded(&self, size: usize, work: Work, is_awaited: bool) -> Result<(), (Work, KvError)> {
        let mut lanes = self.lanes();
        if lanes.closed {
            return Err((work, KvError::Closed));
        }
        // A write larger than the whole bound still passes when it is alone: nothing would be gained by losing it.
        let over = lanes.direct_bytes + size > self.max_bytes && lanes.direct_count > 0;
        if lanes.direct_count >= self.max_changes || over {
            return Err((work, KvError::QueueFull));
        }
        lanes.direct_count += 1;
        lanes.direct_bytes += size;
        lanes.work.push_back(work);
        self.announce(lanes, is_awaited);
        Ok(())
    }

    /// For work whose sender waits for its end, and so bounds itself.
    pub(super) fn push_work(&self, work: Work) -> Result<(), KvError> {
        let mut lanes = self.lanes();
        if lanes.closed {
            return Err(KvError::Closed);
        }
        lanes.work.push_back(work);
        self.announce(lanes, true);
        Ok(())
    }

    pub(super) fn push_request(&self, request: Request) -> Result<(), KvError> {
        let mut lanes = self.lanes();
        if lanes.closed {
            return Err(KvError::Closed);
        }
        if lanes.requests.len() >= MAX_WAITING_READS {
            return Err(KvError::QueueFull);
        }
        lanes.requests.push_back(request);
        self.announce(lanes, true);
        Ok(())
    }

    /// Wakes whoever takes, if that is needed.
    fn announce(&self, mut lanes: MutexGuard<'_, Lanes>, is_awaited: bool) {
        let wakes = match lanes.taker {
            Taker::Working => false,
            Taker::Gathering => is_awaited || lanes.work.len() >= GATHERED,
            Taker::Sleeping => true,
        };
        if wakes {
            lanes.taker = Taker::Working;
            drop(lanes);
            self.arrived.notify_one();
        }
    }

    /// Waits for something to do, and takes all requests and up to `most` pieces of work. `None`: closed and empty.
    ///
    /// Cancellation safe: nothing is taken before it returns.
    pub(super) async fn take(&self, most: usize) -> Option<Taken> {
        let mut gathers = true;
        loop {
            let arrived = self.arrived.notified();
            {
                let mut lanes = self.lanes();
                lanes.taker = Taker::Working;
                if !lanes.is_empty() {
                    let count = most.min(lanes.work.len());
                    let requests = lanes.requests.drain(..).collect();
                    let work: Vec<Work> = lanes.work.drain(..count).collect();
                    for work in &work {
                        let bytes = match work {
                            Work::Direct(write) => write.size(),
                            Work::Prepare { bytes, .. } => *bytes,
                            _ => continue,
                        };
                        lanes.direct_count -= 1;
                        lanes.direct_bytes -= bytes;
                    }
                    return Some(Taken { requests, work });
                }
                if lanes.closed {
                    return None;
                }
                lanes.taker = if gathers { Taker::Gathering } else { Taker::Sleeping };
            }
            if gathers {
                // Whichever it was: if there is nothing now, there was a pause.
                let _ = tokio::time::timeout(self.gathering, arrived).await;
                gathers = false;
            } else {
                arrived.await;
            }
        }
    }

    /// Nothing gets in any more; what is in can still be taken.
    pub(super) fn close(&self) {
        self.lanes().closed = true;
        self.arrived.notify_one();
    }

    /// Writes that wait, and the bytes they keep alive.
    pub(super) fn depth(&self) -> (usize, usize) {
        let lanes = self.lanes();
        (lanes.direct_count, lanes.direct_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Probe(String, usize);

    impl PendingWrite for Probe {
        fn key(&self) -> &str {
            &self.0
        }
        fn size(&self) -> usize {
            self.1
        }
        fn is_awaited(&self) -> bool {
            false
        }
        fn origin(&self) -> Origin {
            Origin::none()
        }
        fn prepare(&mut self) -> Result<Write, String> {
            Err("a probe writes nothing".into())
        }
        fn finish(self: Box<Self>, _: Result<Outcome, KvError>) {}
    }

    fn queue(changes: usize, bytes: u64) -> Queue {
        let config = crate::config::BackendConfig::new("test", "x.wasm".into());
        Queue::new(&QueueConfig { changes, bytes, ..config.queue })
    }

    fn probe(size: usize) -> Box<dyn PendingWrite> {
        Box::new(Probe("k".into(), size))
    }

    #[tokio::test]
    async fn bounded_by_count_and_by_bytes() {
        let by_count = queue(2, 1000);
        assert!(by_count.push_direct(probe(1)).is_ok());
        assert!(by_count.push_direct(probe(1)).is_ok());
        assert_eq!(by_count.push_direct(probe(1)).err().unwrap().1, KvError::QueueFull);
        let taken = by_count.take(1).await.unwrap();
        assert_eq!(taken.work.len(), 1);
        assert_eq!(by_count.depth(), (1, 1));
        assert!(by_count.push_direct(probe(1)).is_ok());

        let by_bytes = queue(100, 10);
        assert!(by_bytes.push_direct(probe(50)).is_ok(), "alone, a large one passes");
        assert_eq!(by_bytes.push_direct(probe(1)).err().unwrap().1, KvError::QueueFull);
    }

    /// Whether the taker was woken since.
    async fn is_woken(queue: &Queue) -> bool {
        tokio::time::timeout(Duration::ZERO, queue.arrived.notified()).await.is_ok()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_taker_that_gathers_is_woken_only_for_what_somebody_waits_for() {
        let queue = Queue { gathering: LONG, ..queue(1000, 1000) };
        assert!(queue.push_direct(probe(1)).is_ok());
        assert!(!is_woken(&queue).await, "it has not slept yet");
        assert_eq!(queue.take(10).await.unwrap().work.len(), 1);

        let mut taking = Box::pin(queue.take(10));
        assert!(futures::poll!(&mut taking).is_pending());
        assert!(queue.push_direct(probe(1)).is_ok() && queue.push_direct(probe(1)).is_ok());
        assert!(futures::poll!(&mut taking).is_pending());
        let (reply, _answer) = oneshot::channel();
        queue.push_work(Work::Flush { reply }).unwrap();
        assert_eq!(tokio::time::timeout(LONG / 2, taking).await.unwrap().unwrap().work.len(), 3);

        let mut taking = Box::pin(queue.take(1000));
        assert!(futures::poll!(&mut taking).is_pending());
        for _ in 0..GATHERED {
            assert!(queue.push_direct(probe(1)).is_ok());
        }
        let taken = tokio::time::timeout(LONG / 2, taking).await.unwrap().unwrap();
        assert_eq!(taken.work.len(), GATHERED, "a good deal wakes it as well");
    }

    #[tokio::test]
    async fn a_taker_looks_by_itself_for_a_while_and_then_has_to_be_woken() {
        let queue = Queue { gathering: Duration::from_millis(1), ..queue(1000, 1000) };
        let mut taking = Box::pin(queue.take(10));
        assert!(futures::poll!(&mut taking).is_pending());
        assert!(queue.push_direct(probe(1)).is_ok());
        assert_eq!(tokio::time::timeout(LONG, taking).await.unwrap().unwrap().work.len(), 1);

        let mut taking = Box::pin(queue.take(10));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut taking).await.is_err());
        assert_eq!(queue.lanes().taker, Taker::Sleeping);
        assert!(queue.push_direct(probe(1)).is_ok());
        assert_eq!(tokio::time::timeout(LONG, taking).await.unwrap().unwrap().work.len(), 1);
    }

    #[tokio::test]
    async fn closing_lets_the_rest_out_and_nothing_in() {
        let queue = queue(10, 1000);
        assert!(queue.push_direct(probe(1)).is_ok());
        queue.close();
        assert_eq!(queue.push_direct(probe(1)).err().unwrap().1, KvError::Closed);
        assert_eq!(queue.take(10).await.unwrap().work.len(), 1);
        assert!(queue.take(10).await.is_none());
    }
}
