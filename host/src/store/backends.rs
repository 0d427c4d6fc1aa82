//! The backends of a store at one moment: the mirrors, and the one that reads are compared with. They are replaced as a whole.
//!
//! An operation takes the set at its start and works with that one to its end, whatever is reloaded meanwhile. No change gets
//! lost by that:
//!
//! - *A backend is added* while a write is under way that doesn't know it. The new mirror opens MongoDB's change stream before
//!   it begins to copy the collection. A change made before that is found by the copying, and any later one is in the stream:
//!   the write reaches the mirror in the way that those of other programs do.
//! - *A backend is removed* while a write is under way that knows it. It is closed when the last operation with the old set has
//!   ended, or after a grace period; what it is not given after that, nobody will ask it for.
//! - *A backend is replaced*: one is removed and another added, each by the rule for it.
//!
//! A write that doesn't know a mirror can't announce its keys to it either, and a read that is compared with that mirror could
//! take the change that is on its way for a mismatch. So a new mirror is told that any key may be changing, until the last
//! operation with the old set has ended and the mirror has passed that moment.

use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::validator::Validator;
use crate::config::BackendConfig;
use crate::kv::Engine;
use crate::mirror::{Mirror, Purpose, Surroundings};
use crate::{Error, ErrorKind, Result};

/// One set of backends. Operations hold it as long as they run.
pub(super) struct Backends {
    /// In the order of the configuration.
    pub(super) mirrors: Vec<Arc<Mirror>>,
    pub(super) validator: Option<Validator>,
    /// Cancels the token when the last operation that works with this set has ended.
    ended: DropGuard,
}

impl Backends {
    pub(super) fn new(mirrors: Vec<Arc<Mirror>>, validator: Option<Validator>) -> Self {
        Self { mirrors, validator, ended: CancellationToken::new().drop_guard() }
    }

    /// The mirror of this name.
    pub(super) fn mirror(&self, name: &str) -> Option<&Arc<Mirror>> {
        self.mirrors.iter().find(|mirror| mirror.config().name == name)
    }
}

/// The place of the current set.
pub(super) struct CurrentBackends(RwLock<Arc<Backends>>);

impl CurrentBackends {
    pub(super) fn new(backends: Backends) -> Self {
        Self(RwLock::new(Arc::new(backends)))
    }

    /// The set for an operation that starts now.
    pub(super) fn get(&self) -> Arc<Backends> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another set in place. The token is cancelled when the last operation with the former one has ended.
    pub(super) fn replace(&self, backends: Backends) -> CancellationToken {
        let former = {
            let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::new(backends))
        };
        former.ended.token().clone()
    }
}

/// Starts mirrors: what they need beside their configuration.
pub(super) struct Launcher {
    surroundings: Surroundings,
    purpose: Purpose,
    /// Made for the first backend: a store without any needs none.
    engine: Option<Engine>,
    started: u64,
}

impl Launcher {
    pub(super) fn new(surroundings: Surroundings, purpose: Purpose) -> Self {
        Self { surroundings, purpose, engine: None, started: 0 }
    }

    /// The engine that all backends share.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] on a machine that plugins can't be compiled for.
    pub(super) fn engine(&mut self) -> Result<Engine> {
        if let Some(engine) = &self.engine {
            return Ok(engine.clone());
        }
        let directory = Engine::default_cache_directory();
        let unwritable = directory.as_deref().and_then(|directory| Engine::try_cache(directory).err());
        if let (Some(error), Some(directory)) = (unwritable, &directory) {
            tracing::warn!(directory = %directory.display(), %error, "compiled plugins are not cached");
        }
        let made = Engine::new(directory).or_else(|error| {
            // A cache that can't be used (a read-only home, say) only costs time.
            tracing::warn!(%error, "the cache of compiled plugins can't be used");
            Engine::new(None)
        });
        let engine = made.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        Ok(self.engine.insert(engine).clone())
    }

    /// Starts the mirror of a backend, which loads its plugin in the background.
    ///
    /// # Errors
    /// As [`Launcher::engine`].
    pub(super) fn start(&mut self, config: &BackendConfig) -> Result<Arc<Mirror>> {
        let engine = self.engine()?;
        self.started += 1;
        let mut surroundings = self.surroundings.clone();
        // A mirror that replaces another is somebody else: to those who noted how far they had read from the former, and to the one
        // that still has the lease of a shared backend.
        surroundings.identity = format!("{}.{}", surroundings.identity, self.started).into();
        Ok(Arc::new(Mirror::start(Arc::new(config.clone()), engine, &surroundings, self.purpose)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_set_has_ended_with_its_last_operation() {
        let current = CurrentBackends::new(Backends::new(Vec::new(), None));
        let (first, second) = (current.get(), current.get());
        let ended = current.replace(Backends::new(Vec::new(), None));
        let later = current.get();
        drop(first);
        assert!(!ended.is_cancelled());
        drop(second);
        assert!(ended.is_cancelled());
        assert!(!later.ended.token().is_cancelled());
    }
}
