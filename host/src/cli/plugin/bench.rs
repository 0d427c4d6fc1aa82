//! `memcell plugin bench`: what calls of a plugin cost, beside another plugin and a native map.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::subject::{self, Subject};
use super::{Exit, Failure, output, report};
use crate::kv::{Condition, Entry, KvError, Mark, Trial, Trials};

const AFTER_HELP: &str = "\
Calls one instance directly, one call at a time, as a shard does. Each row is an operation and a batch size: items per second, and how long a
call takes, as percentiles of all calls; the last column compares the medians. The contenders take turns, so that a busy machine disturbs all of them.

The native map is a HashMap in this process, which copies each value in and out: what no sandbox can beat. The baseline is another plugin:
--baseline, else in_memory.wasm beside FILE, in ./plugins or in ./target/plugins; without any of them there is none, and that is said.

Keys begin with `mcb-` and are removed in the end. Use a release build of memcell for figures that mean anything.

Examples:
  memcell plugin bench my.wasm --directory ./scratch
  memcell plugin bench my.wasm --baseline target/plugins/in_memory.wasm --value-bytes 200 --batch 1 --batch 256 --json";

/// Turns that each contender has at each row.
const TURNS: u32 = 8;

/// Marks in a page of a scan.
const PAGE: u32 = 1000;

/// Arguments of `memcell plugin bench`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct BenchArgs {
    #[command(flatten)]
    subject: Subject,
    /// The plugin to compare with
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How many keys there are
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// How large each value is
    #[arg(long, value_name = "NUMBER", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(0..=16 << 20))]
    value_bytes: u32,
    /// Items in a call; may be repeated
    #[arg(long = "batch", value_name = "NUMBER", default_values_t = [1, 100], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: Vec<u32>,
    /// How long each contender is measured at each row
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    time: u64,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Put,
    Get,
    Scan,
    Delete,
}

/// One contender at one row.
#[derive(Serialize)]
struct Row {
    operation: &'static str,
    batch: u32,
    contender: &'static str,
    file: Option<String>,
    calls: usize,
    items_per_second: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// Whoever is measured.
struct Contender {
    kind: &'static str,
    file: Option<PathBuf>,
    store: Store,
    max_batch: u32,
    latencies: Vec<u64>,
    items: u64,
}

enum Store {
    Plugin(Box<Trial>),
    Native(HashMap<String, (u64, Vec<u8>)>),
}

/// What the contenders work on.
struct Load {
    keys: Vec<String>,
    value: Vec<u8>,
    /// Rises with every call, so that no write is stale.
    stamp: u64,
    next: usize,
}

/// Carries it out.
pub(super) fn run(args: &BenchArgs, config: &Path, json: bool) -> Result<Exit, Failure> {
    if cfg!(debug_assertions) {
        output::note(format_args!(
            "this is a debug build of memcell: its own share of each call is many times what it ought to be"
        ));
    }
    let backend = args.subject.config(config)?;
    let baseline = args.baseline.clone().or_else(|| usual_baseline(backend.plugin.file()));
    let mut contenders = vec![Contender::plugin("plugin", args.subject.trials(config)?)?];
    match baseline {
        Some(file) => contenders.push(Contender::plugin("baseline", plain(file)?)?),
        None => output::note(format_args!("there is no in_memory.wasm to compare with; --baseline names one")),
    }
    let most = contenders.iter().map(|contender| contender.max_batch).min().unwrap_or(u32::MAX);
    contenders.push(Contender::native());
    let batches = batches_of(&args.batches, most);
    let mut load = Load::new(args);
    let outcome = measure(args, &batches, &mut contenders, &mut load, json);
    // Whatever came of it, nothing is left behind.
    for contender in &mut contenders {
        contender
            .clear(&load)
            .map_err(|error| Failure::Work(format!("removing the keys of the {}: {error}", contender.kind)))?;
    }
    outcome.map(|()| Exit::Fine)
}

fn measure(
    args: &BenchArgs,
    batches: &[u32],
    contenders: &mut [Contender],
    load: &mut Load,
    json: bool,
) -> Result<(), Failure> {
    if !json {
        output::write(heading(args, contenders).as_bytes())?;
    }
    for contender in contenders.iter_mut() {
        contender.fill(load).map_err(|error| Failure::Work(format!("filling the {}: {error}", contender.kind)))?;
    }
    let rows = [Operation::Put, Operation::Get, Operation::Delete];
    let rows = rows.into_iter().flat_map(|operation| batches.iter().map(move |batch| (operation, *batch)));
    for (operation, batch) in std::iter::once((Operation::Scan, PAGE)).chain(rows) {
        let turn = Duration::from_millis(args.time) / TURNS;
        for contender in contenders.iter_mut() {
            contender.latencies.clear();
            contender.items = 0;
        }
        for _ in 0..TURNS {
            for contender in contenders.iter_mut() {
                contender.turn(operation, batch, turn, load).map_err(|error| {
                    Failure::Work(format!("{} of {batch} by the {}: {error}", operation.name(), contender.kind))
                })?;
            }
        }
        let rows: Vec<Row> = contenders.iter_mut().map(|contender| contender.row(operation, batch)).collect();
        let native = rows.last().map_or(0.0, |row| row.p50_us);
        for row in &rows {
            if json {
                output::json_line(row)?;
            } else {
                output::line(&line(row, row.p50_us / native))?;
            }
        }
    }
    Ok(())
}

/// The sizes to measure, smallest first: those asked for, but no larger than what every contender takes, so that all do the same.
fn batches_of(asked: &[u32], most: u32) -> Vec<u32> {
    for batch in asked.iter().filter(|batch| **batch > most) {
        output::note(format_args!(
            "not every plugin takes batches of {batch}: they are cut to {most}, for all of them"
        ));
    }
    let mut batches: Vec<u32> = asked.iter().map(|batch| *batch.min(&most)).collect();
    batches.sort_unstable();
    batches.dedup();
    batches
}

/// Another plugin, with nothing granted and nothing set.
fn plain(file: PathBuf) -> Result<Trials, Failure> {
    let backend = subject::unconfigured("baseline", file.into());
    let plugin = subject::load(&backend)?;
    Trials::new(plugin, backend).map_err(|error| Failure::Work(error.to_string()))
}

fn usual_baseline(file: Option<&Path>) -> Option<PathBuf> {
    const NAME: &str = "in_memory.wasm";
    let beside = file.and_then(Path::parent).map(|folder| folder.join(NAME));
    let places = [beside, Some(Path::new("plugins").join(NAME)), Some(Path::new("target/plugins").join(NAME))];
    places.into_iter().flatten().find(|place| place.is_file())
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Scan => "scan",
            Self::Delete => "delete",
        }
    }
}

