//! Walks through the documents: of a range, in the order of their ids, or of all, in MongoDB's own order.
//!
//! A task of its own asks the server for the next documents and passes its replies on as they are. Whoever walks takes the documents
//! out of them, so that the server is at work all the while.

use bson::{Document, RawDocument, doc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::connect::bounded;
use super::error::convert;
use super::filters;
use super::jobs::Place;
use super::ranges::IdRange;
use super::reads::{MemCellStream, id};
use super::repository::Repository;
use crate::memcell::MemCell;
use crate::{Error, ErrorKind, Result};

/// How many ranges a scan goes through at the most, and how many documents are worth one: a server that gathers all of an answer
/// first has less to gather.
const SCAN_RANGES: usize = 1024;
const SCAN_RANGE: u64 = 200_000;

/// The most documents of one batch that are whole, and about how many bytes of them. So many that a reply of the server with documents
/// of usual sizes stays in the caches of a processor while it is read, taken apart and encoded.
const BATCH_DOCUMENTS: usize = 160;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Batches that the server sends at a time, or as many documents as fit into one reply (16 MB).
const SERVER_BATCHES: usize = 2;

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
    /// The documents, live and deleted, in the order of the route; none at the end. Whole, or cut down to what a comparison of
    /// revisions needs.
    pub documents: Vec<MemCell>,
    /// How far the walk is; `None`: it ends here.
    pub next: Option<Place>,
}

impl Repository {
    /// Begins a walk, with whole documents.
    pub fn walk(&self, route: Route) -> Walk {
        self.start(route, BATCH_DOCUMENTS, None)
    }

    /// As [`Repository::walk`], with only `_id`, `revision` and `deleted_at` of each document, and up to `most` documents in a batch.
    pub fn walk_revisions(&self, route: Route, most: usize) -> Walk {
        self.start(route, most, Some(filters::revisions()))
    }

    fn start(&self, route: Route, most: usize, projection: Option<Document>) -> Walk {
        Walk::start(Reader { repository: self.clone(), route, most, projection, cursor: None })
    }

