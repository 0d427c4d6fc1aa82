//! Cases: writes that are prepared first, and take place or not when their transaction has ended.

use super::contract;
use super::failure::{Checked, Stop, failed, is_unsupported, refused, same};
use super::run::{Client, PAST, Run, STAMP};
use super::sizes::LONGEST_KEY;
use crate::kv::{Condition, Entry, GuestError, KvError, Mark, Outcome};

pub(super) fn intents_are_supported_or_not_at_all(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let transaction = name(run, "t");
    let trial = backend.trial();
    let prepared = trial.prepare(&transaction, &[run.entry("a", STAMP, "v")], &[]);
    let others = [
        ("commit", trial.commit(&transaction)),
        ("abort", trial.abort(&transaction)),
        ("in-doubt", trial.in_doubt().map(drop)),
    ];
    let is_without = prepared.as_ref().is_err_and(is_unsupported);
    for (function, answer) in &others {
        if is_without {
            let what = format!("{function}, where prepare is unsupported");
            refused(contract::NO_INTENTS, &what, answer, "unsupported", is_unsupported)?;
        } else if answer.as_ref().is_err_and(is_unsupported) {
            let expected = format!("an answer to {function}, where prepare is supported");
            return failed(contract::NO_INTENTS, expected, "the error unsupported");
        }
    }
    backend.close()
}

pub(super) fn what_is_prepared_is_out_of_sight(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    in_doubt(run, &mut backend, &[])?;
    backend.store(&[run.entry("old", STAMP, "old"), run.entry("gone", STAMP, "old")])?;
    let before = backend.stats()?;
    let puts = [run.entry("old", STAMP + 5, "new"), run.entry("new", STAMP + 5, "new")];
    prepare(run, &mut backend, "t", &puts, &[run.mark("gone", STAMP + 5)])?;
    backend.has(contract::UNSEEN, "of what is prepared to be replaced", &run.entry("old", STAMP, "old"))?;
    backend.has(contract::UNSEEN, "of what is prepared to be deleted", &run.entry("gone", STAMP, "old"))?;
    backend.lacks(contract::UNSEEN, "of what is prepared to be put", &run.key("new"))?;
    let mut listed: Vec<String> = backend.scan(100)?.into_iter().map(|mark| mark.key).collect();
    listed.sort();
    same(contract::UNSEEN, "a scan", &listed, &vec![run.key("gone"), run.key("old")])?;
    same(contract::UNSEEN, "stats", &backend.stats()?, &before)?;
    // It stands in nobody's way.
    backend.puts(contract::UNSEEN, &run.entry("new", STAMP + 1, "before"), Condition::Newer, Outcome::Applied)?;
    in_doubt(run, &mut backend, &["t"])?;
    commit(run, &mut backend, "t")?;
    for entry in &puts {
        backend.has(contract::COMMIT, "after the commit", entry)?;
    }
    backend.lacks(contract::COMMIT, "of what was deleted by the commit", &run.key("gone"))?;
    backend.puts(contract::COMMIT, &run.entry("gone", STAMP + 4, "late"), Condition::Newer, Outcome::Stale)?;
    in_doubt(run, &mut backend, &[])?;
    backend.close()
}

pub(super) fn aborting_leaves_nothing(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let kept = run.entry("kept", STAMP, "old");
    backend.store(std::slice::from_ref(&kept))?;
    for transaction in ["a", "b"] {
        let puts = [run.entry("kept", STAMP + 5, transaction), run.entry(transaction, STAMP + 5, "new")];
        prepare(run, &mut backend, transaction, &puts, &[])?;
    }
    in_doubt(run, &mut backend, &["a", "b"])?;
    abort(run, &mut backend, "a")?;
    in_doubt(run, &mut backend, &["b"])?;
    abort(run, &mut backend, "b")?;
    in_doubt(run, &mut backend, &[])?;
    // What is aborted can't be committed any more.
    commit(run, &mut backend, "a")?;
    backend.has(contract::ABORT, "after the abort", &kept)?;
    backend.lacks(contract::ABORT, "after the abort", &run.key("a"))?;
    backend.puts(contract::ABORT, &run.entry("a", STAMP, "older"), Condition::Newer, Outcome::Applied)?;
    backend.close()
}

