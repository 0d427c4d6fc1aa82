//! Cases: what is put is found, what is deleted is gone, and every answer belongs to its question.

use super::contract;
use super::failure::{Checked, same};
use super::run::{FAR, Run, STAMP};
use crate::kv::{Condition, Entry, Mark, Outcome};

pub(super) fn get_finds_what_was_put(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let entry = run.entry("a", STAMP, "value");
    backend.store(std::slice::from_ref(&entry))?;
    backend.has(contract::GET, "after the put", &entry)?;
    backend.has(contract::GET, "once more", &entry)
}

pub(super) fn an_absent_key_is_none(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    // A batch of one as well: an answer without items is not the same as an answer of nothing.
    for count in [1, 3] {
        let found = backend.get(&run.keys(count))?;
        same(contract::GET, &format!("get of {count} absent keys"), &found, &vec![None; count])?;
    }
    Ok(())
}

pub(super) fn an_empty_value_is_an_entry(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let entry = run.entry("a", STAMP, "");
    backend.store(std::slice::from_ref(&entry))?;
    backend.has(contract::EMPTY_VALUE, "of an empty value", &entry)?;
    let listed = backend.scan(100)?;
    let mark = Mark { key: entry.key, stamp: STAMP, expires_at: None };
    same(contract::EMPTY_VALUE, "a scan", &listed, &vec![mark])
}

pub(super) fn values_are_any_bytes(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let values = [every_byte.clone(), vec![0], vec![0; 100], every_byte.repeat(400), b"\r\n$-1\r\n".to_vec()];
    let keys = run.keys(values.len());
    let most = run.capabilities.max_value_bytes as usize;
    let entries: Vec<Entry> = keys
        .into_iter()
        .zip(values)
        .filter(|(_, value)| value.len() <= most)
        .map(|(key, value)| Entry { key, stamp: STAMP, expires_at: None, value })
        .collect();
    for entry in &entries {
        backend.store(std::slice::from_ref(entry))?;
    }
    for entry in &entries {
        backend.has(contract::OPAQUE_VALUE, "of arbitrary bytes", entry)?;
    }
    Ok(())
}

pub(super) fn overwriting_replaces_everything(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    for entry in [
        run.entry("a", STAMP, "a long first value"),
        run.entry("a", STAMP + 1, "short"),
        run.entry("a", STAMP + 7, ""),
        run.entry("a", STAMP + 8, "long again, and longer than before"),
    ] {
        backend.puts(contract::NEWER, &entry, Condition::Newer, Outcome::Applied)?;
        backend.has(contract::PUT, "after overwriting", &entry)?;
    }
    Ok(())
}

pub(super) fn deleting_removes(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let (gone, stays) = (run.entry("a", STAMP, "1"), run.entry("b", STAMP, "2"));
    backend.store(&[gone.clone(), stays.clone()])?;
    backend.deletes(contract::NEWER, &run.mark("a", STAMP + 1), Condition::Newer, Outcome::Applied)?;
    backend.lacks(contract::DELETE, "after the delete", &gone.key)?;
    backend.has(contract::DELETE, "of another key", &stays)
}

pub(super) fn deleting_twice_is_fine(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    // Nothing was ever there.
    backend.deletes(contract::VACANT, &run.mark("a", STAMP), Condition::Newer, Outcome::Applied)?;
    backend.deletes(contract::NEWER, &run.mark("a", STAMP), Condition::Newer, Outcome::Stale)?;
    backend.deletes(contract::NEWER, &run.mark("a", STAMP + 1), Condition::Newer, Outcome::Applied)?;
    backend.lacks(contract::GET, "after two deletes", &run.key("a"))
}

pub(super) fn empty_batches_are_fine(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    same(contract::POSITIONAL, "get of no keys", &backend.get(&[])?, &vec![])?;
    same(contract::POSITIONAL, "put of no entries", &backend.put(&[], Condition::Newer)?, &vec![])?;
    same(contract::POSITIONAL, "delete of no marks", &backend.delete(&[], Condition::Newer)?, &vec![])
}

