//! A backend that misbehaves as its settings say, and is a correct little store otherwise; and which, asked for the entry of
//! a key like `probe connect 127.0.0.1:80`, tries that and answers what came of it. See `tests/guests/README.md`.
#![cfg(target_family = "wasm")]

mod correct;
mod misdeeds;
mod plan;
mod probes;

use memcell_plugin::guest::bindings::exports::memcell::kv::digests::{Digest, Guest as Digests};
use memcell_plugin::guest::bindings::exports::memcell::kv::fencing::Guest as Fencing;
use memcell_plugin::guest::bindings::exports::memcell::kv::lifecycle::{Guest as Lifecycle, Limits};
use memcell_plugin::guest::bindings::exports::memcell::kv::store::{
    Condition, Entry, Error, Guest as Store, Mark, Outcome, Page, Usage,
};
use memcell_plugin::guest::bindings::exports::memcell::kv::two_phase::Guest as TwoPhase;

use correct::Correct;
use misdeeds::{deed, rig, twist_digests, twist_entries, twist_outcomes, twist_page};
use plan::{Function, Mode, Plan};

struct Hostile;

impl Lifecycle for Hostile {
    fn open(shard: u32, settings: Vec<(String, String)>) -> Result<Limits, Error> {
        plan::set(Plan::from_settings(settings)?);
        let mode = act(Function::Open)?;
        let mut limits = <Correct as Lifecycle>::open(shard, Vec::new())?;
        if matches!(mode, Some((Mode::AbsurdLimits, _))) {
            limits.max_batch = 0;
        }
        rig(mode);
        Ok(limits)
    }

    fn flush() -> Result<(), Error> {
        act(Function::Flush)?;
        <Correct as Lifecycle>::flush()
    }

    fn health() -> Result<(), Error> {
        act(Function::Health)?;
        <Correct as Lifecycle>::health()
    }

    fn close() -> Result<(), Error> {
        act(Function::Close)?;
        <Correct as Lifecycle>::close()
    }
}

impl Store for Hostile {
    fn get_many(keys: Vec<String>) -> Result<Vec<Option<Entry>>, Error> {
        let mode = act(Function::Get)?;
        let results: Vec<Option<Entry>> = keys.iter().map(|key| probes::answer(key)).collect();
        let answers = <Correct as Store>::get_many(keys)?;
        let answers = results.into_iter().zip(answers).map(|(result, answer)| result.or(answer)).collect();
        Ok(twist_entries(mode, answers))
    }

    fn put_many(entries: Vec<Entry>, condition: Condition) -> Result<Vec<Outcome>, Error> {
        let mode = if plan::concerns(&entries) { act(Function::Put)? } else { None };
        let outcomes = match mode {
            Some((Mode::LostWrite, _)) => vec![Outcome::Applied; entries.len()],
            _ => <Correct as Store>::put_many(entries, condition)?,
        };
        Ok(twist_outcomes(mode, outcomes))
    }

    fn delete_many(marks: Vec<Mark>, condition: Condition) -> Result<Vec<Outcome>, Error> {
        let mode = act(Function::Delete)?;
        let outcomes = match mode {
            Some((Mode::LostWrite, _)) => vec![Outcome::Applied; marks.len()],
            _ => <Correct as Store>::delete_many(marks, condition)?,
        };
        Ok(twist_outcomes(mode, outcomes))
    }

    fn scan(cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        let mode = act(Function::Scan)?;
        match mode {
            // The cursor it hands out is not the inner store's, which therefore must not see it.
            Some((Mode::EndlessScan, _)) => Ok(Page { marks: Vec::new(), next: Some("and on".to_owned()) }),
            _ => Ok(twist_page(mode, <Correct as Store>::scan(cursor, limit)?)),
        }
    }

    fn stats() -> Result<Usage, Error> {
        act(Function::Stats)?;
        <Correct as Store>::stats()
    }
}

impl Digests for Hostile {
    fn digest_many(keys: Vec<String>, head_bytes: u32) -> Result<Vec<Option<Digest>>, Error> {
        let mode = act(Function::Digest)?;
        Ok(twist_digests(mode, <Correct as Digests>::digest_many(keys, head_bytes)?))
    }
}

impl Fencing for Hostile {
    fn hold(token: u64) -> Result<(), Error> {
        act(Function::Hold)?;
        <Correct as Fencing>::hold(token)
    }
}

impl TwoPhase for Hostile {
    fn prepare(transaction: String, puts: Vec<Entry>, deletes: Vec<Mark>) -> Result<(), Error> {
        act(Function::Prepare)?;
        <Correct as TwoPhase>::prepare(transaction, puts, deletes)
    }

    fn commit(transaction: String) -> Result<(), Error> {
        act(Function::Commit)?;
        <Correct as TwoPhase>::commit(transaction)
    }

    fn abort(transaction: String) -> Result<(), Error> {
        act(Function::Abort)?;
        <Correct as TwoPhase>::abort(transaction)
    }

    fn in_doubt() -> Result<Vec<String>, Error> {
        act(Function::InDoubt)?;
        <Correct as TwoPhase>::in_doubt()
    }
}

/// How to twist an answer of this call of `function`, if at all. Misdeeds that need no answer happen here.
fn act(function: Function) -> Result<Option<(Mode, usize)>, Error> {
    match plan::strike(function) {
        Some((mode, size)) => deed(mode, size).map(|()| Some((mode, size))),
        None => Ok(None),
    }
}

memcell_plugin::export_component!(Hostile);
