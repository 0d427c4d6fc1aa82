//! What the tests of two-phase writes share, in the test's process and in those that it kills.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::BoxFuture;
use memcell_host::config::{Config, MongoServer, MongoUri};
use memcell_host::kv::shard_of;
use memcell_host::memcell::{EventId, NewMemCell, Patch};
use memcell_host::mirror::MirrorState;
use memcell_host::steps::{Observer, Step};
use memcell_host::store::{MemCellStore, Operation};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::host::{PATIENCE, file};

/// How many shards the backend has.
pub const SHARDS: u32 = 2;

/// A host with the file backend in two phases, in this directory.
///
/// # Errors
/// If the plugin has not been built, or the URI is none.
pub fn config(uri: &str, directory: &Path) -> Result<Config> {
    let mut backend = file(directory)?;
    backend.two_phase = true;
    backend.shards = SHARDS;
    // A busy machine must not decide what is tested.
    backend.ack_timeout = Duration::from_secs(10);
    let mut config = Config::new(MongoServer::Uri(MongoUri::parse(uri).map_err(anyhow::Error::msg)?));
    config.mongodb.operation_timeout = Duration::from_secs(30);
    config.backends = vec![backend];
    Ok(config)
}

/// Waits until its backend is live.
///
/// # Errors
/// If it fails, or takes too long.
pub async fn live(store: &MemCellStore) -> Result<()> {
    let mirror = store.mirrors().into_iter().next().context("there is no backend")?;
    let mut state = mirror.watch_state();
    let live = state.wait_for(|state| matches!(state, MirrorState::Live | MirrorState::Failed { .. }));
    let state = tokio::time::timeout(PATIENCE, live).await.context("the mirror did not become live")??.clone();
    if state != MirrorState::Live {
        bail!("the mirror failed: {state:?}");
    }
    Ok(())
}

/// A new document.
///
/// # Errors
/// If it is none.
pub fn cell(id: EventId, summary: &str) -> Result<NewMemCell> {
    let fields = json!({
        "event_id": id.to_string(), "user_id": "u", "timestamp": "2026-01-01T00:00:00Z", "summary": summary,
    });
    match fields {
        Value::Object(fields) => Ok(NewMemCell::from_api(fields)?),
        _ => bail!("a document is an object"),
    }
}

/// The documents of a scenario. Each shard has some.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    /// There, in shard 0.
    pub updated: EventId,
    /// There, in shard 1.
    pub deleted: EventId,
    /// There, and soft-deleted.
    pub restored: EventId,
    /// Not there yet.
    pub appended: EventId,
}

impl Ids {
    /// New ones.
    pub fn new() -> Self {
        let in_shard = |shard: u32| loop {
            let id = EventId::new();
            if shard_of(&id.to_string(), SHARDS) == shard {
                return id;
            }
        };
        Self { updated: in_shard(0), deleted: in_shard(1), restored: in_shard(0), appended: in_shard(1) }
    }

    /// In an order that [`Ids::parse`] knows.
    pub fn to_args(self) -> [String; 4] {
        [self.updated, self.deleted, self.restored, self.appended].map(|id| id.to_string())
    }

