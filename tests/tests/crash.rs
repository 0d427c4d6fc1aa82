//! A few kills of everything that can be killed, with each backend: the short form of `cargo xtask crash`.

use anyhow::Result;
use memcell_tests::crash::{self, Kind, Options};
use memcell_tests::random::seed_of_this_run;

/// Enough for the host and MongoDB to be among the victims in most runs, and little enough for every run of the tests.
const KILLS: u32 = 4;

async fn nothing_is_lost_made_up_or_resurrected(backend: Kind) -> Result<()> {
    let options = Options { seed: seed_of_this_run()?, kills: KILLS, backend };
    let summary = crash::run(&options, |line| eprintln!("{line}")).await?;
    eprintln!("{summary}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_the_in_memory_backend() -> Result<()> {
    nothing_is_lost_made_up_or_resurrected(Kind::InMemory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_the_file_backend() -> Result<()> {
    nothing_is_lost_made_up_or_resurrected(Kind::File).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_the_remote_backend() -> Result<()> {
    nothing_is_lost_made_up_or_resurrected(Kind::Remote).await
}
