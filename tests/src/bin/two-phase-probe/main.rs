//! A host for the tests of two-phase writes to kill: `two-phase-probe URI DIRECTORY SCENARIO MOMENT ID...`.
//!
//! Carries the scenario out on a MongoDB that is there, with the file backend in the directory, until it comes to that moment.
//! Says so on standard output, and goes no further.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use memcell_host::metrics::Metrics;
use memcell_host::steps::Steps;
use memcell_host::store::MemCellStore;
use memcell_tests::two_phase::{Ids, config, live, moment, write};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [uri, directory, scenario, name, ids @ ..] = args.as_slice() else { bail!("unknown arguments {args:?}") };
    let stops = Arc::new(moment(name)?);
    let config = config(uri, Path::new(directory))?;
    let steps = Steps::observed_by(Arc::<memcell_tests::two_phase::Stops>::clone(&stops));
    let store = MemCellStore::open_observed(&config, Arc::new(Metrics::new()), steps).await?;
    live(&store).await?;
    let ids = Ids::parse(ids)?;
    let scenario = (*scenario).to_owned();
    let writing = tokio::spawn(async move { write(&store, &scenario, ids).await.map(|()| store) });
    stops.reached().await?;
    writeln!(std::io::stdout(), "reached {name}")?;
    // A step after the answer leaves the writer nothing to do, and any other nothing that it could do.
    let _store = writing.await??;
    std::future::pending().await
}
