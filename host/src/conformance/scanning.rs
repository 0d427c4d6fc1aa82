//! Cases: a scan finds everything, and the statistics count it.

use std::collections::BTreeSet;

use super::contract;
use super::failure::{Checked, ensure, failed, refused, same};
use super::run::{FAR, PAST, Run, STAMP};
use crate::kv::{Condition, Entry, GuestError, KvError, Mark, Outcome, Usage};

pub(super) fn a_scan_lists_the_entries(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    same(contract::SCAN, "a scan before anything is put", &backend.scan(100)?, &vec![])?;
    backend.store(&[run.entry("a", STAMP, "1"), run.entry("b", STAMP + 1, ""), run.entry("c", 7, "3")])?;
    let mut listed = backend.scan(100)?;
    listed.sort_by(|a, b| a.key.cmp(&b.key));
    listed.dedup();
    let expected = vec![run.mark("a", STAMP), run.mark("b", STAMP + 1), run.mark("c", 7)];
    same(contract::SCAN, "a scan of three entries", &listed, &expected)
}

pub(super) fn a_scan_pages_through_1025_keys(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let keys = run.keys(1025);
    store_all(run, &mut backend, &keys)?;
    for limit in [1000, 1025, 64, 10_000, u32::MAX / 4] {
        let listed: Vec<String> = backend.scan(limit)?.into_iter().map(|mark| mark.key).collect();
        complete(&format!("a scan with limit {limit}"), &listed, &keys)?;
    }
    Ok(())
}

pub(super) fn a_scan_with_a_limit_of_one(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let keys = run.keys(40);
    store_all(run, &mut backend, &keys)?;
    let listed: Vec<String> = backend.scan(1)?.into_iter().map(|mark| mark.key).collect();
    complete("a scan with limit 1", &listed, &keys)
}

pub(super) fn a_scan_is_complete_while_entries_change(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let keys = run.keys(600);
    store_all(run, &mut backend, &keys)?;
    // Every third stays as it is, the next one is overwritten on the way, and the next one deleted; new ones come in between.
    let stays: Vec<String> =
        keys.iter().enumerate().filter(|(index, _)| index % 3 != 2).map(|(_, key)| key.clone()).collect();
    let listed = backend.scan_while(10, |backend, page| {
        let at = |index: usize| keys.get(index % keys.len()).cloned().unwrap_or_default();
        let stamp = STAMP + page as u64;
        let overwritten = Entry { key: at(page * 3 + 1), stamp, expires_at: None, value: b"longer".repeat(page % 50) };
        let new = run.entry(&format!("new {page}"), STAMP, "new");
        backend.put(&[overwritten, new], Condition::Newer)?;
        let marks = [3, 100, 301].map(|offset| Mark { key: at((page + offset) * 3 + 2), stamp, expires_at: Some(FAR) });
        backend.delete(&marks, Condition::Newer)?;
        Ok(())
    })?;
    let seen: BTreeSet<String> = listed.iter().map(|mark| mark.key.clone()).collect();
    let missed: Vec<String> = stays.iter().filter(|key| !seen.contains(*key)).cloned().collect();
    same(contract::SCAN, "the entries that were there all the time, and that the scan missed", &missed, &vec![])
}

pub(super) fn foreign_cursors_are_refused(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let keys = run.keys(20);
    store_all(run, &mut backend, &keys)?;
    let nonsense = ["", "\0", "no cursor of yours", "-1", "99999999999999999999999999", "日本", "{}", "null"];
    for cursor in nonsense {
        let answer = backend.trial().scan(Some(cursor), 10).map(|page| page.marks);
        refused(
            contract::FOREIGN_CURSOR,
            &format!("a scan from the cursor {cursor:?}"),
            &answer,
            "invalid-argument",
            |error| matches!(error, KvError::Refused(GuestError::InvalidArgument(_))),
        )?;
    }
    Ok(())
}

pub(super) fn stats_are_exact(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let before = backend.stats()?;
    let mut expected = before;
    let check = |backend: &mut super::run::Client, when: &str, expected: &Usage| {
        same(contract::USAGE_BYTES, &format!("stats {when}"), &backend.stats()?, expected)
    };
    let size = |name: &str, value: &str| (run.key(name).len() + value.len()) as u64;
    let (short, long) = ("v", "a much longer value, with ümlauts");
    backend.store(&[run.entry("a", STAMP, short), run.entry("ключ", STAMP, long), run.entry("c", STAMP, "")])?;
    expected.entries += 3;
    expected.bytes += size("a", short) + size("ключ", long) + size("c", "");
    check(&mut backend, "after three puts", &expected)?;
    backend.puts(contract::NEWER, &run.entry("a", STAMP + 1, long), Condition::Newer, Outcome::Applied)?;
    expected.bytes += (long.len() - short.len()) as u64;
    check(&mut backend, "after overwriting with a longer value", &expected)?;
    backend.puts(contract::NEWER, &run.entry("ключ", STAMP + 1, short), Condition::Newer, Outcome::Applied)?;
    expected.bytes -= (long.len() - short.len()) as u64;
    check(&mut backend, "after overwriting with a shorter value", &expected)?;
    backend.delete(&[run.mark("c", STAMP + 1), run.mark("nothing", STAMP)], Condition::Newer)?;
    expected.entries -= 1;
    expected.bytes -= size("c", "");
    check(&mut backend, "after a delete, and a delete of nothing", &expected)?;
    backend.puts(contract::NEWER, &run.entry("c", STAMP + 2, short), Condition::Newer, Outcome::Applied)?;
    expected.entries += 1;
    expected.bytes += size("c", short);
    check(&mut backend, "after a put over a tombstone", &expected)?;
    backend
        .delete(&[run.mark("a", STAMP + 2), run.mark("ключ", STAMP + 2), run.mark("c", STAMP + 3)], Condition::Newer)?;
    check(&mut backend, "after all is deleted", &before)?;
    let expired = Entry { expires_at: Some(PAST), ..run.entry("d", STAMP, long) };
    backend.puts(contract::PAST, &expired, Condition::Newer, Outcome::Applied)?;
    check(&mut backend, "after a put of what had expired", &before)
}

fn store_all(run: &Run<'_>, backend: &mut super::run::Client, keys: &[String]) -> Checked {
    for part in keys.chunks(run.batch_of(1)) {
        let entry = |key: &String| Entry { key: key.clone(), stamp: STAMP, expires_at: None, value: b"value".to_vec() };
        backend.store(&part.iter().map(entry).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// That everything was listed that should be, and nothing else. More than once is allowed.
fn complete(what: &str, listed: &[String], keys: &[String]) -> Checked {
    let seen: BTreeSet<&String> = listed.iter().collect();
    let missed: Vec<String> = keys.iter().filter(|key| !seen.contains(key)).cloned().collect();
    same(contract::SCAN, &format!("the keys that {what} missed"), &missed, &vec![])?;
    let wanted: BTreeSet<&String> = keys.iter().collect();
    match seen.iter().find(|key| !wanted.contains(*key)) {
        Some(extra) => failed(contract::SCAN, format!("{what} lists what was put"), format!("{extra:?} too")),
        None => ensure(true, contract::SCAN, "", ""),
    }
}
