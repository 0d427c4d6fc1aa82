//! Comparing, while nobody writes: MongoDB with the history, and the backend with MongoDB.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use serde_json::Value;

use super::client::{Api, text};
use super::history::{Found, Key, State};
use super::outsider::Outsider;
use super::workload::Worker;

/// How long the backend may take until it agrees. Far above what it takes on a busy machine; what is still wrong then stays so.
const AGREEMENT_DEADLINE: Duration = Duration::from_secs(45);

/// For how long two looks at MongoDB must see the same before nobody is believed to be still at work there: what a host sent
/// before it was killed is carried out within milliseconds.
const QUIET: Duration = Duration::from_millis(150);

const QUIET_DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(50);

/// How many differences are told.
const MAX_TOLD: usize = 10;

/// Everything in the collection.
pub(super) type Snapshot = BTreeMap<ObjectId, Document>;

/// What was found in MongoDB.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// The ids of live documents, in order.
    pub(super) live: Vec<String>,
    /// The ids that were ever used.
    pub(super) all: Vec<String>,
    /// Operations of unknown fate on single keys that took place, and that did not.
    pub(super) changed: u64,
    pub(super) unchanged: u64,
}

/// What MongoDB has once nothing moves any more.
///
/// # Errors
/// If it can't be read, or doesn't come to rest.
pub(super) async fn quiet(collection: &Collection<Document>) -> Result<Snapshot> {
    let deadline = Instant::now() + QUIET_DEADLINE;
    let mut before = snapshot(collection).await?;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = snapshot(collection).await?;
        if now == before {
            return Ok(now);
        }
        ensure!(
            Instant::now() < deadline,
            "MongoDB did not come to rest within {QUIET_DEADLINE:?} after the last write"
        );
        before = now;
    }
}

async fn snapshot(collection: &Collection<Document>) -> Result<Snapshot> {
    let mut documents = collection.find(doc! {}).await?;
    let mut all = Snapshot::new();
    while let Some(document) = documents.try_next().await? {
        let id = document.get_object_id("_id").with_context(|| format!("phantom in MongoDB: {document}"))?;
        all.insert(id, document);
    }
    Ok(all)
}

/// Compares what MongoDB has with the history of each key, and takes it for what is acknowledged from now on.
///
/// # Errors
/// The differences: what is lost, resurrected or wrong; documents that nobody wrote; transactions of which only a part took place.
pub(super) fn explain(workers: &mut [Worker], outsider: &Outsider, mut snapshot: Snapshot) -> Result<Resolved> {
    let mut resolved = Resolved::default();
    let mut differences = outsider.exceeded(&snapshot);
    for worker in workers.iter_mut() {
        let mut found = Vec::with_capacity(worker.keys.len());
        for key in &mut worker.keys {
            let document = snapshot.remove(&key.id);
            let state = State::of(document.as_ref()).with_context(|| format!("phantom in MongoDB: {document:?}"))?;
            note(&mut resolved, key, &state);
            match key.resolve(state) {
                Ok(what) => found.push(Some(what)),
                Err(difference) => {
                    found.push(None);
                    differences.push(difference);
                }
            }
        }
        for places in worker.together.drain(..) {
            let parts = |wanted| places.iter().filter(|at| found.get(**at) == Some(&Some(wanted))).count();
            if parts(Found::Changed) > 0 && parts(Found::Unchanged) > 0 {
                let stories = places.iter().filter_map(|at| worker.keys.get(*at)).map(Key::story);
                differences
                    .push(format!("a transaction took place by half: {}", stories.collect::<Vec<_>>().join("; ")));
            }
        }
        let count = |wanted| found.iter().filter(|what| **what == Some(wanted)).count() as u64;
        resolved.changed += count(Found::Changed);
        resolved.unchanged += count(Found::Unchanged);
    }
    for (id, document) in snapshot {
        let state = State::of(Some(&document)).with_context(|| format!("phantom in MongoDB: {document}"))?;
        if adopt(workers, id, &state) {
            resolved.changed += 1;
            resolved.all.push(id.to_hex());
            resolved.live.extend(state.is_live().then(|| id.to_hex()));
        } else {
            differences.push(format!("{id} is a phantom in MongoDB: nobody made {document}"));
        }
    }
    workers.iter_mut().for_each(|worker| worker.strays.clear());
    resolved.live.sort_unstable();
    tell(&differences)?;
    Ok(resolved)
}

