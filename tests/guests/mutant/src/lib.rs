//! A correct little store that breaks one rule of the contract, which its setting `mode` names: what the conformance suite has to
//! notice. It never crashes, and never takes long. Without `mode` it is correct, and has to pass.
#![cfg(target_family = "wasm")]

mod mode;
mod store;

use std::cell::{Cell, RefCell};

use memcell_plugin::guest::bindings::exports::memcell::kv::digests::{Digest, Guest as Digests};
use memcell_plugin::guest::bindings::exports::memcell::kv::fencing::Guest as Fencing;
use memcell_plugin::guest::bindings::exports::memcell::kv::lifecycle::{Guest as Lifecycle, Limits};
use memcell_plugin::guest::bindings::exports::memcell::kv::store::{
    Condition, Entry, Error, Guest as Store, Mark, Outcome, Page, Usage,
};
use memcell_plugin::guest::bindings::exports::memcell::kv::two_phase::Guest as TwoPhase;
use memcell_plugin::{Moment, Settings, unix_millis};

use mode::Mode;
use store::{Record, Sorted};

thread_local! {
    static STORE: RefCell<Option<Sorted>> = const { RefCell::new(None) };
    static MODE: Cell<Mode> = const { Cell::new(Mode::None) };
    static SCANNED: Cell<u64> = const { Cell::new(0) };
}

const MAX_KEY_BYTES: usize = 300;
const MAX_VALUE_BYTES: usize = 2 << 20;
const MAX_BATCH: usize = 300;

struct Mutant;

memcell_plugin::export_component!(Mutant);

fn is(mode: Mode) -> bool {
    MODE.get() == mode
}

fn with<R>(call: impl FnOnce(&mut Sorted) -> Result<R, Error>) -> Result<R, Error> {
    STORE.with_borrow_mut(|store| match store {
        Some(store) => call(store),
        None => Err(Error::Other("it is not open".to_owned())),
    })
}

impl Lifecycle for Mutant {
    fn open(_shard: u32, settings: Vec<(String, String)>) -> Result<Limits, Error> {
        let mut settings = Settings::new(settings)?;
        MODE.set(settings.choice("mode", mode::NAMES)?.unwrap_or(Mode::None));
        match settings.bytes("room") {
            Err(_) if is(Mode::IgnoresMalformedSettings) => {}
            other => drop(other?),
        }
        match settings.finish() {
            Err(_) if is(Mode::IgnoresUnknownSettings) => {}
            Err(_) if is(Mode::NamesNoSetting) => {
                return Err(Error::InvalidArgument("something is wrong with the settings".to_owned()));
            }
            other => other?,
        }
        STORE.set(Some(Sorted::default()));
        Ok(Limits {
            max_key_bytes: MAX_KEY_BYTES as u32,
            max_value_bytes: MAX_VALUE_BYTES as u32,
            max_batch: MAX_BATCH as u32,
            persistent: is(Mode::ClaimsToPersist),
            shared: is(Mode::ClaimsToBeShared),
        })
    }

    fn flush() -> Result<(), Error> {
        Ok(())
    }

