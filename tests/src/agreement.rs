//! Whether a backend holds what MongoDB has: all of it, byte for byte, and nothing else.

use anyhow::{Context, Result, ensure};
use memcell_host::memcell::MemCell;
use mongodb::bson::{RawDocumentBuf, doc};

use crate::host::{TestHost, eventually};

/// How many entries are read from the backend at a time.
const BATCH: usize = 256;

/// Checks that the backend of this name holds all live documents and no others, and answers how many. Nothing may be written
/// meanwhile, and the mirror must have settled.
///
/// # Errors
/// The first document that isn't copied as it is, or the number of entries that are too many.
pub async fn check_agreement(host: &TestHost, backend: &str) -> Result<u64> {
    let mirror = host.store.mirror(backend).with_context(|| format!("there is no backend {backend}"))?;
    let mut documents = host.collection.clone_with_type::<RawDocumentBuf>().find(doc! {}).await?;
    let mut cells = Vec::new();
    while documents.advance().await? {
        cells.push(MemCell::from_raw(documents.current().to_owned()));
    }
    let mut live = 0;
    for cells in cells.chunks(BATCH) {
        let keys: Vec<String> =
            cells.iter().map(|cell| Ok(cell.key()?.as_str().to_owned())).collect::<memcell_host::Result<_>>()?;
        for ((cell, key), entry) in cells.iter().zip(&keys).zip(mirror.read(&keys).await?) {
            if cell.is_deleted() {
                ensure!(entry.is_none(), "{key} is deleted, and still mirrored");
                continue;
            }
            let entry = entry.with_context(|| format!("{key} is not mirrored"))?;
            let copy = mirror.codec().open(key, &entry.value)?.document()?;
            let is_same = copy.as_raw().as_bytes() == cell.as_raw().as_bytes();
            ensure!(is_same, "{:?} is mirrored as {:?}", cell.as_raw(), copy.as_raw());
            live += 1;
        }
    }
    let mut entries = None;
    eventually("the backend counts its entries", async || {
        let reports = host.store.backends().await;
        entries = reports.iter().find(|report| report.name == backend).and_then(|report| report.entries);
        Ok(entries.is_some())
    })
    .await?;
    ensure!(entries == Some(live), "{entries:?} entries for {live} live documents");
    Ok(live)
}
