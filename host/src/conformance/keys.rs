//! Cases: keys are told apart by every byte, and by nothing else.

use super::contract;
use super::failure::{Checked, same};
use super::run::{Run, STAMP};
use crate::kv::{Condition, Entry, Mark, Outcome};

pub(super) fn keys_that_begin_alike(run: &Run<'_>) -> Checked {
    are_told_apart(run, &["a", "aa", "aaa", "a/", "a/b", "ab", "aab", "A", "a ", " a", "a0", "a00", "0", "00"])
}

pub(super) fn keys_in_unicode(run: &Run<'_>) -> Checked {
    are_told_apart(
        run,
        &[
            "日本語",
            "日本",
            "ключ",
            "مفتاح",
            // The same letter as one character and as two; no normalisation makes them one key.
            "\u{e9}",
            "e\u{301}",
            "ß",
            "ss",
            "İ",
            "i\u{307}",
            "👩‍👩‍👧‍👦",
            "\u{feff}",
            "\u{fffd}",
            "\u{10ffff}",
            "\u{e000}",
        ],
    )
}

pub(super) fn keys_with_nul_and_punctuation(run: &Run<'_>) -> Checked {
    are_told_apart(
        run,
        &[
            "\0", "\0\0", "a\0", "a\0b", "a", "a\n", "a\r\n", "a\t", "\u{7f}", "*", "?", "[a-z]", "{a}", "{b}a", "%00",
            "%s", "\\", "\\0", "/", "//", "../x", ".", "..", "~", "'", "\"", "`", "$x", "#", ":", ";", ",", "a b",
            "after:",
        ],
    )
}

fn are_told_apart(run: &Run<'_>, names: &[&str]) -> Checked {
    let mut backend = run.open()?;
    let entries: Vec<Entry> = names.iter().map(|name| run.entry(name, STAMP, name)).collect();
    let keys: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    let batch = run.batch_of(1);
    for part in entries.chunks(batch) {
        backend.store(part)?;
    }
    let mut expected: Vec<Option<Entry>> = entries.iter().cloned().map(Some).collect();
    for (keys, expected) in keys.chunks(batch).zip(expected.chunks(batch)) {
        for (found, expected) in backend.get(keys)?.iter().zip(expected) {
            same(contract::ANY_CHARACTER, "get of similar keys", found, expected)?;
        }
    }
    // A scan has its own way of reading keys.
    let mut listed: Vec<String> = backend.scan(7)?.into_iter().map(|mark| mark.key).collect();
    listed.sort();
    listed.dedup();
    let mut sorted = keys.clone();
    sorted.sort();
    for (found, expected) in listed.iter().zip(&sorted) {
        same(contract::SCAN, "a scan of similar keys", found, expected)?;
    }
    same(contract::SCAN, "the number of keys in a scan", &listed.len(), &sorted.len())?;
    // Deleting one takes away one.
    for index in (0..entries.len()).step_by(2) {
        if let (Some(key), Some(expected)) = (keys.get(index), expected.get_mut(index)) {
            let mark = Mark { key: key.clone(), stamp: STAMP + 1, expires_at: None };
            backend.deletes(contract::NEWER, &mark, Condition::Newer, Outcome::Applied)?;
            *expected = None;
        }
    }
    for (keys, expected) in keys.chunks(batch).zip(expected.chunks(batch)) {
        for (found, expected) in backend.get(keys)?.iter().zip(expected) {
            same(contract::ANY_CHARACTER, "get after deleting every other one of similar keys", found, expected)?;
        }
    }
    Ok(())
}
