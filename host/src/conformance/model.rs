//! Case: random operations, beside a `BTreeMap` that can't be wrong.

use std::collections::{BTreeMap, VecDeque};

use super::contract;
use super::failure::{Checked, Failure, Stop, name_of, same};
use super::random::Random;
use super::run::{Client, FAR, PAST, Run, STAMP};
use crate::kv::{Condition, Entry, Mark, Outcome, Usage};

const STEPS: usize = 400;
const KEYS: u64 = 14;
/// How many of the last operations a failure tells of.
const TOLD: usize = 5;

pub(super) fn random_operations_agree_with_a_model(run: &Run<'_>) -> Checked {
    let seed = run.suite().seed_in_use();
    let mut play = Play::begin(run, seed)?;
    for step in 0..STEPS {
        match play.step() {
            Err(Stop::Failed(failure)) => {
                let told: Vec<String> = play.told.into_iter().collect();
                let expected =
                    format!("step {step} with --seed {seed}, after {}: {}", told.join("; "), failure.expected);
                return Err(Stop::Failed(Box::new(Failure { expected, ..*failure })));
            }
            other => other?,
        }
    }
    Ok(())
}

/// What a key ought to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    stamp: u64,
    expires_at: Option<u64>,
    /// `None`: a tombstone.
    value: Option<Vec<u8>>,
}

impl Record {
    fn is_expired(&self) -> bool {
        self.expires_at == Some(PAST)
    }
}

struct Play<'r, 's> {
    run: &'r Run<'s>,
    /// `None` only while it is being replaced.
    backend: Option<Client>,
    random: Random,
    keys: Vec<String>,
    records: BTreeMap<String, Record>,
    /// What others have in the store.
    others: Usage,
    expiries: bool,
    conditions: Vec<Condition>,
    told: VecDeque<String>,
}

impl<'r, 's> Play<'r, 's> {
    fn begin(run: &'r Run<'s>, seed: u64) -> Checked<Self> {
        let mut backend = run.open()?;
        let others = backend.stats()?;
        // What the backend says that it can't do is left out, and said.
        let probe = |entry: Entry, condition| move |backend: &mut Client| backend.put(&[entry], condition);
        let mut can = |what: &str, probe: &dyn Fn(&mut Client) -> Checked<Vec<Outcome>>| match probe(&mut backend) {
            Ok(_) => Ok(true),
            Err(Stop::Skip(text)) => {
                run.note(format!("without {what}: {text}"));
                Ok(false)
            }
            Err(stop) => Err(stop),
        };
        let expiring = Entry { expires_at: Some(PAST), ..run.entry("probe", 1, "") };
        let expiries = can("expiries", &|backend| probe(expiring.clone(), Condition::Newer)(backend))?;
        let mut conditions = vec![Condition::Newer];
        for condition in [Condition::NotOlder, Condition::Always] {
            let vacant = run.entry("probe of a condition", 1, "");
            if can(name_of(condition), &|backend| probe(vacant.clone(), condition)(backend))? {
                conditions.push(condition);
            }
        }
        let mut records = BTreeMap::new();
        if conditions.len() > 1 {
            let record = Record { stamp: 1, expires_at: None, value: Some(Vec::new()) };
            records.insert(run.key("probe of a condition"), record);
        }
        let keys = (0..KEYS).map(|number| run.key(&format!("key {number}"))).collect();
        let random = Random::new(seed);
        Ok(Self {
            run,
            backend: Some(backend),
            random,
            keys,
            records,
            others,
            expiries,
            conditions,
            told: VecDeque::new(),
        })
    }

    fn step(&mut self) -> Checked {
        match self.random.below(100) {
            0..35 => self.put(),
            35..55 => self.delete(),
            55..85 => self.get(),
            85..92 => self.scan(),
            92..96 => self.stats(),
            _ => self.reopen(),
        }
    }

    fn tell(&mut self, text: String) {
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        self.told.push_back(text);
    }

    fn backend(&mut self) -> Checked<&mut Client> {
        if self.backend.is_none() {
            self.backend = Some(self.run.open()?);
        }
        self.backend.as_mut().ok_or_else(|| Stop::Skip("no instance".to_owned()))
    }

    fn some_key(&mut self) -> String {
        let index = usize::try_from(self.random.below(self.keys.len() as u64)).unwrap_or(0);
        self.keys.get(index).cloned().unwrap_or_default()
    }

    fn some_condition(&mut self) -> Condition {
        let index = usize::try_from(self.random.below(self.conditions.len() as u64)).unwrap_or(0);
        self.conditions.get(index).copied().unwrap_or(Condition::Newer)
    }

    /// How many items: mostly few.
    fn some_count(&mut self) -> u64 {
        let most = if self.random.below(8) == 0 { 40 } else { 5 };
        self.random.below(most).min(u64::from(self.run.capabilities.max_batch))
    }

    /// Few stamps, so that they meet. Whether the stamp of something expired still counts is up to the backend, so that a write
    /// to that has one that beats all.
    fn some_stamp(&mut self, key: &str) -> u64 {
        match self.records.get(key) {
            Some(record) if record.is_expired() => record.stamp + 1,
            Some(record) => (record.stamp + self.random.below(5)).saturating_sub(2),
            None => STAMP + self.random.below(5),
        }
    }

    fn some_expiry(&mut self) -> Option<u64> {
        match self.random.below(10) {
            _ if !self.expiries => None,
            0 => Some(PAST),
            1..4 => Some(FAR + self.random.below(3)),
            _ => None,
        }
    }

