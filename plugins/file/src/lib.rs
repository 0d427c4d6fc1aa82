//! A backend that keeps its records in a database file, on the storage engine `redb`, inside the sandbox.
//!
//! It needs a directory (`directory` in `[backends.NAME.grants]`) and has one file per shard there, `shard-N.redb`. Beside it
//! lie `shard-N.reserve`, 4 MiB of room that deletes fall back on when the disk is full, and, after a crash of the plugin,
//! `shard-N.incidents`.
//!
//! Values of 512 bytes to 8 KiB that come in batches are kept together in runs of pages. What is replaced or deleted there stays until
//! it is more than half of its run; then the rest moves to another one.
//!
//! # Settings
//! - `durability`: what an answer means.
//!   - `flush` (the default): a batch is on the disk when the next `flush` is answered, or before. The host asks for that before it
//!     counts on a batch, so that nothing is lost to it. A crash of the host, of its machine or of the plugin takes back what came
//!     after the last one, whole batches, the latest first; never part of a batch. At most about 32 MiB can be lost that way. If the
//!     disk fails or is full, the same is lost: the next `flush` says so, and puts are refused until then. From the time on that
//!     the disk was full, less is at stake each time, down to single batches.
//!   - `immediate`: a batch is on the disk (`fdatasync`) when it is answered. `flush` finds nothing left to do.
//! - `cache_size`: how much of the file is kept in the plugin's memory (default `64MiB`). Leave as much again, and room for the
//!   largest values, within `limits.memory`.
//! - `check_on_open`: `true` verifies the checksum of every page at each opening, which reads the whole file (default `false`).
//!   Without it, pages are verified after a crash only.
//! - `compact_limit`: closing compacts the file if more than half of it is free and it holds at most this much (default
//!   `64MiB`; `0`: never). What is moved has to be moved within `limits.call_timeout`. In any case free space is used again.
//!
//! What is prepared for a transaction (`two-phase` in the contract) and its commit are on the disk when they are answered, with either
//! durability.
//!
//! # What happens when
//! - **The host is killed.** The next opening finds the state of the last durable batch. Up to 256 MiB it verifies the whole
//!   file for that, which takes well under a second; a larger file is committed in a way that needs no verifying.
//! - **The disk is full.** Puts are `quota-exceeded`; reads and deletes go on. Puts work again when there is room: on the disk for
//!   `shard-N.reserve` (4 MiB, kept beside the file and given up to deletes when the disk is full), or after deletes.
//! - **The directory can't be written to.** Opening is refused, with a text that says so.
//! - **The file is damaged.** Opening, or the call that notices, is `corrupt`. Move the file away: the mirror fills a new one
//!   from MongoDB.

mod changes;
mod database;
mod disk;
mod failure;
mod incidents;
mod intents;
mod options;
mod packs;
mod place;
mod reserve;
mod row;

use std::path::Path;

use memcell_plugin::{
    Backend, Digest, Error, Header, Limits, Moment, Outcome, Record, Result, Rule, Settings, Stats, Step, Write,
};
use redb::backends::FileBackend;

use database::Database;
use disk::Disk;
use failure::{Cause, Failure};
use incidents::{History, Incidents};
use options::Options;
use place::{GRANTED, Place};
use reserve::Reserve;

/// The engine keeps a value in a run of pages whose length is a power of two: this still fits into 32 MiB. While it finds its
/// place it is in memory up to four times, beside the cache, which has to fit into the memory that an instance has by default.
const MAX_VALUE_BYTES: u32 = 32 * 1024 * 1024 - 64 * 1024;

/// See the module documentation.
pub struct FileStore {
    place: Place,
    options: Options,
    reserve: Reserve,
    /// `None` after the engine failed, until the next call opens it again.
    database: Option<Database>,
    /// Why writes that were answered are gone, until `flush` has said so.
    lost: Option<String>,
    /// How much may be written before it is made durable. Less once the disk was found full: what is replaced takes room until then,
    /// and what a full disk takes back has to be done again, so that it might never come to an end.
    most_unflushed_bytes: u64,
}

impl Backend for FileStore {
    fn open(shard: u32, settings: &mut Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        settings.finish()?;
        Self::open_in(Path::new(GRANTED), shard, options)
    }

    fn limits(&self) -> Limits {
        Limits { max_value_bytes: MAX_VALUE_BYTES, persistent: true, ..Limits::default() }
    }

    fn read(&mut self, key: &str) -> Result<Option<Record>> {
        Ok(self.call(|database| database.read_many(std::iter::once(key)))?.pop().flatten())
    }

    fn header(&mut self, key: &str) -> Result<Option<Header>> {
        self.call(|database| database.header(key))
    }

    fn read_many(&mut self, keys: &[String]) -> Result<Vec<Option<Record>>> {
        self.call(|database| database.read_many(keys.iter().map(String::as_str)))
    }

    /// As the default, but for copying the values.
    fn digest_many(&mut self, keys: &[String], head_bytes: usize, moment: &Moment) -> Result<Vec<Option<Digest>>> {
        self.call(|database| database.digest_many(keys, head_bytes, moment))
    }

    fn write(&mut self, key: String, record: Record) -> Result<()> {
        self.require_room(put_bytes(&key, &record))?;
        self.call(|database| database.write(&key, &record))
    }

    /// Nothing: each batch clears away some of what has expired.
    fn forget(&mut self, _key: &str, _seen: &Header) -> Result<()> {
        Ok(())
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
        self.call(|database| database.scan(cursor, limit))
    }

    fn apply(&mut self, writes: Vec<Write>, rule: &Rule) -> Result<Vec<Outcome>> {
        self.require_room(writes.iter().map(|write| put_bytes(&write.key, &write.record)).sum())?;
        self.call(|database| database.apply(&writes, rule))
    }

