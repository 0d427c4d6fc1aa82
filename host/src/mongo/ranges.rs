//! The collection in parts: ranges of ids of all types, walked through in their order; or as a whole, in its own.

use std::collections::HashMap;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::Cursor;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::connect::bounded;
use super::filters;
use super::jobs::Place;
use super::reads::{IDS_PER_QUERY, MemCellStream, id};
use super::repository::Repository;
use crate::memcell::{DocumentKey, MemCell};
use crate::{Error, ErrorKind, Result};

/// How many ids are drawn for each bound: the more, the more even the ranges.
const DRAWN_PER_RANGE: usize = 8;

/// How many ranges a scan goes through at the most, and how many documents are worth one: a server that gathers all of an answer
/// first has less to gather.
const SCAN_RANGES: usize = 1024;
const SCAN_RANGE: u64 = 200_000;

/// The most documents of one batch that are whole, and about how many bytes of them.
const BATCH_DOCUMENTS: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Batches that the server sends at a time, or as many documents as fit into one answer.
const SERVER_BATCHES: usize = 2;

/// Ids after the first bound and up to the second; `None`: without bound.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IdRange {
    /// Not included.
    pub after: Option<Bson>,
    /// Included.
    pub up_to: Option<Bson>,
}

/// Which documents are walked through, and in which order.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a walk has one")]
pub enum Route {
    /// Those of a range, by their ids: it can be begun again wherever it was.
    Ids(IdRange),
    /// All, in the order that MongoDB has them in. That is the quickest way, as it looks nothing up, and can only be begun again
    /// from the start.
    Natural,
}

impl Route {
    /// Through a range; through all there is, if `any_order` will do, by the quickest way.
    pub fn through(range: IdRange, any_order: bool) -> Self {
        if any_order && range == IdRange::default() { Self::Natural } else { Self::Ids(range) }
    }
}

/// A step of a walk.
#[derive(Debug)]
pub struct Batch {
    /// The documents, live and deleted, in the order of the route. Whole, or cut down to what a comparison of revisions needs.
    pub documents: Vec<MemCell>,
    /// How far the walk is; `None`: it ends here.
    pub next: Option<Place>,
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

    /// Begins a walk, with whole documents.
    pub fn walk(&self, route: Route) -> Walk {
        let repository = self.clone();
        Walk::start(Steps { repository, route, most: BATCH_DOCUMENTS, projection: None, cursor: None })
    }

    /// As [`Repository::walk`], with only `_id`, `revision` and `deleted_at` of each document, and up to `most` documents in a batch.
    pub fn walk_revisions(&self, route: Route, most: usize) -> Walk {
        Walk::start(Steps { repository: self.clone(), route, most, projection: Some(revisions()), cursor: None })
    }

    /// All documents, live or deleted, read as [`fetch`](Self::fetch) reads, by `_id` ascending (over all types of ids), or in the order
    /// that MongoDB has them in if there are not too many for `any_order`. It may take as long as it likes: what is there all the
    /// while is seen once.
    ///
    /// # Errors
    /// If the first query fails; later failures are in the stream.
    pub async fn scan(&self, any_order: bool) -> Result<MemCellStream> {
        let count = self.estimated_count().await?;
        let mut ranges = self.worthwhile_ranges(count, SCAN_RANGE, SCAN_RANGES).await?.into_iter();
        let mut walk = self.walk(Route::through(ranges.next().unwrap_or_default(), any_order));
        let first = walk.next().await?;
        let scan = Scan { repository: self.clone(), ranges, walk: first.next.is_some().then_some(walk) };
        let rest = stream::try_unfold(scan, |mut scan| async move {
            let batch = scan.next().await?;
            Ok::<_, Error>(batch.map(|documents| (documents, scan)))
        });
        let batches = stream::iter([Ok(first.documents)]).chain(rest);
        Ok(batches.map_ok(|documents| stream::iter(documents.into_iter().map(Ok))).try_flatten().boxed())
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
            let find = self.authority.find(doc! { "_id": { "$in": ids } }).projection(revisions());
            let found: Vec<RawDocumentBuf> = bounded(self.timeout, async { find.await?.try_collect().await }).await?;
            for document in found.into_iter().map(MemCell::from_raw) {
                documents.insert(document.key()?, document);
            }
        }
        Ok(documents)
    }
}

