//! Many clients at the same few documents: no update is lost, no revision comes twice, no false alarm is raised, and
//! when they stop, the backend holds what MongoDB does.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_tests::host::{TestHost, in_memory};
use memcell_tests::random::Random;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::checks::{NOON, append_all, body, check_mirror, memcell, read_consistent, revision};

const CLIENTS: usize = 64;
const DOCUMENTS: usize = 4;
const ROUNDS: usize = 8;

/// What a validated read may say while others write.
const HARMLESS: [&str; 4] = ["consistent", "in-flight", "skipped", "unavailable"];

struct Arena {
    host: TestHost,
    ids: Vec<String>,
    is_over: AtomicBool,
}

async fn arena(adjust: impl FnOnce(&mut BackendConfig)) -> Result<Arc<Arena>> {
    let mut backend = in_memory()?;
    backend.shards = 2;
    adjust(&mut backend);
    let host = TestHost::start(vec![backend]).await?;
    host.live().await?;
    let ids = append_all(&host, &vec![memcell("ana", NOON); DOCUMENTS]).await?;
    Ok(Arc::new(Arena { host, ids, is_over: AtomicBool::new(false) }))
}

impl Arena {
    fn id(&self, number: usize) -> &str {
        self.ids.get(number % self.ids.len()).map_or("", String::as_str)
    }

    async fn patch(&self, number: usize, patch: &Value) -> Result<memcell_tests::host::Answer> {
        self.host.json("PATCH", &format!("/v1/memcells/{}", self.id(number)), patch).await
    }

    /// Reads, validated, one by one and in batches, until everybody else is done. Returns how often.
    async fn watch(self: Arc<Self>) -> Result<usize> {
        let mut reads = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let answer = self.host.request("GET", &format!("/v1/memcells/{}", self.id(reads))).await?;
            ensure!(matches!(answer.status, 200 | 404), "{answer:?}");
            ensure!(HARMLESS.contains(&answer.header("x-memcell-validation")), "{answer:?}");
            let batch = json!({ "event_ids": self.ids, "validate": true });
            let answer = self.host.json("POST", "/v1/memcells/batch-get", &batch).await?;
            ensure!(answer.status == 200 && HARMLESS.contains(&answer.header("x-memcell-validation")), "{answer:?}");
            reads += 1;
        }
        Ok(reads)
    }

    /// Runs the clients beside a few that watch, and then checks what must hold however they went.
    async fn run<T, F>(self: &Arc<Self>, client: impl Fn(Arc<Self>, usize) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut watching = JoinSet::new();
        for _ in 0..3 {
            watching.spawn(Arc::clone(self).watch());
        }
        let mut clients: JoinSet<Result<T>> = (0..CLIENTS).map(|number| client(Arc::clone(self), number)).collect();
        let mut results = Vec::new();
        while let Some(result) = clients.join_next().await {
            results.push(result??);
        }
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(reads) = watching.join_next().await {
            ensure!(reads?? > 0, "nobody has read anything");
        }
        check_mirror(&self.host).await?;
        let mismatches = self.host.request("GET", "/v1/mismatches").await?;
        ensure!(mismatches.body == json!({ "items": [] }), "{mismatches:?}");
        let metrics = self.host.request("GET", "/metrics").await?;
        let metrics = metrics.body.as_str().context("a text")?.to_owned();
        for line in metrics.lines().filter(|line| line.starts_with("memcell_validations_total")) {
            let is_bad = ["\"different\"", "\"missing\"", "\"corrupt\""].iter().any(|outcome| line.contains(outcome));
            ensure!(!is_bad || line.ends_with(" 0"), "{line}");
        }
        for line in metrics.lines().filter(|line| line.starts_with("memcell_mismatches_confirmed_total{")) {
            ensure!(line.ends_with(" 0"), "{line}");
        }
        Ok(results)
    }
}

/// Each client sets one field of its own per round; the answer must have it, under a revision above the last one seen.
async fn add_fields(arena: Arc<Arena>, client: usize) -> Result<Vec<(usize, u64)>> {
    let mut seen = BTreeMap::new();
    let mut revisions = Vec::new();
    for round in 0..ROUNDS {
        let document = (client + round) % DOCUMENTS;
        let field = format!("c{client}r{round}");
        let answer = arena.patch(document, &json!({ &field: client * round })).await?;
        ensure!(answer.status == 200 && answer.body.get(&field).is_some(), "{answer:?}");
        let revision = revision(&answer)?;
        ensure!(seen.insert(document, revision) < Some(revision), "the revision of document {document} went back");
        revisions.push((document, revision));
    }
    Ok(revisions)
}

