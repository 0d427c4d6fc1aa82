//! Finding out what changed on a server without change streams, by asking for documents whose `updated_at` has moved.
//!
//! It sees every insert and change that moves `updated_at`, which all of a host's writes do. Removals leave nothing to find, so
//! from time to time it asks for a sweep: whoever follows then compares all keys.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::{Bson, DateTime, RawDocumentBuf, doc};
use futures::TryStreamExt as _;

use super::changes::{ChangeEvent, Position};
use super::connect::bounded;
use super::repository::Repository;
use crate::Result;
use crate::clock::unix_millis;
use crate::memcell::DocumentKey;

/// Pause between two rounds that found nothing.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long after its `updated_at`, which the writing host reads from its own clock, a change may still turn up: the time of a
/// slow write, and clocks that differ.
const OVERLAP_MILLIS: i64 = 15_000;

/// Documents asked for at a time.
const PAGE: i64 = 1000;

/// How often removals are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// One follower's place.
pub(super) struct Polling {
    repository: Repository,
    /// Everything with an `updated_at` before this has been told.
    since: i64,
    /// What has been told of the time after `since`, which is asked for again and again: key and `updated_at`.
    told: HashMap<DocumentKey, i64>,
    found: std::vec::IntoIter<(DocumentKey, i64)>,
    swept: Instant,
}

impl Polling {
    /// From `since` (Unix milliseconds) on; `None`: from now on.
    pub(super) fn new(repository: Repository, since: Option<i64>) -> Self {
        let now = i64::try_from(unix_millis()).unwrap_or(i64::MAX);
        let since = since.unwrap_or_else(|| now.saturating_sub(OVERLAP_MILLIS));
        Self { repository, since, told: HashMap::new(), found: Vec::new().into_iter(), swept: Instant::now() }
    }

    pub(super) fn position(&self) -> Position {
        Position::Polled(self.since)
    }

    pub(super) async fn next(&mut self) -> Result<ChangeEvent> {
        if let Some(event) = self.take() {
            return Ok(event);
        }
        if self.swept.elapsed() >= SWEEP_INTERVAL {
            self.swept = Instant::now();
            return Ok(ChangeEvent::SweepDue);
        }
        let asked_millis = unix_millis();
        self.ask(i64::try_from(asked_millis).unwrap_or(i64::MAX)).await?;
        if let Some(event) = self.take() {
            return Ok(event);
        }
        tokio::time::sleep(INTERVAL).await;
        Ok(ChangeEvent::Quiet { asked_millis, position: Some(self.position()) })
    }

    fn take(&mut self) -> Option<ChangeEvent> {
        let (key, at) = self.found.next()?;
        // The place is moved only when all that was found is told.
        let (position, at_millis) = (self.position(), u64::try_from(at).unwrap_or(0));
        Some(ChangeEvent::Changed { key, position, at_millis, revision: None })
    }

    /// Looks for all documents from `since` on, page by page, and keeps those that are news.
    async fn ask(&mut self, asked: i64) -> Result<()> {
        let mut news = Vec::new();
        let mut after: Option<(DateTime, Bson)> = None;
        loop {
            let page = self.page(after.as_ref()).await?;
            let full = i64::try_from(page.len()).unwrap_or(i64::MAX) >= PAGE;
            for (key, at, id) in page {
                if self.told.insert(key.clone(), at.timestamp_millis()) != Some(at.timestamp_millis()) {
                    news.push((key, at.timestamp_millis()));
                }
                after = Some((at, id));
            }
            if !full {
                break;
            }
        }
        self.since = self.since.max(asked.saturating_sub(OVERLAP_MILLIS));
        let since = self.since;
        self.told.retain(|_, at| *at >= since);
        self.found = news.into_iter();
        Ok(())
    }

    async fn page(&self, after: Option<&(DateTime, Bson)>) -> Result<Vec<(DocumentKey, DateTime, Bson)>> {
        let since = DateTime::from_millis(self.since);
        let filter = match after {
            None => doc! { "updated_at": { "$gte": since } },
            Some((at, id)) => doc! { "$or": [
                { "updated_at": { "$gt": *at } },
                { "updated_at": *at, "_id": { "$gt": id.clone() } },
            ] },
        };
        let find = self
            .repository
            .authority
            .find(filter)
            .projection(doc! { "updated_at": 1 })
            .sort(doc! { "updated_at": 1, "_id": 1 })
            .limit(PAGE);
        let documents: Vec<RawDocumentBuf> =
            bounded(self.repository.timeout, async { find.await?.try_collect().await }).await?;
        let mut page = Vec::with_capacity(documents.len());
        for document in &documents {
            // An `updated_at` that is no time was not written by a host; the next sweep of a verification finds the document.
            let (Ok(at), Ok(Some(id))) = (document.get_datetime("updated_at"), document.get("_id")) else { continue };
            if let Ok(owned) = Bson::try_from(id) {
                page.push((DocumentKey::from_id(id)?, at, owned));
            }
        }
        Ok(page)
    }
}
