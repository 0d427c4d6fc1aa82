//! Writes in two phases, on a real MongoDB and the file backend: a crash between every two steps, transactions that MongoDB
//! aborts, backends that can't prepare.
//!
//! After a crash, the backend is looked at when what was in doubt has been decided, and before its tail has opened MongoDB's
//! stream of changes: nothing else can have brought it what it has.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use memcell_host::codec::Envelope;
use memcell_host::memcell::MemCell;
use memcell_host::metrics::Metrics;
use memcell_host::mirror::Mirror;
use memcell_host::mongo::embedded::EmbeddedServer;
use memcell_host::steps::{Step, Steps};
use memcell_host::store::MemCellStore;
use memcell_tests::child::Killed;
use memcell_tests::host::PATIENCE;
use memcell_tests::two_phase::{Ids, SHARDS, Stops, config, live, prepare};
use mongodb::bson::{Document, RawDocumentBuf, doc};
use tempfile::TempDir;

/// MongoDB, and a folder for the backend.
struct Place {
    server: EmbeddedServer,
    client: mongodb::Client,
    directory: TempDir,
}

impl Place {
    async fn new() -> Result<Self> {
        let directory = TempDir::new()?;
        let server = EmbeddedServer::start(&directory.path().join("mongodb")).await?;
        let client = mongodb::Client::with_uri_str(server.uri()).await?;
        Ok(Self { server, client, directory })
    }

    fn backend(&self) -> std::path::PathBuf {
        self.directory.path().join("backend")
    }

    async fn open(&self, steps: Steps) -> Result<MemCellStore> {
        let config = config(&self.server.uri(), &self.backend())?;
        Ok(MemCellStore::open_observed(&config, Arc::new(Metrics::new()), steps).await?)
    }

    fn documents<T: Send + Sync>(&self, name: &str) -> Result<mongodb::Collection<T>> {
        let config = config(&self.server.uri(), Path::new("nowhere"))?.mongodb;
        Ok(self.client.database(&config.database).collection(&format!("{}{name}", config.collection)))
    }

    async fn cells(&self) -> Result<Vec<MemCell>> {
        let mut found = self.documents::<RawDocumentBuf>("")?.find(doc! {}).await?;
        let mut cells = Vec::new();
        while found.advance().await? {
            cells.push(MemCell::from_raw(found.current().to_owned()));
        }
        Ok(cells)
    }

    /// The markers of committed transactions.
    async fn markers(&self) -> Result<u64> {
        Ok(self.documents::<Document>(".transactions")?.count_documents(doc! { "aborted": { "$ne": true } }).await?)
    }

    /// What the shards of the backend, which no host must have open, say to be in doubt.
    async fn in_doubt(&self) -> Result<Vec<String>> {
        let config = config("mongodb://nowhere", &self.backend())?.backends.remove(0);
        let ask = move || {
            let trials = memcell_tests::artifacts::trials(config)?;
            let mut found = Vec::new();
            for shard in 0..SHARDS {
                let mut trial = trials.open(shard)?;
                found.extend(trial.in_doubt()?);
                trial.close()?;
            }
            Ok(found)
        };
        tokio::task::spawn_blocking(ask).await?
    }

    /// Checks that the backend has exactly the live documents, each as MongoDB has it.
    async fn check(&self, mirror: &Mirror) -> Result<()> {
        let live: Vec<MemCell> = self.cells().await?.into_iter().filter(|cell| !cell.is_deleted()).collect();
        let keys: Vec<String> = live.iter().map(|cell| Ok(cell.key()?.as_str().to_owned())).collect::<Result<_>>()?;
        for ((cell, key), entry) in live.iter().zip(&keys).zip(mirror.read(&keys).await?) {
            let entry = entry.with_context(|| format!("{key} is not in the backend: {:?}", cell.as_raw()))?;
            let copy = Envelope::parse(&entry.value)?.document()?;
            let is_same = copy.as_raw().as_bytes() == cell.as_raw().as_bytes();
            ensure!(is_same, "{:?} is mirrored as {:?}", cell.as_raw(), copy.as_raw());
        }
        let mut held = BTreeSet::new();
        for shard in 0..SHARDS {
            let page = mirror.scan(shard, None, 1000).await?;
            held.extend(page.marks.into_iter().map(|mark| mark.key).filter(|key| !key.starts_with("memcell:")));
        }
        ensure!(held == keys.iter().cloned().collect(), "the backend has {held:?}, MongoDB {keys:?}");
        Ok(())
    }
}

fn mirror(store: &MemCellStore) -> Result<Arc<Mirror>> {
    store.mirrors().into_iter().next().context("there is no backend")
}