    fn health() -> Result<(), Error> {
        if is(Mode::WritesInHealth) {
            with(|store| {
                store.records.insert("health".to_owned(), Record::entry(1, None, Vec::new()));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn close() -> Result<(), Error> {
        if !is(Mode::AnswersClosed) {
            STORE.set(None);
        }
        Ok(())
    }
}

impl Store for Mutant {
    fn get_many(keys: Vec<String>) -> Result<Vec<Option<Entry>>, Error> {
        check_batch(keys.len())?;
        let mut answers = with(|store| {
            keys.iter()
                .map(|key| {
                    check_key(key)?;
                    let key = if is(Mode::CutsKeysAtNul) { key.split('\0').next().unwrap_or_default() } else { key };
                    let record = store.records.get(key).filter(|record| is(Mode::ShowsExpired) || !record.is_expired());
                    let entry = record.and_then(|record| record.to_entry(key));
                    Ok(entry.filter(|entry| !(is(Mode::LosesEmptyValues) && entry.value.is_empty())))
                })
                .collect::<Result<Vec<_>, Error>>()
        })?;
        if is(Mode::LeavesOutAbsent) {
            answers.retain(Option::is_some);
        }
        if is(Mode::AnswersDistinctKeysOnly) {
            let mut seen = std::collections::BTreeSet::new();
            let mut keys = keys.into_iter();
            answers.retain(|_| keys.next().is_some_and(|key| seen.insert(key)));
        }
        if is(Mode::LosesOrder) {
            answers.sort_by_key(|entry| entry.as_ref().map(|entry| entry.key.clone()));
        }
        if is(Mode::ForgetsExpiry) {
            answers.iter_mut().flatten().for_each(|entry| entry.expires_at = None);
        }
        if is(Mode::RoundsStamps) {
            answers.iter_mut().flatten().for_each(|entry| entry.stamp = entry.stamp as f64 as u64);
        }
        Ok(answers)
    }

    fn put_many(entries: Vec<Entry>, condition: Condition) -> Result<Vec<Outcome>, Error> {
        check_batch(entries.len())?;
        for entry in &entries {
            check_key(&entry.key)?;
            if entry.value.len() > MAX_VALUE_BYTES && !is(Mode::TakesAnySize) {
                return Err(Error::TooLarge("a value".to_owned()));
            }
        }
        with(|store| {
            let order: Vec<Entry> =
                if is(Mode::WritesInReverse) { entries.into_iter().rev().collect() } else { entries };
            let mut outcomes: Vec<Outcome> = Vec::new();
            for entry in order {
                let Entry { key, stamp, expires_at, mut value } = entry;
                let key =
                    if is(Mode::CutsKeysAtNul) { key.split('\0').next().unwrap_or_default().to_owned() } else { key };
                if is(Mode::CutsValues) {
                    value.truncate(64 << 10);
                }
                if is(Mode::RefusesThePast) && expires_at.is_some_and(|expires_at| expires_at <= unix_millis()) {
                    return Err(Error::InvalidArgument("an expiry in the past".to_owned()));
                }
                let kept = store.records.get(&key).and_then(|record| record.expires_at);
                let expires_at = match expires_at {
                    None if is(Mode::KeepsTheFirstExpiry) => kept,
                    expires_at => expires_at.map(|at| if is(Mode::CountsSeconds) { at / 1000 * 1000 } else { at }),
                };
                outcomes.push(store.write(key, Record::entry(stamp, expires_at, value), judged(condition)));
            }
            if is(Mode::WritesInReverse) {
                outcomes.reverse();
            }
            if is(Mode::CallsStaleApplied) {
                outcomes.fill(Outcome::Applied);
            }
            Ok(outcomes)
        })
    }

    fn delete_many(marks: Vec<Mark>, condition: Condition) -> Result<Vec<Outcome>, Error> {
        check_batch(marks.len())?;
        marks.iter().try_for_each(|mark| check_key(&mark.key))?;
        with(|store| {
            let outcomes = marks.into_iter().map(|mark| {
                let Mark { key, stamp, expires_at } = mark;
                if is(Mode::ForgetsTombstones) {
                    let outcome =
                        store.judge(&key, stamp, judged(condition)).map_or(Outcome::Stale, |_| Outcome::Applied);
                    if outcome == Outcome::Applied {
                        store.records.remove(&key);
                    }
                    return outcome;
                }
                if is(Mode::LeavesNoTombstoneForAbsent) && store.live(&key).is_none() {
                    return Outcome::Applied;
                }
                let expires_at = if is(Mode::DropsTombstonesEarly) { expires_at.map(|_| 1) } else { expires_at };
                store.write(key, Record::tombstone(stamp, expires_at), judged(condition))
            });
            Ok(outcomes.collect())
        })
    }

    fn scan(cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        const AFTER: &str = "after:";
        let limit = if is(Mode::IgnoresTheLimit) { usize::MAX } else { limit as usize };
        with(|store| {
            let after = match cursor.as_deref().map(|cursor| cursor.strip_prefix(AFTER)) {
                None => None,
                Some(Some(key)) => Some(key.to_owned()),
                Some(None) if is(Mode::TakesAnyCursor) => None,
                Some(None) => return Err(Error::InvalidArgument("not a cursor of mine".to_owned())),
            };
            let (mut marks, last) =
                store.page(after.as_deref(), limit, is(Mode::ListsTombstones), is(Mode::ShowsExpired));
            if is(Mode::SkipsKeys) {
                // The one that the page ends with: its successor begins behind it.
                if last.is_some() {
                    marks.pop();
                }
            }
            if is(Mode::EndsScansEarly) {
                SCANNED.set(if after.is_none() { 0 } else { SCANNED.get() } + marks.len() as u64);
                let end = SCANNED.get() >= 1000;
                return Ok(Page { marks, next: last.filter(|_| !end).map(|key| format!("{AFTER}{key}")) });
            }
            if is(Mode::ScansWithoutStamps) {
                marks.iter_mut().for_each(|mark| mark.stamp = 0);
            }
            if is(Mode::ScansByPosition) {
                // The position among the entries of now: what is deleted before it moves all others.
                let from: usize =
                    cursor.as_deref().and_then(|cursor| cursor.strip_prefix(AFTER)?.parse().ok()).unwrap_or(0);
                let (all, _) = store.page(None, usize::MAX, false, false);
                let marks: Vec<Mark> = all.iter().skip(from).take(limit).cloned().collect();
                let next = from.saturating_add(limit);
                return Ok(Page { marks, next: (next < all.len()).then(|| format!("{AFTER}{next}")) });
            }
            Ok(Page { marks, next: last.map(|key| format!("{AFTER}{key}")) })
        })
    }

    fn stats() -> Result<Usage, Error> {
        with(|store| {
            let mut usage = Usage { entries: 0, bytes: 0 };
            for (key, record) in &store.records {
                let counts = record.value.is_some() || is(Mode::CountsTombstones);
                if counts && (is(Mode::CountsExpired) || !record.is_expired()) {
                    usage.entries += 1;
                    let key_bytes = if is(Mode::CountsValuesOnly) { 0 } else { key.len() };
                    usage.bytes += (key_bytes + record.value.as_ref().map_or(0, Vec::len)) as u64;
                }
            }
            Ok(usage)
        })
    }
}

impl Digests for Mutant {
    fn digest_many(keys: Vec<String>, head_bytes: u32) -> Result<Vec<Option<Digest>>, Error> {
        check_batch(keys.len())?;
        if head_bytes > memcell_plugin::MAX_HEAD_BYTES {
            return Err(Error::InvalidArgument("too long a head".to_owned()));
        }
        let moment = Moment::new(if is(Mode::DigestsExpired) { || 0 } else { unix_millis });
        with(|store| {
            let digest = |key: &String| {
                check_key(key)?;
                let Some(record) = store.records.get(key) else { return Ok(None) };
                let Record { stamp, expires_at, value } = record;
                let record = memcell_plugin::Record { stamp: *stamp, expires_at: *expires_at, value: value.clone() };
                let Some(mut digest) = memcell_plugin::Digest::of(&record, head_bytes as usize, &moment) else {
                    return Ok(None);
                };
                if is(Mode::HashesWholeValues) {
                    let whole = memcell_plugin::Digest::of(&record, 0, &moment);
                    digest.rest_hash = whole.map_or(0, |whole| whole.rest_hash);
                }
                Ok(Some(digest.into()))
            };
            keys.iter().map(digest).collect()
        })
    }
}

impl Fencing for Mutant {
    fn hold(_token: u64) -> Result<(), Error> {
        if is(Mode::HoldsForNobody) { Ok(()) } else { Err(Error::Unsupported("it is not shared".to_owned())) }
    }
}

impl TwoPhase for Mutant {
    fn prepare(transaction: String, puts: Vec<Entry>, deletes: Vec<Mark>) -> Result<(), Error> {
        if is(Mode::PreparesNothing) {
            return Err(Error::Unsupported("there is no place for intents".to_owned()));
        }
        check_batch(puts.len() + deletes.len())?;
        puts.iter()
            .map(|entry| &entry.key)
            .chain(deletes.iter().map(|mark| &mark.key))
            .try_for_each(|key| check_key(key))?;
        if puts.iter().any(|entry| entry.value.len() > MAX_VALUE_BYTES) && !is(Mode::TakesAnySize) {
            return Err(Error::TooLarge("a value".to_owned()));
        }
        let puts = puts.into_iter().map(|entry| (entry.key, Record::entry(entry.stamp, entry.expires_at, entry.value)));
        let deletes = deletes.into_iter().map(|mark| (mark.key, Record::tombstone(mark.stamp, mark.expires_at)));
        let writes: Vec<(String, Record)> = puts.chain(deletes).collect();
        with(|store| {
            let intent = store.intents.entry(transaction.clone()).or_default();
            if !is(Mode::AddsToIntents) {
                intent.clear();
            }
            intent.extend(writes);
            if is(Mode::ShowsPrepared) {
                store.carry_out(&transaction, store::Judge::Newer);
                store.intents.insert(transaction, Vec::new());
            }
            Ok(())
        })
    }

    fn commit(transaction: String) -> Result<(), Error> {
        let judge = if is(Mode::CommitsAlways) { store::Judge::Always } else { store::Judge::Newer };
        with(|store| {
            if is(Mode::KnowsAllTransactions) && !store.intents.contains_key(&transaction) {
                return Err(Error::InvalidArgument("nothing was prepared for this transaction".to_owned()));
            }
            store.carry_out(&transaction, judge);
            Ok(())
        })
    }

    fn abort(transaction: String) -> Result<(), Error> {
        with(|store| {
            if !is(Mode::AbortsNothing) {
                store.intents.remove(&transaction);
            }
            Ok(())
        })
    }

    fn in_doubt() -> Result<Vec<String>, Error> {
        with(|store| Ok(if is(Mode::DoubtsNothing) { Vec::new() } else { store.intents.keys().cloned().collect() }))
    }
}

/// The condition that a write is judged by, which isn't always the one given.
fn judged(condition: Condition) -> store::Judge {
    use store::Judge;
    match condition {
        _ if is(Mode::IgnoresStamps) => Judge::Overwrite,
        Condition::Newer if is(Mode::TakesEqualAsNewer) => Judge::NotOlder,
        Condition::NotOlder if is(Mode::RefusesEqual) => Judge::Newer,
        Condition::Always if is(Mode::LowersStamps) => Judge::Overwrite,
        Condition::Newer if is(Mode::ComparesSigned) => Judge::NewerSigned,
        Condition::Newer => Judge::Newer,
        Condition::NotOlder => Judge::NotOlder,
        Condition::Always => Judge::Always,
    }
}

fn check_batch(items: usize) -> Result<(), Error> {
    if items > MAX_BATCH && !is(Mode::TakesAnySize) {
        return Err(Error::TooLarge("a batch".to_owned()));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() && !is(Mode::TakesEmptyKeys) {
        return Err(Error::InvalidArgument("an empty key".to_owned()));
    }
    let length = if is(Mode::CountsCharacters) { key.chars().count() } else { key.len() };
    if length > MAX_KEY_BYTES && !is(Mode::TakesAnySize) {
        return Err(Error::TooLarge("a key".to_owned()));
    }
    // One that fits in bytes, but is longer in something else.
    if is(Mode::TakesShorterKeys) && key.len() > MAX_KEY_BYTES - 8 {
        return Err(Error::TooLarge("a key".to_owned()));
    }
    Ok(())
}
