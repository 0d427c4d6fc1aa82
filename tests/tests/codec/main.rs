//! How values are stored: compressed, encrypted, rewritten under another key, and for how long. With real backends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod encryption;
mod expiry;
mod program;
mod rekey;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_host::codec::{DEFAULT_LEVEL, Dictionary, EncryptionKey, Format, training, write_payload};
use memcell_host::config::{BackendConfig, Compression};
use memcell_host::memcell::NewMemCell;
use memcell_tests::sample::Samples;
use memcell_tests::work::{append, done, ended, figures, job, order};

/// How long copying and rewriting may take on a busy machine.
const LONG: Duration = Duration::from_secs(180);

/// Waits until `condition` holds, as [`memcell_tests::host::eventually`] does, and longer.
async fn in_the_end(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LONG;
    while !condition().await? {
        ensure!(Instant::now() < deadline, "waited {LONG:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What no store may show.
const MARKER: &str = "the-secret-of-the-house-1b9d6bcd";

/// A key of 64 times this digit.
fn key(name: &str, digit: char) -> Result<EncryptionKey> {
    EncryptionKey::parse(name, digit.to_string().repeat(64).as_bytes()).map_err(anyhow::Error::msg)
}

/// A backend that writes with the first of these keys and reads with all.
fn encrypted(config: BackendConfig, keys: &[EncryptionKey]) -> BackendConfig {
    BackendConfig { encryption_key: keys.first().cloned(), decryption_keys: keys.to_vec(), ..config }
}

/// A dictionary for sample documents.
fn dictionary(seed: u64) -> Result<Dictionary> {
    let mut payloads = Vec::new();
    for sample in Samples::new(seed).take(600) {
        let fields = sample.as_object().cloned().unwrap_or_default();
        let cell = NewMemCell::from_api(fields)?.into_memcell(1, 0)?;
        let mut payload = Vec::new();
        write_payload(Format::Json, &cell, &mut payload)?;
        payloads.push(payload);
    }
    Dictionary::new(&training::train(&payloads, 16 << 10)?, DEFAULT_LEVEL).map_err(anyhow::Error::msg)
}

/// A backend that compresses.
fn compressed(config: BackendConfig, dictionary: Option<Dictionary>) -> BackendConfig {
    BackendConfig { compression: Compression::Zstd, dictionary, ..config }
}