fn note(resolved: &mut Resolved, key: &Key, state: &State) {
    resolved.all.push(key.id.to_hex());
    if state.is_live() {
        resolved.live.push(key.id.to_hex());
    }
}

/// Whether a worker appended this document and lost the answer. Each did so once.
fn adopt(workers: &mut [Worker], id: ObjectId, state: &State) -> bool {
    for worker in workers {
        let stray = worker.strays.iter().find(|(_, (stray, _))| stray == state).map(|(op, _)| *op);
        if let Some((state, user)) = stray.and_then(|op| worker.strays.remove(&op)) {
            let mut key = Key::new(id, user);
            key.note("Append without id: found after its answer was lost".into());
            key.acknowledge(state);
            worker.keys.push(key);
            return true;
        }
    }
    false
}

/// Waits until the backend is live and has nothing left to do, every live document has an equal copy in it, and nothing else is
/// there. Answers how long that took.
///
/// # Errors
/// The differences, if it never agrees; a mismatch that the host has confirmed meanwhile, for that is a lasting one.
pub(super) async fn agree(api: &Api, workers: &[Worker], resolved: &Resolved) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let Some(difference) = disagreement(api, resolved).await? else { break };
        if started.elapsed() > AGREEMENT_DEADLINE {
            let mut differences =
                vec![format!("the backend does not agree within {AGREEMENT_DEADLINE:?}: {difference}")];
            differences.extend(copies(api, workers).await?);
            tell(&differences)?;
        }
        tokio::time::sleep(POLL).await;
    }
    let elapsed = started.elapsed();
    let confirmed = api.get("/v1/mismatches").await?;
    let rows = confirmed.get("items").and_then(Value::as_array).context("no list of mismatches")?;
    ensure!(rows.is_empty(), "the host has confirmed mismatches: {confirmed}");
    Ok(elapsed)
}

/// What is not yet as it has to be.
async fn disagreement(api: &Api, resolved: &Resolved) -> Result<Option<String>> {
    let backends = api.get("/v1/backends").await?;
    let backend = backends.get("items").and_then(|items| items.get(0)).context("the host has no backend")?;
    let is_idle = backend.get("queue_depth") == Some(&0.into()) && number(backend, "lag_seconds") == Some(0.0);
    if text(backend, "state") == "failed" {
        bail!("the backend is given up: {backend}");
    }
    if text(backend, "state") != "live" || !is_idle {
        return Ok(Some(format!("it is {backend}")));
    }
    let live = resolved.live.len();
    if backend.get("entries").and_then(Value::as_u64) != Some(live as u64) {
        return Ok(Some(format!("there are {live} live documents, and it is {backend}")));
    }
    let (found, outcomes) = api.read_all(&resolved.all).await?;
    if found != resolved.live {
        return Ok(Some(format!("the host reads {} live documents, MongoDB has {live}", found.len())));
    }
    Ok((!outcomes.is_empty()).then(|| format!("validated reads are {}", outcomes.join(", "))))
}

/// Each key whose copy is wrong.
async fn copies(api: &Api, workers: &[Worker]) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for key in workers.iter().flat_map(|worker| &worker.keys) {
        let (is_there, outcome) = api.read(&key.id.to_hex()).await?;
        if outcome != "consistent" {
            let side = if is_there { "in MongoDB" } else { "not in MongoDB" };
            differences.push(format!("the copy of {}, which is {side}, is {outcome}; {}", key.id, key.story()));
        }
    }
    Ok(differences)
}

fn number(value: &Value, field: &str) -> Option<f64> {
    value.get(field).and_then(Value::as_f64)
}

