//! The `memcell import` command, from the start of the process to its end, beside the driver's bare `insert_many`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use memcell_tests::artifacts;
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::host::TestHost;
use memcell_tests::sample::Samples;
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};
use tokio::process::Command;

const DOCUMENTS: usize = 100_000;
/// As many as the import command inserts at a time.
const BATCH: usize = 1000;

pub(crate) async fn run() -> Result<Summary> {
    let host = TestHost::start(Vec::new()).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("documents.jsonl");
    write_samples(&file)?;
    let uri = match &host.config.mongodb.server {
        memcell_host::config::MongoServer::Uri(uri) => uri.expose().to_owned(),
        memcell_host::config::MongoServer::Embedded { .. } => bail!("the test host has a server of its own"),
    };
    let config = directory.path().join("memcell.toml");
    std::fs::write(&config, format!("[mongodb]\nuri = {uri:?}\ndatabase = \"bench\"\ncollection = \"imported\"\n"))?;
    let database = mongodb::Client::with_uri_str(&uri).await?.database("bench");
    let (imported, bare): (Collection<Document>, Collection<Document>) =
        (database.collection("imported"), database.collection("bare"));
    // Both sides keep the same indexes; the command creates its own.
    import(&config, &file).await?;
    copy_indexes(&imported, &bare).await?;
    let documents = prepared()?;

    let mut suite = Suite::new("import");
    suite
        .row("import of 100,000 documents of 2 KB / insert_many")
        .plan(Plan { pairs: 3, iterations: 1, warm_up: 0 })
        .throughput("documents/s", DOCUMENTS)
        .target(Target::AtLeast(0.8))
        .compare_timed_async(
            async || {
                imported.delete_many(doc! {}).await?;
                import(&config, &file).await
            },
            async || {
                bare.delete_many(doc! {}).await?;
                insert_bare(&bare, &documents).await
            },
        )
        .await?;
    let summary = suite.finish()?;
    host.stop().await?;
    Ok(summary)
}

fn write_samples(file: &Path) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    for sample in Samples::new(3).take(DOCUMENTS) {
        serde_json::to_writer(&mut out, &sample)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// The same documents as the driver's own type, made before the clock starts.
fn prepared() -> Result<Vec<Document>> {
    let document = |sample: serde_json::Value| match Bson::try_from(sample)? {
        Bson::Document(document) => Ok(document),
        other => bail!("a sample is no document: {other}"),
    };
    Samples::new(3).take(DOCUMENTS).map(document).collect()
}

fn memcell() -> PathBuf {
    // Built by the same command into the same folder.
    let here = std::env::current_exe().unwrap_or_default();
    here.with_file_name(format!("memcell{}", std::env::consts::EXE_SUFFIX))
}

async fn import(config: &Path, file: &Path) -> Result<Duration> {
    let program = memcell();
    if !program.is_file() {
        bail!("there is no {}: run `cargo build --release -p memcell-host` first", program.display());
    }
    let started = Instant::now();
    let output = Command::new(program)
        .current_dir(artifacts::workspace())
        .arg("--config")
        .arg(config)
        .arg("import")
        .arg(file)
        .output()
        .await
        .context("the import could not be started")?;
    let elapsed = started.elapsed();
    if !output.status.success() {
        bail!("the import failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(elapsed)
}

async fn copy_indexes(from: &Collection<Document>, to: &Collection<Document>) -> Result<()> {
    use futures::TryStreamExt;
    let indexes: Vec<_> = from.list_indexes().await?.try_collect().await?;
    let others = indexes.into_iter().filter(|index| index.keys != doc! { "_id": 1 });
    to.create_indexes(others).await?;
    Ok(())
}

async fn insert_bare(collection: &Collection<Document>, documents: &[Document]) -> Result<Duration> {
    let batches: Vec<Vec<Document>> = documents.chunks(BATCH).map(<[Document]>::to_vec).collect();
    let started = Instant::now();
    for batch in batches {
        collection.insert_many(batch).ordered(false).await?;
    }
    Ok(started.elapsed())
}