    fn put(&mut self) -> Checked {
        let condition = self.some_condition();
        let mut entries = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..self.some_count() {
            let key = self.some_key();
            let stamp = self.some_stamp(&key);
            let expires_at = self.some_expiry();
            let most = if self.random.below(20) == 0 { 5000 } else { 20 };
            let length = usize::try_from(self.random.below(most)).unwrap_or(0);
            let value = self.random.bytes(length.min(self.run.capabilities.max_value_bytes as usize));
            expected.push(self.write(&key, Record { stamp, expires_at, value: Some(value.clone()) }, condition));
            entries.push(Entry { key, stamp, expires_at, value });
        }
        self.tell(format!(
            "put ({}) of {}",
            name_of(condition),
            short(entries.iter().map(|e| (&e.key, e.stamp, e.expires_at)))
        ));
        let outcomes = self.backend()?.put(&entries, condition)?;
        same(rule_of(condition), "its outcomes", &outcomes, &expected)
    }

    fn delete(&mut self) -> Checked {
        let condition = self.some_condition();
        let mut marks = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..self.some_count() {
            let key = self.some_key();
            let stamp = self.some_stamp(&key);
            let expires_at = self.some_expiry();
            expected.push(self.write(&key, Record { stamp, expires_at, value: None }, condition));
            marks.push(Mark { key, stamp, expires_at });
        }
        self.tell(format!(
            "delete ({}) of {}",
            name_of(condition),
            short(marks.iter().map(|m| (&m.key, m.stamp, m.expires_at)))
        ));
        let outcomes = self.backend()?.delete(&marks, condition)?;
        same(rule_of(condition), "its outcomes", &outcomes, &expected)
    }

    fn get(&mut self) -> Checked {
        let keys: Vec<String> = (0..self.some_count()).map(|_| self.some_key()).collect();
        let expected: Vec<Option<Entry>> = keys.iter().map(|key| self.live(key)).collect();
        let found = self.backend()?.get(&keys)?;
        for (found, expected) in found.iter().zip(&expected) {
            let key = expected.as_ref().or(found.as_ref()).map(|entry| entry.key.clone()).unwrap_or_default();
            same(contract::GET, &format!("get of {key:?}"), found, expected)?;
        }
        same(contract::POSITIONAL, "the number of answers", &found.len(), &expected.len())
    }

    fn scan(&mut self) -> Checked {
        let limit = u32::try_from(1 + self.random.below(20)).unwrap_or(1);
        let mut listed = self.backend()?.scan(limit)?;
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        listed.dedup();
        let live = self.records.keys().filter_map(|key| self.live(key));
        let expected: Vec<Mark> =
            live.map(|Entry { key, stamp, expires_at, .. }| Mark { key, stamp, expires_at }).collect();
        for (found, expected) in listed.iter().zip(&expected) {
            same(contract::SCAN, "a scan", &Some(found.clone()), &Some(expected.clone()))?;
        }
        same(
            contract::SCAN,
            &format!("the number of entries in a scan with limit {limit}"),
            &listed.len(),
            &expected.len(),
        )
    }

    fn stats(&mut self) -> Checked {
        let live: Vec<Entry> = self.records.keys().filter_map(|key| self.live(key)).collect();
        let bytes: u64 = live.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64).sum();
        let expected = Usage { entries: self.others.entries + live.len() as u64, bytes: self.others.bytes + bytes };
        let found = self.backend()?.stats()?;
        same(contract::USAGE_BYTES, "stats", &found, &expected)
    }

    /// Flushes, and crashes or closes, where that leaves what was written.
    fn reopen(&mut self) -> Checked {
        if !self.run.capabilities.persistent {
            return self.backend()?.health();
        }
        self.backend()?.flush()?;
        let crash = self.random.below(2) == 0;
        self.tell(if crash { "flush and crash".to_owned() } else { "flush and close".to_owned() });
        match self.backend.take() {
            Some(backend) if !crash => backend.close(),
            _ => Ok(()),
        }
    }

    fn live(&self, key: &str) -> Option<Entry> {
        let record = self.records.get(key).filter(|record| !record.is_expired())?;
        let value = record.value.clone()?;
        Some(Entry { key: key.to_owned(), stamp: record.stamp, expires_at: record.expires_at, value })
    }

    fn write(&mut self, key: &str, record: Record, condition: Condition) -> Outcome {
        let stored = self.records.get(key).filter(|record| !record.is_expired()).map(|record| record.stamp);
        let stamp = match (condition, stored) {
            (_, None) => record.stamp,
            (Condition::Newer, Some(stored)) if record.stamp <= stored => return Outcome::Stale,
            (Condition::NotOlder, Some(stored)) if record.stamp < stored => return Outcome::Stale,
            (_, Some(stored)) => record.stamp.max(stored),
        };
        self.records.insert(key.to_owned(), Record { stamp, ..record });
        Outcome::Applied
    }
}

fn rule_of(condition: Condition) -> &'static str {
    match condition {
        Condition::Newer => contract::NEWER,
        Condition::NotOlder => contract::NOT_OLDER,
        Condition::Always => contract::ALWAYS,
    }
}

/// Keys and stamps of a batch, as far as they fit: the end of the key, and what the stamp is beyond the first one.
fn short<'a>(items: impl ExactSizeIterator<Item = (&'a String, u64, Option<u64>)>) -> String {
    const SHOWN: usize = 6;
    let more = items.len().saturating_sub(SHOWN);
    let shown = items.take(SHOWN).map(|(key, stamp, expires_at)| {
        let name = key.rsplit('/').next().unwrap_or_default();
        let stamp = i128::from(stamp) - i128::from(STAMP);
        match expires_at {
            None => format!("{name}@{stamp}"),
            Some(PAST) => format!("{name}@{stamp} expired"),
            Some(_) => format!("{name}@{stamp} expiring"),
        }
    });
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("[{}{more}]", shown.collect::<Vec<_>>().join(", "))
}
