//! Promising changes to a backend before MongoDB commits them.
//!
//! The changes of a transaction become one intent in each shard that they belong to. All of them are handed over at the same time,
//! and the backend has prepared if all of its shards have: what some have then, is withdrawn.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, timeout_at};

use super::Mirror;
use crate::change::Change;
use crate::kv::{Backend, KvError, Write};
use crate::steps::Step;

/// Writes, by the shards that they belong to.
type Intents = Vec<(u32, Vec<Write>)>;

/// Why a backend has no part in a transaction. It gets the changes as it would without two phases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPrepared {
    /// It did not answer in time.
    #[error("the backend did not prepare the write in time")]
    TimedOut,
    /// It is down, or it refused.
    #[error(transparent)]
    Failed(#[from] KvError),
}

impl Mirror {
    /// Whether writes are to be prepared in the backend, if it can.
    pub fn wants_two_phases(&self) -> bool {
        self.inner.config.two_phase
    }

    /// Whether the backend could be expected to prepare something now.
    pub fn can_prepare(&self) -> bool {
        self.wants_two_phases() && self.inner.accepts() && self.inner.running()
    }

    /// Has the backend keep the changes of a transaction out of sight, until [`Mirror::commit`] or [`Mirror::abort`]. Answers the
    /// shards that do. Waits until `until` at the most.
    ///
    /// # Errors
    /// After any, what was kept is withdrawn in the background.
    pub async fn prepare(&self, id: &str, changes: &[Change], until: Instant) -> Result<Vec<u32>, NotPrepared> {
        let mut shards = Vec::new();
        let prepared = match self.intents(changes) {
            Ok((backend, intents)) => {
                shards = intents.iter().map(|(shard, _)| *shard).collect();
                let all = intents.into_iter().map(|(shard, writes)| async move {
                    self.inner.steps.reached(Step::Preparing(shard), id).await;
                    backend.prepare(shard, id, writes).await?;
                    self.inner.steps.reached(Step::Prepared(shard), id).await;
                    Ok::<(), KvError>(())
                });
                match timeout_at(until, try_join_all(all)).await {
                    Ok(end) => end.map_err(NotPrepared::from),
                    Err(_) => Err(NotPrepared::TimedOut),
                }
            }
            Err(error) => Err(error.into()),
        };
        match prepared {
            Ok(_) => {
                self.inner.metrics.two_phase("prepared");
                Ok(shards)
            }
            Err(error) => {
                self.inner.metrics.two_phase("failed");
                tracing::debug!(backend = %self.inner.config.name, %error, "a write goes on without being prepared");
                self.withdraw(id.to_owned(), shards);
                Err(error)
            }
        }
    }

    /// The writes that make the changes true, by shard.
    fn intents(&self, changes: &[Change]) -> Result<(&Backend, Intents), KvError> {
        if !self.inner.accepts() {
            return Err(KvError::Down("the backend is not ready".to_owned()));
        }
        let backend = self.backend()?;
        let write = |change: &Change| {
            let Change { key, stamp, document } = change;
            // What can't be encoded is told, and counted, by the direct way.
            self.inner.copies.write(key, *stamp, document.as_ref()).map_err(|error| KvError::Down(error.to_string()))
        };
        let writes = changes.iter().map(write).collect::<Result<Vec<_>, _>>()?;
        Ok((backend, backend.by_shard(writes)))
    }

    /// Has the backend carry out what these shards keep for a transaction. Answers whether it has; if not, the keeper sees to it, once
    /// it is told with [`Mirror::doubt`].
    pub async fn commit(&self, id: &str, shards: &[u32]) -> bool {
        let Ok(backend) = self.backend() else { return false };
        let all = shards.iter().map(|shard| async move {
            self.inner.steps.reached(Step::Committing(*shard), id).await;
            backend.commit(*shard, id).await?;
            self.inner.steps.reached(Step::CommittedIn(*shard), id).await;
            Ok::<(), KvError>(())
        });
        let failed = join_all(all).await.into_iter().find_map(Result::err);
        self.inner.metrics.two_phase(if failed.is_none() { "committed" } else { "failed" });
        if let Some(error) = &failed {
            tracing::debug!(backend = %self.inner.config.name, %error, "what was prepared could not be committed yet");
        }
        failed.is_none()
    }

    /// Has the backend forget what these shards keep for a transaction.
    pub async fn abort(&self, id: &str, shards: &[u32]) -> bool {
        let Ok(backend) = self.backend() else { return false };
        let ends = join_all(shards.iter().map(|shard| backend.abort(*shard, id))).await;
        let is_done = ends.iter().all(Result::is_ok);
        self.inner.metrics.two_phase(if is_done { "aborted" } else { "failed" });
        is_done
    }

    /// Takes back what some shards may have prepared. If that fails, it is decided when the transaction has ended.
    fn withdraw(&self, id: String, shards: Vec<u32>) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let Some(backend) = inner.backend.get() else { return };
            join_all(shards.iter().map(|shard| backend.abort(*shard, &id))).await;
        });
    }

    /// Says that the backend may have an intent of a transaction that is no longer under way: the keeper is to decide.
    pub fn doubt(&self) {
        self.inner.doubts.notify_one();
    }
}
