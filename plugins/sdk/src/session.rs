//! One backend from before its opening to after its closing: the contract's rules around an author's [`Backend`].

use crate::answer::AnswerBytes;
use crate::backend::{Backend, Limits, Stats, Write};
use crate::digest::{Digest, MAX_HEAD_BYTES};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::rules::{Condition, Moment, Outcome, Rule};
use crate::settings::Settings;

/// The most records that one step of a scan asks a backend for, whatever the host asks.
const MAX_SCAN_LIMIT: u32 = 10_000;

/// The longest name of a transaction.
const MAX_TRANSACTION_BYTES: usize = 64;

/// A stored value with what the host needs to know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is stored.
    pub key: String,
    /// The version of this copy.
    pub stamp: u64,
    /// When it ceases to exist, in Unix milliseconds.
    pub expires_at: Option<u64>,
    /// Opaque.
    pub value: Vec<u8>,
}

/// An entry without its value, or a tombstone to leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where it is stored.
    pub key: String,
    /// The version of the entry, or of its deletion.
    pub stamp: u64,
    /// Of an entry: when it ceases to exist; of a tombstone: from when on it may be forgotten. Unix milliseconds.
    pub expires_at: Option<u64>,
}

/// One step of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries found, in no particular order.
    pub marks: Vec<Mark>,
    /// Where to go on; `None`: the scan is complete.
    pub next: Option<String>,
}

/// Answers the calls of the contract from a backend of type `B`, in every order that they may come in.
#[derive(Debug)]
pub struct Session<B> {
    state: State<B>,
    clock: fn() -> u64,
}

#[derive(Debug)]
enum State<B> {
    New,
    Open { backend: B, limits: Limits },
    Closed,
}

impl<B: Backend> Session<B> {
    /// A session before `open`; `clock` tells Unix milliseconds ([`crate::unix_millis`], but for tests).
    pub const fn new(clock: fn() -> u64) -> Self {
        Self { state: State::New, clock }
    }

    /// See [`Backend::open`].
    ///
    /// # Errors
    /// The backend's; [`Error::InvalidArgument`] for settings that nobody knows and for a second call.
    pub fn open(&mut self, shard: u32, settings: impl IntoIterator<Item = (String, String)>) -> Result<Limits> {
        match self.state {
            State::New => {}
            State::Open { .. } => return Err(Error::invalid_argument("the backend is open already")),
            State::Closed => return Err(Error::invalid_argument("the backend is closed for good")),
        }
        let mut settings = Settings::new(settings)?;
        let backend = B::open(shard, &mut settings)?;
        settings.finish()?;
        let limits = backend.limits();
        self.state = State::Open { backend, limits };
        Ok(limits)
    }

    /// The live entry of each key.
    ///
    /// # Errors
    /// The backend's; [`Error::TooLarge`] and [`Error::InvalidArgument`] for what exceeds the limits and for an empty key;
    /// [`Error::TooLarge`] for several values of more than [`MAX_ANSWER_BYTES`](crate::MAX_ANSWER_BYTES) together.
    pub fn get_many(&mut self, keys: Vec<String>) -> Result<Vec<Option<Entry>>> {
        let moment = Moment::new(self.clock);
        let (backend, limits) = self.opened()?;
        check_batch(limits, keys.len())?;
        for key in &keys {
            check_key(limits, key)?;
        }
        let records = backend.read_many(&keys)?;
        check_answers(keys.len(), records.len())?;
        let mut answer = AnswerBytes::default();
        let values = records.iter().flatten().filter_map(|record| record.value.as_ref());
        values.map(Vec::len).try_for_each(|bytes| answer.add(bytes))?;
        Ok(keys.into_iter().zip(records).map(|(key, record)| live(key, record?, &moment)).collect())
    }

