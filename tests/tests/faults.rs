//! Faults of what the host depends on, while it is written to: a MongoDB that crashes, forgets, or can't be reached; a key-value
//! server that is away or hangs. Whatever was acknowledged stays, and every backend ends up equal by itself.

#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value answers null for what it lacks, and tests may panic"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt as _;
use memcell_host::config::BackendConfig;
use memcell_tests::host::{TestHost, eventually, file, in_memory, remote};
use memcell_tests::mongo::MongoDb;
use memcell_tests::operations::memcell;
use memcell_tests::proxy::{Conduct, Proxy};
use memcell_tests::redis::RedisServer;
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Clients that write at the same time.
const WRITERS: usize = 4;

/// How long an operation may take while MongoDB can't be reached: its own bounds, twice for a retry, and a busy machine.
const BOUNDED: Duration = Duration::from_secs(15);

/// Clients that append documents and change each a few times, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Vec<Written>>>>,
}

/// A document and the last change of it that was acknowledged.
struct Written {
    id: String,
    number: u64,
}

/// What a load has come to.
struct Ended {
    written: Vec<Written>,
    operations: u64,
}

impl Load {
    /// With `may_fail`, answers that say that MongoDB is away are taken; all others must be good.
    fn start(host: &TestHost, may_fail: bool) -> Self {
        let (stop, operations) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = |_| {
            let (client, url) = (host.client.clone(), format!("{}/v1/memcells", host.url));
            tokio::spawn(write(client, url, Arc::clone(&stop), Arc::clone(&operations), may_fail))
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self { stop, operations, writers }
    }

    /// Waits until so many more operations have ended.
    async fn operations(&self, count: u64) -> Result<()> {
        let wanted = self.operations.load(Ordering::Relaxed) + count;
        eventually("the writers get on", async || Ok(self.operations.load(Ordering::Relaxed) >= wanted)).await
    }

    async fn end(self) -> Result<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in self.writers {
            written.extend(writer.await??);
        }
        Ok(Ended { written, operations: self.operations.load(Ordering::Relaxed) })
    }
}

async fn write(
    client: reqwest::Client,
    url: String,
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    may_fail: bool,
) -> Result<Vec<Written>> {
    let mut written: Vec<Written> = Vec::new();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let request = match written.last().filter(|_| number % 4 != 0) {
            Some(last) => client.patch(format!("{url}/{}", last.id)).json(&json!({ "number": number })),
            None => client.post(&url).json(&memcell("under load")),
        };
        let started = Instant::now();
        let answer = request.send().await?;
        let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await?);
        ensure!(started.elapsed() < BOUNDED, "an operation took {:?}", started.elapsed());
        match status {
            201 => written.push(Written { id: body["event_id"].as_str().context("no id")?.to_owned(), number: 0 }),
            200 => drop(written.last_mut().map(|last| last.number = number)),
            // A conflict: the driver sends an insert that broke off once more, and a server that has crashed may have forgotten
            // that it carried it out already.
            503 | 409 if may_fail => {}
            _ => anyhow::bail!("{status}: {body}"),
        }
        operations.fetch_add(1, Ordering::Relaxed);
    }
    Ok(written)
}

/// Everything that was acknowledged is in MongoDB, and in the end each backend agrees with it.
async fn converges(host: &TestHost, ended: &Ended) -> Result<()> {
    for Written { id, number } in &ended.written {
        let document = host.stored(id).await?.with_context(|| format!("{id} is lost"))?;
        let stored: u64 = document["number"]["$numberInt"].as_str().map_or(Ok(0), str::parse)?;
        ensure!(stored >= *number, "{id}: change {number} is lost, it is at {stored}");
    }
    let ids: Vec<String> = ended.written.iter().map(|written| written.id.clone()).collect();
    equal(host, &ids).await
}

/// In the end, each backend is live and has of these keys what MongoDB has, and nothing else.
async fn equal(host: &TestHost, ids: &[String]) -> Result<()> {
    let mut differences = Vec::new();
    let equal = eventually("the backends agree", async || {
        host.settled().await?;
        differences = differing(host, ids).await?;
        Ok(differences.is_empty())
    });
    if let Err(error) = equal.await {
        anyhow::bail!("{error}: {}", differences.join("; "));
    }
    assert!(host.store.mismatches().is_empty());
    Ok(())
}

async fn differing(host: &TestHost, ids: &[String]) -> Result<Vec<String>> {
    let live = host.collection.count_documents(doc! { "deleted_at": null }).await?;
    let mut differences = Vec::new();
    for (number, report) in host.store.backends().await.iter().enumerate() {
        if (report.state, report.entries) != ("live", Some(live)) {
            differences.push(format!("{} is {}, {:?} of {live} entries", report.name, report.state, report.entries));
            continue;
        }
        for id in ids {
            let (stored, copy) = (host.stored(id).await?, host.mirrored_by(number, id).await?);
            if stored != copy {
                differences.push(format!("{id} in {}", report.name));
            }
        }
    }
    Ok(differences)
}

