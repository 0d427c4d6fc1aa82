//! `memcell codec`: making a dictionary for the compression of a backend, and saying what it gains.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::progress::Progress;
use super::{Exit, Failure, output, session};
use crate::clock::unix_millis;
use crate::codec::training::{self, Sizes};
use crate::codec::{Dictionary, Format, MAX_DICTIONARY_BYTES, write_payload};
use crate::config::{BackendConfig, Config, ValueFormat, parse_bytes};
use crate::memcell::{MemCell, NewMemCell};
use crate::mongo::Route;
use crate::shutdown::Shutdown;
use crate::store::MemCellStore;

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum CodecCommand {
    /// Make a dictionary from documents, and say what it gains
    Train(TrainArgs),
}

const AFTER_TRAIN: &str = "\
Small documents have little in them that zstd could learn from, but much in common. A dictionary is what they have in common. It is trained
on documents of the collection, in the backend's format; one in five is not trained on, but used to find out what it gains.

The dictionary contains pieces of documents: keep it as safe as them, and for as long as there are values that need it.

Exit code 1: there are too few documents to learn from, or it failed.

Examples:
  memcell codec train --output local.dictionary
  memcell codec train --backend archive --size 64KiB --samples 50000 --output archive.dictionary
  memcell codec train --input conversations.jsonl --output local.dictionary";

/// Of the samples, one in so many is not trained on.
const HELD_OUT: usize = 5;

/// Bytes of samples that are kept at the most.
const MAX_SAMPLE_BYTES: usize = 256 * 1024 * 1024;

/// Ranges of the collection that samples are taken from, so that they are not all of one time.
const RANGES: usize = 64;

/// Fewer documents than this make no range of their own.
const SMALLEST_RANGE: u64 = 25_000;

/// Arguments of `memcell codec train`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_TRAIN)]
pub(super) struct TrainArgs {
    /// The file to write; one that exists is not overwritten, for there may be values that need it
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// For which backend; can be left out if there is only one
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// The size of the dictionary at the most
    #[arg(long, value_name = "SIZE", default_value = "112KiB", value_parser = size)]
    size: usize,
    /// How many documents are looked at, at the most
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    samples: u32,
    /// Documents to learn from, one a line, in place of those of the collection: JSON as `memcell export` or mongoexport writes it
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes
        .filter(|bytes| (1024..=MAX_DICTIONARY_BYTES).contains(bytes))
        .ok_or_else(|| "expected a size from 1KiB to 16MiB, such as 112KiB".to_owned())
}

/// Carries one out.
pub(super) fn run(command: CodecCommand, config: Config, json: bool) -> Result<Exit, Failure> {
    let CodecCommand::Train(args) = command;
    let backend = chosen(&config, args.backend.as_deref())?;
    let mut samples = Samples::new(&backend, args.samples as usize);
    if args.output.exists() {
        return Err(exists(&args.output));
    }
    match &args.input {
        Some(input) => samples.read(input)?,
        None => {
            session::with_store(&session::without_backends(config), async |store, shutdown| {
                samples.draw(store, shutdown, json).await?;
                Ok(Exit::Fine)
            })?;
        }
    }
    let trained = Trained::new(samples, &args, &backend)?;
    trained.print(&args.output, json)?;
    Ok(Exit::Fine)
}

fn exists(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} exists already, and there may be values that need it: choose another name",
        path.display()
    ))
}

/// The backend of this name, or the only one.
fn chosen(config: &Config, name: Option<&str>) -> Result<BackendConfig, Failure> {
    let names = || config.backends.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.backends.as_slice()) {
        (_, []) => Err(Failure::Usage("no backend is configured".to_owned())),
        (None, [backend]) => Ok(backend.clone()),
        (None, _) => Err(Failure::Usage(format!("there are several backends, name one (`--backend`): {}", names()))),
        (Some(name), all) => {
            let backend = all.iter().find(|backend| backend.name == name).cloned();
            backend.ok_or_else(|| Failure::Usage(format!("there is no backend {name:?}, there is {}", names())))
        }
    }
}

/// Payloads as the backend would have them.
struct Samples {
    format: Format,
    most: usize,
    payloads: Vec<Vec<u8>>,
    bytes: usize,
}