pub(super) fn reads_are_answered_by_position(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let [a, b, c] = ["a", "b", "c"].map(|name| run.entry(name, STAMP, name));
    backend.store(&[c.clone(), a.clone(), b.clone()])?;
    let order = ["b", "missing", "a", "c", "b", "another", "a", "missing"];
    let found = backend.get(&order.map(|name| run.key(name)))?;
    let expected = vec![Some(b.clone()), None, Some(a.clone()), Some(c), Some(b), None, Some(a), None];
    same(contract::POSITIONAL, "get of b, missing, a, c, b, another, a, missing", &found, &expected)
}

pub(super) fn writes_are_answered_by_position(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let keys = run.keys(6);
    let with_stamp = |key: &String, stamp| Entry { key: key.clone(), stamp, expires_at: None, value: b"1".to_vec() };
    let at = |stamp| keys.iter().map(|key| with_stamp(key, stamp)).collect::<Vec<_>>();
    backend.store(&at(STAMP))?;
    // Each third write is new enough.
    let stamps = (0..).map(|position| STAMP + u64::from(position % 3 == 1));
    let entries: Vec<Entry> = keys.iter().zip(stamps).map(|(key, stamp)| with_stamp(key, stamp)).collect();
    let expected =
        vec![Outcome::Stale, Outcome::Applied, Outcome::Stale, Outcome::Stale, Outcome::Applied, Outcome::Stale];
    same(
        contract::POSITIONAL,
        "put of two newer ones among stale ones",
        &backend.put(&entries, Condition::Newer)?,
        &expected,
    )?;
    let stamps = (0..).map(|position| STAMP + 2 * u64::from(position % 3 == 1));
    let marks: Vec<Mark> =
        keys.iter().zip(stamps).map(|(key, stamp)| Mark { key: key.clone(), stamp, expires_at: Some(FAR) }).collect();
    same(
        contract::POSITIONAL,
        "delete of two newer ones among stale ones",
        &backend.delete(&marks, Condition::Newer)?,
        &expected,
    )?;
    let left: Vec<Option<Entry>> =
        at(STAMP).into_iter().zip(expected).map(|(entry, end)| (end == Outcome::Stale).then_some(entry)).collect();
    same(contract::STALE, "get after that", &backend.get(&keys)?, &left)
}

pub(super) fn duplicates_are_written_in_order(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let at = |stamp, value| run.entry("a", stamp, value);
    let entries = [at(STAMP, "first"), at(STAMP + 2, "last"), at(STAMP + 1, "late"), at(STAMP + 2, "equal")];
    let outcomes = backend.put(&entries, Condition::Newer)?;
    same(
        contract::IN_ORDER,
        "put of one key four times",
        &outcomes,
        &vec![Outcome::Applied, Outcome::Applied, Outcome::Stale, Outcome::Stale],
    )?;
    backend.has(contract::IN_ORDER, "after that", &at(STAMP + 2, "last"))?;
    let marks = [run.mark("a", STAMP + 4), run.mark("a", STAMP + 3), run.mark("a", STAMP + 5)];
    let outcomes = backend.delete(&marks, Condition::Newer)?;
    same(
        contract::IN_ORDER,
        "delete of one key three times",
        &outcomes,
        &vec![Outcome::Applied, Outcome::Stale, Outcome::Applied],
    )?;
    backend.puts(contract::NEWER, &at(STAMP + 5, "late"), Condition::Newer, Outcome::Stale)
}

pub(super) fn repeating_a_write_does_no_harm(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let entries = [run.entry("a", STAMP, "1"), run.entry("b", STAMP, "2")];
    backend.store(&entries)?;
    let outcomes = backend.put(&entries, Condition::Newer)?;
    same(contract::REPEATABLE, "the same put once more", &outcomes, &vec![Outcome::Stale, Outcome::Stale])?;
    let outcomes = backend.put(&entries, Condition::NotOlder)?;
    same(contract::REPEATABLE, "and with not-older", &outcomes, &vec![Outcome::Applied, Outcome::Applied])?;
    for entry in &entries {
        backend.has(contract::REPEATABLE, "after that", entry)?;
    }
    Ok(())
}