async fn no_update_is_lost(adjust: impl FnOnce(&mut BackendConfig)) -> Result<()> {
    let arena = arena(adjust).await?;
    let revisions: Vec<(usize, u64)> = arena.run(add_fields).await?.into_iter().flatten().collect();
    ensure!(revisions.iter().collect::<HashSet<_>>().len() == CLIENTS * ROUNDS, "two changes share a revision");
    for (document, id) in arena.ids.iter().enumerate() {
        let cell = read_consistent(&arena.host, id).await?;
        let newest = revisions.iter().filter(|(of, _)| *of == document).map(|(_, revision)| *revision).max();
        ensure!(cell.get("revision").and_then(Value::as_u64) == newest, "{newest:?} is not the last of {cell}");
        for (client, round) in (0..CLIENTS).flat_map(|client| (0..ROUNDS).map(move |round| (client, round))) {
            let expected = ((client + round) % DOCUMENTS == document).then(|| json!(client * round));
            ensure!(cell.get(format!("c{client}r{round}")) == expected.as_ref(), "c{client}r{round} of {cell}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_64_clients_are_all_there() -> Result<()> {
    no_update_is_lost(|_| {}).await
}

/// The same where the queue is far too small: what is dropped is read again, and nothing is missed or alarmed about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_64_clients_are_all_there_though_the_queue_overflows() -> Result<()> {
    no_update_is_lost(|backend| {
        backend.queue.changes = 1;
        backend.queue.batch = 1;
    })
    .await
}

/// A client that patches, deletes, restores, and appends and hard-deletes a document that all of them share.
async fn meddle(arena: Arc<Arena>, client: usize) -> Result<Vec<(usize, String)>> {
    const SHARED: &str = "685c8c52a1b2c3d4e5f60718";
    let mut random = Random::new(client as u64);
    let mut done = Vec::new();
    for round in 0..ROUNDS {
        let document = random.index(DOCUMENTS);
        let path = format!("/v1/memcells/{}", arena.id(document));
        let (answer, may_fail) = match random.below(8) {
            0 | 1 => (arena.host.request("DELETE", &format!("{path}?deleted_by=c{client}")).await?, 404),
            2 | 3 => (arena.host.request("POST", &format!("{path}/restore")).await?, 0),
            4 => {
                let cell = json!({ "event_id": SHARED, "timestamp": NOON, "user_id": format!("c{client}") });
                (arena.host.json("POST", "/v1/memcells", &cell).await?, 409)
            }
            5 => (arena.host.request("DELETE", &format!("/v1/memcells/{SHARED}?hard=true")).await?, 404),
            6 => {
                let operations = json!({ "operations": [
                    { "op": "restore", "event_id": arena.id(document) },
                    { "op": "update", "event_id": arena.id(document), "patch": { format!("c{client}r{round}"): true } },
                ] });
                let answer = arena.host.json("POST", "/v1/transactions", &operations).await?;
                if answer.status == 200 {
                    done.push((document, format!("c{client}r{round}")));
                }
                // Transactions that keep colliding may be given up, but then as a whole.
                (answer, 503)
            }
            _ => {
                let field = format!("c{client}r{round}");
                let answer = arena.host.json("PATCH", &path, &json!({ &field: true })).await?;
                if answer.status == 200 {
                    done.push((document, field));
                }
                (answer, 404)
            }
        };
        ensure!(matches!(answer.status, 200 | 201) || answer.status == may_fail, "{answer:?}");
    }
    Ok(done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_deletions_and_restorations_of_64_clients_end_in_step() -> Result<()> {
    let arena = arena(|_| {}).await?;
    let done: HashSet<(usize, String)> = arena.run(meddle).await?.into_iter().flatten().collect();
    body(arena.host.request("POST", "/v1/memcells/restore?user_id=ana").await?, 200);
    for (document, id) in arena.ids.iter().enumerate() {
        let cell = read_consistent(&arena.host, id).await?;
        let fields: &Map<String, Value> = cell.as_object().context("an object")?;
        let is_own = |field: &&String| field.starts_with('c') && field.contains('r') && cell[field.as_str()] == true;
        let there: HashSet<&String> = fields.keys().filter(is_own).collect();
        let expected = done.iter().filter(|(of, _)| *of == document).map(|(_, field)| field).collect();
        ensure!(there == expected, "{there:?} instead of {expected:?}");
    }
    check_mirror(&arena.host).await
}
