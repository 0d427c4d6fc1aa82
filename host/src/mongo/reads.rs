//! Reads: by id, by filter, and of the whole collection.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::time::Duration;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use mongodb::Cursor;

use super::connect::bounded;
use super::repository::Repository;
use super::{filters, pipelines};
use crate::memcell::{DocumentKey, EventId, MemCell};
use crate::query::{ActivitySummary, Filter, Order, Page, TimeRange, Visibility};
use crate::{Error, ErrorKind, Result};

/// Documents as they arrive. It ends after the first error; each step is bounded by the operation timeout.
pub type MemCellStream = BoxStream<'static, Result<MemCell>>;

/// The most ids in one query: with the longest answers it stays a command of a moderate size.
pub(super) const IDS_PER_QUERY: usize = 1000;

impl Repository {
    /// The document with this event id, if it is visible.
    pub async fn get(&self, id: EventId, visibility: Visibility) -> Result<Option<MemCell>> {
        self.documents.get(id, visibility, None).await
    }

    /// The document with this key, whatever the type of its `_id`, if it is visible.
    ///
    /// # Errors
    /// Also those of [`DocumentKey::to_bson`].
    pub async fn get_by_key(&self, key: &DocumentKey, visibility: Visibility) -> Result<Option<MemCell>> {
        self.documents.get_by_id(key.to_bson()?, visibility, None).await
    }

    /// The live documents among these, each once, in no particular order; with `fields`, only those top-level fields
    /// and `_id`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a field name that is empty, starts with `$`, or contains a dot or a NUL.
    pub async fn get_many(&self, ids: &[EventId], fields: Option<&[String]>) -> Result<Vec<MemCell>> {
        let projection = fields.map(projection).transpose()?;
        let mut seen = HashSet::with_capacity(ids.len());
        let unique: Vec<Bson> = ids.iter().filter(|id| seen.insert(**id)).map(|id| id.object_id().into()).collect();
        let mut found = Vec::with_capacity(unique.len());
        for ids in unique.chunks(IDS_PER_QUERY) {
            let mut query = doc! { "_id": { "$in": ids } };
            query.extend(filters::visible(Visibility::Live));
            let mut find = self.documents.collection.find(query);
            if let Some(projection) = &projection {
                find = find.projection(projection.clone());
            }
            let cursor = bounded(self.timeout, find).await?;
            collect(cursor, self.timeout, &mut found).await?;
        }
        Ok(found)
    }

    /// The documents with these keys as they are now, live or deleted, each once, in no particular order; read from the
    /// primary, and nothing that could still be rolled back. For a mirror that re-reads what changed.
    ///
    /// # Errors
    /// Also those of [`DocumentKey::to_bson`].
    pub async fn fetch(&self, keys: &[DocumentKey]) -> Result<Vec<MemCell>> {
        self.fetch_stream(keys).await?.try_collect().await
    }

    /// As [`fetch`](Self::fetch), streamed: memory is bounded by one batch of the server's.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch) for the first query; later failures are in the stream.
    pub async fn fetch_stream(&self, keys: &[DocumentKey]) -> Result<MemCellStream> {
        let ids = keys.iter().map(DocumentKey::to_bson).collect::<Result<Vec<Bson>>>()?;
        let mut found = stream::empty().boxed();
        for ids in ids.chunks(IDS_PER_QUERY) {
            let cursor = bounded(self.timeout, self.authority.find(doc! { "_id": { "$in": ids } })).await?;
            found = found.chain(into_stream(cursor, self.timeout)).boxed();
        }
        Ok(found)
    }

    /// The documents that match, streamed: memory is bounded by one batch, with or without a limit.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a range that ends before it starts, an empty list of terms, or a cursor of
    /// the other order; or if the query fails. Later failures are in the stream.
    pub async fn find(&self, filter: &Filter, page: &Page) -> Result<MemCellStream> {
        let mut find = self
            .documents
            .collection
            .find(filters::select_page(filter, page)?)
            .sort(filters::sort(page.order))
            .skip(page.skip.min(i64::MAX.unsigned_abs()))
            .allow_disk_use(true);
        if let Some(limit) = page.limit {
            find = find.limit(i64::try_from(limit.get()).unwrap_or(i64::MAX));
        }
        Ok(into_stream(bounded(self.timeout, find).await?, self.timeout))
    }

