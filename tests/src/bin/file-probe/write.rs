//! Writes until it is killed.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memcell_host::kv::Outcome;
use memcell_tests::file::{Batches, Shard};

/// Each line is `flushed N`: every batch up to number N is acknowledged by `flush`.
pub(crate) async fn run(directory: &Path, seed: u64, from: u64, durability: &str) -> Result<()> {
    let mut config = memcell_tests::host::file(directory)?;
    config.settings = vec![("durability".into(), durability.into()), ("cache_size".into(), "256KiB".into())];
    let shard = Shard::open(config).await?;
    let mut out = std::io::stdout().lock();
    for (number, batch) in Batches::new(seed).skip_to(from) {
        for end in shard.write(batch).await {
            // The first one may have been applied before: whether a key without an entry has been deleted doesn't show.
            let is_repeated = number == from && end == Ok(Outcome::Stale);
            ensure!(end == Ok(Outcome::Applied) || is_repeated, "batch {number}: {end:?}");
        }
        if number % 3 == 0 {
            shard.backend.flush().await.context("flush")?;
            writeln!(out, "flushed {number}")?;
            out.flush()?;
        }
    }
    Ok(())
}