    fn prepare(&mut self, transaction: String, writes: Vec<Write>) -> Result<()> {
        self.require_room(writes.iter().map(|write| put_bytes(&write.key, &write.record)).sum())?;
        self.call(|database| database.prepare(&transaction, &writes))
    }

    fn commit(&mut self, transaction: &str, rule: &Rule) -> Result<()> {
        self.call(|database| database.commit(transaction, rule))
    }

    fn abort(&mut self, transaction: &str) -> Result<()> {
        self.call(|database| database.abort(transaction))
    }

    fn in_doubt(&mut self) -> Result<Vec<String>> {
        self.call(|database| database.in_doubt())
    }

    fn stats(&mut self, moment: &Moment) -> Result<Stats> {
        // Clearing is only tidiness, and not worth the room that is left when there is little.
        if self.reserve.is_there() {
            match self.call(|database| database.clear_expired(moment)) {
                Ok(()) | Err(Error::QuotaExceeded(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.call(|database| database.stats(moment))
    }

    fn flush(&mut self) -> Result<()> {
        self.call(Database::flush)?;
        match self.lost.take() {
            Some(reason) => Err(lost(&reason)),
            None => Ok(()),
        }
    }

    fn health(&mut self) -> Result<()> {
        self.call(|database| database.check())
    }

    fn close(mut self) -> Result<()> {
        self.flush()?;
        match self.database.take() {
            Some(database) => database.close().map_err(|failure| failure.told(&self.place.database_name())),
            None => Ok(()),
        }
    }
}

impl FileStore {
    /// Opens shard number `shard` in a directory.
    fn open_in(directory: &Path, shard: u32, options: Options) -> Result<Self> {
        let place = Place::new(directory, shard)?;
        #[cfg(target_family = "wasm")]
        Incidents::new(place.incidents()).watch();
        let mut reserve = Reserve::new(place.reserve());
        let database = open_database(&place, options, &mut reserve)?;
        Ok(Self { place, options, reserve, database: Some(database), lost: None, most_unflushed_bytes: u64::MAX })
    }

    /// Makes sure that puts of that many bytes in all don't take the room that deletes need, nor hide a loss.
    fn require_room(&mut self, put_bytes: u64) -> Result<()> {
        if put_bytes == 0 {
            return Ok(());
        }
        if let Some(reason) = &self.lost {
            return Err(lost(reason));
        }
        if self.reserve.is_there() {
            return Ok(());
        }
        let held_bytes = self.call(|database| Ok(database.held_bytes()))?;
        self.reserve.require(&self.place.database_name(), held_bytes, put_bytes)
    }

    /// Does something with the database, which is opened again first if the engine has failed or found damage since.
    fn call<R>(&mut self, work: impl FnOnce(&mut Database) -> Result<R, Failure>) -> Result<R> {
        let mut database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.place, self.options, &mut self.reserve).map_err(for_now)?,
        };
        database.set_room(!self.reserve.is_there(), self.most_unflushed_bytes);
        let failure = match work(&mut database) {
            Ok(answer) => {
                self.database = Some(database);
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        let (cause, is_engine) = (failure.cause(), matches!(failure, Failure::Engine(_)));
        if cause == Cause::Damaged {
            Incidents::new(self.place.incidents()).add(&failure.to_string());
        }
        let error = failure.told(&self.place.database_name());
        if !is_engine && cause != Cause::Damaged {
            self.database = Some(database);
            return Err(error);
        }
        if cause == Cause::Full {
            self.reserve.found_full(database.held_bytes());
            self.most_unflushed_bytes = self.most_unflushed_bytes.min(database.unflushed_bytes() / 4);
        }
        if database.unflushed_bytes() > 0 {
            self.lost = Some(error.to_string());
        }
        Err(error)
    }
}

/// An error of opening anew what was open before: whatever keeps it from that, it says nothing of the call at hand, which can be repeated
/// later.
fn for_now(error: Error) -> Error {
    match error {
        Error::InvalidArgument(text) => Error::unavailable(text),
        error => error,
    }
}

/// What is said by the `flush` after writes that were answered are gone, and by puts until then.
fn lost(reason: &str) -> Error {
    Error::unavailable(format!("writes since the last flush are lost: {reason}"))
}

/// The bytes of key and value of an entry; 0 for a tombstone.
fn put_bytes(key: &str, record: &Record) -> u64 {
    record.value.as_ref().map_or(0, |value| (key.len() + value.len()) as u64)
}

fn open_database(place: &Place, options: Options, reserve: &mut Reserve) -> Result<Database> {
    let name = place.database_name();
    let incidents = Incidents::new(place.incidents());
    if place.is_new() {
        incidents.clear();
    }
    let history = incidents.history();
    if let History::Hopeless(first) = history {
        let incidents = place.incidents_name();
        let found = format_args!(
            "it made the plugin crash or hang (whoever has put a sound copy in its place since removes {incidents}, which remembers \
             that), first so: {first}"
        );
        return Err(failure::damaged(&name, found));
    }
    let is_suspect = history == History::Suspect;
    if is_suspect {
        incidents.add("a check of the whole file was begun");
    }
    let open = || -> Result<Database, Failure> {
        let file = FileBackend::new(place.open_database()?)?;
        Database::open(Disk::new(file), place.shard(), options, options.check_on_open || is_suspect)
    };
    let opened = open().or_else(|failure| match failure.cause() {
        // Recovery writes a few pages.
        Cause::Full if reserve.release() => open(),
        _ => Err(failure),
    });
    if is_suspect && opened.is_ok() {
        incidents.clear();
    }
    opened.map_err(|failure| failure.told(&name))
}

memcell_plugin::export!(FileStore);

#[cfg(test)]
mod tests;
