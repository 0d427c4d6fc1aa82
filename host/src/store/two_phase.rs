//! Writes that the backends promise before MongoDB commits them.
//!
//! If any backend is configured with `two_phase`, a write of one document runs as a transaction of MongoDB, as one of several documents
//! does anyway. When its operations are done, and what they make of the documents is known, each such backend keeps the changes
//! out of sight; then MongoDB commits; then the backends carry them out. A backend that can't promise is left out, and gets the
//! changes in the ordinary way.
//!
//! The caller is answered after MongoDB's commit. What remains is done in a task of its own, unless `ack` makes the caller wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, join_all};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::writes::Announced;
use super::{MemCellStore, Mirrored};
use crate::change::Change;
use crate::config::Ack;
use crate::mirror::{Delivery, Mirror, NotPrepared, OpenTransaction, Underway};
use crate::mongo::{Ending, Participants, Repository};
use crate::steps::{Step, Steps};
use crate::trace::carried;

/// The backends' part in one write.
pub(super) struct Ballot {
    /// Those that are to prepare.
    mirrors: Vec<Arc<Mirror>>,
    underway: Underway,
    steps: Steps,
    votes: Mutex<Votes>,
}

/// What came of asking them, in the attempt that runs.
#[derive(Default)]
struct Votes {
    transaction: Option<OpenTransaction>,
    prepared: Vec<Prepared>,
    refused: Vec<Arc<Mirror>>,
    worst: Option<Mirrored>,
}

/// A backend that has promised, and the shards that did.
struct Prepared {
    mirror: Arc<Mirror>,
    shards: Vec<u32>,
}

impl MemCellStore {
    /// The backends' part in a write to these; `None` if none of them can have any.
    pub(super) fn ballot(&self, mirrors: &[Arc<Mirror>]) -> Option<Ballot> {
        if !mirrors.iter().any(|mirror| mirror.can_prepare()) {
            return None;
        }
        Some(Ballot {
            mirrors: mirrors.iter().filter(|mirror| mirror.wants_two_phases()).cloned().collect(),
            underway: self.inner.underway.clone(),
            steps: self.inner.steps.clone(),
            votes: Mutex::default(),
        })
    }
}

impl Participants for Ballot {
    fn reached<'a>(&'a self, step: Step, id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.steps.reached(step, id))
    }

    fn prepare<'a>(&'a self, id: &'a str, changes: &'a [Change], deadline: Instant) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            if changes.is_empty() {
                return Vec::new();
            }
            let transaction = self.underway.open(id);
            // What MongoDB still has to do gets at least as long as the slowest backend.
            let now = Instant::now();
            let most = deadline.saturating_duration_since(now) / 2;
            let asked = self.mirrors.iter().map(|mirror| {
                let until = now + mirror.config().ack_timeout.min(most);
                async move { (Arc::clone(mirror), mirror.prepare(id, changes, until).await) }
            });
            let mut votes = Votes { transaction: Some(transaction), ..Votes::default() };
            for (mirror, answer) in join_all(asked).await {
                match answer {
                    Ok(shards) => votes.prepared.push(Prepared { mirror, shards }),
                    Err(error) => {
                        let mirrored = match error {
                            NotPrepared::TimedOut => Mirrored::TimedOut,
                            NotPrepared::Failed(_) => Mirrored::Failed,
                        };
                        votes.worst = votes.worst.max(Some(mirrored));
                        votes.refused.push(mirror);
                    }
                }
            }
            self.steps.reached(Step::PreparedInAll, id).await;
            let names = votes.prepared.iter().map(Prepared::name).collect();
            *self.votes() = votes;
            names
        })
    }

    fn ended(&self, ending: Ending) {
        let votes = std::mem::take(&mut *self.votes());
        match ending {
            Ending::Aborted => drop(tokio::spawn(carried(votes.abort()))),
            Ending::Unknown => votes.leave_in_doubt(),
        }
    }
}

