//! The collection's change stream: which keys changed, in MongoDB's order, and where one can go on after a restart.
//!
//! Events say *that* a document changed, and at most which revision it got. What it has become is read anew by whoever needs it, so
//! the server sends no contents.

use std::time::Duration;

use bson::{RawDocumentBuf, Timestamp, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;
use mongodb::error::ErrorKind as DriverKind;
use serde::{Deserialize, Serialize};

use super::connect::bounded;
use super::error::{convert, driver_error};
use super::polling::Polling;
use super::repository::Repository;
use crate::clock::unix_millis;
use crate::memcell::DocumentKey;
use crate::{Error, ErrorKind, Result};

/// How long a quiet server holds a request for changes back: as often, a mirror learns that there are none.
const MAX_AWAIT: Duration = Duration::from_millis(250);

/// How far a new stream reaches back. A write that is being committed while the stream is opened can bear an earlier time than its
/// opening, and yet be invisible to whoever reads afterwards: he would learn of it neither way. Telling the changes of a few
/// seconds twice costs little, and no commit takes as long.
const OVERLAP_SECONDS: u32 = 5;

/// Events that the server sends at a time. They are small.
const EVENTS_PER_ANSWER: u32 = 1000;

/// A place in the stream, after some event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// What the server calls it. Opaque.
    Token(ResumeToken),
    /// Of a server without change streams: everything with an older `updated_at` (Unix milliseconds) has been told.
    Polled(i64),
}

impl Position {
    /// The place as a text, to be kept.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the server's token can't be written down.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|source| Error::new(ErrorKind::Internal, "a resume token can't be written").with_source(source))
    }

    /// The place that [`Position::to_text`] wrote down.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for any other text.
    pub fn from_text(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|source| Error::new(ErrorKind::InvalidArgument, "this is no resume token").with_source(source))
    }
}

/// What the stream tells.
#[derive(Debug)]
pub enum ChangeEvent {
    /// The document of this key was inserted, changed or removed, by whomever.
    Changed {
        /// Its key.
        key: DocumentKey,
        /// Just after this event.
        position: Position,
        /// When it happened, by the server's clock, in Unix milliseconds (whole seconds with servers before 6.0).
        at_millis: u64,
        /// The revision that this very change gave the document; `None` if it left the revision alone, or that isn't known.
        revision: Option<u64>,
    },
    /// There was nothing new when the server was asked.
    Quiet {
        /// When it was asked, by this host's clock, in Unix milliseconds: what a majority had by then has all been told.
        asked_millis: u64,
        /// As far as the server has looked, if it says so.
        position: Option<Position>,
    },
    /// Removals may have taken place that nobody told of: all keys have to be compared. Only of polling.
    SweepDue,
    /// The collection was dropped or renamed, or its database dropped: what it held is gone, without an event for each document.
    /// The stream has ended; another one can be opened after `position`.
    Ended {
        /// After the end.
        position: Position,
    },
}

