//! Components from OCI registries: fetched by digest, checked to the last byte, and kept in the user's cache.
//!
//! A component is a *layer* of an artifact, which a *manifest* describes. A reference pins the manifest by its digest, the
//! manifest pins the layer by its; so neither the registry nor anybody on the way, nor whoever can write to the cache, can
//! have a host run something else. Whatever a registry sends is bounded, in bytes and in time, before it is believed.
//!
//! The distribution protocol is spoken here (`session`, `http`), and not by the crate `oci-client`: that one reads manifests,
//! tokens and error texts of any length, follows redirects from HTTPS to HTTP, and panics at a token that is no header.

mod cache;
mod credentials;
mod error;
mod http;
mod manifest;
mod pull;
mod push;
mod session;
mod token;

use std::path::PathBuf;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::config::{OciName, OciPlugin, OciReference, RegistryConfig};
use cache::{Cache, Found};
pub use error::OciError;
use error::Problem;
pub use manifest::Description;

/// Where components come from by reference: the cache, and behind it the registries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Components {
    cache: Option<Cache>,
}

/// A component, as its reference means it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// What was fetched, with its digest.
    pub reference: OciReference,
    /// The component.
    pub bytes: Vec<u8>,
    /// Whether no registry had to be asked.
    pub from_cache: bool,
}

impl Components {
    /// Keeps what it fetches in `cache_directory` (`None`: fetches it anew each time).
    pub fn new(cache_directory: Option<PathBuf>) -> Self {
        Self { cache: cache_directory.map(Cache::new) }
    }

    /// With the cache of the user: `memcell/oci` in the user's cache directory, if there is one.
    pub fn of_user() -> Self {
        Self::new(crate::kv::Engine::default_cache_directory().map(|compiled| compiled.with_file_name("oci")))
    }

    /// Whether a component is in the cache and whole, so that no registry is needed for it. Reads all of it.
    pub fn has(&self, reference: &OciReference, limit: u64) -> bool {
        self.cache.as_ref().is_some_and(|cache| matches!(cache.read(&reference.digest, limit), Ok(Found::Whole(_))))
    }

    /// The component, from the cache if it is there and whole, else from the registry, within the time that its
    /// configuration gives. A component of more than `limit` bytes is refused before it is fetched.
    ///
    /// Dropped, it leaves nothing behind.
    ///
    /// # Errors
    /// Why it can't be had; [`OciError::is_passing`] tells whether it is worth trying again.
    pub async fn fetch(&self, plugin: &OciPlugin, limit: u64) -> Result<Fetched, OciError> {
        let OciPlugin { reference, registry } = plugin;
        let failed = |problem| OciError::new(reference, problem);
        if let Some(bytes) = self.cached(reference, limit).await.map_err(failed)? {
            return Ok(Fetched { reference: reference.clone(), bytes, from_cache: true });
        }
        let name = OciName {
            registry: reference.registry.clone(),
            repository: reference.repository.clone(),
            tag: reference.tag.clone(),
            digest: Some(reference.digest),
        };
        self.download(&name, registry, limit).await
    }

    /// As [`Components::fetch`]; of a name without a digest, what the registry means by its tag (`latest` without one).
    ///
    /// # Errors
    /// As [`Components::fetch`].
    pub async fn resolve(&self, name: &OciName, registry: &RegistryConfig, limit: u64) -> Result<Fetched, OciError> {
        match name.clone().pinned() {
            Ok(reference) => self.fetch(&OciPlugin { reference, registry: registry.clone() }, limit).await,
            Err(_) => self.download(name, registry, limit).await,
        }
    }

    /// Puts a component into a registry, and answers the reference that means it from now on. The same component gets the
    /// same digest each time.
    ///
    /// # Errors
    /// Why the registry doesn't have it.
    pub async fn push(
        &self,
        name: &OciName,
        registry: &RegistryConfig,
        component: Vec<u8>,
        description: &Description,
    ) -> Result<OciReference, OciError> {
        let pushing = timeout(registry.timeout, push::push(name, registry, component, description));
        let pushed = pushing.await.unwrap_or(Err(Problem::Timeout(registry.timeout)));
        pushed.map_err(|problem| OciError::new(name, problem))
    }

    async fn download(&self, name: &OciName, registry: &RegistryConfig, limit: u64) -> Result<Fetched, OciError> {
        let failed = |problem| OciError::new(name, problem);
        let started = Instant::now();
        let pulling = timeout(registry.timeout, pull::pull(name, registry, limit));
        let pulled = pulling.await.unwrap_or(Err(Problem::Timeout(registry.timeout))).map_err(failed)?;
        let OciName { registry, repository, tag, .. } = name.clone();
        let reference = OciReference { registry, repository, tag, digest: pulled.digest };
        tracing::info!(
            plugin = %reference,
            bytes = pulled.component.len(),
            seconds = started.elapsed().as_secs_f64(),
            "plugin fetched from its registry"
        );
        let bytes = self.keep(pulled).await.map_err(failed)?;
        Ok(Fetched { reference, bytes, from_cache: false })
    }

    /// What the cache has.
    async fn cached(&self, reference: &OciReference, limit: u64) -> Result<Option<Vec<u8>>, Problem> {
        let Some(cache) = self.cache.clone() else { return Ok(None) };
        let digest = reference.digest;
        match blocking(move || cache.read(&digest, limit)).await?? {
            Found::Whole(bytes) => Ok(Some(bytes)),
            Found::Nothing => Ok(None),
            Found::Damaged(reason) => {
                tracing::warn!(plugin = %reference, reason, "a plugin in the cache is damaged, it is fetched anew");
                Ok(None)
            }
        }
    }

    /// Puts what was fetched into the cache. Without it everything works, only more slowly, and not without the registry.
    async fn keep(&self, pulled: pull::Pulled) -> Result<Vec<u8>, Problem> {
        let Some(cache) = self.cache.clone() else { return Ok(pulled.component) };
        blocking(move || {
            if let Err(error) = cache.write(&pulled) {
                tracing::warn!(%error, "a plugin that was fetched can't be kept in the cache");
            }
            pulled.component
        })
        .await
    }
}

/// Work on files and digests, off the threads that others wait on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::Local(error.to_string()))
}

fn digest_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
