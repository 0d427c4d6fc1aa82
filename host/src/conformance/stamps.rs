//! Cases: which write prevails is decided by stamps, on entries and on tombstones alike.

use std::time::Duration;

use super::contract;
use super::failure::{Checked, ensure, same};
use super::run::{Client, FAR, Run, STAMP, now};
use crate::kv::{Condition, Entry, Mark, Outcome};

pub(super) fn newer_takes_larger_stamps_only(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    backend.store(&[run.entry("a", STAMP, "stored")])?;
    for (stamp, expected) in
        [(STAMP - 1, Outcome::Stale), (STAMP, Outcome::Stale), (STAMP + 1, Outcome::Applied), (STAMP, Outcome::Stale)]
    {
        backend.puts(contract::NEWER, &run.entry("a", stamp, &stamp.to_string()), Condition::Newer, expected)?;
    }
    backend.has(contract::NEWER, "after four puts", &run.entry("a", STAMP + 1, &(STAMP + 1).to_string()))
}

pub(super) fn not_older_takes_equal_stamps_too(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    backend.store(&[run.entry("a", STAMP, "stored")])?;
    backend.puts(contract::NOT_OLDER, &run.entry("a", STAMP - 1, "older"), Condition::NotOlder, Outcome::Stale)?;
    backend.puts(contract::NOT_OLDER, &run.entry("a", STAMP, "equal"), Condition::NotOlder, Outcome::Applied)?;
    backend.has(contract::NOT_OLDER, "after an equal stamp", &run.entry("a", STAMP, "equal"))?;
    backend.puts(contract::NOT_OLDER, &run.entry("a", STAMP + 1, "larger"), Condition::NotOlder, Outcome::Applied)?;
    backend.has(contract::NOT_OLDER, "after a larger stamp", &run.entry("a", STAMP + 1, "larger"))
}

pub(super) fn always_never_lowers_the_stamp(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    backend.puts(contract::VACANT, &run.entry("a", STAMP, "stored"), Condition::Always, Outcome::Applied)?;
    backend.puts(contract::ALWAYS, &run.entry("a", STAMP - 5, "forced"), Condition::Always, Outcome::Applied)?;
    backend.has(contract::ALWAYS, "after a lower stamp", &run.entry("a", STAMP, "forced"))?;
    backend.puts(contract::ALWAYS, &run.entry("a", STAMP + 5, "raised"), Condition::Always, Outcome::Applied)?;
    backend.has(contract::ALWAYS, "after a larger stamp", &run.entry("a", STAMP + 5, "raised"))?;
    // A forced delete keeps the larger stamp as well, and so does a put over its tombstone.
    backend.deletes(contract::ALWAYS, &run.mark("a", STAMP), Condition::Always, Outcome::Applied)?;
    backend.lacks(contract::DELETE, "after a forced delete", &run.key("a"))?;
    backend.puts(contract::ALWAYS, &run.entry("a", STAMP + 4, "late"), Condition::Newer, Outcome::Stale)?;
    backend.puts(contract::ALWAYS, &run.entry("a", STAMP, "back"), Condition::Always, Outcome::Applied)?;
    backend.has(contract::ALWAYS, "after a forced put over a tombstone", &run.entry("a", STAMP + 5, "back"))
}

pub(super) fn deletes_obey_the_conditions(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let entry = run.entry("a", STAMP, "stored");
    backend.store(std::slice::from_ref(&entry))?;
    for (stamp, condition, rule) in [
        (STAMP - 1, Condition::Newer, contract::NEWER),
        (STAMP, Condition::Newer, contract::NEWER),
        (STAMP - 1, Condition::NotOlder, contract::NOT_OLDER),
    ] {
        backend.deletes(rule, &run.mark("a", stamp), condition, Outcome::Stale)?;
        backend.has(contract::STALE, "after a stale delete", &entry)?;
    }
    backend.deletes(contract::NOT_OLDER, &run.mark("a", STAMP), Condition::NotOlder, Outcome::Applied)?;
    backend.lacks(contract::DELETE, "after the delete", &entry.key)?;
    backend.deletes(contract::NEWER, &run.mark("a", STAMP), Condition::Newer, Outcome::Stale)?;
    backend.deletes(contract::NEWER, &run.mark("a", STAMP + 1), Condition::Newer, Outcome::Applied)
}