/// Why there is no stream of changes.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The server no longer knows what happened since the position (or doesn't know the position): everything has to be
    /// compared anew.
    #[error("mongodb no longer has the history of changes since the last checkpoint")]
    HistoryLost(#[source] Error),
    /// A standalone server has no change streams.
    #[error("this mongodb server has no change streams (they need a replica set or sharded cluster)")]
    Unsupported(#[source] Error),
    /// Anything that may pass.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// An open stream of changes.
pub struct Changes(Source);

enum Source {
    Stream(Box<ChangeStream<RawDocumentBuf>>),
    Polling(Box<Polling>),
}

impl Repository {
    /// Opens the stream of changes, after `position`; or, without one, from a few seconds ago on, so that a change is told by it
    /// unless it is seen by everybody who reads from now on. On a server without change streams (a standalone one), changes are
    /// found by polling, and removals by sweeps.
    ///
    /// # Errors
    /// See [`ChangesError`].
    pub async fn changes(&self, position: Option<&Position>) -> Result<Changes, ChangesError> {
        if let Some(Position::Polled(since)) = position {
            return Ok(self.polled_changes(Some(*since)));
        }
        match self.change_stream(position).await {
            Err(ChangesError::Unsupported(error)) if position.is_some() => Err(ChangesError::HistoryLost(error)),
            Err(ChangesError::Unsupported(_)) => {
                tracing::warn!(
                    "this mongodb server has no change streams: changes are polled for, removals are found by sweeps"
                );
                Ok(self.polled_changes(None))
            }
            opened => opened,
        }
    }

    /// Changes found by polling, whatever the server can do: those whose `updated_at` lies after `since` (Unix milliseconds), or
    /// from now on.
    pub fn polled_changes(&self, since: Option<i64>) -> Changes {
        Changes(Source::Polling(Box::new(Polling::new(self.clone(), since))))
    }

    async fn change_stream(&self, position: Option<&Position>) -> Result<Changes, ChangesError> {
        if let Some(Position::Token(token)) = position {
            return self.stream_from(Start::After(token.clone())).await;
        }
        let Some(moment) = self.moment_ago().await? else { return self.stream_from(Start::Now).await };
        match self.stream_from(Start::At(moment)).await {
            // A server that doesn't remember as much has nothing older to tell.
            Err(ChangesError::HistoryLost(_)) => self.stream_from(Start::Now).await,
            opened => opened,
        }
    }

    async fn stream_from(&self, start: Start) -> Result<Changes, ChangesError> {
        // `_id`, the resume token, has to stay as it is and is always there.
        let only = doc! { "$project": {
            "operationType": 1, "documentKey": 1, "clusterTime": 1, "wallTime": 1,
            "fullDocument.revision": 1, "updateDescription.updatedFields.revision": 1,
        } };
        let watch = self.authority.watch().pipeline([only]).max_await_time(MAX_AWAIT).batch_size(EVENTS_PER_ANSWER);
        let watch = match start {
            // Unlike `resume_after`, this also goes on after the end of a collection.
            Start::After(token) => watch.start_after(token),
            Start::At(moment) => watch.start_at_operation_time(moment),
            Start::Now => watch,
        };
        let stream = bounded(self.timeout, watch).await.map_err(ChangesError::of)?;
        Ok(Changes(Source::Stream(Box::new(stream.with_type()))))
    }

    /// When the oldest change happened that the server still has in its oplog, in seconds since the Unix epoch: no stream can go on
    /// from before. `None` where there is no oplog to be read: on a standalone server, or through a router of a sharded cluster.
    ///
    /// # Errors
    /// Those of MongoDB being away, or of not being allowed to read `local.oplog.rs`.
    pub async fn oldest_in_oplog(&self) -> Result<Option<u32>> {
        let oplog = self.client.database("local").collection::<RawDocumentBuf>("oplog.rs");
        let first = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).projection(doc! { "_id": 0, "ts": 1 });
        let first = bounded(self.timeout, first).await?;
        Ok(first.and_then(|entry| entry.get_timestamp("ts").ok()).map(|at| at.time))
    }

    /// [`OVERLAP_SECONDS`] before what a majority had when the server was asked; `None` on a standalone server, which has no such time.
    async fn moment_ago(&self) -> Result<Option<Timestamp>> {
        let hello = bounded(self.timeout, self.client.database("admin").run_command(doc! { "hello": 1 })).await?;
        // A router of a sharded cluster tells only the latest time that it knows of.
        let majority = hello.get_document("lastWrite").and_then(|last| last.get_document("majorityOpTime"));
        let time = majority.and_then(|time| time.get_timestamp("ts")).or_else(|_| hello.get_timestamp("operationTime"));
        let ago = |time: Timestamp| Timestamp { time: time.time.saturating_sub(OVERLAP_SECONDS), increment: 1 };
        Ok(time.ok().map(ago))
    }
}

/// Where a stream begins.
enum Start {
    After(ResumeToken),
    At(Timestamp),
    Now,
}

impl Changes {
    /// The place that the stream is at. Not to be asked while [`Changes::next`] is under way.
    pub fn position(&self) -> Option<Position> {
        match &self.0 {
            Source::Stream(stream) => stream.resume_token().map(Position::Token),
            Source::Polling(polling) => Some(polling.position()),
        }
    }

    /// The next event; waits for a quarter of a second at the most if there is none. Not cancellation safe: a stream whose `next` was
    /// dropped must be opened anew.
    ///
    /// # Errors
    /// See [`ChangesError`]. The driver has tried once to resume by itself; the stream is of no use afterwards.
    pub async fn next(&mut self) -> Result<ChangeEvent, ChangesError> {
        let stream = match &mut self.0 {
            Source::Stream(stream) => stream,
            Source::Polling(polling) => return Ok(polling.next().await?),
        };
        loop {
            let asked_millis = unix_millis();
            let event = stream.next_if_any().await.map_err(|error| ChangesError::of(convert(error)))?;
            let position = stream.resume_token().map(Position::Token);
            let Some(event) = event else {
                if !stream.is_alive() {
                    let gone = Error::new(ErrorKind::Unavailable, "the server closed the stream of changes");
                    return Err(gone.into());
                }
                return Ok(ChangeEvent::Quiet { asked_millis, position });
            };
            let position = position.ok_or_else(|| malformed("it has no resume token"))?;
            if let Some(event) = read(&event, position)? {
                return Ok(event);
            }
        }
    }
}

/// `None`: an event that changes no document.
fn read(event: &RawDocumentBuf, position: Position) -> Result<Option<ChangeEvent>> {
    let operation = event.get_str("operationType").map_err(|_| malformed("it has no operationType"))?;
    match operation {
        "insert" | "update" | "replace" | "delete" => {
            let id = event.get_document("documentKey").ok().and_then(|key| key.get("_id").ok().flatten());
            let key = DocumentKey::from_id(id.ok_or_else(|| malformed("it has no documentKey"))?)?;
            let revision = given_revision(operation, event);
            Ok(Some(ChangeEvent::Changed { key, position, at_millis: time_of(event), revision }))
        }
        "invalidate" => Ok(Some(ChangeEvent::Ended { position })),
        // `drop`, `rename` and `dropDatabase` are followed by `invalidate`; others concern no document.
        _ => Ok(None),
    }
}

/// The revision that a change gave its document. A replacement may bring along the one that was there, so it tells nothing.
fn given_revision(operation: &str, event: &RawDocumentBuf) -> Option<u64> {
    let holder = match operation {
        "insert" => event.get_document("fullDocument").ok()?,
        "update" => event.get_document("updateDescription").ok()?.get_document("updatedFields").ok()?,
        _ => return None,
    };
    u64::try_from(holder.get_i64("revision").ok()?).ok()
}

fn time_of(event: &RawDocumentBuf) -> u64 {
    if let Ok(wall) = event.get_datetime("wallTime") {
        return u64::try_from(wall.timestamp_millis()).unwrap_or(0);
    }
    event.get_timestamp("clusterTime").map_or(0, |Timestamp { time, .. }| u64::from(time) * 1000)
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("mongodb sent a change event that can't be understood: {what}"))
}

