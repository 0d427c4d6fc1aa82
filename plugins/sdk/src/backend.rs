//! What the author of a backend implements.

use crate::answer::AnswerBytes;
use crate::digest::{DIGESTS_AT_A_TIME, Digest};
use crate::error::{Error, Result};
use crate::record::{Header, Record};
use crate::rules::{Moment, Outcome, Rule};
use crate::settings::Settings;

/// A store of records by key.
///
/// An implementation keeps records and knows nothing of the contract's rules: it is told what to store, hands out what it has,
/// tombstones and expired records included, and the SDK derives the rest. There is at most one backend per component instance,
/// and one call at a time. A panic costs the instance, whose state is then lost as far as it wasn't flushed.
///
/// Sizes are checked against [`Backend::limits`] before a call gets here; keys are never empty.
pub trait Backend: Sized + 'static {
    /// Opens the backend for shard number `shard`. Getters of `settings` consume the names they ask for.
    ///
    /// Names that were not asked for are refused by the SDK afterwards; an implementation that creates or connects to something
    /// calls [`Settings::finish`] before it does.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for settings that can't be honoured; whatever fits if the store can't be had. `open` may be
    /// called again after an error.
    fn open(shard: u32, settings: &mut Settings) -> Result<Self>;

    /// What the backend takes and is. Asked once, after `open`.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// The record of `key`, whatever it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is one that can't be understood; whatever fits otherwise.
    fn read(&mut self, key: &str) -> Result<Option<Record>>;

    /// Makes `record` the record of `key`, in place of what is there.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] for an entry that finds no room; a tombstone must find some. Whatever fits otherwise.
    fn write(&mut self, key: String, record: Record) -> Result<()>;

    /// Frees the place of an expired record. `seen` is how it was found: where others write to the same store, it may be
    /// another one by now, and must then stay. A store that expires records by itself does nothing here.
    ///
    /// # Errors
    /// Whatever fits; the scan in which the record was found fails with it.
    fn forget(&mut self, key: &str, seen: &Header) -> Result<()>;

    /// Lists what is there, of any kind, about `limit` records a step (`limit` ≥ 1), from where `cursor` (the `next` of the
    /// step before; `None`: the beginning) says. A record that is there during the whole scan must occur at least once, also
    /// if others come and go between the steps. [`after_cursor`] makes cursors for stores that are sorted by key.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a cursor that this backend did not make; whatever fits otherwise.
    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step>;

    /// The header of the record of `key`: what writes are judged by. The default reads the record; a store that can do without
    /// copying the value should.
    ///
    /// # Errors
    /// As [`Backend::read`].
    fn header(&mut self, key: &str) -> Result<Option<Header>> {
        Ok(self.read(key)?.map(|record| record.header()))
    }

    /// The records of `keys`, one answer per key, in their order. The default calls [`Backend::read`] for each; a store with
    /// round trips should ask once.
    ///
    /// # Errors
    /// As [`Backend::read`]; [`Error::TooLarge`] for several keys whose values take more than [`MAX_ANSWER_BYTES`](crate::MAX_ANSWER_BYTES) together: the
    /// host asks for fewer at a time then.
    fn read_many(&mut self, keys: &[String]) -> Result<Vec<Option<Record>>> {
        let mut answer = AnswerBytes::default();
        keys.iter()
            .map(|key| {
                let record = self.read(key)?;
                answer.add(record.as_ref().and_then(|record| record.value.as_ref()).map_or(0, Vec::len))?;
                Ok(record)
            })
            .collect()
    }

    /// Carries out `writes` in their order, each if `rule` allows, and answers for each. The default asks
    /// [`Backend::header`], [`Rule::judge`], and calls [`Backend::write`].
    ///
    /// Override it to make one transaction of a batch. A store that others write to as well **must** override it: judging and
    /// writing have to be one atomic step.
    ///
    /// # Errors
    /// As [`Backend::write`]. Some of the writes may then have been carried out.
    fn apply(&mut self, writes: Vec<Write>, rule: &Rule) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for Write { key, mut record } in writes {
            let stored = self.header(&key)?;
            outcomes.push(match rule.judge(stored, record.stamp) {
                Some(stamp) => {
                    record.stamp = stamp;
                    self.write(key, record)?;
                    Outcome::Applied
                }
                None => Outcome::Stale,
            });
        }
        Ok(outcomes)
    }

    /// The digests of the entries of `keys` that have not expired at `moment`. The default makes them from
    /// [`Backend::read_many`], at most [`DIGESTS_AT_A_TIME`] values at a time; a store that has its values at hand can do without copying
    /// them.
    ///
    /// # Errors
    /// As [`Backend::read`].
    fn digest_many(&mut self, keys: &[String], head_bytes: usize, moment: &Moment) -> Result<Vec<Option<Digest>>> {
        let mut digests = Vec::with_capacity(keys.len());
        let mut waiting: Vec<&[String]> = keys.chunks(DIGESTS_AT_A_TIME).rev().collect();
        while let Some(keys) = waiting.pop() {
            match self.read_many(keys) {
                Err(Error::TooLarge(_)) if keys.len() > 1 => {
                    let (first, second) = keys.split_at(keys.len() / 2);
                    waiting.extend([second, first]);
                }
                records => {
                    digests.extend(records?.iter().map(|record| Digest::of(record.as_ref()?, head_bytes, moment)));
                }
            }
        }
        Ok(digests)
    }

    /// Writes that are not [`Condition::Newer`](crate::Condition::Newer) are made under this token from now on: a record keeps the
    /// largest token that it was written under so, and the write of a smaller one is stale. Only a shared store has a use for it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by default.
    fn hold(&mut self, _token: u64) -> Result<()> {
        Err(Error::unsupported("this backend keeps nobody out: it is not shared"))
    }

    /// Keeps `writes` as the intent of a transaction, in the place of the one that it has, if any: out of sight, and durable when
    /// this returns if the backend is persistent. Only a store of one host has a use for it, and for the three that follow.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by default; [`Error::QuotaExceeded`] where an entry among the writes would find no room. After an
    /// error, the transaction has no intent, or the one that it had.
    fn prepare(&mut self, _transaction: String, _writes: Vec<Write>) -> Result<()> {
        Err(no_intents())
    }

    /// Carries out the intent of a transaction, each write if `rule` allows, and removes it, all in one atomic step; durable when
    /// this returns if the backend is persistent. A transaction without an intent is fine.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by default. After an error, the intent is there as it was.
    fn commit(&mut self, _transaction: &str, _rule: &Rule) -> Result<()> {
        Err(no_intents())
    }

    /// Removes the intent of a transaction; one without an intent is fine.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by default.
    fn abort(&mut self, _transaction: &str) -> Result<()> {
        Err(no_intents())
    }

    /// The transactions that have an intent.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by default.
    fn in_doubt(&mut self) -> Result<Vec<String>> {
        Err(no_intents())
    }

    /// Counts the entries that have not expired at `moment`. The default scans everything, and counts an entry twice that the
    /// scan finds twice: good enough for small stores only.
    ///
    /// # Errors
    /// Whatever fits.
    fn stats(&mut self, moment: &Moment) -> Result<Stats> {
        const STEP: usize = 1000;
        let mut stats = Stats::default();
        let mut cursor: Option<String> = None;
        // A cursor that was there before leads round in a circle; compared with one of ever longer ago, it is found out.
        let (mut before, mut steps, mut lap) = (None, 0_u64, 1);
        loop {
            let step = self.scan(cursor.as_deref(), STEP)?;
            for Found { key, header } in step.found {
                if let Some(value_bytes) = header.value_bytes
                    && !moment.has_passed(header.expires_at)
                {
                    stats.entries += 1;
                    stats.bytes += (key.len() + value_bytes) as u64;
                }
            }
            let Some(next) = step.next else { return Ok(stats) };
            if before.as_ref() == Some(&next) {
                return Err(Error::other("the scan doesn't end: it comes by the same cursor again"));
            }
            steps += 1;
            if steps == lap {
                (before, steps, lap) = (Some(next.clone()), 0, lap * 2);
            }
            cursor = Some(next);
        }
    }

    /// Returns when every write so far is as durable as it will get. See [`Limits::persistent`].
    ///
    /// # Errors
    /// Whatever fits; the writes since the last success then count as lost.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether calls can be expected to work: cheap, and without lasting effect.
    ///
    /// # Errors
    /// Whatever calls would fail with.
    fn health(&mut self) -> Result<()> {
        Ok(())
    }

    /// An orderly end. The default flushes.
    ///
    /// # Errors
    /// As [`Backend::flush`]. The backend is gone in any case.
    fn close(mut self) -> Result<()> {
        self.flush()
    }
}

