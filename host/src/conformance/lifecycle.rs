//! Cases: from opening to closing, and what lies outside.

use super::contract;
use super::failure::{Checked, Show, failed, same};
use super::run::{Run, STAMP};
use crate::kv::{Condition, Entry, KvError, Mark, Trial};

pub(super) fn opens_and_is_healthy(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let before = backend.stats()?;
    for _ in 0..3 {
        backend.health()?;
        backend.flush()?;
    }
    same(contract::HEALTH, "stats after health and flush", &backend.stats()?, &before)?;
    backend.store(&[run.entry("a", STAMP, "value")])?;
    backend.health()?;
    backend.has(contract::HEALTH, "after health", &run.entry("a", STAMP, "value"))?;
    backend.close()
}

pub(super) fn nothing_is_answered_before_open(run: &Run<'_>) -> Checked {
    for call in CALLS {
        let mut trial = match run.trials().unopened() {
            Ok(trial) => trial,
            Err(error) => return failed(contract::OPEN, "an instance", error.to_string()),
        };
        no_answer(contract::OPEN, "before open", call, &mut trial, run)?;
    }
    Ok(())
}

pub(super) fn nothing_is_answered_after_close(run: &Run<'_>) -> Checked {
    for call in CALLS {
        let mut backend = run.open()?;
        if let Err(error) = backend.trial().close() {
            return failed(contract::CLOSE, "close", error.to_string());
        }
        no_answer(contract::CLOSE, "after close", call, backend.trial(), run)?;
    }
    // The store itself is as good as ever.
    let mut backend = run.open()?;
    backend.lacks(contract::GET, "of what was put after close", &run.key("a"))
}

/// A function of the contract that says something about what is stored, and what it answers, as text.
type Call = (&'static str, fn(&mut Trial, &Run<'_>) -> Result<String, KvError>);

const CALLS: [Call; 5] = [
    ("get-many", |trial, run| trial.get_many(&[run.key("a")]).map(|answer| answer.text())),
    ("put-many", |trial, run| {
        let entry: Entry = run.entry("a", STAMP, "value");
        trial.put_many(&[entry], Condition::Newer).map(|answer| answer.text())
    }),
    ("delete-many", |trial, run| {
        let mark: Mark = run.mark("b", STAMP);
        trial.delete_many(&[mark], Condition::Newer).map(|answer| answer.text())
    }),
    ("scan", |trial, _| trial.scan(None, 10).map(|page| page.marks.text())),
    ("stats", |trial, _| trial.stats().map(|usage| usage.text())),
];

/// An error will do, or a trap: whoever calls is wrong. But an answer would be one about nothing.
fn no_answer(contract: &'static str, when: &str, call: Call, trial: &mut Trial, run: &Run<'_>) -> Checked {
    let (function, call) = call;
    match call(trial, run) {
        Err(KvError::Deadline { .. }) => {
            failed(contract, format!("an error from {function} {when}"), "no answer within the deadline")
        }
        Err(_) => Ok(()),
        Ok(answer) => failed(contract, format!("an error from {function} {when}"), format!("the answer {answer}")),
    }
}