    /// How many documents match.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn count(&self, filter: &Filter) -> Result<u64> {
        let count = self.documents.collection.count_documents(filters::select(filter)?).max_time(self.timeout);
        bounded(self.timeout, count).await
    }

    /// The live documents of exactly this user, newest first; `None`: all of them.
    pub async fn latest_by_user(&self, user_id: &str, limit: Option<NonZeroU64>) -> Result<MemCellStream> {
        let filter = Filter { user_id: Some(user_id.to_owned()), ..Filter::default() };
        let page = Page { limit, order: Order::NewestFirst, ..Page::default() };
        self.find(&filter, &page).await
    }

    /// What exactly this user (participants don't count) did in the range, by live documents.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a range that ends before it starts.
    pub async fn activity_summary(&self, user_id: &str, range: TimeRange) -> Result<ActivitySummary> {
        let mut condition = filters::select(&Filter { range, ..Filter::default() })?;
        condition.insert("user_id", user_id);
        let aggregate = self.documents.collection.aggregate(pipelines::activity(condition)).max_time(self.timeout);
        let groups: Vec<Document> = bounded(self.timeout, async { aggregate.await?.try_collect().await }).await?;
        let mut summary = ActivitySummary {
            user_id: user_id.to_owned(),
            total_count: 0,
            type_distribution: std::collections::BTreeMap::new(),
            earliest_activity: None,
            latest_activity: None,
        };
        for group in groups {
            let memcell_type = group.get_str("_id").unwrap_or(pipelines::UNKNOWN_TYPE).to_owned();
            let count = group
                .get("count")
                .and_then(whole_number)
                .ok_or_else(|| Error::new(ErrorKind::Internal, "mongodb answered an aggregation without its count"))?;
            summary.total_count += count;
            *summary.type_distribution.entry(memcell_type).or_default() += count;
            let earliest = group.get_datetime("earliest").ok().copied();
            summary.earliest_activity = summary.earliest_activity.into_iter().chain(earliest).min();
            summary.latest_activity = summary.latest_activity.max(group.get_datetime("latest").ok().copied());
        }
        Ok(summary)
    }

    /// The next ids, ascending, of documents that meet `condition`, behind `last`.
    pub(super) async fn ids_after(&self, condition: &Document, last: Option<&Bson>, limit: u32) -> Result<Vec<Bson>> {
        let find = self
            .authority
            .find(filters::after_id(condition, last))
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": 1 })
            .limit(limit.into())
            .allow_disk_use(true);
        let mut cells = Vec::new();
        collect(bounded(self.timeout, find).await?, self.timeout, &mut cells).await?;
        cells.iter().map(|cell| id(cell.as_raw())).collect()
    }
}

async fn next(cursor: &mut Cursor<RawDocumentBuf>, timeout: Duration) -> Result<Option<MemCell>> {
    let more = bounded(timeout, cursor.advance()).await?;
    Ok(more.then(|| MemCell::from_raw(cursor.current().to_owned())))
}

async fn collect(mut cursor: Cursor<RawDocumentBuf>, timeout: Duration, into: &mut Vec<MemCell>) -> Result<()> {
    while let Some(cell) = next(&mut cursor, timeout).await? {
        into.push(cell);
    }
    Ok(())
}

fn into_stream(cursor: Cursor<RawDocumentBuf>, timeout: Duration) -> MemCellStream {
    stream::try_unfold(cursor, move |mut cursor| async move {
        Ok(next(&mut cursor, timeout).await?.map(|cell| (cell, cursor)))
    })
    .boxed()
}

/// The id of a stored document, as a bound of a query.
pub(super) fn id(document: &RawDocument) -> Result<Bson> {
    let id = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
    id.ok_or_else(|| Error::new(ErrorKind::Internal, "a stored document has no readable _id"))
}

/// Refuses what [`Repository::get_many`] does as names of fields, for whoever picks them out himself.
///
/// # Errors
/// As there.
pub(crate) fn check_fields(fields: &[String]) -> Result<()> {
    projection(fields).map(drop)
}

/// A projection takes some names for paths or operators; those that it does are no names of top-level fields here.
fn projection(fields: &[String]) -> Result<Document> {
    let mut projection = doc! { "_id": 1 };
    for field in fields {
        if field.is_empty() || field.starts_with('$') || field.contains(['.', '\0']) {
            let shown: String = field.chars().take(64).collect();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{shown:?} is not the name of a top-level field"),
            ));
        }
        projection.insert(field, 1);
    }
    Ok(projection)
}

/// A count, in whichever number type the server summed it.
fn whole_number(value: &Bson) -> Option<u64> {
    match value {
        Bson::Int32(count) => u64::try_from(*count).ok(),
        Bson::Int64(count) => u64::try_from(*count).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_takes_names_only() {
        assert_eq!(projection(&["summary".into()]).unwrap(), doc! { "_id": 1, "summary": 1 });
        for name in ["", "a.b", "$x", "a\0"] {
            assert_eq!(projection(&[name.into()]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{name:?}");
        }
    }
}
