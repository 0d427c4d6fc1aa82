//! Plugins from a registry: a real one (Debian's `docker-registry`), its data damaged, its doors shut, and others that only say
//! they are one.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and JSON answers null for what it lacks"
)]

mod access;
mod cli;
mod host;
mod misbehaviour;
mod pull;
mod stub;

use anyhow::{Context as _, Result};
use memcell_host::config::{OciName, OciPlugin, OciReference, RegistryConfig};
use memcell_host::oci::{Components, Description, Fetched, OciError};
use memcell_tests::artifacts;
use memcell_tests::registry::{Access, Registry};
use tempfile::TempDir;

/// More than any component of the tests has.
const LIMIT: u64 = 64 << 20;

/// A registry with the in-memory plugin in it, and a cache that is empty.
struct Stage {
    registry: Registry,
    plugin: OciPlugin,
    component: Vec<u8>,
    components: Components,
    cache: TempDir,
}

impl Stage {
    async fn new() -> Result<Self> {
        Self::with(&Access::default(), |_| Ok(())).await
    }

    /// `adjust` says how the registry is reached.
    async fn with(access: &Access, adjust: impl FnOnce(&mut RegistryConfig) -> Result<()>) -> Result<Self> {
        let registry = Registry::start_with(access)?;
        let mut config = registry.config();
        adjust(&mut config)?;
        let component = std::fs::read(artifacts::plugin("in_memory")?)?;
        let reference = push(&config, &component).await?;
        let (components, cache) = empty_cache()?;
        Ok(Self { registry, plugin: OciPlugin { reference, registry: config }, component, components, cache })
    }

    async fn fetch(&self) -> Result<Fetched, OciError> {
        self.components.fetch(&self.plugin, LIMIT).await
    }

    /// The digest of the component, which its file in the cache and the registry is named by.
    fn layer(&self) -> Result<String> {
        let mut names = std::fs::read_dir(self.cache.path().join("blobs/sha256"))?;
        let name = names.next().context("the cache is empty")??.file_name();
        Ok(name.to_string_lossy().into_owned())
    }
}

fn empty_cache() -> Result<(Components, TempDir)> {
    let cache = TempDir::new()?;
    Ok((Components::new(Some(cache.path().to_owned())), cache))
}

async fn push(config: &RegistryConfig, component: &[u8]) -> Result<OciReference> {
    let name = name(&format!("oci://{}/team/in-memory:1.0", config.name))?;
    Ok(Components::new(None).push(&name, config, component.to_vec(), &Description::default()).await?)
}

fn name(text: &str) -> Result<OciName> {
    OciName::parse(text).map_err(anyhow::Error::msg)
}

/// The text of a failure that isn't worth another attempt.
#[track_caller]
fn final_failure(fetched: Result<Fetched, OciError>) -> String {
    failure(fetched, false)
}

/// The text of a failure that is.
#[track_caller]
fn passing_failure(fetched: Result<Fetched, OciError>) -> String {
    failure(fetched, true)
}

#[track_caller]
fn failure(fetched: Result<Fetched, OciError>, is_passing: bool) -> String {
    let Err(error) = fetched else { panic!("it was fetched") };
    assert_eq!(error.is_passing(), is_passing, "{error}");
    error.to_string()
}

/// That a text has all these parts.
#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