    /// What [`Ids::to_args`] made.
    ///
    /// # Errors
    /// If it didn't.
    pub fn parse(args: &[&str]) -> Result<Self> {
        let [updated, deleted, restored, appended] = args else { bail!("not the ids of a scenario: {args:?}") };
        Ok(Self {
            updated: EventId::parse(updated)?,
            deleted: EventId::parse(deleted)?,
            restored: EventId::parse(restored)?,
            appended: EventId::parse(appended)?,
        })
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes the documents that a scenario begins with.
///
/// # Errors
/// MongoDB's.
pub async fn prepare(store: &MemCellStore, ids: Ids) -> Result<()> {
    for id in [ids.updated, ids.deleted, ids.restored] {
        store.append(cell(id, "old")?).await?;
    }
    store.delete(ids.restored, None).await?;
    Ok(())
}

/// Carries a scenario out: one kind of write, or `transact` for all of them together.
///
/// # Errors
/// MongoDB's, and for a name that is none.
pub async fn write(store: &MemCellStore, scenario: &str, ids: Ids) -> Result<()> {
    let patch = || match json!({ "summary": "new" }) {
        Value::Object(fields) => Ok(Patch::from_api(fields)?),
        _ => bail!("a patch is an object"),
    };
    match scenario {
        "append" => store.append(cell(ids.appended, "new")?).await.map(|_| ())?,
        "update" => store.update(ids.updated, &patch()?).await.map(|_| ())?,
        "delete" => store.delete(ids.deleted, None).await.map(|_| ())?,
        "hard-delete" => store.hard_delete(ids.deleted).await.map(|_| ())?,
        "restore" => store.restore(ids.restored).await.map(|_| ())?,
        "transact" => {
            let operations = vec![
                Operation::Append(cell(ids.appended, "new")?),
                Operation::Update(ids.updated, patch()?),
                Operation::Delete(ids.deleted, None),
                Operation::Restore(ids.restored),
            ];
            store.transact(operations).await.map(|_| ())?;
        }
        other => bail!("there is no scenario {other:?}"),
    }
    Ok(())
}

/// A moment to stop at, by its name.
///
/// # Errors
/// For a name that is none.
pub fn moment(name: &str) -> Result<Stops> {
    let at = |step: Step| Ok(Stops::at(&[step]));
    match name {
        "begun" => at(Step::Begun),
        "operated" => at(Step::Operated),
        // The other shard must not get any further meanwhile.
        "prepared-in-one" => Ok(Stops::at(&[Step::Prepared(0), Step::Preparing(1)])),
        "prepared-in-all" => at(Step::PreparedInAll),
        "marked" => at(Step::Marked),
        "committed" => at(Step::Committed),
        "committed-in-one" => Ok(Stops::at(&[Step::CommittedIn(0), Step::Committing(1)])),
        "committed-in-all" => at(Step::CommittedInAll),
        "forgotten" => at(Step::Forgotten),
        "resolved" => at(Step::Resolved),
        other => bail!("there is no moment {other:?}"),
    }
}

/// Lets nobody go on from some steps, until it is told to.
pub struct Stops {
    at: Vec<Step>,
    reached: mpsc::UnboundedSender<(Step, String)>,
    told: Mutex<mpsc::UnboundedReceiver<(Step, String)>>,
    go: watch::Sender<bool>,
}

impl Stops {
    /// Stops at these steps; the first is the one that is told of.
    pub fn at(steps: &[Step]) -> Self {
        let (reached, told) = mpsc::unbounded_channel();
        Self { at: steps.to_vec(), reached, told: Mutex::new(told), go: watch::Sender::new(false) }
    }

    /// Waits until the first of the steps is reached, and answers the transaction's id.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn reached(&self) -> Result<String> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let next = self.told.lock().ok().and_then(|mut told| told.try_recv().ok());
            match next {
                Some((step, id)) if Some(&step) == self.at.first() => return Ok(id),
                Some(_) => {}
                None if std::time::Instant::now() > deadline => bail!("{:?} was not reached", self.at),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// From now on, nobody is stopped any more.
    pub fn release(&self) {
        self.go.send_replace(true);
    }
}

impl Observer for Stops {
    fn reached(&self, step: Step, id: &str) -> BoxFuture<'static, ()> {
        // The receiver lives as long as this.
        let _ = self.reached.send((step, id.to_owned()));
        let stops = self.at.contains(&step);
        let mut go = self.go.subscribe();
        Box::pin(async move {
            if stops {
                // A sender that is gone stops nobody any more.
                let _ = go.wait_for(|go| *go).await;
            }
        })
    }
}