impl Load {
    fn new(args: &BenchArgs) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = since_epoch.subsec_nanos();
        let keys = (0..args.keys).map(|number| format!("mcb-{run:08x}-{number:024x}")).collect();
        let stamp = u64::try_from(since_epoch.as_millis()).unwrap_or(0) << 20;
        Self { keys, value: vec![7; args.value_bytes as usize], stamp, next: 0 }
    }

    /// The next keys in turn.
    fn some_keys(&mut self, count: usize) -> Vec<String> {
        let keys = &self.keys;
        let from = self.next;
        self.next = (from + count) % keys.len().max(1);
        keys.iter().cycle().skip(from).take(count).cloned().collect()
    }

    fn entries(&mut self, keys: &[String]) -> Vec<Entry> {
        self.stamp += 1;
        let (stamp, value) = (self.stamp, &self.value);
        keys.iter().map(|key| Entry { key: key.clone(), stamp, expires_at: None, value: value.clone() }).collect()
    }
}

impl Contender {
    fn plugin(kind: &'static str, trials: Trials) -> Result<Self, Failure> {
        let file = trials.plugin().path().to_path_buf();
        let opened = trials.open(0).and_then(|trial| Ok((trial.capabilities()?, trial)));
        let (capabilities, trial) = opened.map_err(|error| Failure::Work(format!("{}: {error}", file.display())))?;
        let store = Store::Plugin(Box::new(trial));
        Ok(Self { kind, file: Some(file), store, max_batch: capabilities.max_batch, latencies: Vec::new(), items: 0 })
    }

    fn native() -> Self {
        let store = Store::Native(HashMap::new());
        Self { kind: "native", file: None, store, max_batch: u32::MAX, latencies: Vec::new(), items: 0 }
    }

    fn fill(&mut self, load: &mut Load) -> Result<(), KvError> {
        let keys = load.keys.clone();
        for part in keys.chunks(100.min(self.max_batch as usize)) {
            let entries = load.entries(part);
            self.store.put(&entries)?;
        }
        Ok(())
    }

    fn clear(&mut self, load: &Load) -> Result<(), KvError> {
        let Store::Plugin(trial) = &mut self.store else { return Ok(()) };
        // Forgotten as soon as they come: not even tombstones stay.
        let mark = |key: &String| Mark { key: key.clone(), stamp: u64::MAX, expires_at: Some(1) };
        for part in load.keys.chunks(100.min(self.max_batch as usize)) {
            trial.delete_many(&part.iter().map(mark).collect::<Vec<_>>(), Condition::Newer)?;
        }
        trial.close()
    }