/// Fails with the differences, if there are any.
fn tell(differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let shown: String = differences.iter().take(MAX_TOLD).map(|difference| format!("\n  - {difference}")).collect();
    bail!("{} difference(s):{shown}", differences.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::crash::shared::Shared;
    use crate::crash::steps::{Step, foreign};

    /// A worker that has never worked, and an outsider; their servers are nowhere.
    async fn idle() -> (Vec<Worker>, Outsider) {
        let client = mongodb::Client::with_uri_str("mongodb://127.0.0.1:1/").await.unwrap();
        let collection = client.database("memcell").collection("memcells");
        let api = Api::new("http://127.0.0.1:1").unwrap();
        let worker = Worker::new(0, 1, 7, &api, &collection, &Arc::new(Shared::default()));
        (vec![worker], Outsider::new(&collection, 7))
    }

    fn inserted(worker: &Worker, at: usize, op: i64) -> (ObjectId, Document) {
        let key = &worker.keys[at];
        (key.id, foreign(op, key.id, "a", &key.user))
    }

    fn after_insert(worker: &Worker, at: usize, op: i64) -> State {
        Step::ForeignInsert.after(op, &State::Absent, &worker.keys[at].user).unwrap()
    }

    #[tokio::test]
    async fn what_the_history_says_is_found() {
        let (mut workers, outsider) = idle().await;
        let worker = &mut workers[0];
        let state = after_insert(worker, 3, 1);
        worker.keys[3].acknowledge(state);
        let document = inserted(worker, 3, 1);
        let id = document.0.to_hex();
        let resolved = explain(&mut workers, &outsider, Snapshot::from([document])).unwrap();
        assert_eq!((resolved.live, resolved.all.len()), (vec![id], workers[0].keys.len()));
        let error = explain(&mut workers, &outsider, Snapshot::new()).unwrap_err().to_string();
        assert!(error.contains("1 difference(s)") && error.contains("is lost"), "{error}");
    }

    #[tokio::test]
    async fn what_nobody_wrote_is_a_phantom_and_a_lost_answer_is_none() {
        let (mut workers, outsider) = idle().await;
        let user = workers[0].keys[0].user.clone();
        let id = ObjectId::new();
        let found = || Snapshot::from([(id, foreign(9, id, "a", &user))]);
        let error = explain(&mut workers, &outsider, found()).unwrap_err().to_string();
        assert!(error.contains("is a phantom"), "{error}");
        let state = Step::Append.after(9, &State::Absent, &user).unwrap();
        workers[0].strays.insert(9, (state, user.clone()));
        let resolved = explain(&mut workers, &outsider, found()).unwrap();
        assert_eq!((resolved.live, resolved.changed), (vec![id.to_hex()], 1));
        assert!(workers[0].keys.iter().any(|key| key.id == id));
    }

    #[tokio::test]
    async fn a_transaction_takes_place_as_a_whole() {
        let (mut workers, outsider) = idle().await;
        let documents: Vec<_> = [0, 1].map(|at| inserted(&workers[0], at, 5)).into();
        for (found, is_fine) in [(vec![], true), (documents[..1].to_vec(), false), (documents, true)] {
            let worker = &mut workers[0];
            for at in [0, 1] {
                worker.keys[at].acknowledge(State::Absent);
                let state = after_insert(worker, at, 5);
                worker.keys[at].doubt(state);
            }
            worker.together.push(vec![0, 1]);
            let explained = explain(&mut workers, &outsider, found.into_iter().collect());
            assert_eq!(explained.is_ok(), is_fine, "{explained:?}");
            if let Err(error) = explained {
                assert!(error.to_string().contains("took place by half"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_count_that_nobody_made_is_wrong() {
        let (mut workers, mut outsider) = idle().await;
        let state = after_insert(&workers[0], 0, 1);
        workers[0].keys[0].acknowledge(state);
        let (id, mut document) = inserted(&workers[0], 0, 1);
        document.insert("outside", 1_i64);
        let found = || Snapshot::from([(id, document.clone())]);
        assert!(explain(&mut workers, &outsider, found()).unwrap_err().to_string().contains("counted up 0 times"));
        outsider.tries_everywhere();
        explain(&mut workers, &outsider, found()).unwrap();
    }
}
