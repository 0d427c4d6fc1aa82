//! `memcell export`: documents as JSON Lines.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bson::DateTime;
use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use indicatif::HumanCount;
use serde_json::json;

use super::progress::{Progress, rate};
use super::{Exit, Failure, output, session};
use crate::config::Config;
use crate::memcell::{Fidelity, MemCell, parse_datetime};
use crate::query::{Filter, Order, Page, TimeRange, Visibility};
use crate::shutdown::Shutdown;
use crate::store::MemCellStore;

const AFTER_HELP: &str = "\
Writes one document a line, oldest first. The extended format keeps every type (documents that look like one of its types, as other
programs may have stored, are warned of), and `memcell import --exact` brings it back; the api
format is what the HTTP API shows. A FILE is written under a temporary name and appears when it is complete.

Filters narrow it down, and all that are given must hold. --user-id together with --start or --end also finds the documents that have the
user among their participants. Without a filter, all documents are exported.

Examples:
  memcell export backup.jsonl --include-deleted
  memcell export --user-id user_001 --start 2025-06-01 --end 2025-07-01T00:00:00Z
  memcell export --format api | jq -r .summary";

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Arguments of `memcell export`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ExportArgs {
    /// Where to, `-` being the standard output
    #[arg(value_name = "FILE|-", default_value = "-")]
    file: PathBuf,
    /// How documents are written
    #[arg(long, value_enum, default_value_t = Format::Extended)]
    format: Format,
    /// Only documents of this user
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// Only documents of this group
    #[arg(long, value_name = "ID")]
    group_id: Option<String>,
    /// Only documents with a timestamp of this moment or later (ISO 8601; UTC without an offset)
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<DateTime>,
    /// Only documents with a timestamp before this moment
    #[arg(long, value_name = "TIME", value_parser = time)]
    end: Option<DateTime>,
    /// Soft-deleted documents too
    #[arg(long)]
    include_deleted: bool,
}

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Canonical MongoDB Extended JSON, with _id
    Extended,
    /// Plain JSON as in the HTTP API, with event_id
    Api,
}

fn time(text: &str) -> Result<DateTime, String> {
    parse_datetime(text)
        .ok_or_else(|| "expected an ISO 8601 date or date and time, such as 2025-06-26T00:03:30Z".to_owned())
}

/// Carries it out.
pub(super) fn run(args: &ExportArgs, config: Config, json: bool) -> Result<Exit, Failure> {
    let config = session::without_backends(config);
    session::with_store(&config, async |store, shutdown| {
        if args.file.as_os_str() == "-" {
            let mut stdout = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
            write_all(args, store, shutdown, true, &mut stdout, |error| output::failure(&error)).await?;
            return Ok(Exit::Fine);
        }
        let failure = |error: io::Error| Failure::io(args.file.display(), &error);
        let mut partial = PartialFile::create(&args.file).map_err(failure)?;
        let exported = write_all(args, store, shutdown, json, &mut partial.writer, failure).await?;
        partial.complete().map_err(failure)?;
        exported.print(&args.file, json)?;
        Ok(Exit::Fine)
    })
}

/// What was written to a file.
struct Exported {
    documents: u64,
    seconds: f64,
    rate: u64,
}

impl Exported {
    fn print(&self, file: &Path, json: bool) -> Result<(), Failure> {
        let Self { documents, seconds, rate } = self;
        if json {
            return output::json_line(&json!({ "exported": documents, "seconds": seconds, "rate": rate }));
        }
        let (documents, rate) = (HumanCount(*documents), HumanCount(*rate));
        output::line(&format!("exported {documents} documents to {} in {seconds:.1} s ({rate}/s)", file.display()))
    }
}

/// Writes all documents that match. `silent`: no progress, for it would stand among the documents or disturb a program.
async fn write_all(
    args: &ExportArgs,
    store: &MemCellStore,
    shutdown: &Shutdown,
    silent: bool,
    writer: &mut impl Write,
    failure: impl Fn(io::Error) -> Failure,
) -> Result<Exported, Failure> {
    let filter = Filter {
        user_id: args.user_id.clone(),
        group_id: args.group_id.clone(),
        range: TimeRange { start: args.start, end: args.end },
        visibility: if args.include_deleted { Visibility::All } else { Visibility::Live },
        ..Filter::default()
    };
    let page = Page { order: Order::OldestFirst, ..Page::default() };
    let mut cells = store.find(&filter, &page).await?;
    let mut progress = Progress::start("exported", None, silent);
    let (mut documents, mut ambiguous) = (0, 0_u64);
    let mut line = Vec::new();
    loop {
        let next = tokio::select! {
            next = cells.next() => next,
            () = shutdown.requested() => {
                progress.finish();
                return Err(Failure::Work(format!("interrupted after {documents} documents")));
            }
        };
        let Some(cell) = next else { break };
        line.clear();
        if write_line(&cell?, args.format, &mut line)? == Fidelity::Ambiguous {
            ambiguous += 1;
        }
        writer.write_all(&line).map_err(&failure)?;
        documents += 1;
        progress.advance(0, 1);
    }
    writer.flush().map_err(&failure)?;
    progress.finish();
    if ambiguous > 0 {
        eprintln!(
            "warning: {ambiguous} documents hold documents that Extended JSON takes for values of other types, such as {{\"$oid\": …}}: \
             what is imported from here will have those values in their place"
        );
    }
    let elapsed = progress.elapsed();
    Ok(Exported { documents, seconds: elapsed.as_secs_f64(), rate: rate(documents, elapsed) })
}

fn write_line(cell: &MemCell, format: Format, line: &mut Vec<u8>) -> Result<Fidelity, Failure> {
    let fidelity = match format {
        Format::Extended => cell.write_canonical_json(line)?,
        Format::Api => {
            cell.write_api_json(line)?;
            Fidelity::Exact
        }
    };
    line.push(b'\n');
    Ok(fidelity)
}

/// A file under a temporary name beside its place, which takes the place when it is complete and vanishes otherwise.
struct PartialFile {
    writer: BufWriter<File>,
    temporary: PathBuf,
    place: PathBuf,
    completed: bool,
}

impl PartialFile {
    fn create(place: &Path) -> io::Result<Self> {
        let Some(name) = place.file_name().filter(|_| !place.is_dir()) else {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "this is a directory and no file"));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let temporary = place.with_file_name(hidden);
        let file = File::create(&temporary)?;
        Ok(Self {
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            temporary,
            place: place.to_owned(),
            completed: false,
        })
    }

    /// Puts the file in its place, durably, over what was there.
    fn complete(mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.place)?;
        self.completed = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.completed {
            return;
        }
        if let Err(error) = fs::remove_file(&self.temporary) {
            tracing::warn!(file = %self.temporary.display(), %error, "an incomplete export is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out.jsonl");
        fs::write(&place, "old").unwrap();
        let mut partial = PartialFile::create(&place).unwrap();
        partial.writer.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "old");
        partial.complete().unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "new");
        assert_eq!(names(folder.path()), ["out.jsonl"]);
    }

    #[test]
    fn nothing_is_left_of_an_incomplete_file() {
        let folder = tempfile::tempdir().unwrap();
        drop(PartialFile::create(&folder.path().join("out.jsonl")).unwrap());
        assert!(names(folder.path()).is_empty());
        assert!(PartialFile::create(folder.path()).is_err());
    }
}