    /// Calls again and again for so long. What a call works on is made ready before its time begins.
    fn turn(&mut self, operation: Operation, batch: u32, turn: Duration, load: &mut Load) -> Result<(), KvError> {
        let count = batch as usize;
        let until = Instant::now() + turn;
        let mut cursor = None;
        while Instant::now() < until {
            let (elapsed, items) = match operation {
                Operation::Put => {
                    let keys = load.some_keys(count);
                    let entries = load.entries(&keys);
                    (timed(|| self.store.put(&entries))?.0, count)
                }
                Operation::Get => {
                    let keys = load.some_keys(count);
                    (timed(|| self.store.get(&keys))?.0, count)
                }
                Operation::Delete => {
                    // What is deleted has to be there.
                    let keys = load.some_keys(count);
                    let entries = load.entries(&keys);
                    self.store.put(&entries)?;
                    load.stamp += 1;
                    let stamp = load.stamp;
                    let marks: Vec<Mark> = keys.into_iter().map(|key| Mark { key, stamp, expires_at: None }).collect();
                    (timed(|| self.store.delete(&marks))?.0, count)
                }
                Operation::Scan => {
                    let (elapsed, (next, items)) = timed(|| self.store.scan(cursor.as_deref()))?;
                    cursor = next;
                    (elapsed, items)
                }
            };
            self.latencies.push(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
            self.items += items as u64;
        }
        Ok(())
    }

    fn nanos_per_item(&self) -> f64 {
        self.latencies.iter().sum::<u64>() as f64 / self.items.max(1) as f64
    }

    fn row(&mut self, operation: Operation, batch: u32) -> Row {
        self.latencies.sort_unstable();
        let microseconds = |nanos: u64| nanos as f64 / 1000.0;
        let percentile = |percent: usize| microseconds(nearest_rank(&self.latencies, percent));
        Row {
            operation: operation.name(),
            batch,
            contender: self.kind,
            file: self.file.as_ref().map(|file| file.display().to_string()),
            calls: self.latencies.len(),
            items_per_second: 1e9 / self.nanos_per_item().max(f64::MIN_POSITIVE),
            p50_us: percentile(50),
            p90_us: percentile(90),
            p99_us: percentile(99),
            max_us: microseconds(self.latencies.last().copied().unwrap_or(0)),
        }
    }
}

impl Store {
    fn put(&mut self, entries: &[Entry]) -> Result<(), KvError> {
        match self {
            Self::Plugin(trial) => trial.put_many(entries, Condition::Newer).map(drop),
            Self::Native(map) => {
                for entry in entries {
                    map.insert(entry.key.clone(), (entry.stamp, entry.value.clone()));
                }
                Ok(())
            }
        }
    }

    fn get(&mut self, keys: &[String]) -> Result<(), KvError> {
        match self {
            Self::Plugin(trial) => trial.get_many(keys).map(drop),
            Self::Native(map) => {
                let found: Vec<Option<(u64, Vec<u8>)>> = keys.iter().map(|key| map.get(key).cloned()).collect();
                drop(std::hint::black_box(found));
                Ok(())
            }
        }
    }

    fn delete(&mut self, marks: &[Mark]) -> Result<(), KvError> {
        match self {
            Self::Plugin(trial) => trial.delete_many(marks, Condition::Newer).map(drop),
            Self::Native(map) => {
                for mark in marks {
                    std::hint::black_box(map.remove(&mark.key));
                }
                Ok(())
            }
        }
    }

    /// The next page: where to go on, and how many marks there were.
    fn scan(&mut self, cursor: Option<&str>) -> Result<(Option<String>, usize), KvError> {
        match self {
            Self::Plugin(trial) => trial.scan(cursor, PAGE).map(|page| (page.next, page.marks.len())),
            Self::Native(map) => {
                let marks: Vec<(String, u64)> =
                    map.iter().take(PAGE as usize).map(|(key, (stamp, _))| (key.clone(), *stamp)).collect();
                Ok((None, std::hint::black_box(marks).len()))
            }
        }
    }
}

fn timed<T>(call: impl FnOnce() -> Result<T, KvError>) -> Result<(Duration, T), KvError> {
    let started = Instant::now();
    let answer = call()?;
    Ok((started.elapsed(), answer))
}

/// The smallest value that so many per cent of all values don't exceed; 0 of nothing.
fn nearest_rank(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn heading(args: &BenchArgs, contenders: &[Contender]) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    for contender in contenders {
        let file = contender.file.as_ref().map_or_else(|| "a HashMap".to_owned(), |file| file.display().to_string());
        let _ = writeln!(text, "{:<9} {file}", contender.kind);
    }
    let _ = writeln!(
        text,
        "{} keys, values of {}, {} ms each\n",
        args.keys,
        report::size(u64::from(args.value_bytes)),
        args.time
    );
    let _ = writeln!(
        text,
        "{:<10}{:>6}  {:<10}{:>12}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "operation", "batch", "contender", "items/s", "p50 µs", "p90 µs", "p99 µs", "max µs", "× native"
    );
    text
}

fn line(row: &Row, ratio: f64) -> String {
    format!(
        "{:<10}{:>6}  {:<10}{:>12.0}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>11.2}",
        row.operation,
        row.batch,
        row.contender,
        row.items_per_second,
        row.p50_us,
        row.p90_us,
        row.p99_us,
        row.max_us,
        ratio
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(
            (nearest_rank(&hundred, 50), nearest_rank(&hundred, 99), nearest_rank(&hundred, 100)),
            (50, 99, 100)
        );
        assert_eq!((nearest_rank(&[7], 50), nearest_rank(&[7], 99), nearest_rank(&[], 50)), (7, 7, 0));
        assert_eq!(nearest_rank(&[1, 2, 3], 90), 3);
    }
}
