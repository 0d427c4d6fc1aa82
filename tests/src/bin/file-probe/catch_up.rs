//! A host, one of whose backends is behind, with little more room than its copies need.

use std::path::Path;

use anyhow::{Result, ensure};
use memcell_tests::agreement::check_agreement;
use memcell_tests::host::{TestHost, file};
use memcell_tests::work::append;
use mongodb::bson::doc;

/// Documents of 2 KB.
const DOCUMENTS: usize = 4000;
const ROUNDS: i64 = 3;

/// Checks that it catches up with changes of everything, although all that is replaced takes room until it is certain.
pub(crate) async fn run(directory: &Path, room: &Path, durability: &str) -> Result<()> {
    std::fs::remove_file(room)?;
    let mut config = file(directory)?;
    config.settings = vec![("durability".into(), durability.into())];
    let mut host = TestHost::start(vec![config.clone()]).await?;
    host.live().await?;
    append(&host, 1, DOCUMENTS).await?;
    host.settled().await?;
    for round in 1..=ROUNDS {
        host.restart(vec![]).await?;
        host.collection.update_many(doc! {}, doc! { "$set": { "round": round } }).await?;
        host.restart(vec![config.clone()]).await?;
        host.live().await?;
        host.settled().await?;
        let documents = check_agreement(&host, "local").await?;
        ensure!(documents == DOCUMENTS as u64, "only {documents} documents are there");
    }
    host.stop().await?;
    Ok(())
}