pub(super) fn stamps_have_64_bits(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    // Where a number of another kind would round, overflow or turn negative.
    let ascending =
        [0, 1, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, STAMP, STAMP + 1, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
    let mut before: Option<u64> = None;
    for stamp in ascending {
        let entry = run.entry("a", stamp, &stamp.to_string());
        backend.puts(contract::STAMP, &entry, Condition::Newer, Outcome::Applied)?;
        backend.has(contract::STAMP, "after the put", &entry)?;
        if let Some(before) = before {
            backend.puts(contract::STAMP, &run.entry("a", before, "late"), Condition::Newer, Outcome::Stale)?;
        }
        backend.puts(contract::STAMP, &run.entry("a", stamp, "equal"), Condition::Newer, Outcome::Stale)?;
        before = Some(stamp);
    }
    let listed = backend.scan(100)?;
    let mark = Mark { key: run.key("a"), stamp: u64::MAX, expires_at: None };
    same(contract::STAMP, "a scan", &listed, &vec![mark])
}

pub(super) fn a_stale_write_changes_nothing(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let entry = run.entry("a", STAMP, "stored");
    backend.store(std::slice::from_ref(&entry))?;
    let before = backend.stats()?;
    let late =
        Entry { expires_at: Some(FAR), value: b"a longer value than before".to_vec(), ..run.entry("a", STAMP - 1, "") };
    for condition in [Condition::Newer, Condition::NotOlder] {
        backend.puts(contract::STALE, &late, condition, Outcome::Stale)?;
        backend.deletes(contract::STALE, &run.mark("a", STAMP - 1), condition, Outcome::Stale)?;
    }
    backend.has(contract::STALE, "after stale writes", &entry)?;
    same(contract::STALE, "stats after stale writes", &backend.stats()?, &before)
}

pub(super) fn a_tombstone_holds_off_late_puts(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    for (name, expires_at, was_there) in
        [("a", None, true), ("b", Some(FAR), true), ("c", None, false), ("d", Some(FAR), false)]
    {
        if was_there {
            backend.store(&[run.entry(name, STAMP, "stored")])?;
        }
        let mark = Mark { expires_at, ..run.mark(name, STAMP + 5) };
        backend.deletes(contract::NEWER, &mark, Condition::Newer, Outcome::Applied)?;
        // One that was under way when its key was deleted.
        backend.puts(
            contract::TOMBSTONE_KEPT,
            &run.entry(name, STAMP + 4, "late"),
            Condition::Newer,
            Outcome::Stale,
        )?;
        backend.puts(
            contract::TOMBSTONE_KEPT,
            &run.entry(name, STAMP + 4, "late"),
            Condition::NotOlder,
            Outcome::Stale,
        )?;
        backend.puts(
            contract::TOMBSTONE_KEPT,
            &run.entry(name, STAMP + 5, "equal"),
            Condition::Newer,
            Outcome::Stale,
        )?;
        backend.lacks(contract::STALE, "after late puts", &run.key(name))?;
    }
    Ok(())
}

pub(super) fn a_put_takes_the_place_of_a_tombstone(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    for (name, stamp, condition) in [("a", STAMP + 1, Condition::Newer), ("b", STAMP, Condition::NotOlder)] {
        let tombstone = Mark { expires_at: Some(FAR), ..run.mark(name, STAMP) };
        backend.deletes(contract::VACANT, &tombstone, Condition::Newer, Outcome::Applied)?;
        let entry = run.entry(name, stamp, "back");
        backend.puts(contract::PUT_OVER_TOMBSTONE, &entry, condition, Outcome::Applied)?;
        // With its own expiry, which is none, and not with that of the tombstone.
        backend.has(contract::PUT_OVER_TOMBSTONE, "after a put over a tombstone", &entry)?;
    }
    Ok(())
}

pub(super) fn a_tombstone_is_no_entry(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let before = backend.stats()?;
    backend.store(&[run.entry("a", STAMP, "1"), run.entry("b", STAMP, "2")])?;
    let marks =
        [run.mark("a", STAMP + 1), run.mark("c", STAMP), Mark { expires_at: Some(FAR), ..run.mark("d", STAMP) }];
    let outcomes = backend.delete(&marks, Condition::Newer)?;
    same(contract::DELETE, "delete of one entry and two vacant keys", &outcomes, &vec![Outcome::Applied; 3])?;
    let found = backend.get(&["a", "c", "d"].map(|name| run.key(name)))?;
    same(contract::DELETE, "get of what was deleted", &found, &vec![None; 3])?;
    let listed: Vec<String> = backend.scan(100)?.into_iter().map(|mark| mark.key).collect();
    same(contract::SCAN, "a scan", &listed, &vec![run.key("b")])?;
    backend.deletes(contract::NEWER, &run.mark("b", STAMP + 1), Condition::Newer, Outcome::Applied)?;
    same(contract::USAGE_ENTRIES, "stats after all is deleted", &backend.stats()?, &before)
}

pub(super) fn a_tombstone_is_kept_until_it_expires(run: &Run<'_>) -> Checked {
    const LIFE: Duration = Duration::from_millis(1500);
    let mut backend = run.open()?;
    backend.store(&[run.entry("a", STAMP, "stored")])?;
    let expires_at = now() + u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
    let tombstone = Mark { expires_at: Some(expires_at), ..run.mark("a", STAMP + 5) };
    backend.deletes(contract::NEWER, &tombstone, Condition::Newer, Outcome::Applied)?;
    while let Some(outcome) = late_put_before(&mut backend, &run.entry("a", STAMP + 1, "late"), expires_at)? {
        same(contract::TOMBSTONE_KEPT, "a late put before the tombstone's time", &outcome, &Outcome::Stale)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    // From now on it may be forgotten, and a write that beats it passes in any case.
    backend.puts(contract::NEWER, &run.entry("a", STAMP + 6, "new"), Condition::Newer, Outcome::Applied)?;
    let found = backend.get_one(&run.key("a"))?;
    ensure(found.is_some(), contract::PUT_OVER_TOMBSTONE, "the entry that was put over it", "none")
}

/// The outcome of a put, if it was answered before that time.
fn late_put_before(backend: &mut Client, entry: &Entry, time: u64) -> Checked<Option<Outcome>> {
    let outcome = backend.put(std::slice::from_ref(entry), Condition::Newer)?.pop();
    Ok(outcome.filter(|_| now() < time))
}