impl Prepared {
    fn name(&self) -> String {
        self.mirror.config().name.clone()
    }
}

impl Votes {
    /// Takes back what was promised.
    async fn abort(self) {
        let Self { transaction, prepared, refused, .. } = self;
        let Some(transaction) = transaction else { return };
        let aborted = prepared.iter().map(|vote| vote.mirror.abort(transaction.id(), &vote.shards));
        let aborted = join_all(aborted).await;
        drop(transaction);
        let failed = prepared.iter().zip(aborted).filter(|(_, is_done)| !is_done).map(|(vote, _)| &vote.mirror);
        failed.chain(&refused).for_each(|mirror| mirror.doubt());
    }

    /// Leaves it to the keepers to find out.
    fn leave_in_doubt(self) {
        let Self { transaction, prepared, refused, .. } = self;
        drop(transaction);
        prepared.iter().map(|vote| &vote.mirror).chain(&refused).for_each(|mirror| mirror.doubt());
    }
}

impl Ballot {
    fn votes(&self) -> MutexGuard<'_, Votes> {
        self.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this backend has promised the changes, so that it needs no other copy of them.
    pub(super) fn has_prepared(&self, mirror: &Arc<Mirror>) -> bool {
        self.votes().prepared.iter().any(|vote| Arc::ptr_eq(&vote.mirror, mirror))
    }

    /// What became of the worst of those that did not promise.
    pub(super) fn worst(&self) -> Option<Mirrored> {
        self.votes().worst
    }

    /// Has the backends carry out what they promised, which MongoDB has committed, in a task that also takes the marker away.
    /// Answers for each what a writer has to wait for, if its configuration says so.
    pub(super) fn commit(
        self,
        store: &MemCellStore,
        announced: Announced,
    ) -> Vec<(Arc<Mirror>, Option<oneshot::Receiver<Delivery>>)> {
        let steps = self.steps.clone();
        let votes = self.votes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, mut told) = (Vec::new(), Vec::new());
        for vote in &votes.prepared {
            let (sender, receiver) = match vote.mirror.config().ack {
                Ack::Mongo => (None, None),
                Ack::Mirrored => {
                    let (sender, receiver) = oneshot::channel();
                    (Some(sender), Some(receiver))
                }
            };
            waiting.push((Arc::clone(&vote.mirror), receiver));
            told.push(sender);
        }
        let repository = store.inner.repository.clone();
        store.inner.conclusions.spawn(carried(async move {
            carry_out(votes, told, &repository, &steps).await;
            // Until here, a copy that lags behind is no mismatch.
            drop(announced);
        }));
        waiting
    }
}

async fn carry_out(votes: Votes, told: Vec<Option<oneshot::Sender<Delivery>>>, repository: &Repository, steps: &Steps) {
    let Votes { transaction, prepared, refused, .. } = votes;
    let Some(transaction) = transaction else { return };
    let id = transaction.id();
    let commits = prepared.iter().zip(told).map(|(vote, told)| async move {
        let is_done = vote.mirror.commit(id, &vote.shards).await;
        if let Some(told) = told {
            // The writer may have stopped waiting.
            let _ = told.send(if is_done { Delivery::Applied } else { Delivery::Failed });
        }
        is_done
    });
    let ends = join_all(commits).await;
    let (done, failed): (Vec<_>, Vec<_>) = prepared.iter().zip(ends).partition(|(_, is_done)| *is_done);
    if failed.is_empty() {
        steps.reached(Step::CommittedInAll, id).await;
    }
    let names: Vec<String> = done.iter().map(|(vote, _)| vote.name()).collect();
    if !names.is_empty()
        && let Err(error) = repository.forget(id, &names).await
    {
        tracing::debug!(%error, "the marker of a transaction is left to expire");
    }
    steps.reached(Step::Forgotten, id).await;
    drop(transaction);
    failed.iter().map(|(vote, _)| &vote.mirror).chain(&refused).for_each(|mirror| mirror.doubt());
}
