//! Intents that were left behind: by a host that ended between MongoDB's commit and the backend's, by a backend that failed just
//! then, by a commit whose result nobody knows.
//!
//! Each is decided by MongoDB (`mongo/markers.rs`), and carried out or removed. That is done whenever a session begins, before
//! the backend counts as live, and when somebody says that there is a reason. What can't be decided yet, since the server
//! still takes the transaction for open, is asked for again: nothing of it can have been committed meanwhile, so the backend lacks nothing.
//!
//! Intents are looked for in any backend that keeps its data, whether or not it is to have two phases now: an intent that came to
//! light long after its time could bring a document back whose tombstone has expired.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;

use super::Inner;
use super::refill::RefillError;
use crate::kv::{Backend, GuestError, KvError};
use crate::mongo::Decision;
use crate::steps::Step;

/// How often what could not be decided is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// How many are decided at the same time. The server may take a while for each whose transaction it takes for open.
const AT_A_TIME: usize = 16;

/// Why two phases can't be had from a backend that is to have them; `None`: they can.
///
/// # Errors
/// If MongoDB or the backend doesn't answer.
pub(super) async fn unfit(mirror: &Inner, backend: &Backend) -> Result<Option<String>, RefillError> {
    if !mirror.config.two_phase {
        return Ok(None);
    }
    if mirror.is_shared() {
        let text = "`two_phase` is for backends that belong to one host, and this one says that it is shared";
        return Ok(Some(text.to_owned()));
    }
    if let Err(KvError::Refused(GuestError::Unsupported(text))) = backend.in_doubt(0).await {
        return Ok(Some(format!("`two_phase` is true, but the plugin can't prepare writes: {text}")));
    }
    if !mirror.repository.supports_transactions().await? {
        return Ok(Some("`two_phase` needs transactions, which a standalone mongodb server doesn't have".to_owned()));
    }
    mirror.repository.prepare_markers().await?;
    Ok(None)
}

/// Decides what is in doubt. Answers how much of it stays so for now.
///
/// # Errors
/// If MongoDB or the backend doesn't answer; what was decided is carried out.
pub(super) async fn resolve(mirror: &Inner, backend: &Backend) -> Result<usize, RefillError> {
    if !may_have_intents(mirror) {
        return Ok(0);
    }
    // Asked before: what ends between the two questions has been told of already.
    let underway = mirror.underway.all();
    let mut doubtful: HashMap<String, Vec<u32>> = HashMap::new();
    for shard in 0..backend.shard_count() {
        match backend.in_doubt(shard).await {
            Ok(found) => found.into_iter().for_each(|id| doubtful.entry(id).or_default().push(shard)),
            Err(KvError::Refused(GuestError::Unsupported(_))) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
    doubtful.retain(|id, _| !underway.contains(id));
    let decisions = futures::stream::iter(doubtful).map(async |(id, shards)| {
        let decision = mirror.repository.decide(&id).await;
        (id, shards, decision)
    });
    let mut decisions = std::pin::pin!(decisions.buffer_unordered(AT_A_TIME));
    let mut open = 0;
    while let Some((id, shards, decision)) = decisions.next().await {
        let decision = decision?;
        tracing::info!(backend = %mirror.config.name, transaction = id, ?decision, "a prepared write was left in doubt");
        if decision == Decision::Open || !carry_out(mirror, backend, &id, &shards, decision).await? {
            open += 1;
        }
    }
    Ok(open)
}

/// Does in the backend what was decided. Answers whether that worked: one that has no room, say, is no reason not to go on with it.
async fn carry_out(
    mirror: &Inner,
    backend: &Backend,
    id: &str,
    shards: &[u32],
    decision: Decision,
) -> Result<bool, RefillError> {
    let is_committed = decision == Decision::Committed;
    for shard in shards {
        let end = if is_committed { backend.commit(*shard, id).await } else { backend.abort(*shard, id).await };
        if let Err(error) = end {
            mirror.metrics.two_phase("failed");
            tracing::warn!(backend = %mirror.config.name, %error, "a prepared write stays in doubt, it is tried again");
            return Ok(false);
        }
    }
    mirror.metrics.two_phase(if is_committed { "committed" } else { "aborted" });
    if is_committed {
        mirror.repository.forget(id, std::slice::from_ref(&mirror.config.name)).await?;
    }
    Ok(true)
}

/// As [`resolve`], at the beginning of a session.
///
/// # Errors
/// As [`resolve`].
pub(super) async fn resolve_first(mirror: &Inner, backend: &Backend) -> Result<usize, RefillError> {
    let open = resolve(mirror, backend).await?;
    mirror.steps.reached(Step::Resolved, "").await;
    Ok(open)
}

/// Decides what comes to be in doubt, and what is left from before, for as long as it can.
///
/// # Errors
/// As [`resolve`].
pub(super) async fn watch(mirror: &Inner, backend: &Backend, mut open: usize) -> RefillError {
    loop {
        if open > 0 {
            // Whatever is told meanwhile is found then, too.
            tokio::time::sleep(RETRY).await;
        } else {
            mirror.doubts.notified().await;
        }
        match resolve(mirror, backend).await {
            Ok(left) => open = left,
            Err(error) => return error,
        }
    }
}

/// One that keeps nothing has only what it has prepared since it was opened.
fn may_have_intents(mirror: &Inner) -> bool {
    !mirror.is_shared() && (mirror.config.two_phase || mirror.keeps_data())
}