/// Runs a host that carries a scenario out, and kills it at that moment.
fn crash(place: &Place, scenario: &str, moment: &str, ids: Ids) -> Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_two-phase-probe"));
    command.arg(place.server.uri()).arg(place.backend()).args([scenario, moment]).args(ids.to_args());
    command.stdout(Stdio::piped());
    let mut host = Killed::spawn(command)?;
    let mut lines = BufReader::new(host.0.stdout.take().context("no output")?).lines();
    let line = lines.next().context("the host ended by itself")??;
    ensure!(line == format!("reached {moment}"), "{line}");
    Ok(())
}

/// Crashes at a moment, and checks what the next start makes of it.
async fn check_crash(scenario: &str, moment: &str, is_committed: bool) -> Result<()> {
    let place = Place::new().await?;
    let ids = Ids::new();
    let store = place.open(Steps::default()).await?;
    live(&store).await?;
    prepare(&store, ids).await?;
    ensure!(store.close(PATIENCE).await.is_none());
    let before = place.cells().await?;
    crash(&place, scenario, moment, ids)?;
    let after = place.cells().await?;
    let bytes = |cells: &[MemCell]| cells.iter().map(|cell| cell.as_raw().as_bytes().to_vec()).collect::<BTreeSet<_>>();
    ensure!((bytes(&before) != bytes(&after)) == is_committed, "MongoDB has {after:?} after {before:?}");

    let stops = Arc::new(Stops::at(&[Step::Resolved]));
    let store = place.open(Steps::observed_by(Arc::<Stops>::clone(&stops))).await?;
    stops.reached().await?;
    // What the server takes for open is decided later: nothing of it is in MongoDB.
    place.check(&*mirror(&store)?).await.context("before the tail began")?;
    stops.release();
    live(&store).await?;
    tokio::time::timeout(PATIENCE, mirror(&store)?.settle()).await?;
    place.check(&*mirror(&store)?).await.context("after the tail had its turn")?;
    ensure!(bytes(&place.cells().await?) == bytes(&after), "MongoDB was changed");
    // A marker whose host died before it could take it away is left to expire.
    let due = u64::from(moment == "committed-in-all");
    ensure!(place.markers().await? == due, "{} markers", place.markers().await?);
    // And it goes on as if nothing had happened.
    store.append(memcell_tests::two_phase::cell(memcell_host::memcell::EventId::new(), "later")?).await?;
    tokio::time::timeout(PATIENCE, mirror(&store)?.settle()).await?;
    place.check(&*mirror(&store)?).await?;
    ensure!(store.close(PATIENCE).await.is_none());
    // Its host is gone, and the server doesn't know that yet.
    let due = usize::from(moment == "marked") * 2;
    let in_doubt = place.in_doubt().await?;
    ensure!(in_doubt.len() == due, "{in_doubt:?} are left in doubt");
    Ok(())
}

macro_rules! crashes {
    ($($test:ident = $scenario:literal at $moment:literal: $committed:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() -> Result<()> {
                check_crash($scenario, $moment, $committed).await
            }
        )*
    };
}

crashes! {
    a_crash_after_begin = "transact" at "begun": false;
    a_crash_after_the_operations = "transact" at "operated": false;
    a_crash_when_one_shard_has_prepared = "transact" at "prepared-in-one": false;
    a_crash_when_all_have_prepared = "transact" at "prepared-in-all": false;
    a_crash_after_the_marker = "transact" at "marked": false;
    a_crash_after_mongodb_committed = "transact" at "committed": true;
    a_crash_when_one_shard_has_committed = "transact" at "committed-in-one": true;
    a_crash_when_all_have_committed = "transact" at "committed-in-all": true;
    a_crash_after_the_end = "transact" at "forgotten": true;
    a_crash_before_an_append_is_committed = "append" at "prepared-in-all": false;
    a_crash_after_an_append_was_committed = "append" at "committed": true;
    a_crash_before_an_update_is_committed = "update" at "prepared-in-all": false;
    a_crash_after_an_update_was_committed = "update" at "committed": true;
    a_crash_before_a_deletion_is_committed = "delete" at "prepared-in-all": false;
    a_crash_after_a_deletion_was_committed = "delete" at "committed": true;
    a_crash_before_a_removal_is_committed = "hard-delete" at "prepared-in-all": false;
    a_crash_after_a_removal_was_committed = "hard-delete" at "committed": true;
    a_crash_before_a_restoration_is_committed = "restore" at "prepared-in-all": false;
    a_crash_after_a_restoration_was_committed = "restore" at "committed": true;
}
