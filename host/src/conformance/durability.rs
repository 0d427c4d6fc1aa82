//! Cases: what is still there when the next instance opens. A crash is an instance that is dropped without a word.

use super::contract;
use super::failure::{Checked, ensure, same};
use super::run::{FAR, Run, STAMP};
use crate::kv::{Condition, Entry, Mark, Outcome, Usage};

pub(super) fn what_was_flushed_survives_a_crash(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let before = backend.stats()?;
    let mut entries: Vec<Entry> = (0..200)
        .map(|number| run.entry(&format!("{number:03}"), STAMP + number, &"value ".repeat(number as usize % 40)))
        .collect();
    for part in entries.chunks(run.batch_of(1)) {
        backend.store(part)?;
    }
    backend.puts(
        contract::NEWER,
        &run.entry("000", STAMP + 1000, "overwritten"),
        Condition::Newer,
        Outcome::Applied,
    )?;
    backend.deletes(contract::NEWER, &run.mark("001", STAMP + 1000), Condition::Newer, Outcome::Applied)?;
    if let Some(first) = entries.first_mut() {
        *first = run.entry("000", STAMP + 1000, "overwritten");
    }
    entries.remove(1);
    backend.flush()?;
    drop(backend);

    // Twice, for what is read back has to be good enough to be kept.
    for time in ["once", "again"] {
        let mut backend = run.open()?;
        for entry in &entries {
            backend.has(contract::PERSISTENT, &format!("after a flush and a crash, {time}"), entry)?;
        }
        backend.lacks(contract::PERSISTENT, "of what was deleted before the flush", &run.key("001"))?;
        let mut listed: Vec<String> = backend.scan(64)?.into_iter().map(|mark| mark.key).collect();
        listed.sort();
        listed.dedup();
        same(contract::PERSISTENT, "the number of keys in a scan after that", &listed.len(), &entries.len())?;
        let bytes: usize = entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        let expected = Usage { entries: before.entries + entries.len() as u64, bytes: before.bytes + bytes as u64 };
        same(contract::PERSISTENT, "stats after that", &backend.stats()?, &expected)?;
    }
    Ok(())
}

pub(super) fn a_crash_without_a_flush_breaks_nothing(run: &Run<'_>) -> Checked {
    for round in 0..5_u64 {
        let mut backend = run.open()?;
        let flushed = run.entry(&format!("flushed {round}"), STAMP, "flushed");
        let keys = run.keys(50);
        backend.store(std::slice::from_ref(&flushed))?;
        backend.flush()?;
        let at = |stamp: u64| {
            let entry = |key: &String| {
                let value = format!("{stamp} ").repeat(200).into_bytes();
                Entry { key: key.clone(), stamp, expires_at: None, value }
            };
            keys.iter().map(entry).collect::<Vec<_>>()
        };
        for part in at(STAMP + round).chunks(run.batch_of(1000)) {
            backend.put(part, Condition::Newer)?;
        }
        drop(backend);

        let mut backend = run.open()?;
        backend.has(contract::PERSISTENT, "after a flush, more writes and a crash", &flushed)?;
        // What was not flushed may be there or not, but as a whole, and from this round or an earlier one.
        for (found, number) in backend.get(&keys)?.into_iter().zip(0_usize..) {
            let Some(found) = found else { continue };
            let possible: Vec<Entry> =
                (0..=round).filter_map(|round| at(STAMP + round).into_iter().nth(number)).collect();
            ensure(possible.contains(&found), contract::EACH_ATOMIC, "an entry as it was put, or none", {
                use super::failure::Show as _;
                found.text()
            })?;
        }
    }
    Ok(())
}

pub(super) fn what_was_closed_is_all_there(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let entries = [run.entry("a", STAMP, "1"), run.entry("b", STAMP, "")];
    backend.store(&entries)?;
    backend.deletes(contract::VACANT, &run.mark("c", STAMP), Condition::Newer, Outcome::Applied)?;
    backend.close()?;
    let mut backend = run.open()?;
    for entry in &entries {
        backend.has(contract::CLOSE, "after close and open", entry)?;
    }
    backend.puts(contract::CLOSE, &run.entry("c", STAMP - 1, "late"), Condition::Newer, Outcome::Stale)
}

pub(super) fn tombstones_survive_a_crash(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    backend.store(&[run.entry("a", STAMP, "stored")])?;
    let marks = [run.mark("a", STAMP + 5), Mark { expires_at: Some(FAR), ..run.mark("b", STAMP + 5) }];
    same(contract::DELETE, "delete", &backend.delete(&marks, Condition::Newer)?, &vec![Outcome::Applied; 2])?;
    backend.flush()?;
    drop(backend);
    let mut backend = run.open()?;
    for name in ["a", "b"] {
        backend.lacks(contract::PERSISTENT, "of what was deleted before the crash", &run.key(name))?;
        backend.puts(
            contract::TOMBSTONE_KEPT,
            &run.entry(name, STAMP + 4, "late"),
            Condition::Newer,
            Outcome::Stale,
        )?;
        backend.puts(
            contract::TOMBSTONE_KEPT,
            &run.entry(name, STAMP + 6, "new"),
            Condition::Newer,
            Outcome::Applied,
        )?;
    }
    Ok(())
}

pub(super) fn every_instance_starts_empty(run: &Run<'_>) -> Checked {
    let empty = Usage { entries: 0, bytes: 0 };
    for way in ["close", "crash"] {
        let mut backend = run.open()?;
        same(contract::EPHEMERAL, "stats of a new instance", &backend.stats()?, &empty)?;
        backend.store(&[run.entry("a", STAMP, "stored")])?;
        backend.deletes(contract::VACANT, &run.mark("b", STAMP), Condition::Newer, Outcome::Applied)?;
        backend.flush()?;
        if way == "close" {
            backend.close()?;
        } else {
            drop(backend);
        }
        let mut backend = run.open()?;
        backend.lacks(contract::EPHEMERAL, &format!("in a new instance after a {way}"), &run.key("a"))?;
        backend.puts(contract::EPHEMERAL, &run.entry("b", STAMP - 1, "older"), Condition::Newer, Outcome::Applied)?;
    }
    Ok(())
}

pub(super) fn shards_are_kept_apart(run: &Run<'_>) -> Checked {
    let mut first = run.open_shard(0)?;
    let mut second = run.open_shard(1)?;
    let before = second.stats()?;
    let entry = run.entry("a", STAMP, "of the first");
    first.store(std::slice::from_ref(&entry))?;
    first.deletes(contract::VACANT, &run.mark("b", STAMP), Condition::Newer, Outcome::Applied)?;
    first.flush()?;
    second.lacks(contract::APART, "from another shard", &entry.key)?;
    same(contract::APART, "a scan of another shard", &second.scan(100)?, &vec![])?;
    same(contract::APART, "stats of another shard", &second.stats()?, &before)?;
    // Neither entries nor tombstones of one count in the other.
    let other = run.entry("a", STAMP - 1, "of the second");
    second.store(&[other.clone(), run.entry("b", STAMP - 1, "of the second")])?;
    second.flush()?;
    first.has(contract::APART, "after a put to another shard", &entry)?;
    second.has(contract::APART, "of the other shard", &other)?;
    second.close()?;
    first.close()
}
