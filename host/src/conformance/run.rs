//! One run of one case: its keys, its instances, and the calls that it makes of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::contract;
use super::failure::{Checked, Stop, ensure, failed, name_of, same};
use super::suite::Suite;
use crate::kv::{Capabilities, Condition, Entry, GuestError, KvError, Mark, Outcome, Trial, Trials, Usage};

/// Far enough away for every test: 1 January 2100, in Unix milliseconds.
pub(super) const FAR: u64 = 4_102_444_800_000;

/// Long past.
pub(super) const PAST: u64 = 1;

/// Stamps like those of the host's clock. Doubles can't tell neighbours of this size apart.
pub(super) const STAMP: u64 = 1_900_000_000_000_000_001;

/// The most pages of a scan that is expected to come to an end.
const MAX_PAGES: usize = 100_000;

/// What a case works with.
pub(super) struct Run<'s> {
    suite: &'s Suite,
    pub(super) capabilities: Capabilities,
    prefix: String,
    keys: RefCell<BTreeSet<String>>,
    shards: RefCell<BTreeSet<u32>>,
    notes: RefCell<Vec<String>>,
}

impl<'s> Run<'s> {
    pub(super) fn new(suite: &'s Suite, capabilities: Capabilities, prefix: String) -> Self {
        Self {
            suite,
            capabilities,
            prefix,
            keys: RefCell::default(),
            shards: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    pub(super) fn suite(&self) -> &Suite {
        self.suite
    }

    pub(super) fn trials(&self) -> &Trials {
        self.suite.trials()
    }

    /// A key of this case alone, which ends in `name`.
    pub(super) fn key(&self, name: &str) -> String {
        let key = format!("{}{name}", self.prefix);
        self.keys.borrow_mut().insert(key.clone());
        key
    }

    /// A key of this case that is exactly so many bytes long.
    pub(super) fn key_of_length(&self, bytes: usize, filler: char) -> String {
        let key = self.foreign_key_of_length(bytes, filler);
        self.keys.borrow_mut().insert(key.clone());
        key
    }

    /// The same, for a key that no entry can have, so that there is nothing to remove.
    pub(super) fn foreign_key_of_length(&self, bytes: usize, filler: char) -> String {
        let rest = bytes.saturating_sub(self.prefix.len());
        let fill: String = std::iter::repeat_n(filler, rest / filler.len_utf8()).collect();
        format!("{}{fill}{}", self.prefix, "x".repeat(rest - fill.len()))
    }

    /// Many keys of this case, in ascending order.
    pub(super) fn keys(&self, count: usize) -> Vec<String> {
        (0..count).map(|number| self.key(&format!("{number:06}"))).collect()
    }

    /// An entry that doesn't expire.
    pub(super) fn entry(&self, name: &str, stamp: u64, value: &str) -> Entry {
        Entry { key: self.key(name), stamp, expires_at: None, value: value.as_bytes().to_vec() }
    }

    /// A tombstone that is never forgotten.
    pub(super) fn mark(&self, name: &str, stamp: u64) -> Mark {
        Mark { key: self.key(name), stamp, expires_at: None }
    }

    /// That something was not tried to the full.
    pub(super) fn note(&self, text: String) {
        self.notes.borrow_mut().push(text);
    }

    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes.into_inner()
    }

    /// Opens shard number 0.
    pub(super) fn open(&self) -> Checked<Client> {
        self.open_shard(0)
    }

    /// Opens a shard.
    pub(super) fn open_shard(&self, shard: u32) -> Checked<Client> {
        self.shards.borrow_mut().insert(shard);
        match self.trials().open(shard) {
            Ok(trial) => Ok(Client { trial, prefix: self.prefix.clone() }),
            Err(error) => {
                failed(contract::broken_by_opening(&error), format!("shard {shard} opens"), error.to_string())
            }
        }
    }

    /// Removes what the case may have left. Its tombstones have expired when they come, so that nothing at all has to stay.
    pub(super) fn clear(&self) -> Checked {
        let keys = self.keys.borrow();
        let outlives_instance = self.capabilities.persistent || self.capabilities.shared;
        if keys.is_empty() || !outlives_instance {
            return Ok(());
        }
        // One instance of a shared store reaches everything.
        let shards: Vec<u32> =
            self.shards.borrow().iter().copied().take(if self.capabilities.shared { 1 } else { usize::MAX }).collect();
        let marks: Vec<Mark> =
            keys.iter().map(|key| Mark { key: key.clone(), stamp: u64::MAX, expires_at: Some(PAST) }).collect();
        for shard in shards {
            let mut client = self.open_shard(shard)?;
            if self.capabilities.shared && self.trials().has_fencing() {
                match client.trial.hold(u64::MAX) {
                    // Who keeps nobody out doesn't keep this out either.
                    Err(KvError::Refused(GuestError::Unsupported(_))) => {}
                    held => answered(held, "hold", contract::HOLD)?,
                }
            }
            for part in marks.chunks(self.batch_of(1)) {
                match client.delete(part, Condition::NotOlder) {
                    Err(Stop::Skip(reason)) => {
                        self.note(format!("its keys are left behind: {reason}"));
                        return Ok(());
                    }
                    end => end.map(drop)?,
                }
            }
            client.close()?;
        }
        Ok(())
    }

    /// How many items of so many bytes go into one call without doing the backend, or the sandbox, an injustice.
    pub(super) fn batch_of(&self, bytes: usize) -> usize {
        const CALL_BYTES: usize = 4 << 20;
        (CALL_BYTES / bytes.max(1)).clamp(1, 1000).min(self.capabilities.max_batch as usize)
    }
}

/// Unix milliseconds.
pub(super) fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// An open instance, whose answers have to be answers.
pub(super) struct Client {
    trial: Trial,
    prefix: String,
}

impl Client {
    /// The instance itself, for calls that may fail.
    pub(super) fn trial(&mut self) -> &mut Trial {
        &mut self.trial
    }

