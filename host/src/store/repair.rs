//! Mending a mismatch that was confirmed, because somebody asks for it.

use std::sync::Arc;

use super::MemCellStore;
use super::validator::Validator;
use super::writes::to_the_end;
use crate::validation::Outcome;
use crate::{Error, ErrorKind, Result};

impl MemCellStore {
    /// Has the tail of a backend make its copy of a document what MongoDB has, and looks at both sides then. If they agree, the
    /// mismatch is off the list; else the answer says what is wrong with the copy, or why nothing can be said.
    ///
    /// Once begun it goes on to its end, also if the future is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if no such mismatch is listed; [`ErrorKind::Unavailable`] if the backend could not be told.
    pub async fn repair_mismatch(&self, backend: &str, event_id: &str) -> Result<Outcome> {
        let backends = self.backends_now();
        let key = self.inner.mismatches.find(backend, event_id);
        let (Some(key), Some(mirror)) = (key, backends.mirror(backend)) else {
            let message = "no such mismatch is listed: it was mended meanwhile, or never confirmed";
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let validator = match &backends.validator {
            Some(validator) if Arc::ptr_eq(validator.mirror(), mirror) => validator.clone(),
            // Reads are compared with another backend by now.
            _ => {
                let (repository, mismatches) = (&self.inner.repository, &self.inner.mismatches);
                Validator::new(mirror, repository, &self.config().validation, mismatches)
            }
        };
        drop(backends);
        to_the_end(async move {
            let repaired = validator.repair(key).await;
            repaired.map_err(|error| Error::new(ErrorKind::Unavailable, format!("not repaired: {error}")))
        })
        .await
    }
}
