//! A host, one of whose backends has no room for a while.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use memcell_host::mirror::MirrorState;
use memcell_tests::agreement::check_agreement;
use memcell_tests::host::{TestHost, eventually, file};
use memcell_tests::work::append;

/// So many documents of 2 KB, at a time and in all: more than there is room for at first, and less than there is later.
const BATCH: usize = 200;
const BATCHES: u64 = 65;

/// Checks that all that couldn't be mirrored, and all that was and is lost, is there once there is room again.
pub(crate) async fn run(directory: &Path, room: &Path, durability: &str) -> Result<()> {
    let mut config = file(directory)?;
    config.settings = vec![("durability".into(), durability.into())];
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let mirror = host.store.mirrors().first().context("there is no backend")?.clone();
    for seed in 1..=BATCHES {
        append(&host, seed, BATCH).await?;
    }
    eventually("the disk is full", async || {
        let mut refused = 0.0;
        for result in ["quota_exceeded", "unavailable"] {
            let calls =
                format!("memcell_kv_calls_total{{backend=\"local\",function=\"put-many\",result=\"{result}\"}}");
            refused += host.figure(&calls).await?.unwrap_or_default();
        }
        Ok(refused > 0.0)
    })
    .await?;
    std::fs::remove_file(room)?;
    eventually("the mirror goes on", async || Ok(*mirror.watch_state().borrow() == MirrorState::Live)).await?;
    host.settled().await?;
    let documents = check_agreement(&host, "local").await?;
    ensure!(documents == BATCHES * BATCH as u64, "only {documents} documents are there");
    host.stop().await?;
    Ok(())
}