    /// The digest of each key's live entry.
    ///
    /// # Errors
    /// As [`Session::get_many`]; [`Error::InvalidArgument`] for heads longer than [`MAX_HEAD_BYTES`].
    pub fn digest_many(&mut self, keys: Vec<String>, head_bytes: u32) -> Result<Vec<Option<Digest>>> {
        let moment = Moment::new(self.clock);
        let (backend, limits) = self.opened()?;
        check_batch(limits, keys.len())?;
        for key in &keys {
            check_key(limits, key)?;
        }
        if head_bytes > MAX_HEAD_BYTES {
            let text = format!("heads of {head_bytes} bytes; at most {MAX_HEAD_BYTES} can be asked for");
            return Err(Error::invalid_argument(text));
        }
        let digests = backend.digest_many(&keys, head_bytes as usize, &moment)?;
        check_answers(keys.len(), digests.len())?;
        Ok(digests)
    }

    /// See [`Backend::hold`].
    ///
    /// # Errors
    /// The backend's.
    pub fn hold(&mut self, token: u64) -> Result<()> {
        self.opened()?.0.hold(token)
    }

    /// Stores each entry if `condition` allows it. See [`Rule::judge`].
    ///
    /// # Errors
    /// As [`Session::get_many`].
    pub fn put_many(&mut self, entries: impl IntoIterator<Item = Entry>, condition: Condition) -> Result<Vec<Outcome>> {
        self.write_many(entries.into_iter().map(put).collect(), condition)
    }

    /// Leaves a tombstone for each key if `condition` allows it. See [`Rule::judge`].
    ///
    /// # Errors
    /// As [`Session::get_many`].
    pub fn delete_many(&mut self, marks: impl IntoIterator<Item = Mark>, condition: Condition) -> Result<Vec<Outcome>> {
        self.write_many(marks.into_iter().map(delete).collect(), condition)
    }

    /// See [`Backend::prepare`].
    ///
    /// # Errors
    /// As [`Session::put_many`]; [`Error::InvalidArgument`] for a name that no transaction can have.
    pub fn prepare(
        &mut self,
        transaction: String,
        puts: impl IntoIterator<Item = Entry>,
        deletes: impl IntoIterator<Item = Mark>,
    ) -> Result<()> {
        let writes: Vec<Write> = puts.into_iter().map(put).chain(deletes.into_iter().map(delete)).collect();
        let (backend, limits) = self.opened()?;
        check_transaction(&transaction)?;
        check_writes(limits, &writes)?;
        backend.prepare(transaction, writes)
    }

    /// See [`Backend::commit`]. The writes are judged as [`Condition::Newer`].
    ///
    /// # Errors
    /// The backend's.
    pub fn commit(&mut self, transaction: &str) -> Result<()> {
        let rule = Rule::new(Condition::Newer, Moment::new(self.clock));
        self.opened()?.0.commit(transaction, &rule)
    }

    /// See [`Backend::abort`].
    ///
    /// # Errors
    /// The backend's.
    pub fn abort(&mut self, transaction: &str) -> Result<()> {
        self.opened()?.0.abort(transaction)
    }

    /// See [`Backend::in_doubt`].
    ///
    /// # Errors
    /// The backend's.
    pub fn in_doubt(&mut self) -> Result<Vec<String>> {
        self.opened()?.0.in_doubt()
    }

    fn write_many(&mut self, writes: Vec<Write>, condition: Condition) -> Result<Vec<Outcome>> {
        let rule = Rule::new(condition, Moment::new(self.clock));
        let (backend, limits) = self.opened()?;
        check_writes(limits, &writes)?;
        let expected = writes.len();
        let outcomes = backend.apply(writes, &rule)?;
        check_answers(expected, outcomes.len())?;
        Ok(outcomes)
    }

    /// One step through the live entries. Lets the backend forget what it finds expired.
    ///
    /// # Errors
    /// The backend's; [`Error::InvalidArgument`] for a limit of 0 and for a foreign cursor.
    pub fn scan(&mut self, cursor: Option<&str>, limit: u32) -> Result<Page> {
        let moment = Moment::new(self.clock);
        let (backend, _) = self.opened()?;
        if limit == 0 {
            return Err(Error::invalid_argument("the limit of a scan is at least 1"));
        }
        let step = backend.scan(cursor, limit.min(MAX_SCAN_LIMIT) as usize)?;
        let mut marks = Vec::with_capacity(step.found.len());
        for found in step.found {
            if moment.has_passed(found.header.expires_at) {
                backend.forget(&found.key, &found.header)?;
            } else if !found.header.is_tombstone() {
                marks.push(Mark { key: found.key, stamp: found.header.stamp, expires_at: found.header.expires_at });
            }
        }
        Ok(Page { marks, next: step.next })
    }

