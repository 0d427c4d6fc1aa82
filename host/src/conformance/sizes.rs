//! Cases: what a backend says that it takes, it takes, and what is larger it refuses.

use super::contract;
use super::failure::{Checked, Show, failed, refused, same};
use super::run::{Run, STAMP};
use crate::kv::{Condition, Entry, GuestError, KvError, Mark, Outcome};

/// Keys, values and batches beyond these are not tried, whatever a backend declares.
pub(super) const LONGEST_KEY: usize = 64 << 10;
const LARGEST_BATCH: usize = 10_000;

const MIB: usize = 1 << 20;

fn is_too_large(error: &KvError) -> bool {
    matches!(error, KvError::Refused(GuestError::TooLarge(_)))
}

pub(super) fn keys_up_to_the_limit(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let declared = run.capabilities.max_key_bytes as usize;
    let most = declared.min(LONGEST_KEY);
    if most < declared {
        run.note(format!("keys of up to {most} bytes were tried; `max-key-bytes` is {declared}"));
    }
    // Bytes count, not characters.
    for filler in ['k', 'é', '語'] {
        let entry = Entry { key: run.key_of_length(most, filler), ..run.entry("", STAMP, "value") };
        same(contract::MAX_KEY, "the key tried", &entry.key.len(), &most)?;
        backend.store(std::slice::from_ref(&entry))?;
        backend.has(contract::MAX_KEY, "of the longest key", &entry)?;
        let mark = Mark { key: entry.key, stamp: STAMP + 1, expires_at: None };
        backend.deletes(contract::MAX_KEY, &mark, Condition::Newer, Outcome::Applied)?;
        backend.lacks(contract::MAX_KEY, "of the longest key after its delete", &mark.key)?;
    }
    if most < declared {
        return Ok(());
    }
    for filler in ['k', '語'] {
        let key = run.foreign_key_of_length(most + 1, filler);
        let what = format!("of a key of {} bytes", key.len());
        let entry = Entry { key: key.clone(), stamp: STAMP, expires_at: None, value: vec![] };
        let answer = backend.trial().put_many(&[entry], Condition::Newer);
        refused(contract::TOO_LARGE, &format!("put {what}"), &answer, "too-large", is_too_large)?;
        let answer = backend.trial().get_many(std::slice::from_ref(&key));
        refused(contract::TOO_LARGE, &format!("get {what}"), &answer, "too-large", is_too_large)?;
        let answer = backend.trial().delete_many(&[Mark { key, stamp: STAMP, expires_at: None }], Condition::Newer);
        refused(contract::TOO_LARGE, &format!("delete {what}"), &answer, "too-large", is_too_large)?;
    }
    Ok(())
}

pub(super) fn empty_keys_are_refused(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let is_invalid = |error: &KvError| matches!(error, KvError::Refused(GuestError::InvalidArgument(_)));
    let entry = Entry { key: String::new(), stamp: STAMP, expires_at: None, value: vec![1] };
    let answer = backend.trial().put_many(&[entry], Condition::Newer);
    refused(contract::ANY_CHARACTER, "put of an empty key", &answer, "invalid-argument", is_invalid)?;
    let answer = backend.trial().get_many(&[String::new()]);
    refused(contract::ANY_CHARACTER, "get of an empty key", &answer, "invalid-argument", is_invalid)?;
    let mark = Mark { key: String::new(), stamp: STAMP, expires_at: None };
    let answer = backend.trial().delete_many(&[mark], Condition::Newer);
    refused(contract::ANY_CHARACTER, "delete of an empty key", &answer, "invalid-argument", is_invalid)
}

pub(super) fn values_up_to_the_limit(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let declared = run.capabilities.max_value_bytes as usize;
    let limits = &run.trials().config().limits;
    // An answer is copied out, and a guest needs room for some copies of what it handles.
    let bound = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let most = declared.min(bound(limits.response / 2)).min(bound(limits.memory / 8));
    if most < declared {
        run.note(format!(
            "values of up to {most} bytes were tried, as the sandbox's limits allow; `max-value-bytes` is {declared}"
        ));
    }
    let entry = Entry { value: pattern(1, most), ..run.entry("a", STAMP, "") };
    backend.store(std::slice::from_ref(&entry))?;
    backend.has(contract::MAX_VALUE, "of the largest value", &entry)?;
    if declared + 1 > bound(limits.memory / 3) {
        run.note(format!(
            "no value larger than `max-value-bytes` was tried: {declared} bytes leave no room in limits.memory"
        ));
        return Ok(());
    }
    let larger = Entry { value: pattern(2, declared + 1), ..run.entry("b", STAMP, "") };
    let answer = backend.trial().put_many(std::slice::from_ref(&larger), Condition::Newer);
    let what = format!("put of a value of {} bytes", declared + 1);
    refused(contract::TOO_LARGE, &what, &answer, "too-large", is_too_large)?;
    backend.lacks(contract::TOO_LARGE, "of what was refused", &larger.key)?;
    backend.has(contract::MAX_VALUE, "of the largest value, once more", &entry)
}

