//! A directory that nothing can be written to.

use std::path::Path;

use anyhow::{Result, ensure};
use memcell_tests::file::Shard;

pub(crate) async fn run(directory: &Path) -> Result<()> {
    let reason = Shard::start(memcell_tests::host::file(directory)?)?.refusal().await?;
    ensure!(reason.contains("shard-0.redb") && reason.contains("mounted for writing"), "{reason}");
    ensure!(std::fs::read_dir(directory)?.next().is_none(), "something was left behind");
    Ok(())
}