impl Samples {
    fn new(backend: &BackendConfig, most: usize) -> Self {
        let format = match backend.format {
            ValueFormat::Json => Format::Json,
            ValueFormat::Bson => Format::Bson,
        };
        Self { format, most, payloads: Vec::new(), bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.payloads.len() >= self.most || self.bytes >= MAX_SAMPLE_BYTES
    }

    fn add(&mut self, cell: &MemCell) -> Result<(), Failure> {
        let mut payload = Vec::new();
        write_payload(self.format, cell, &mut payload)?;
        self.bytes += payload.len();
        self.payloads.push(payload);
        Ok(())
    }

    /// Takes the lines of a file.
    fn read(&mut self, path: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io(path.display(), &error);
        let lines = BufReader::new(File::open(path).map_err(failed)?).lines();
        for (line, number) in lines.zip(1_u64..) {
            let line = line.map_err(failed)?;
            if self.is_full() {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |error: crate::Error| Failure::Work(format!("{}:{number}: {error}", path.display()));
            let now = unix_millis();
            let cell = NewMemCell::from_import_line(&line).map_err(wrong)?;
            let cell = cell.into_memcell(now << 20, i64::try_from(now).unwrap_or(i64::MAX)).map_err(wrong)?;
            self.add(&cell)?;
        }
        Ok(())
    }

    /// Takes documents from all over the collection.
    async fn draw(&mut self, store: &MemCellStore, shutdown: &Shutdown, silent: bool) -> Result<(), Failure> {
        let documents = store.repository().estimated_count().await?;
        let ranges = store.repository().worthwhile_ranges(documents, SMALLEST_RANGE, RANGES).await?;
        let each = self.most.div_ceil(ranges.len().max(1));
        let mut progress = Progress::start("read", None, silent);
        for range in ranges {
            let mut walk = store.repository().walk(Route::Ids(range));
            let mut taken = 0;
            while taken < each && !self.is_full() {
                let batch = tokio::select! {
                    batch = walk.next() => batch?,
                    () = shutdown.requested() => {
                        progress.finish();
                        return Err(Failure::Work("interrupted".to_owned()));
                    }
                };
                for cell in batch.documents.iter().filter(|cell| !cell.is_deleted()).take(each - taken) {
                    self.add(cell)?;
                    taken += 1;
                    progress.advance(0, 1);
                }
                if batch.next.is_none() {
                    break;
                }
            }
        }
        progress.finish();
        Ok(())
    }
}

/// What came of it.
#[derive(Serialize)]
struct Trained {
    dictionary: String,
    dictionary_bytes: usize,
    trained_on: usize,
    measured_on: usize,
    raw_bytes: u64,
    zstd_bytes: u64,
    dictionary_zstd_bytes: u64,
    #[serde(skip)]
    backend: String,
}

impl Trained {
    fn new(samples: Samples, args: &TrainArgs, backend: &BackendConfig) -> Result<Self, Failure> {
        let mut held_out = Vec::with_capacity(samples.payloads.len() / HELD_OUT + 1);
        let mut learned = Vec::with_capacity(samples.payloads.len());
        for (index, payload) in samples.payloads.into_iter().enumerate() {
            if index % HELD_OUT == HELD_OUT - 1 { held_out.push(payload) } else { learned.push(payload) }
        }
        let bytes = training::train(&learned, args.size)?;
        let level = backend.compression_level;
        let dictionary = Dictionary::new(&bytes, level)
            .map_err(|reason| Failure::Work(format!("what zstd has made of the documents {reason}")))?;
        let Sizes { raw, zstd, dictionary: with_dictionary } = training::measure(&held_out, level, &dictionary)?;
        write(&args.output, &bytes)?;
        Ok(Self {
            dictionary: dictionary.id().to_string(),
            dictionary_bytes: bytes.len(),
            trained_on: learned.len(),
            measured_on: held_out.len(),
            raw_bytes: raw,
            zstd_bytes: zstd,
            dictionary_zstd_bytes: with_dictionary,
            backend: backend.name.clone(),
        })
    }

    fn print(&self, path: &Path, json: bool) -> Result<(), Failure> {
        if json {
            return output::json_line(self);
        }
        let ratio = |bytes: u64| format!("{bytes} bytes, {:.2} to 1", self.raw_bytes as f64 / bytes.max(1) as f64);
        output::line(&format!(
            "{}: the dictionary {}, {} bytes, trained on {} documents",
            path.display(),
            self.dictionary,
            self.dictionary_bytes,
            self.trained_on
        ))?;
        output::line(&format!("{} other documents take", self.measured_on))?;
        output::line(&format!("  as they are:            {} bytes", self.raw_bytes))?;
        output::line(&format!("  zstd alone:             {}", ratio(self.zstd_bytes)))?;
        output::line(&format!("  zstd with it:           {}", ratio(self.dictionary_zstd_bytes)))?;
        output::line(&format!(
            "to use it, write compression = \"zstd\" and dictionary = \"{}\" in [backends.{}]",
            path.display(),
            self.backend
        ))
    }
}

/// Writes a file that is there only as a whole, and that nobody else can read: it has pieces of documents in it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::io(path.display(), &error),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // What is there is of no use; the error says why.
        let _ = std::fs::remove_file(path);
    }
    written.map_err(failed)
}