pub(super) fn batches_up_to_the_limit(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let declared = run.capabilities.max_batch as usize;
    let most = declared.min(LARGEST_BATCH);
    if most < declared {
        run.note(format!("batches of up to {most} items were tried; `max-batch` is {declared}"));
    }
    let mut keys = run.keys(most + 1);
    let one_more = keys.clone();
    keys.truncate(most);
    let entry = |key: &String| Entry { key: key.clone(), stamp: STAMP, expires_at: None, value: b"v".to_vec() };
    let entries: Vec<Entry> = keys.iter().map(entry).collect();
    let mark = |key: &String| Mark { key: key.clone(), stamp: STAMP + 1, expires_at: None };
    let outcomes = backend.put(&entries, Condition::Newer)?;
    same(contract::MAX_BATCH, "put of the largest batch", &outcomes, &vec![Outcome::Applied; most])?;
    let found = backend.get(&keys)?;
    same(contract::MAX_BATCH, "get of the largest batch", &found, &entries.iter().cloned().map(Some).collect())?;
    if most == declared {
        let what = format!("of {} items", most + 1);
        let answer = backend.trial().get_many(&one_more);
        refused(contract::TOO_LARGE, &format!("get {what}"), &answer, "too-large", is_too_large)?;
        let answer = backend.trial().put_many(&one_more.iter().map(entry).collect::<Vec<_>>(), Condition::Newer);
        refused(contract::TOO_LARGE, &format!("put {what}"), &answer, "too-large", is_too_large)?;
        let answer = backend.trial().delete_many(&one_more.iter().map(mark).collect::<Vec<_>>(), Condition::Newer);
        refused(contract::TOO_LARGE, &format!("delete {what}"), &answer, "too-large", is_too_large)?;
    }
    let outcomes = backend.delete(&keys.iter().map(mark).collect::<Vec<_>>(), Condition::Newer)?;
    same(contract::MAX_BATCH, "delete of the largest batch", &outcomes, &vec![Outcome::Applied; most])
}

/// More than most sandboxes hold. It may end in an error, also in one that costs the instance, as long as the limits say so;
/// not in a crash of the plugin's own, nor in wrong data.
pub(super) fn a_batch_of_256_mib(run: &Run<'_>) -> Checked {
    let count = 256.min(run.capabilities.max_batch as usize);
    let bytes = MIB.min(run.capabilities.max_value_bytes as usize);
    let keys = run.keys(count);
    let entry = |(index, key): (usize, &String)| Entry {
        key: key.clone(),
        stamp: STAMP,
        expires_at: None,
        value: pattern(index, bytes),
    };
    let entries: Vec<Entry> = keys.iter().enumerate().map(entry).collect();
    let mut backend = run.open()?;
    let what = format!("put of {count} values of {bytes} bytes");
    let written = clean(&what, backend.trial().put_many(&entries, Condition::Newer))?;
    if backend.trial().is_lost() {
        backend = run.open()?;
    }
    if let Some(outcomes) = &written {
        same(contract::VACANT, &what, outcomes, &vec![Outcome::Applied; count])?;
    }
    // Whole, or not there at all.
    for entry in &entries {
        let found = backend.get_one(&entry.key)?;
        let is_right = found.as_ref() == Some(entry) || (found.is_none() && written.is_none());
        if !is_right {
            return failed(contract::EACH_ATOMIC, format!("get after a {what}: {}", entry.text()), found.text());
        }
    }
    let what = format!("get of {count} values of {bytes} bytes");
    let found = clean(&what, backend.trial().get_many(&keys))?;
    for (found, entry) in found.iter().flatten().zip(&entries) {
        if !(found.is_none() && written.is_none()) {
            same(contract::GET, &what, found, &Some(entry.clone()))?;
        }
    }
    Ok(())
}

/// The answer; `None` if there is none because something was too large, or took too long.
fn clean<T: Show>(what: &str, answer: Result<T, KvError>) -> Checked<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(
            KvError::Refused(
                GuestError::TooLarge(_)
                | GuestError::QuotaExceeded(_)
                | GuestError::Timeout
                | GuestError::Unavailable(_),
            )
            | KvError::Memory { .. }
            | KvError::ResponseTooLarge { .. }
            | KvError::Deadline { .. },
        ) => Ok(None),
        Err(error) => failed(
            contract::TOO_LARGE,
            format!("{what}: data, or an error that says that it is too much"),
            error.to_string(),
        ),
    }
}

/// So many bytes, different ones for each number.
fn pattern(number: usize, bytes: usize) -> Vec<u8> {
    let seed = u8::try_from(number % 256).unwrap_or(0);
    let unit: Vec<u8> = (0..=u8::MAX).map(|byte| byte.wrapping_mul(31) ^ seed).collect();
    let mut value = unit.repeat(bytes / unit.len() + 1);
    value.truncate(bytes);
    value
}