    pub(super) fn get(&mut self, keys: &[String]) -> Checked<Vec<Option<Entry>>> {
        let answer = self.trial.get_many(keys);
        answered(answer, &format!("get-many of {} keys", keys.len()), contract::GET)
    }

    pub(super) fn get_one(&mut self, key: &str) -> Checked<Option<Entry>> {
        Ok(self.get(&[key.to_owned()])?.pop().flatten())
    }

    /// Stops the case, as not meant for this backend, where the backend may say so: about an expiry, and about all conditions but
    /// `newer`.
    pub(super) fn put(&mut self, entries: &[Entry], condition: Condition) -> Checked<Vec<Outcome>> {
        let answer = self.trial.put_many(entries, condition);
        let optional = condition != Condition::Newer || entries.iter().any(|entry| entry.expires_at.is_some());
        let what = format!("put-many of {} entries ({})", entries.len(), name_of(condition));
        answered(supported(answer, optional)?, &what, contract::PUT)
    }

    /// As [`Client::put`]; here, an expiry can always be honoured, by keeping the tombstone for longer.
    pub(super) fn delete(&mut self, marks: &[Mark], condition: Condition) -> Checked<Vec<Outcome>> {
        let answer = self.trial.delete_many(marks, condition);
        let what = format!("delete-many of {} marks ({})", marks.len(), name_of(condition));
        answered(supported(answer, condition != Condition::Newer)?, &what, contract::DELETE)
    }

    /// Puts one entry, with the outcome expected.
    pub(super) fn puts(
        &mut self,
        contract: &'static str,
        entry: &Entry,
        condition: Condition,
        expected: Outcome,
    ) -> Checked {
        let outcomes = self.put(std::slice::from_ref(entry), condition)?;
        let what = format!("put ({}) of stamp {}", name_of(condition), entry.stamp);
        same(contract, &what, &outcomes, &vec![expected])
    }

