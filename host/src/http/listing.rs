//! The body of a list of MemCells: small ones are answered whole, large ones are streamed, and memory is bounded either
//! way.

use std::num::NonZeroU64;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tracing::{Instrument as _, Span};

use super::answers::json;
use super::error::Answer;
use crate::memcell::MemCell;
use crate::mongo::MemCellStream;
use crate::query::{Cursor, Order};
use crate::{Error, ErrorKind, Result};

/// After how many bytes a part of a list is sent. What fits into the first one is answered whole, and an error within
/// it is an ordinary error.
const CHUNK_BYTES: usize = 256 * 1024;

/// A list as it is written: `{"items":[…],"next":…}`.
pub(super) struct Listing {
    cells: MemCellStream,
    /// After how many items the list ends with a cursor to go on with, in which order; `None`: it never does.
    page: Option<(NonZeroU64, Order)>,
    written: u64,
    /// The last item of a full page.
    last: Option<MemCell>,
    is_finished: bool,
}

impl Listing {
    /// A list of all of `cells`, whose `next` is null.
    pub(super) fn whole(cells: MemCellStream) -> Self {
        Self { cells, page: None, written: 0, last: None, is_finished: false }
    }

    /// A list of the first `limit` of `cells`, which are in this order. If there are more, `next` tells where to go on.
    pub(super) fn page(cells: MemCellStream, limit: NonZeroU64, order: Order) -> Self {
        Self { page: Some((limit, order)), ..Self::whole(cells) }
    }

    /// The answer. Each part of it may take `part_timeout`; later than in the first one, nothing is left but to break
    /// off.
    ///
    /// # Errors
    /// Those of the first part.
    pub(super) async fn answer(mut self, part_timeout: Duration) -> Answer {
        let first = self.next_part(part_timeout).await?;
        if self.is_finished {
            return Ok(json(StatusCode::OK, first));
        }
        Ok(self.stream(first, part_timeout))
    }

    fn stream(self, first: Vec<u8>, part_timeout: Duration) -> Response {
        let span = Span::current();
        let rest = stream::try_unfold(self, move |mut listing| {
            let next = async move {
                if listing.is_finished {
                    return Ok(None);
                }
                let part = listing.next_part(part_timeout).await.inspect_err(|error| {
                    tracing::error!(
                        ?error,
                        items = listing.written,
                        "a list broke off after its beginning was answered"
                    );
                })?;
                Ok(Some((Bytes::from(part), listing)))
            };
            next.instrument(span.clone())
        });
        let first = stream::once(std::future::ready(Ok(Bytes::from(first))));
        json(StatusCode::OK, Body::from_stream(first.chain(rest.map_err(|error: Error| error))))
    }

    async fn next_part(&mut self, timeout: Duration) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match tokio::time::timeout(timeout, self.fill(&mut out)).await {
            Ok(filled) => filled.map(|()| out),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "the next items of a list did not come in time")),
        }
    }

    async fn fill(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.written == 0 {
            out.extend_from_slice(b"{\"items\":[");
        }
        while out.len() < CHUNK_BYTES {
            let Some(cell) = self.cells.next().await.transpose()? else {
                return self.finish(None, out);
            };
            if let (Some((_, order)), Some(last)) = (self.page, self.last.take()) {
                return self.finish(Some(&Cursor::after(order, &last)?), out);
            }
            if self.written > 0 {
                out.push(b',');
            }
            cell.write_api_json(out)?;
            self.written += 1;
            if self.page.is_some_and(|(limit, _)| limit.get() == self.written) {
                self.last = Some(cell);
            }
        }
        Ok(())
    }

    fn finish(&mut self, next: Option<&Cursor>, out: &mut Vec<u8>) -> Result<()> {
        let end = match next {
            // base64url: nothing in it needs to be escaped.
            Some(cursor) => format!("],\"next\":\"{cursor}\"}}"),
            None => "],\"next\":null}".to_owned(),
        };
        out.extend_from_slice(end.as_bytes());
        self.is_finished = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody as _;
    use bson::rawdoc;
    use serde_json::Value;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn cell(number: i32, bytes: usize) -> Result<MemCell> {
        Ok(MemCell::from_raw(
            rawdoc! { "_id": number.to_string(), "timestamp": bson::DateTime::MIN, "x": "x".repeat(bytes) },
        ))
    }

    fn cells(count: i32, bytes: usize) -> MemCellStream {
        stream::iter((0..count).map(move |number| cell(number, bytes))).boxed()
    }

    fn limit(limit: u64) -> NonZeroU64 {
        NonZeroU64::new(limit).unwrap()
    }

    async fn read(answer: Response) -> Value {
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn a_list_that_fits_has_no_next() {
        for (listing, items) in [
            (Listing::whole(cells(0, 1)), 0),
            (Listing::whole(cells(3, 1)), 3),
            (Listing::page(cells(2, 1), limit(3), Order::NewestFirst), 2),
            (Listing::page(cells(3, 1), limit(3), Order::NewestFirst), 3),
        ] {
            let list = read(listing.answer(TIMEOUT).await.unwrap()).await;
            assert_eq!((list["items"].as_array().unwrap().len(), &list["next"]), (items, &Value::Null));
        }
    }

    #[tokio::test]
    async fn a_longer_one_goes_on_after_its_last_item() {
        let list = read(Listing::page(cells(4, 1), limit(3), Order::OldestFirst).answer(TIMEOUT).await.unwrap()).await;
        assert_eq!(list["items"].as_array().unwrap().len(), 3);
        let expected = Cursor::after(Order::OldestFirst, &cell(2, 1).unwrap()).unwrap();
        assert_eq!(Cursor::parse(list["next"].as_str().unwrap()).unwrap(), expected);
    }

    #[tokio::test]
    async fn large_lists_come_in_parts_and_are_the_same() {
        for count in [2, 7, 40] {
            let listing = Listing::page(cells(count, 200_000), limit(39), Order::NewestFirst);
            let answer = listing.answer(TIMEOUT).await.unwrap();
            assert_eq!(answer.body().size_hint().exact(), None);
            let list = read(answer).await;
            assert_eq!(list["items"].as_array().unwrap().len() as i32, count.min(39));
            assert_eq!(list["next"].is_null(), count < 40);
        }
    }

    #[tokio::test]
    async fn an_early_error_is_an_answer_and_a_late_one_breaks_off() {
        let failing = |before: i32| {
            let broken = Err(Error::new(ErrorKind::Unavailable, "away"));
            cells(before, 200_000).chain(stream::iter([broken])).boxed()
        };
        let error = Listing::whole(failing(1)).answer(TIMEOUT).await.unwrap_err();
        assert_eq!(error.status(), 503);
        let answer = Listing::whole(failing(2)).answer(TIMEOUT).await.unwrap();
        assert!(axum::body::to_bytes(answer.into_body(), usize::MAX).await.is_err());
    }

    #[tokio::test]
    async fn a_part_that_never_comes_is_not_waited_for() {
        let stuck = cells(1, 1).chain(stream::pending()).boxed();
        let error = Listing::whole(stuck).answer(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.code(), "timeout");
    }
}