impl ChangesError {
    fn of(error: Error) -> Self {
        match code_of(&error) {
            // ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken, CappedPositionLost, and
            // FailedToParse, «bad resume token» and «the resume token was not found», which a token of another deployment gets.
            Some(286 | 280 | 260 | 136 | 9 | 40_585 | 40_615 | 40_647..=40_649 | 50_811) => Self::HistoryLost(error),
            // «The $changeStream stage is only supported on replica sets», IllegalOperation.
            Some(40_573 | 20) => Self::Unsupported(error),
            _ => Self::Failed(error),
        }
    }
}

fn code_of(error: &Error) -> Option<i32> {
    match driver_error(error).map(|error| &*error.kind) {
        Some(DriverKind::Command(command)) => Some(command.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, oid::ObjectId, rawdoc};

    use super::*;

    fn position() -> Position {
        Position::from_text(r#"{"token":{"_data":"8265"}}"#).unwrap()
    }

    fn event(document: RawDocumentBuf) -> Result<Option<ChangeEvent>> {
        read(&document, position())
    }

    #[test]
    fn a_position_can_be_written_down() {
        assert_eq!(Position::from_text(&position().to_text().unwrap()).unwrap(), position());
        let polled = Position::Polled(7);
        assert_eq!(Position::from_text(&polled.to_text().unwrap()).unwrap(), polled);
        assert_eq!(Position::from_text("{").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn events_name_keys_of_all_types() {
        let id = ObjectId::parse_str("685c8c52a1b2c3d4e5f60718").unwrap();
        let changed = event(rawdoc! {
            "operationType": "update", "documentKey": { "shard": 1, "_id": id },
            "clusterTime": Timestamp { time: 7, increment: 1 },
        });
        let Some(ChangeEvent::Changed { key, at_millis, .. }) = changed.unwrap() else { panic!("no change") };
        assert_eq!((key.as_str(), at_millis), ("685c8c52a1b2c3d4e5f60718", 7000));
        let changed = event(rawdoc! {
            "operationType": "delete", "documentKey": { "_id": "x" }, "wallTime": bson::DateTime::from_millis(12),
        });
        let Some(ChangeEvent::Changed { key, at_millis, .. }) = changed.unwrap() else { panic!("no change") };
        assert_eq!((key.as_str(), at_millis), ("\"x\"", 12));
    }

    #[test]
    fn only_what_a_change_itself_says_of_the_revision_counts() {
        let revision = |event: RawDocumentBuf| given_revision(event.get_str("operationType").unwrap(), &event);
        let document = rawdoc! { "revision": 7_i64 };
        let inserted = rawdoc! { "operationType": "insert", "fullDocument": document.clone() };
        assert_eq!(revision(inserted), Some(7));
        let updated = |fields: RawDocumentBuf| rawdoc! { "operationType": "update", "updateDescription": { "updatedFields": fields } };
        assert_eq!(revision(updated(document.clone())), Some(7));
        assert_eq!(revision(updated(rawdoc! {})), None);
        assert_eq!(revision(updated(rawdoc! { "revision": "7" })), None);
        assert_eq!(revision(updated(rawdoc! { "revision": -7_i64 })), None);
        // With `fullDocument: "updateLookup"`, which nobody asks for, it would be that of another moment.
        let looked_up = rawdoc! { "operationType": "update", "fullDocument": document.clone() };
        assert_eq!(revision(looked_up), None);
        assert_eq!(revision(rawdoc! { "operationType": "replace", "fullDocument": document }), None);
    }

    #[test]
    fn the_end_of_a_collection_and_what_concerns_no_document() {
        assert!(event(rawdoc! { "operationType": "drop" }).unwrap().is_none());
        let ended = event(rawdoc! { "operationType": "invalidate" }).unwrap();
        assert!(matches!(ended, Some(ChangeEvent::Ended { .. })));
        assert!(event(rawdoc! { "operationType": "insert" }).is_err());
        assert!(event(rawdoc! {}).is_err());
    }
}
