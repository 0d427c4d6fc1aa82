//! `memcell export`: documents as JSON Lines.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use bson::DateTime;
use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use indicatif::HumanCount;
use serde_json::json;

use super::progress::{Progress, rate};
use super::{Exit, Failure, output, session};
use crate::config::Config;
use crate::memcell::{Fidelity, MemCell, parse_border};
use crate::query::{Filter, Order, Page, TimeRange, Visibility};
use crate::shutdown::Shutdown;
use crate::store::MemCellStore;

const AFTER_HELP: &str = "\
Writes one document a line, oldest first. The extended format keeps every type (documents that look like one of its types, as other
programs may have stored, are warned of), and `memcell import --exact` brings it back; the api
format is what the HTTP API shows. A FILE is written under a temporary name and appears when it is complete; with the rights and the
owner of the file that it replaces, if there is one. A device or a pipe is written to as it is.

Filters narrow it down, and all that are given must hold. --user-id together with --start or --end also finds the documents that have the
user among their participants. Without a filter, all documents are exported.

Examples:
  memcell export backup.jsonl --include-deleted
  memcell export --user-id user_001 --start 2025-06-01 --end 2025-07-01T00:00:00Z
  memcell export --format api | jq -r .summary";

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 256 * 1024;

/// The mode of a new file, less what the process takes away; and the rights of its owner alone.
const NEW_FILE: u32 = 0o666;
const OWN_RIGHTS: u32 = 0o700;

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
    parse_border(text)
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
        let mut destination = Destination::open(&args.file).map_err(failure)?;
        let exported = write_all(args, store, shutdown, json, destination.writer(), failure).await?;
        destination.complete().map_err(failure)?;
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
    // Finding the first one is the better part of it, where the server has to sort.
    let mut progress = Progress::start("exported", None, silent);
    let mut cells = store.find(&filter, &page).await?;
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
        output::note(format_args!(
            "warning: {ambiguous} documents hold documents that Extended JSON takes for values of other types, such as {{\"$oid\": …}}: \
             what is imported from here will have those values in their place"
        ));
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

/// What a path leads to.
enum Destination {
    File(PartialFile),
    /// A device or a pipe, which nothing can take the place of.
    Stream(BufWriter<File>),
}

impl Destination {
    fn open(path: &Path) -> io::Result<Self> {
        let there = match fs::metadata(path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match there {
            Some(there) if !there.is_file() && !there.is_dir() => {
                let stream = File::options().write(true).open(path)?;
                Ok(Self::Stream(BufWriter::with_capacity(BUFFER_BYTES, stream)))
            }
            // Of a link, the file that it leads to.
            Some(there) => Ok(Self::File(PartialFile::create(&fs::canonicalize(path)?, Some(&there))?)),
            None => Ok(Self::File(PartialFile::create(path, None)?)),
        }
    }

    fn writer(&mut self) -> &mut BufWriter<File> {
        match self {
            Self::File(partial) => &mut partial.writer,
            Self::Stream(writer) => writer,
        }
    }

    fn complete(self) -> io::Result<()> {
        match self {
            Self::File(partial) => partial.complete(),
            Self::Stream(mut writer) => writer.flush(),
        }
    }
}

/// A file under a temporary name beside its place, which takes the place when it is complete and vanishes otherwise.
struct PartialFile {
    writer: BufWriter<File>,
    temporary: PathBuf,
    place: PathBuf,
    completed: bool,
}

impl PartialFile {
    /// With the rights and the owner of what it is to replace.
    fn create(place: &Path, replaced: Option<&Metadata>) -> io::Result<Self> {
        let Some(name) = place.file_name().filter(|_| !place.is_dir()) else {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "this is a directory and no file"));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let temporary = place.with_file_name(hidden);
        let mode = replaced.map_or(NEW_FILE, |replaced| replaced.mode() & OWN_RIGHTS);
        let file = File::options().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        let partial = Self {
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            temporary,
            place: place.to_owned(),
            completed: false,
        };
        if let Some(replaced) = replaced {
            let file = partial.writer.get_ref();
            // Only root may give a file away; whoever may not has a file of his own, with rights for nobody else.
            if fchown(file, Some(replaced.uid()), Some(replaced.gid())).is_ok() {
                file.set_permissions(replaced.permissions())?;
            }
        }
        Ok(partial)
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out.jsonl");
        fs::write(&place, "old").unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("out.jsonl", &link).unwrap();
        for (path, before, after) in [(&place, "old", "new"), (&link, "new", "newer")] {
            let mut destination = Destination::open(path).unwrap();
            destination.writer().write_all(after.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), before);
            destination.complete().unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), after);
        }
        assert_eq!(names(folder.path()), ["link", "out.jsonl"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o600, "what was private stays private");
    }

    #[test]
    fn nothing_is_left_of_an_incomplete_file() {
        let folder = tempfile::tempdir().unwrap();
        drop(Destination::open(&folder.path().join("out.jsonl")).unwrap());
        assert!(names(folder.path()).is_empty());
        assert!(Destination::open(folder.path()).is_err());
    }

    #[test]
    fn what_is_no_file_is_written_to_as_it_is() {
        let device = Path::new("/dev/full");
        let mut destination = Destination::open(device).unwrap();
        destination.writer().write_all(b"x").unwrap();
        assert_eq!(destination.complete().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!fs::metadata(device).unwrap().is_file());
    }
}
