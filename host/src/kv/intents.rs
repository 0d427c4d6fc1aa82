//! Writes that are promised to a backend before they take place: the part of [`Backend`] that is about `two-phase`.
//!
//! All of it is said per shard. An intent is kept by one instance, and whether the others keep theirs is for the caller to put
//! together.

use super::backend::{Backend, ShardHandle, work};
use super::error::KvError;
use super::queue::{End, Work};
use super::write::Write;
use crate::trace::Origin;

impl Backend {
    /// The writes by the shards that they belong to, each once and in their order.
    pub fn by_shard(&self, writes: Vec<Write>) -> Vec<(u32, Vec<Write>)> {
        let mut groups: Vec<(u32, Vec<Write>)> = Vec::new();
        for write in writes {
            let shard = self.shard_of(write.key());
            match groups.iter_mut().find(|(number, _)| *number == shard) {
                Some((_, group)) => group.push(write),
                None => groups.push((shard, vec![write])),
            }
        }
        groups
    }

    /// Has writes, which must all belong to this shard, kept as the intent of a transaction, in the place of what it has there.
    ///
    /// A caller that stops waiting doesn't know whether they are, and calls [`Backend::abort`].
    ///
    /// # Errors
    /// [`KvError::QueueFull`] if too much is waiting; what the backend answered, or became of the call.
    pub async fn prepare(&self, shard: u32, transaction: &str, writes: Vec<Write>) -> Result<(), KvError> {
        let bytes = writes.iter().map(Write::size).sum();
        let (reply, answer) = tokio::sync::oneshot::channel();
        let work = Work::Prepare {
            transaction: transaction.to_owned(),
            writes,
            bytes,
            origin: Box::new(Origin::current()),
            reply,
        };
        self.shard(shard)?.queue.push_prepare(bytes, work)?;
        answer.await.map_err(|_| KvError::Closed)?
    }

    /// Has the intent of a transaction carried out, with the condition `newer`, and removed. One that isn't there is fine.
    ///
    /// # Errors
    /// What the backend answered, or became of the call: whether it is carried out is unknown then.
    pub async fn commit(&self, shard: u32, transaction: &str) -> Result<(), KvError> {
        self.conclude(shard, transaction, End::Commit).await
    }

    /// Has the intent of a transaction removed. One that isn't there is fine.
    ///
    /// # Errors
    /// As [`Backend::commit`].
    pub async fn abort(&self, shard: u32, transaction: &str) -> Result<(), KvError> {
        self.conclude(shard, transaction, End::Abort).await
    }

    async fn conclude(&self, shard: u32, transaction: &str, end: End) -> Result<(), KvError> {
        let transaction = transaction.to_owned();
        let origin = Box::new(Origin::current());
        work(self.shard(shard)?, |reply| Work::Conclude { transaction, end, origin, reply }).await?
    }

    /// The transactions that have an intent in a shard, all that was handed over before taken into account.
    ///
    /// # Errors
    /// [`KvError::Refused`] with `unsupported` if the plugin has no place for intents; what else became of the call.
    pub async fn in_doubt(&self, shard: u32) -> Result<Vec<String>, KvError> {
        work(self.shard(shard)?, |reply| Work::InDoubt { reply }).await?
    }

    fn shard(&self, shard: u32) -> Result<&ShardHandle, KvError> {
        self.shards.get(shard as usize).ok_or(KvError::Closed)
    }
}
