//! The collection in parts: ranges of ids of all types. And which documents there are.

use std::collections::HashMap;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;

use super::connect::bounded;
use super::filters;
use super::reads::IDS_PER_QUERY;
use super::repository::Repository;
use crate::memcell::{DocumentKey, MemCell};
use crate::{ErrorKind, Result};

/// How many ids are drawn for each bound: the more, the more even the ranges.
const DRAWN_PER_RANGE: usize = 8;

/// Ids after the first bound and up to the second; `None`: without bound.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IdRange {
    /// Not included.
    pub after: Option<Bson>,
    /// Included.
    pub up_to: Option<Bson>,
}

impl Repository {
    /// About how many documents there are.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn estimated_count(&self) -> Result<u64> {
        bounded(self.timeout, self.authority.estimated_document_count()).await
    }

    /// Cuts the collection into about so many ranges of about the same number of documents. Together they hold every id there can
    /// be.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn id_ranges(&self, ranges: usize) -> Result<Vec<IdRange>> {
        if ranges <= 1 {
            return Ok(vec![IdRange::default()]);
        }
        let size = i64::try_from(ranges * DRAWN_PER_RANGE).unwrap_or(i64::MAX);
        let pipeline = vec![
            doc! { "$sample": { "size": size } },
            doc! { "$project": { "_id": 1 } },
            doc! { "$sort": { "_id": 1 } },
        ];
        let aggregate = self.documents.collection.aggregate(pipeline).max_time(self.timeout);
        let drawn: Result<Vec<Document>> = bounded(self.timeout, async { aggregate.await?.try_collect().await }).await;
        let drawn = match drawn {
            // A server that can't draw without looking at everything. One range is as right, if slower, as many.
            Err(error) if error.kind() == ErrorKind::Timeout => {
                tracing::warn!(%error, "the collection is not cut into ranges");
                return Ok(vec![IdRange::default()]);
            }
            drawn => drawn?,
        };
        let ids: Vec<Bson> = drawn.into_iter().filter_map(|mut document| document.remove("_id")).collect();
        let mut bounds: Vec<Bson> =
            ids.chunks(DRAWN_PER_RANGE).skip(1).filter_map(|ids| ids.first().cloned()).collect();
        // A drawing may have drawn an id twice.
        bounds.dedup();
        let starts = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let ends = bounds.iter().cloned().map(Some).chain(std::iter::once(None));
        Ok(starts.zip(ends).map(|(after, up_to)| IdRange { after, up_to }).collect())
    }

    /// As [`Repository::id_ranges`], of a collection of about so many documents: as many ranges of at least `smallest` as that comes
    /// to, `most` at the most.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn worthwhile_ranges(&self, documents: u64, smallest: u64, most: usize) -> Result<Vec<IdRange>> {
        let worthwhile = usize::try_from(documents / smallest.max(1)).unwrap_or(most);
        self.id_ranges(worthwhile.clamp(1, most.max(1))).await
    }

    /// Which of these keys are those of documents, and whether those are live.
    ///
    /// # Errors
    /// Also those of [`DocumentKey::to_bson`].
    pub async fn existing(&self, keys: &[DocumentKey]) -> Result<HashMap<DocumentKey, bool>> {
        let documents = self.revisions(keys).await?;
        Ok(documents.into_iter().map(|(key, document)| (key, !document.is_deleted())).collect())
    }

    /// The documents of these keys, live and deleted, cut down to what a comparison of revisions needs.
    ///
    /// # Errors
    /// Also those of [`DocumentKey::to_bson`].
    pub async fn revisions(&self, keys: &[DocumentKey]) -> Result<HashMap<DocumentKey, MemCell>> {
        let ids = keys.iter().map(DocumentKey::to_bson).collect::<Result<Vec<Bson>>>()?;
        let mut documents = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_QUERY) {
            let find = self.authority.find(doc! { "_id": { "$in": ids } }).projection(filters::revisions());
            let found: Vec<RawDocumentBuf> = bounded(self.timeout, async { find.await?.try_collect().await }).await?;
            for document in found.into_iter().map(MemCell::from_raw) {
                documents.insert(document.key()?, document);
            }
        }
        Ok(documents)
    }
}