pub(super) fn preparing_again_replaces(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    prepare(run, &mut backend, "t", &[run.entry("first", STAMP, "1")], &[run.mark("deleted", STAMP)])?;
    let second = run.entry("second", STAMP, "2");
    prepare(run, &mut backend, "t", std::slice::from_ref(&second), &[])?;
    commit(run, &mut backend, "t")?;
    backend.has(contract::PREPARE, "after the commit", &second)?;
    backend.lacks(contract::PREPARE, "of what was prepared before", &run.key("first"))?;
    backend.puts(contract::PREPARE, &run.entry("deleted", STAMP - 1, "v"), Condition::Newer, Outcome::Applied)?;
    backend.close()
}

pub(super) fn committing_obeys_the_stamps(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let newer = [run.entry("a", STAMP + 9, "newer"), run.entry("b", STAMP + 5, "as new")];
    let puts = [run.entry("a", STAMP + 5, "prepared"), run.entry("b", STAMP + 5, "prepared")];
    let deletes = [run.mark("c", STAMP + 5), run.mark("d", STAMP + 5)];
    prepare(run, &mut backend, "t", &puts, &deletes)?;
    backend.store(&newer)?;
    let late = run.entry("c", STAMP + 9, "newer");
    backend.store(std::slice::from_ref(&late))?;
    commit(run, &mut backend, "t")?;
    for entry in newer.iter().chain([&late]) {
        backend.has(contract::COMMIT, "of what is not older than what was prepared", entry)?;
    }
    // A tombstone that was prepared is one like any other.
    backend.puts(contract::COMMIT, &run.entry("d", STAMP + 5, "late"), Condition::Newer, Outcome::Stale)?;
    backend.puts(contract::COMMIT, &run.entry("d", STAMP + 6, "later"), Condition::Newer, Outcome::Applied)?;
    // So is an expiry.
    let expired = Entry { expires_at: Some(PAST), ..run.entry("e", STAMP, "v") };
    prepare(run, &mut backend, "t", &[expired], &[])?;
    commit(run, &mut backend, "t")?;
    backend.lacks(contract::EXPIRED, "of what had expired when it was committed", &run.key("e"))?;
    backend.close()
}

pub(super) fn unknown_transactions_are_fine(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    for _ in 0..2 {
        commit(run, &mut backend, "unknown")?;
        abort(run, &mut backend, "unknown")?;
    }
    let entry = run.entry("a", STAMP, "v");
    prepare(run, &mut backend, "t", std::slice::from_ref(&entry), &[])?;
    commit(run, &mut backend, "t")?;
    commit(run, &mut backend, "t")?;
    abort(run, &mut backend, "t")?;
    backend.has(contract::UNKNOWN, "after commit, commit and abort", &entry)?;
    in_doubt(run, &mut backend, &[])?;
    backend.close()
}

pub(super) fn what_no_put_may_be_is_not_prepared(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let mut bad = vec![(String::new(), "an empty key")];
    let longest = run.capabilities.max_key_bytes as usize;
    if longest <= LONGEST_KEY {
        bad.push((run.foreign_key_of_length(longest + 1, 'k'), "a key over the limit"));
    } else {
        run.note(format!("no key over the limit was tried; `max-key-bytes` is {longest}"));
    }
    let good = run.entry("good", STAMP, "v");
    for (key, what) in bad {
        let bad = Entry { key, ..run.entry("bad", STAMP, "v") };
        let answer = prepared(&mut backend, &name(run, "t"), &[good.clone(), bad], &[])?;
        refused(contract::PREPARE, &format!("prepare of {what}"), &answer, "invalid-argument or too-large", |error| {
            matches!(error, KvError::Refused(GuestError::InvalidArgument(_) | GuestError::TooLarge(_)))
        })?;
    }
    in_doubt(run, &mut backend, &[])?;
    commit(run, &mut backend, "t")?;
    backend.lacks(contract::PREPARE, "of what was refused", &good.key)?;
    backend.close()
}

