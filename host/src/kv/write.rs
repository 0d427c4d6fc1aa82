//! Writes on their way to a shard.

use super::bindings::exports::memcell::kv::store::{Entry, Mark, Outcome};
use super::error::KvError;
use crate::trace::Origin;

/// One write as a plugin gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Store this entry.
    Put(Entry),
    /// Remove the entry of this key, and leave the mark as its tombstone.
    Delete(Mark),
}

impl Write {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(mark) => &mark.key,
        }
    }

    /// Bytes of its key and value.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Put(entry) => entry.key.len() + entry.value.len(),
            Self::Delete(mark) => mark.key.len(),
        }
    }
}

/// A write that nobody waits for: the shard's thread makes it ready, in its own time, and tells it how it ended.
///
/// Encoding a document costs more than handing it over. Done by the shard, it is no part of the latency of the
/// operation that the write comes from.
pub trait PendingWrite: Send {
    /// The key it is about.
    fn key(&self) -> &str;

    /// Roughly how many bytes it keeps alive while it waits.
    fn size(&self) -> usize;

    /// Whether somebody waits for its end all the same, so that it shouldn't wait for others.
    fn is_awaited(&self) -> bool;

    /// The request that it belongs to.
    fn origin(&self) -> Origin;

    /// The write itself; called once. An error drops it: [`PendingWrite::finish`] is then told so.
    fn prepare(&mut self) -> Result<Write, String>;

    /// How it ended; called exactly once, unless the process ends before.
    fn finish(self: Box<Self>, end: Result<Outcome, KvError>);
}