    /// See [`Backend::stats`].
    ///
    /// # Errors
    /// The backend's.
    pub fn stats(&mut self) -> Result<Stats> {
        let moment = Moment::new(self.clock);
        self.opened()?.0.stats(&moment)
    }

    /// See [`Backend::flush`].
    ///
    /// # Errors
    /// The backend's.
    pub fn flush(&mut self) -> Result<()> {
        self.opened()?.0.flush()
    }

    /// See [`Backend::health`].
    ///
    /// # Errors
    /// The backend's.
    pub fn health(&mut self) -> Result<()> {
        self.opened()?.0.health()
    }

    /// See [`Backend::close`]. Every later call is an error.
    ///
    /// # Errors
    /// The backend's.
    pub fn close(&mut self) -> Result<()> {
        self.opened()?;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open { backend, .. } => backend.close(),
            State::New | State::Closed => Err(Error::other("the backend is not open")),
        }
    }

    fn opened(&mut self) -> Result<(&mut B, &Limits)> {
        match &mut self.state {
            State::Open { backend, limits } => Ok((backend, limits)),
            State::New => Err(Error::other("the backend has not been opened")),
            State::Closed => Err(Error::other("the backend is closed")),
        }
    }
}

fn live(key: String, record: Record, moment: &Moment) -> Option<Entry> {
    let Record { stamp, expires_at, value } = record;
    let value = value?;
    (!moment.has_passed(expires_at)).then_some(Entry { key, stamp, expires_at, value })
}

fn put(entry: Entry) -> Write {
    let Entry { key, stamp, expires_at, value } = entry;
    Write { key, record: Record { stamp, expires_at, value: Some(value) } }
}

fn delete(mark: Mark) -> Write {
    let Mark { key, stamp, expires_at } = mark;
    Write { key, record: Record { stamp, expires_at, value: None } }
}

fn check_writes(limits: &Limits, writes: &[Write]) -> Result<()> {
    check_batch(limits, writes.len())?;
    for write in writes {
        check_key(limits, &write.key)?;
        check_value(limits, write.record.value.as_ref().map_or(0, Vec::len))?;
    }
    Ok(())
}

fn check_transaction(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_TRANSACTION_BYTES {
        let text = format!("the name of a transaction has {} bytes, not 1 to {MAX_TRANSACTION_BYTES}", name.len());
        return Err(Error::invalid_argument(text));
    }
    Ok(())
}

fn check_batch(limits: &Limits, items: usize) -> Result<()> {
    if items > limits.max_batch as usize {
        return Err(Error::too_large(format!("a call of {items} items; at most {} are taken", limits.max_batch)));
    }
    Ok(())
}

fn check_key(limits: &Limits, key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid_argument("an empty key"));
    }
    if key.len() > limits.max_key_bytes as usize {
        let (given, most) = (key.len(), limits.max_key_bytes);
        return Err(Error::too_large(format!("a key of {given} bytes; at most {most} are taken")));
    }
    Ok(())
}

fn check_value(limits: &Limits, bytes: usize) -> Result<()> {
    if bytes > limits.max_value_bytes as usize {
        let most = limits.max_value_bytes;
        return Err(Error::too_large(format!("a value of {bytes} bytes; at most {most} are taken")));
    }
    Ok(())
}

/// Answers are matched to questions by position, so a backend that loses one would attribute all others wrongly.
fn check_answers(expected: usize, given: usize) -> Result<()> {
    if expected != given {
        return Err(Error::other(format!("the backend gave {given} answers to {expected} items")));
    }
    Ok(())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