    /// All documents, live or deleted, read as [`fetch`](Self::fetch) reads, in the order that MongoDB has them in; if there are many,
    /// by `_id` ascending (over all types of ids). It may take as long as it likes: what is there all the while is seen once.
    ///
    /// # Errors
    /// If the first query fails; later failures are in the stream.
    pub async fn scan(&self) -> Result<MemCellStream> {
        // Its first documents are on their way while the server counts.
        let natural = self.walk(Route::Natural);
        let count = self.estimated_count().await?;
        let mut ranges = self.worthwhile_ranges(count, SCAN_RANGE, SCAN_RANGES).await?.into_iter();
        let range = ranges.next().unwrap_or_default();
        let mut walk = if ranges.len() == 0 { natural } else { self.walk(Route::Ids(range)) };
        let first = walk.next().await?;
        let scan = Scan { repository: self.clone(), ranges, walk: first.next.is_some().then_some(walk) };
        let rest = stream::try_unfold(scan, |mut scan| async move {
            let batch = scan.next().await?;
            Ok::<_, Error>(batch.map(|documents| (documents, scan)))
        });
        let batches = stream::iter([Ok(first.documents)]).chain(rest);
        Ok(batches.map_ok(|documents| stream::iter(documents.into_iter().map(Ok))).try_flatten().boxed())
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

/// A walk through documents.
pub struct Walk {
    is_natural: bool,
    /// Documents that make a batch.
    most: usize,
    /// The reply that documents are taken out of.
    reply: Option<Reply>,
    /// Those after it; `None`: there are no more.
    replies: mpsc::Receiver<Result<Option<RawBatch>>>,
    reader: AbortHandle,
}

impl Walk {
    fn start(reader: Reader) -> Self {
        let (is_natural, most) = (reader.route == Route::Natural, reader.most);
        // One reply waits, one is being read.
        let (sender, replies) = mpsc::channel(1);
        let reader = tokio::spawn(reader.run(sender)).abort_handle();
        Self { is_natural, most, reply: None, replies, reader }
    }

    /// The next documents: as many as fit into a few megabytes. What is there all the while is seen once. Not to be asked again
    /// after the last batch, or an error. Cancellation safe.
    ///
    /// # Errors
    /// Those of MongoDB being away, and of [`Route::Natural`] also if the server has forgotten the query meanwhile.
    pub async fn next(&mut self) -> Result<Batch> {
        loop {
            if let Some(reply) = &mut self.reply {
                let documents = reply.take(self.most)?;
                if let Some(last) = documents.last() {
                    let next = if self.is_natural { Place::Natural } else { Place::Id(id(last.as_raw())?) };
                    return Ok(Batch { documents, next: Some(next) });
                }
            }
            let ended = || Err(Error::new(ErrorKind::Internal, "a walk was asked for more than there is"));
            self.reply = match self.replies.recv().await.unwrap_or_else(ended)? {
                Some(batch) => Some(Reply { batch, taken: 0 }),
                None => return Ok(Batch { documents: Vec::new(), next: None }),
            };
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What the server has sent at a time.
struct Reply {
    batch: RawBatch,
    /// How many of its documents were taken.
    taken: usize,
}

impl Reply {
    /// The next documents, `most` at the most; none: there are no more here.
    fn take(&mut self, most: usize) -> Result<Vec<MemCell>> {
        let mut taken = Vec::with_capacity(most);
        let mut bytes = 0;
        for document in documents(&self.batch)?.skip(self.taken) {
            let document = document?;
            bytes += document.as_bytes().len();
            taken.push(MemCell::from_raw(document.to_owned()));
            if taken.len() == most || bytes >= BATCH_BYTES {
                break;
            }
        }
        self.taken += taken.len();
        Ok(taken)
    }
}

/// The documents of a reply.
fn documents(batch: &RawBatch) -> Result<impl Iterator<Item = Result<&RawDocument>>> {
    let documents = batch.doc_slices().map_err(convert)?.into_iter();
    Ok(documents.map(|document| {
        let document = document.ok().and_then(|document| document.as_document());
        document.ok_or_else(|| Error::new(ErrorKind::Internal, "mongodb sent something that is no document"))
    }))
}

/// Asks the server for the documents of a route, in one query. By ids, it is made again from where it was if the server has
/// forgotten it meanwhile.
struct Reader {
    repository: Repository,
    /// What is left.
    route: Route,
    /// Documents that make a batch.
    most: usize,
    projection: Option<Document>,
    cursor: Option<RawBatchCursor>,
}

impl Reader {
    /// Reads until the end, an error, or nobody wants to know any more.
    async fn run(mut self, replies: mpsc::Sender<Result<Option<RawBatch>>>) {
        loop {
            let reply = self.next().await;
            let goes_on = matches!(reply, Ok(Some(_)));
            if replies.send(reply).await.is_err() || !goes_on {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<Option<RawBatch>> {
        let was_open = self.cursor.is_some();
        match self.advance().await {
            // A server forgets a query that nobody has asked about for ten minutes.
            Err(_) if was_open && self.route != Route::Natural => self.advance().await,
            reply => reply,
        }
    }

    async fn advance(&mut self) -> Result<Option<RawBatch>> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => self.open().await?,
        };
        let Some(reply) = bounded(self.repository.timeout, cursor.try_next()).await? else { return Ok(None) };
        if let Route::Ids(range) = &mut self.route
            && let Some(last) = documents(&reply)?.last()
        {
            range.after = Some(id(last?)?);
        }
        self.cursor = Some(cursor);
        Ok(Some(reply))
    }

    async fn open(&mut self) -> Result<RawBatchCursor> {
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
        bounded(self.repository.timeout, find.batch()).await
    }
}
