//! `memcell import`: documents from a file or a pipe, through a pipeline of bounded length.
//!
//! One thread reads records (`records`), some parse them into documents (`parse`), and a few insert commands are on their way at any
//! time (`pipeline`), so that reading, parsing and the server's work overlap. Batches are bounded by documents and by bytes, and so is
//! the memory for all that is in the pipeline, however large the input is.

mod batch;
mod pipeline;
mod records;
mod summary;

pub(crate) use self::batch::parse_all;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use self::pipeline::Options;
use super::progress::Progress;
use super::{Exit, Failure, session};
use crate::config::Config;
use crate::memcell::NewMemCell;

const AFTER_HELP: &str = "\
FILE holds JSON Lines (one document a line) or one JSON array of documents, as UTF-8 text. Documents are as the HTTP API has them, or
MongoDB Extended JSON as `memcell export` and mongoexport write it, or a mixture. A document without a timestamp is not valid.

With --exact, documents are in canonical Extended JSON, as `memcell export` writes them, and come back as they were, those too that other
programs wrote and that no rule for MemCells would let pass: that is for bringing back a backup.

A document that bears an id (event_id or _id) keeps it, and is left alone if there is one with that id already: an import that was
interrupted can simply be repeated. Documents without an id get a new one each time. Documents that aren't valid are reported with their
line and skipped; with --strict the first of them ends the import, and nothing after it is imported.

The documents go into MongoDB alone. A host that runs mirrors them from there, as it does with every change; any other when it is started.

Exit code 1: something was not imported, other than what was there already.

Examples:
  memcell import conversations.jsonl
  mongoexport --db app --collection memcells | memcell import - --strict
  zcat backup.jsonl.gz | memcell import - --exact --json";

/// How much is read from the input at once.
const READ_BYTES: usize = 256 * 1024;

/// Arguments of `memcell import`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ImportArgs {
    /// What to import, `-` being the standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// End at the first document that is not valid
    #[arg(long)]
    strict: bool,
    /// Take each document exactly as it was exported, also where it is no valid MemCell: only its revision is new
    #[arg(long)]
    exact: bool,
    /// How many documents at most are inserted at once
    #[arg(long, value_name = "N", default_value = "1000", value_parser = batch_size)]
    batch: NonZeroUsize,
}

fn batch_size(text: &str) -> Result<NonZeroUsize, String> {
    // The most that one insert command of MongoDB takes.
    let size = text.parse::<NonZeroUsize>().ok().filter(|size| size.get() <= 100_000);
    size.ok_or_else(|| "expected a number from 1 to 100000".to_owned())
}

/// Carries it out.
pub(super) fn run(args: &ImportArgs, config: Config, json: bool) -> Result<Exit, Failure> {
    let (input, total_bytes) = open(args)?;
    let config = session::without_backends(config);
    let read = if args.exact { NewMemCell::from_exact_line } else { NewMemCell::from_import_line };
    let options = Options { strict: args.strict, batch: args.batch.get(), read };
    session::with_store(&config, async move |store, shutdown| {
        let progress = Progress::start("imported", total_bytes, json);
        pipeline::run(store, shutdown, input, options, progress, json).await
    })
}

type Input = BufReader<Box<dyn Read + Send>>;

/// The input, and its size if it is a file.
fn open(args: &ImportArgs) -> Result<(Input, Option<u64>), Failure> {
    let (input, size): (Box<dyn Read + Send>, _) = if args.file.as_os_str() == "-" {
        (Box::new(io::stdin()), None)
    } else {
        let failure = |error: io::Error| Failure::io(args.file.display(), &error);
        let file = File::open(&args.file).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        if metadata.is_dir() {
            return Err(Failure::Work(format!("{}: this is a directory and no file", args.file.display())));
        }
        (Box::new(file), metadata.is_file().then_some(metadata.len()))
    };
    Ok((BufReader::with_capacity(READ_BYTES, input), size))
}
