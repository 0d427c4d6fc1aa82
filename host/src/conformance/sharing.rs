//! Cases: several instances on one store.

use std::sync::Barrier;

use super::contract;
use super::failure::{Checked, ensure, failed, is_unsupported, refused};
use super::run::{FAR, Run, STAMP};
use crate::kv::{Condition, Entry, KvError, Mark, Outcome};

pub(super) fn instances_see_each_other(run: &Run<'_>) -> Checked {
    let mut first = run.open_shard(0)?;
    // The same number and another one: a shared store is not divided by shards.
    for shard in [0, 1] {
        let mut second = run.open_shard(shard)?;
        let name = format!("shard {shard}");
        let entry = run.entry(&name, STAMP, "of the first");
        first.store(std::slice::from_ref(&entry))?;
        second.has(contract::SHARED, "from another instance", &entry)?;
        second.puts(contract::SHARED, &run.entry(&name, STAMP - 1, "late"), Condition::Newer, Outcome::Stale)?;
        let newer = run.entry(&name, STAMP + 1, "of the second");
        second.puts(contract::SHARED, &newer, Condition::Newer, Outcome::Applied)?;
        first.has(contract::SHARED, "of what another instance put", &newer)?;
        let tombstone = Mark { expires_at: Some(FAR), ..run.mark(&name, STAMP + 2) };
        second.deletes(contract::SHARED, &tombstone, Condition::Newer, Outcome::Applied)?;
        first.lacks(contract::SHARED, "of what another instance deleted", &entry.key)?;
        first.puts(contract::SHARED, &run.entry(&name, STAMP + 1, "late"), Condition::Newer, Outcome::Stale)?;
        second.close()?;
    }
    first.close()
}

pub(super) fn a_smaller_token_keeps_out(run: &Run<'_>) -> Checked {
    let mut earlier = run.open()?;
    let mut later = run.open()?;
    for (backend, token) in [(&mut earlier, 7), (&mut later, 8)] {
        if let Err(error) = backend.trial().hold(token) {
            return failed(contract::HOLD, format!("an answer to hold of {token}"), error.to_string());
        }
    }
    earlier.puts(contract::HOLD, &run.entry("a", STAMP, "of 7"), Condition::NotOlder, Outcome::Applied)?;
    earlier.puts(contract::HOLD, &run.entry("b", STAMP, "of 7"), Condition::Always, Outcome::Applied)?;
    later.puts(contract::HOLD, &run.entry("a", STAMP, "of 8"), Condition::NotOlder, Outcome::Applied)?;
    // Whoever had the smaller token is kept out where the larger one was, by every way but `newer`, whatever its stamp.
    for condition in [Condition::NotOlder, Condition::Always] {
        earlier.puts(contract::HOLD, &run.entry("a", STAMP + 5, "late"), condition, Outcome::Stale)?;
        earlier.deletes(contract::HOLD, &run.mark("a", STAMP + 5), condition, Outcome::Stale)?;
    }
    earlier.has(contract::HOLD, "of what the larger token wrote", &run.entry("a", STAMP, "of 8"))?;
    earlier.puts(contract::HOLD, &run.entry("b", STAMP, "again of 7"), Condition::NotOlder, Outcome::Applied)?;
    earlier.puts(contract::TOKENLESS, &run.entry("a", STAMP + 6, "newer"), Condition::Newer, Outcome::Applied)?;
    earlier.puts(contract::TOKENLESS, &run.entry("a", STAMP + 7, "late"), Condition::Always, Outcome::Stale)?;
    // A tombstone remembers as well.
    later.deletes(contract::HOLD, &run.mark("b", STAMP + 1), Condition::Always, Outcome::Applied)?;
    earlier.puts(contract::HOLD, &run.entry("b", STAMP + 2, "late"), Condition::Always, Outcome::Stale)?;
    earlier.lacks(contract::HOLD, "of what the larger token deleted", &run.key("b"))?;
    earlier.close()?;
    later.close()
}

pub(super) fn nobody_is_kept_out_of_a_private_store(run: &Run<'_>) -> Checked {
    let answer = run.open()?.trial().hold(1);
    refused(contract::HOLD_OF_NOBODY, "hold", &answer, "unsupported", is_unsupported)
}

/// Two instances write the same stamps to the same keys at the same time: of each pair, one write comes first and the other is
/// stale, whichever it is.
pub(super) fn judging_is_atomic_between_instances(run: &Run<'_>) -> Checked {
    const WRITERS: usize = 2;
    const ROUNDS: u64 = 100;
    let keys = run.keys(8.min(run.capabilities.max_batch as usize));
    let barrier = Barrier::new(WRITERS);
    let trials = run.trials();
    let write = |writer: usize| -> Result<Vec<Vec<Outcome>>, KvError> {
        let opened = trials.open(0);
        let mut outcomes = Vec::new();
        let mut trial = match opened {
            Ok(trial) => trial,
            Err(error) => {
                // The other one waits at the barrier as often as was agreed.
                for _ in 0..ROUNDS {
                    barrier.wait();
                }
                return Err(error);
            }
        };
        let mut broken = None;
        for round in 0..ROUNDS {
            let entry = |key: &String| Entry {
                key: key.clone(),
                stamp: STAMP + round,
                expires_at: None,
                value: format!("{writer} in round {round}").into_bytes(),
            };
            let mut entries: Vec<Entry> = keys.iter().map(entry).collect();
            // Towards each other, so that they meet.
            if writer % 2 == 1 {
                entries.reverse();
            }
            barrier.wait();
            if broken.is_some() {
                continue;
            }
            match trial.put_many(&entries, Condition::Newer) {
                Ok(mut answers) => {
                    if writer % 2 == 1 {
                        answers.reverse();
                    }
                    outcomes.push(answers);
                }
                Err(error) => broken = Some(error),
            }
        }
        broken.map_or(Ok(outcomes), Err)
    };
    let ends: Vec<Result<Vec<Vec<Outcome>>, KvError>> = std::thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let gone = || KvError::Down("the thread of a writer is gone".to_owned());
        writers.into_iter().map(|writer| writer.join().unwrap_or_else(|_| Err(gone()))).collect()
    });
    let mut outcomes = Vec::new();
    for end in ends {
        match end {
            Ok(end) => outcomes.push(end),
            Err(error) => {
                return failed(contract::SHARED, "two instances that write at the same time", error.to_string());
            }
        }
    }
    let mut backend = run.open()?;
    for round in 0..usize::try_from(ROUNDS).unwrap_or(0) {
        for (number, key) in keys.iter().enumerate() {
            let of = |writer: &Vec<Vec<Outcome>>| writer.get(round).and_then(|answers| answers.get(number)).copied();
            let applied = outcomes.iter().filter(|writer| of(writer) == Some(Outcome::Applied)).count();
            let what = format!("two instances put the same, newer stamp to {key:?}, in round {round}: 1 applied");
            ensure(applied == 1, contract::ATOMIC, what, format!("{applied} applied"))?;
        }
    }
    for (number, key) in keys.iter().enumerate() {
        let winner = outcomes.iter().position(|writer| {
            writer.last().and_then(|answers| answers.get(number)).copied() == Some(Outcome::Applied)
        });
        let value = format!("{} in round {}", winner.unwrap_or_default(), ROUNDS - 1).into_bytes();
        let entry = Entry { key: key.clone(), stamp: STAMP + ROUNDS - 1, expires_at: None, value };
        backend.has(contract::ATOMIC, "what the last applied write put", &entry)?;
    }
    backend.close()
}