/// The in-memory and the file backend side by side.
fn two_backends(directory: &TempDir) -> Result<Vec<BackendConfig>> {
    let mut disk = file(&directory.path().join("data"))?;
    disk.name = "disk".into();
    Ok(vec![in_memory()?, disk])
}

/// A host with two backends that reaches MongoDB through a proxy.
async fn behind_proxy(server: &MongoDb, directory: &TempDir) -> Result<(TestHost, Proxy)> {
    let proxy = Proxy::start(server.address())?;
    let uri = format!("mongodb://{}/?directConnection=true", proxy.address());
    let host = TestHost::start_at(&uri, &server.uri(), two_backends(directory)?, |config| {
        config.mongodb.operation_timeout = Duration::from_secs(3);
    })
    .await?;
    host.live().await?;
    Ok((host, proxy))
}

/// A change by another program reaches the backends: the tail follows.
async fn is_followed(host: &TestHost, text: &str) -> Result<()> {
    let id = ObjectId::new();
    let at = mongodb::bson::DateTime::now();
    host.collection.insert_one(doc! { "_id": id, "timestamp": at, "summary": text }).await?;
    equal(host, &[id.to_hex()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_is_killed_while_writers_go_on() -> Result<()> {
    let (mut server, directory) = (MongoDb::start().await?, TempDir::new()?);
    let host = TestHost::start_at(&server.uri(), &server.uri(), two_backends(&directory)?, |_| {}).await?;
    host.live().await?;
    let load = Load::start(&host, true);
    for _ in 0..3 {
        load.operations(40).await?;
        server.kill()?;
        server.launch()?;
        server.ready().await?;
    }
    load.operations(40).await?;
    converges(&host, &load.end().await?).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_again_and_again() -> Result<()> {
    let (server, directory) = (MongoDb::start().await?, TempDir::new()?);
    let (host, proxy) = behind_proxy(&server, &directory).await?;
    let load = Load::start(&host, true);
    for _ in 0..12 {
        load.operations(15).await?;
        proxy.cut();
    }
    load.operations(15).await?;
    converges(&host, &load.end().await?).await?;
    is_followed(&host, "after the cuts").await?;
    host.stop().await?;
    Ok(())
}

/// Slowness is no failure: every operation succeeds, and the backends keep up.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_mongodb_are_slow() -> Result<()> {
    let (server, directory) = (MongoDb::start().await?, TempDir::new()?);
    let (host, proxy) = behind_proxy(&server, &directory).await?;
    let delay = Duration::from_millis(150);
    proxy.set(Conduct::Delay(delay));
    let started = Instant::now();
    let load = Load::start(&host, false);
    load.operations(40).await?;
    let ended = load.end().await?;
    assert!(started.elapsed() > delay * u32::try_from(ended.operations)? / u32::try_from(WRITERS)?);
    converges(&host, &ended).await?;
    is_followed(&host, "slowly").await?;
    host.stop().await?;
    Ok(())
}

/// Nothing is answered and nothing is refused. Operations end in time all the same, and what another program writes meanwhile
/// arrives afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_is_in_a_black_hole() -> Result<()> {
    let (server, directory) = (MongoDb::start().await?, TempDir::new()?);
    let (host, proxy) = behind_proxy(&server, &directory).await?;
    let id = host.append(&memcell("before")).await?;
    host.settled().await?;
    proxy.set(Conduct::Silence);
    let foreign = doc! { "$set": { "summary": "meanwhile" } };
    host.collection.update_one(doc! { "_id": ObjectId::parse_str(&id)? }, foreign).await?;
    let started = Instant::now();
    let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
    let write = host.json("PATCH", &format!("/v1/memcells/{id}"), &json!({ "number": 1 })).await?;
    assert_eq!((read.status, write.status), (503, 503));
    assert!(started.elapsed() < BOUNDED, "{:?}", started.elapsed());
    assert_eq!(host.request("GET", "/readyz").await?.status, 503);
    // Connections that are cut in the silence leave nobody waiting for an answer that will never come.
    proxy.cut();
    proxy.set(Conduct::Pass);
    eventually("it is ready again", async || Ok(host.request("GET", "/readyz").await?.status == 200)).await?;
    let load = Load::start(&host, false);
    load.operations(20).await?;
    converges(&host, &load.end().await?).await?;
    equal(&host, &[id]).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_of_the_tail_is_killed() -> Result<()> {
    let (server, directory) = (MongoDb::start().await?, TempDir::new()?);
    // Each mirror has a cursor of its own: with one mirror, it is known whose it is.
    let proxy = Proxy::start(server.address())?;
    let uri = format!("mongodb://{}/?directConnection=true", proxy.address());
    let disk = file(&directory.path().join("data"))?;
    let host = TestHost::start_at(&uri, &server.uri(), vec![disk], |_| {}).await?;
    host.live().await?;
    let database = server.collection().await?.client().database("memcell");
    for round in 0..3 {
        is_followed(&host, &format!("round {round}")).await?;
        let before = proxy.last_cursor();
        let kill = doc! { "killCursors": "memcells", "cursors": [before] };
        let answer = database.run_command(kill).await?;
        assert_eq!(answer.get_array("cursorsKilled")?.len(), 1, "{answer}");
        eventually("another cursor takes its place", async || Ok(proxy.last_cursor() != before)).await?;
        is_followed(&host, &format!("after round {round}")).await?;
    }
    host.stop().await?;
    Ok(())
}

/// While the host was away, more has happened than MongoDB remembers. Everything is copied anew, and what is gone is swept out.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_has_forgotten_where_the_backend_was() -> Result<()> {
    let directory = TempDir::new()?;
    // A mongod remembers a gigabyte at least; there, another server takes the place of the first.
    let first = MongoDb::start_with(&["--oplog-max-entries", "100"]).await?;
    let backend = || file(&directory.path().join("data"));
    let host = TestHost::start_at(&first.uri(), &first.uri(), vec![backend()?], |_| {}).await?;
    host.live().await?;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(host.append(&memcell(&n.to_string())).await?);
    }
    equal(&host, &ids).await?;
    host.stop().await?;

    let second = if first.is_development_server() { None } else { Some(MongoDb::start().await?) };
    let server = second.as_ref().unwrap_or(&first);
    let collection = server.collection().await?;
    if second.is_some() {
        let documents: Vec<_> = first.collection().await?.find(doc! {}).await?.try_collect().await?;
        collection.insert_many(documents).await?;
    }
    let object_id = |at: usize| ObjectId::parse_str(&ids[at]);
    collection.delete_one(doc! { "_id": object_id(0)? }).await?;
    collection.update_one(doc! { "_id": object_id(1)? }, doc! { "$set": { "summary": "changed" } }).await?;
    let other = server.collection().await?.client().database("other").collection("noise");
    for n in 0..1500 {
        other.insert_one(doc! { "n": n }).await?;
    }
    let host = TestHost::start_at(&server.uri(), &server.uri(), vec![backend()?], |_| {}).await?;
    host.live().await?;
    equal(&host, &ids).await?;
    let metrics = host.request("GET", "/metrics").await?.body;
    let metrics = metrics.as_str().context("no text")?;
    assert!(metrics.contains("memcell_mirror_history_lost_total{backend=\"local\"} 1"), "{metrics}");
    is_followed(&host, "from now on").await?;
    host.stop().await?;
    Ok(())
}

/// Operations never fail, what waits stays within its bounds, and nobody has to do anything for the backend to catch up.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_value_server_is_away_or_hangs_under_load() -> Result<()> {
    const SHARDS: u32 = 2;
    const CHANGES: u64 = 64;
    const BYTES: u64 = 1 << 20;
    for hangs in [false, true] {
        let mut redis = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"])?;
        let mut config = remote(&[redis.address()], &[("timeout", "300ms")])?;
        config.shards = SHARDS;
        config.queue.changes = usize::try_from(CHANGES)?;
        config.queue.batch = 16;
        config.queue.bytes = BYTES;
        let host = TestHost::start(vec![config]).await?;
        host.live().await?;
        let load = Load::start(&host, false);
        load.operations(40).await?;
        if hangs {
            redis.freeze()?;
        } else {
            redis.kill()?;
        }
        let until = load.operations.load(Ordering::Relaxed) + 400;
        let mut deepest = 0;
        eventually("the writers get on", async || {
            let report = host.request("GET", "/v1/backends").await?.body["items"][0].clone();
            let (depth, bytes) = (report["queue_depth"].as_u64(), report["queue_bytes"].as_u64());
            let (depth, bytes) = (depth.context("no depth")?, bytes.context("no bytes")?);
            ensure!(depth <= CHANGES * u64::from(SHARDS) && bytes <= BYTES * u64::from(SHARDS), "{report}");
            deepest = deepest.max(depth);
            Ok(load.operations.load(Ordering::Relaxed) >= until)
        })
        .await?;
        if hangs {
            redis.thaw()?;
        } else {
            redis.run()?;
        }
        load.operations(40).await?;
        let ended = load.end().await?;
        converges(&host, &ended).await?;
        eprintln!("hangs {hangs}: {} operations, at most {deepest} waiting", ended.operations);
        host.stop().await?;
    }
    Ok(())
}