fn no_intents() -> Error {
    Error::unsupported("this backend has no place for what is prepared")
}

/// What a backend takes and is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, in bytes. At least 256.
    pub max_key_bytes: u32,
    /// Largest value, in bytes.
    pub max_value_bytes: u32,
    /// Most items in one call. At least 1.
    pub max_batch: u32,
    /// What [`Backend::flush`] acknowledged is still there when the shard is opened again, even after a crash of the host.
    pub persistent: bool,
    /// Several instances, also on different hosts, see the same records.
    pub shared: bool,
}

impl Default for Limits {
    /// Keys of 1 KiB, values of 64 MiB (room for the largest MongoDB document, 16 MiB, written out as JSON), batches of 1024;
    /// neither persistent nor shared.
    fn default() -> Self {
        Self {
            max_key_bytes: 1024,
            max_value_bytes: 64 * 1024 * 1024,
            max_batch: 1024,
            persistent: false,
            shared: false,
        }
    }
}

/// A record on its way to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where to.
    pub key: String,
    /// What. Its stamp is the one offered, to be replaced by the one that [`Rule::judge`] answers.
    pub record: Record,
}

/// A record met in a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub key: String,
    /// What.
    pub header: Header,
}

/// One step of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The records met, in no particular order. May be empty although `next` is there.
    pub found: Vec<Found>,
    /// Where to go on; `None`: the scan is complete.
    pub next: Option<String>,
}

/// How much a backend holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries, without expired ones and tombstones.
    pub entries: u64,
    /// Bytes of the keys and values of those entries.
    pub bytes: u64,
}

const AFTER: &str = "after:";

/// The cursor of a store that is sorted by key and has listed everything up to and including `key`.
pub fn after_cursor(key: &str) -> String {
    format!("{AFTER}{key}")
}

/// The key that [`after_cursor`] made `cursor` from.
///
/// # Errors
/// [`Error::InvalidArgument`] if it didn't.
pub fn key_of_cursor(cursor: &str) -> Result<&str> {
    cursor.strip_prefix(AFTER).ok_or_else(|| Error::invalid_argument("the cursor is not one of this backend's"))
}