/// All ranges, one after the other.
struct Scan {
    repository: Repository,
    ranges: std::vec::IntoIter<IdRange>,
    /// Through a range that has not ended.
    walk: Option<Walk>,
}

impl Scan {
    async fn next(&mut self) -> Result<Option<Vec<MemCell>>> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => match self.ranges.next() {
                Some(range) => self.repository.walk(Route::Ids(range)),
                None => return Ok(None),
            },
        };
        let batch = walk.next().await?;
        self.walk = batch.next.is_some().then_some(walk);
        Ok(Some(batch.documents))
    }
}

/// A walk through documents. A task of its own reads the next ones while those before are worked on.
pub struct Walk {
    batches: mpsc::Receiver<Result<Batch>>,
    reader: AbortHandle,
}

impl Walk {
    fn start(mut steps: Steps) -> Self {
        // One batch waits, one is being read.
        let (sender, batches) = mpsc::channel(1);
        let reader = tokio::spawn(async move {
            loop {
                let batch = steps.next().await;
                let is_last = batch.as_ref().map_or(true, |batch| batch.next.is_none());
                if sender.send(batch).await.is_err() || is_last {
                    return;
                }
            }
        });
        Self { batches, reader: reader.abort_handle() }
    }

    /// The next documents: as many as fit into a few megabytes. What is there all the while is seen once. Not to be asked again
    /// after the last batch, or an error. Cancellation safe.
    ///
    /// # Errors
    /// Those of MongoDB being away, and of [`Route::Natural`] also if the server has forgotten the query meanwhile.
    pub async fn next(&mut self) -> Result<Batch> {
        let ended = || Err(Error::new(ErrorKind::Internal, "a walk was asked for more than there is"));
        self.batches.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The steps of a walk, in one query. By ids, it is made again from where it was if the server has forgotten it meanwhile.
struct Steps {
    repository: Repository,
    /// What is left.
    route: Route,
    /// Documents that make a batch.
    most: usize,
    projection: Option<Document>,
    cursor: Option<Cursor<RawDocumentBuf>>,
}

impl Steps {
    async fn next(&mut self) -> Result<Batch> {
        let was_open = self.cursor.is_some();
        match self.advance().await {
            // A server forgets a query that nobody has asked about for ten minutes.
            Err(_) if was_open && self.route != Route::Natural => self.advance().await,
            batch => batch,
        }
    }

    async fn advance(&mut self) -> Result<Batch> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => self.open().await?,
        };
        let mut documents = Vec::with_capacity(self.most);
        let mut bytes = 0;
        while documents.len() < self.most && bytes < BATCH_BYTES {
            if !bounded(self.repository.timeout, cursor.advance()).await? {
                return Ok(Batch { documents, next: None });
            }
            let document = cursor.current().to_owned();
            bytes += document.as_bytes().len();
            documents.push(MemCell::from_raw(document));
        }
        let next = match &mut self.route {
            Route::Natural => Some(Place::Natural),
            Route::Ids(range) => {
                range.after = documents.last().map(id).transpose()?;
                range.after.clone().map(Place::Id)
            }
        };
        self.cursor = Some(cursor);
        Ok(Batch { documents, next })
    }

    async fn open(&mut self) -> Result<Cursor<RawDocumentBuf>> {
        let mut find = match &self.route {
            Route::Natural => self.repository.authority.find(Document::new()),
            Route::Ids(IdRange { after, up_to }) => {
                let filter = filters::within_ids(&Document::new(), after.as_ref(), up_to.as_ref());
                self.repository.authority.find(filter).sort(doc! { "_id": 1 })
            }
        };
        find = find.batch_size(u32::try_from(self.most * SERVER_BATCHES).unwrap_or(u32::MAX));
        if let Some(projection) = &self.projection {
            find = find.projection(projection.clone());
        }
        bounded(self.repository.timeout, find).await
    }
}

fn revisions() -> Document {
    doc! { "revision": 1, "deleted_at": 1 }
}
