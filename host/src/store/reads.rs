//! Reads: MongoDB answers, the validated backend is asked at the same time.

use std::num::NonZeroU64;
use std::time::Instant;

use super::validator::Looked;
use super::{MemCellStore, Read, Validate, Validation};
use crate::Result;
use crate::memcell::{DocumentKey, EventId, MemCell};
use crate::mongo::{MemCellStream, check_fields};
use crate::query::{ActivitySummary, Filter, Page, TimeRange, Visibility};
use crate::validation::Outcome;

impl MemCellStore {
    /// The live document with this id. Validated by default, which takes no longer than `validation.read_budget` on top.
    ///
    /// # Errors
    /// Those of MongoDB being away. The backend can't make it fail.
    pub async fn get(&self, id: EventId, validate: Validate) -> Result<Read<Option<MemCell>>> {
        let started = Instant::now();
        let result = self.get_compared(id, validate).await;
        self.observe("get", started, result)
    }

    async fn get_compared(&self, id: EventId, validate: Validate) -> Result<Read<Option<MemCell>>> {
        let fetch = self.inner.repository.get(id, Visibility::Live);
        let backends = self.backends_now();
        let Some(validator) = backends.validator.as_ref().filter(|validator| validator.wants_single(validate)) else {
            return Ok(Read { value: fetch.await?, validation: unanswered(validate) });
        };
        let key = DocumentKey::from(id);
        if validator.is_deferred() {
            let value = fetch.await?;
            validator.defer(vec![(key, value.clone())]);
            return Ok(Read { value, validation: Some(Validation::Deferred) });
        }
        let deadline = validator.deadline();
        let (value, copies) = tokio::join!(fetch, validator.read(std::slice::from_ref(&key), deadline));
        let looked = Looked { key: &key, document: value?, copies: copies.map(|mut copies| copies.pop().flatten()) };
        let (value, outcome) = validator.conclude(looked, deadline).await?;
        Ok(Read { value, validation: Some(Validation::Done(outcome)) })
    }

    /// The live documents with these ids, in no particular order; ids that have none, or twice the same, add nothing. With
    /// `fields`, only those top-level fields of each.
    ///
    /// # Errors
    /// As [`MemCellStore::get`].
    pub async fn get_many(
        &self,
        ids: &[EventId],
        fields: Option<&[String]>,
        validate: Validate,
    ) -> Result<Read<Vec<MemCell>>> {
        let started = Instant::now();
        let result = self.get_many_compared(ids, fields, validate).await;
        self.observe("get_many", started, result)
    }

    async fn get_many_compared(
        &self,
        ids: &[EventId],
        fields: Option<&[String]>,
        validate: Validate,
    ) -> Result<Read<Vec<MemCell>>> {
        let repository = &self.inner.repository;
        let backends = self.backends_now();
        let Some(validator) = backends.validator.as_ref().filter(|validator| validator.wants_batch(validate)) else {
            return Ok(Read { value: repository.get_many(ids, fields).await?, validation: unanswered(validate) });
        };
        fields.map(check_fields).transpose()?;
        // Whole documents are compared, whatever part of them was asked for.
        let mut keys: Vec<DocumentKey> = ids.iter().map(|id| DocumentKey::from(*id)).collect();
        keys.sort_unstable();
        keys.dedup();
        let fetch = repository.get_many(ids, None);
        let (documents, validation) = if validator.is_deferred() {
            let documents = fetch.await?;
            let owned = |(key, document): (&DocumentKey, Option<&MemCell>)| (key.clone(), document.cloned());
            validator.defer(pair(&keys, &documents)?.into_iter().map(owned).collect());
            (documents, Validation::Deferred)
        } else {
            let deadline = validator.deadline();
            let (documents, copies) = tokio::join!(fetch, validator.read(&keys, deadline));
            let documents = documents?;
            let outcome = match copies {
                Ok(copies) => validator.conclude_many(&pair(&keys, &documents)?, &copies, deadline).await?,
                Err(unread) => {
                    keys.iter().for_each(|_| validator.count(unread));
                    unread
                }
            };
            (documents, Validation::Done(outcome))
        };
        let value = match fields {
            Some(fields) => documents.iter().map(|document| document.project(fields)).collect(),
            None => documents,
        };
        Ok(Read { value, validation: Some(validation) })
    }

    /// The documents that match, streamed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] for a filter or page that makes no sense; those of MongoDB being away, also within the stream.
    pub async fn find(&self, filter: &Filter, page: &Page) -> Result<MemCellStream> {
        let started = Instant::now();
        let result = self.inner.repository.find(filter, page).await;
        self.observe("find", started, result)
    }

    /// How many documents match.
    ///
    /// # Errors
    /// As [`MemCellStore::find`].
    pub async fn count(&self, filter: &Filter) -> Result<u64> {
        let started = Instant::now();
        let result = self.inner.repository.count(filter).await;
        self.observe("count", started, result)
    }

    /// A user's live documents, the newest first.
    ///
    /// # Errors
    /// As [`MemCellStore::find`].
    pub async fn latest_by_user(&self, user_id: &str, limit: Option<NonZeroU64>) -> Result<MemCellStream> {
        let started = Instant::now();
        let result = self.inner.repository.latest_by_user(user_id, limit).await;
        self.observe("latest_by_user", started, result)
    }

    /// What a user's live documents within a range amount to.
    ///
    /// # Errors
    /// As [`MemCellStore::find`].
    pub async fn activity_summary(&self, user_id: &str, range: TimeRange) -> Result<ActivitySummary> {
        let started = Instant::now();
        let result = self.inner.repository.activity_summary(user_id, range).await;
        self.observe("activity_summary", started, result)
    }
}

/// What to say of a read that is not validated: nothing, unless somebody asked for it.
fn unanswered(validate: Validate) -> Option<Validation> {
    (validate == Validate::Yes).then_some(Validation::Done(Outcome::Skipped))
}

/// Each key with its document, if there is one.
fn pair<'a>(keys: &'a [DocumentKey], documents: &'a [MemCell]) -> Result<Vec<(&'a DocumentKey, Option<&'a MemCell>)>> {
    let by_key = documents
        .iter()
        .map(|document| Ok((document.key()?, document)))
        .collect::<Result<std::collections::HashMap<_, _>>>()?;
    Ok(keys.iter().map(|key| (key, by_key.get(key).copied())).collect())
}