pub(super) fn what_is_prepared_survives_a_crash(run: &Run<'_>) -> Checked {
    if !run.capabilities.persistent {
        return Err(Stop::Skip("`persistent` is not declared".to_owned()));
    }
    let mut backend = run.open()?;
    backend.store(&[run.entry("deleted", STAMP, "old")])?;
    backend.flush()?;
    let entry = run.entry("put", STAMP, &"value ".repeat(3000));
    prepare(run, &mut backend, "c", std::slice::from_ref(&entry), &[run.mark("deleted", STAMP + 1)])?;
    prepare(run, &mut backend, "a", &[run.entry("aborted", STAMP, "v")], &[])?;
    drop(backend);

    let mut backend = run.open()?;
    backend.lacks(contract::UNSEEN, "of what is prepared, after a crash", &entry.key)?;
    in_doubt(run, &mut backend, &["a", "c"])?;
    commit(run, &mut backend, "c")?;
    abort(run, &mut backend, "a")?;
    drop(backend);

    // Without a flush.
    let mut backend = run.open()?;
    backend.has(contract::COMMIT_DURABLE, "after a commit and a crash", &entry)?;
    backend.lacks(contract::COMMIT_DURABLE, "of what the commit deleted", &run.key("deleted"))?;
    // An abort needn't be durable; what comes back of it is aborted once more.
    abort(run, &mut backend, "a")?;
    in_doubt(run, &mut backend, &[])?;
    backend.close()
}

/// The name of a transaction of this case alone.
fn name(run: &Run<'_>, transaction: &str) -> String {
    let prefix = run.foreign_key_of_length(0, ' ');
    format!("{prefix}{transaction}")
}

fn prepare(run: &Run<'_>, backend: &mut Client, transaction: &str, puts: &[Entry], deletes: &[Mark]) -> Checked {
    match prepared(backend, &name(run, transaction), puts, deletes)? {
        Ok(()) => Ok(()),
        Err(error) => failed(contract::PREPARE, "an answer to prepare".to_owned(), error.to_string()),
    }
}

fn prepared(backend: &mut Client, transaction: &str, puts: &[Entry], deletes: &[Mark]) -> Checked<Result<(), KvError>> {
    supported(backend.trial().prepare(transaction, puts, deletes))
}

/// Stops the case if the plugin has no place for what is prepared, as it may.
fn supported<T>(answer: Result<T, KvError>) -> Checked<Result<T, KvError>> {
    match answer {
        Err(KvError::Refused(GuestError::Unsupported(text))) => {
            Err(Stop::Skip(format!("the plugin answers «unsupported»: {text}")))
        }
        answer => Ok(answer),
    }
}

fn commit(run: &Run<'_>, backend: &mut Client, transaction: &str) -> Checked {
    ended(backend.trial().commit(&name(run, transaction)), "commit")
}

fn abort(run: &Run<'_>, backend: &mut Client, transaction: &str) -> Checked {
    ended(backend.trial().abort(&name(run, transaction)), "abort")
}

fn ended(answer: Result<(), KvError>, what: &str) -> Checked {
    match supported(answer)? {
        Err(error) => failed(contract::UNKNOWN, format!("an answer to {what}"), error.to_string()),
        Ok(()) => Ok(()),
    }
}

/// That these transactions of the case, in this order, and no others are in doubt.
fn in_doubt(run: &Run<'_>, backend: &mut Client, expected: &[&str]) -> Checked {
    let prefix = name(run, "");
    match supported(backend.trial().in_doubt())? {
        Ok(mut found) => {
            found.retain(|transaction| transaction.starts_with(&prefix));
            found.sort();
            let expected: Vec<String> = expected.iter().map(|transaction| name(run, transaction)).collect();
            same(contract::IN_DOUBT, "in-doubt", &found, &expected)
        }
        Err(error) => failed(contract::IN_DOUBT, "an answer to in-doubt".to_owned(), error.to_string()),
    }
}
