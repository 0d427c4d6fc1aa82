//! The pipeline of an import: read, parse in order, insert out of order, count.

use std::future::ready;
use std::io::{self, BufRead};
use std::num::NonZeroUsize;
use std::thread;

use futures::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use super::batch::{Batch, Complaint, Parsed, Read, read_all};
use super::summary::Summary;
use crate::cli::progress::Progress;
use crate::cli::{Exit, Failure};
use crate::shutdown::Shutdown;
use crate::store::MemCellStore;
use crate::{Error, ErrorKind};

/// How many batches wait to be parsed at the most.
const READ_AHEAD: usize = 2;

/// How many inserts are on their way at once: while the server works on some, the next one is encoded and sent.
const INSERTS: usize = 4;

/// The most batches that are parsed at once: beyond it the server is the slower one.
const MAX_PARSERS: usize = 4;

/// What the command line asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// Whether the first record that isn't imported ends it all.
    pub(super) strict: bool,
    /// The most documents of a batch.
    pub(super) batch: usize,
    /// How a document is read.
    pub(super) read: Read,
}

/// Imports everything, and prints the summary. On a signal, what was parsed is still inserted, and nothing more.
pub(super) async fn run(
    store: &MemCellStore,
    shutdown: &Shutdown,
    input: impl BufRead + Send + 'static,
    options: Options,
    mut progress: Progress,
    json: bool,
) -> Result<Exit, Failure> {
    let stop = shutdown.child();
    let batches = start_reader(input, options.batch, &stop)?;
    let parsers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_PARSERS);
    let strict = options.strict;

    let parsed = batches
        .take_until(stop.requested())
        .map(|batch| parse(batch, options))
        // In the order of the input, so that strictness knows what is before the first bad record and what is after it.
        .buffered(parsers)
        .take_while(|_| ready(!stop.is_requested()))
        .inspect(|parsed| {
            if strict && parsed.as_ref().is_ok_and(|parsed| !parsed.invalid.is_empty()) {
                stop.trigger();
            }
        });
    let inserted = parsed.map(|parsed| insert(store.clone(), parsed)).buffer_unordered(INSERTS);
    let mut inserted = std::pin::pin!(inserted);

    let mut summary = Summary::default();
    let mut failure = None;
    while let Some(batch) = inserted.next().await {
        match batch {
            Ok(batch) => {
                for complaint in batch.invalid.iter().chain(&batch.refused) {
                    progress.say(&complaint.show(json));
                }
                summary.add(&batch);
                progress.advance(batch.input_bytes, batch.imported);
                if strict && !batch.refused.is_empty() {
                    stop.trigger();
                }
                if let Some(error) = batch.error {
                    stop.trigger();
                    failure.get_or_insert(Failure::Store(error));
                }
            }
            Err(error) => {
                stop.trigger();
                failure.get_or_insert(error);
            }
        }
    }
    progress.finish();
    summary.finish(progress.elapsed());
    summary.print(json)?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if shutdown.is_requested() {
        return Err(Failure::Work("interrupted: not all of the input was imported".to_owned()));
    }
    if strict && summary.has_complaints() {
        return Err(Failure::Work("ended at the first document that was not imported, because of --strict".to_owned()));
    }
    Ok(Exit::fine_if(!summary.has_complaints()))
}

/// Reads on a thread of its own, which ends with the input, when the stream is dropped, or with the process: a read of a pipe can't be
/// cut short.
fn start_reader(
    input: impl BufRead + Send + 'static,
    batch: usize,
    stop: &Shutdown,
) -> Result<impl stream::Stream<Item = io::Result<Batch>>, Failure> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let stop = stop.clone();
    let started =
        thread::Builder::new().name("import-reader".to_owned()).spawn(move || read_all(input, batch, &stop, &sender));
    started.map_err(|error| Failure::io("a thread to read with", &error))?;
    Ok(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
}

async fn parse(batch: io::Result<Batch>, options: Options) -> Result<Parsed, Failure> {
    let batch = batch.map_err(|error| Failure::io("the input can't be read", &error))?;
    spawn_blocking(move || batch.parse(options.strict, options.read)).await.map_err(|error| lost(&error))
}

/// What became of a batch.
pub(super) struct Inserted {
    /// How many records were looked at.
    pub(super) read: u64,
    /// How many documents MongoDB has taken.
    pub(super) imported: u64,
    /// How many it had already.
    pub(super) already_there: u64,
    /// What was not valid.
    pub(super) invalid: Vec<Complaint>,
    /// What MongoDB refused.
    pub(super) refused: Vec<Complaint>,
    /// How many documents may or may not have been taken, for the reason in `error`.
    pub(super) unconfirmed: u64,
    /// How much of the input was read for all this.
    input_bytes: u64,
    /// Why there is no use in going on.
    error: Option<Error>,
}

async fn insert(store: MemCellStore, parsed: Result<Parsed, Failure>) -> Result<Inserted, Failure> {
    let Parsed { read, cells, lines, invalid, input_bytes } = parsed?;
    let (imported, already_there, unconfirmed, refused) = (0, 0, 0, Vec::new());
    let mut inserted =
        Inserted { read, imported, already_there, invalid, refused, unconfirmed, input_bytes, error: None };
    if cells.is_empty() {
        return Ok(inserted);
    }
    // A task, so that one batch is encoded while another is parsed and a third is counted.
    let results =
        match tokio::spawn(async move { store.append_many(cells).await }).await.map_err(|error| lost(&error))? {
            Ok(written) => written.value,
            Err(error) => {
                inserted.unconfirmed = lines.len() as u64;
                inserted.error = Some(error);
                return Ok(inserted);
            }
        };
    for (line, result) in lines.into_iter().zip(results) {
        match result {
            Ok(_) => inserted.imported += 1,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => inserted.already_there += 1,
            // Not about this document but about MongoDB: told once, and not for each line.
            Err(error) if error.is_retryable() => {
                inserted.unconfirmed += 1;
                inserted.error = Some(error);
            }
            Err(error) => inserted.refused.push(Complaint { line, column: None, reason: error.to_string() }),
        }
    }
    Ok(inserted)
}

/// A task that panicked or was cancelled, which none is.
fn lost(error: &JoinError) -> Failure {
    Failure::Work(format!("a part of the import was lost: {error}"))
}