    /// Deletes one key, with the outcome expected.
    pub(super) fn deletes(
        &mut self,
        contract: &'static str,
        mark: &Mark,
        condition: Condition,
        expected: Outcome,
    ) -> Checked {
        let outcomes = self.delete(std::slice::from_ref(mark), condition)?;
        let what = format!("delete ({}) of stamp {}", name_of(condition), mark.stamp);
        same(contract, &what, &outcomes, &vec![expected])
    }

    /// Stores entries under keys that are vacant.
    pub(super) fn store(&mut self, entries: &[Entry]) -> Checked {
        let outcomes = self.put(entries, Condition::Newer)?;
        same(contract::VACANT, "a put (newer) to vacant keys", &outcomes, &vec![Outcome::Applied; entries.len()])
    }

    /// That this entry, and no other, is under its key.
    pub(super) fn has(&mut self, contract: &'static str, when: &str, entry: &Entry) -> Checked {
        let found = self.get_one(&entry.key)?;
        same(contract, &format!("get {when}"), &found, &Some(entry.clone()))
    }

    /// That there is no entry under a key.
    pub(super) fn lacks(&mut self, contract: &'static str, when: &str, key: &str) -> Checked {
        let found = self.get_one(key)?;
        same(contract, &format!("get {when}"), &found, &None)
    }

    pub(super) fn stats(&mut self) -> Checked<Usage> {
        answered(self.trial.stats(), "stats", contract::USAGE_ENTRIES)
    }

    pub(super) fn flush(&mut self) -> Checked {
        answered(self.trial.flush(), "flush", contract::FLUSH)
    }

    pub(super) fn health(&mut self) -> Checked {
        answered(self.trial.health(), "health", contract::HEALTH)
    }

    pub(super) fn close(mut self) -> Checked {
        answered(self.trial.close(), "close", contract::CLOSE)
    }

    /// A whole scan: what it lists of this case's keys, in the order in which it comes.
    pub(super) fn scan(&mut self, limit: u32) -> Checked<Vec<Mark>> {
        self.scan_while(limit, |_, _| Ok(()))
    }

    /// A whole scan, with something to do between its pages; told which page comes next.
    pub(super) fn scan_while(
        &mut self,
        limit: u32,
        mut between: impl FnMut(&mut Self, usize) -> Checked,
    ) -> Checked<Vec<Mark>> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        for number in 1..=MAX_PAGES {
            let page = answered(self.trial.scan(cursor.as_deref(), limit), "scan", contract::NEXT)?;
            // About: some stores keep what they list in buckets. Far beyond is not about.
            let most = limit as usize * 2 + 64;
            let length = page.marks.len();
            ensure(
                length <= most,
                contract::PAGE,
                format!("about {limit} marks in a page, {most} at the most"),
                format!("{length} marks"),
            )?;
            found.extend(page.marks.into_iter().filter(|mark| mark.key.starts_with(&self.prefix)));
            match page.next {
                None => return Ok(found),
                Some(next) => cursor = Some(next),
            }
            between(self, number)?;
        }
        failed(contract::NEXT, format!("a scan with limit {limit} ends"), format!("{MAX_PAGES} pages, and a next one"))
    }
}

/// Turns a refusal that the contract lets a backend give into the end of the case.
fn supported<T>(answer: Result<T, KvError>, optional: bool) -> Checked<Result<T, KvError>> {
    match answer {
        Err(KvError::Refused(GuestError::Unsupported(text))) if optional => {
            Err(Stop::Skip(format!("the plugin answers «unsupported»: {text}")))
        }
        answer => Ok(answer),
    }
}

fn answered<T>(answer: Result<T, KvError>, what: &str, contract: &'static str) -> Checked<T> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let contract = match error {
                KvError::Answers { .. } => contract::POSITIONAL,
                KvError::Trap { .. } | KvError::Deadline { .. } => contract::BROKEN_INSTANCE,
                _ => contract,
            };
            failed(contract, format!("an answer to {what}"), error.to_string())
        }
    }
}
