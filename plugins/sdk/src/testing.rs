//! A check of any backend against a model: random operations, a clock under control, and a `BTreeMap` that can't be wrong.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

use crate::{Backend, Condition, Entry, Header, Mark, Moment, Outcome, Record, Rule, Session, Stats};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1000) };
}

/// The clock of this thread, in Unix milliseconds, to be given to [`Session::new`]. It stands still until it is set.
pub fn clock() -> u64 {
    NOW.get()
}

/// Sets the clock of this thread.
pub fn set_clock(unix_millis: u64) {
    NOW.set(unix_millis);
}

/// Plays `cases` random sequences of operations to fresh backends and to a model, and panics with the shortest sequence found
/// for which their answers differ. The clock is this thread's, so a backend must take the time from what it is given.
pub fn check_backend<B: Backend>(settings: &[(&str, &str)], cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let strategy = proptest::collection::vec(operation(), 1..60);
    let outcome = TestRunner::new(config).run(&strategy, |operations| {
        set_clock(1000);
        let mut session = Session::<B>::new(clock);
        let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        session.open(0, settings).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut model = Model::default();
        operations.into_iter().try_for_each(|operation| model.check(&mut session, operation))
    });
    let failure = outcome.err().map(|failure| failure.to_string());
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
}

#[derive(Debug, Clone)]
enum Operation {
    Get(Vec<String>),
    Put(Vec<Entry>, Condition),
    Delete(Vec<Mark>, Condition),
    /// A whole scan, with the writes between its steps.
    Scan(u32, Vec<Entry>),
    Stats,
    Advance(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    // Few keys, stamps and times, so that they meet.
    let key = || "[a-h]".prop_map(|key| key);
    let stamp = || 0..6_u64;
    let expires_at = || proptest::option::weighted(0.4, 990..1040_u64);
    let entry = move || {
        (key(), stamp(), expires_at(), proptest::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(key, stamp, expires_at, value)| Entry { key, stamp, expires_at, value })
    };
    let mark =
        move || (key(), stamp(), expires_at()).prop_map(|(key, stamp, expires_at)| Mark { key, stamp, expires_at });
    let condition = || prop_oneof![Just(Condition::Newer), Just(Condition::NotOlder), Just(Condition::Always)];
    let some = 0..5;
    prop_oneof![
        3 => proptest::collection::vec(key(), some.clone()).prop_map(Operation::Get),
        4 => (proptest::collection::vec(entry(), some.clone()), condition()).prop_map(|(e, c)| Operation::Put(e, c)),
        3 => (proptest::collection::vec(mark(), some), condition()).prop_map(|(m, c)| Operation::Delete(m, c)),
        2 => (1..4_u32, proptest::collection::vec(entry(), 0..8)).prop_map(|(l, e)| Operation::Scan(l, e)),
        2 => Just(Operation::Stats),
        1 => (1..20_u64).prop_map(Operation::Advance),
    ]
}

/// What a backend ought to hold: never purged, so that nothing depends on when a backend purges.
#[derive(Default)]
struct Model {
    records: BTreeMap<String, Record>,
}

impl Model {
    fn check<B: Backend>(&mut self, session: &mut Session<B>, operation: Operation) -> TestCaseResult {
        match operation {
            Operation::Get(keys) => {
                let expect: Vec<Option<Entry>> = keys.iter().map(|key| self.live(key)).collect();
                prop_assert_eq!(session.get_many(keys), Ok(expect));
            }
            Operation::Put(entries, condition) => self.put(session, entries, condition)?,
            Operation::Delete(marks, condition) => {
                let expect = marks.iter().map(|mark| {
                    let record = Record { stamp: mark.stamp, expires_at: mark.expires_at, value: None };
                    self.write(&mark.key, record, condition)
                });
                let expect: Vec<Outcome> = expect.collect();
                prop_assert_eq!(session.delete_many(marks, condition), Ok(expect));
            }
            Operation::Scan(limit, between) => self.scan(session, limit, between)?,
            Operation::Stats => {
                let live: Vec<Entry> = self.records.keys().filter_map(|key| self.live(key)).collect();
                let bytes = live.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64).sum();
                prop_assert_eq!(session.stats(), Ok(Stats { entries: live.len() as u64, bytes }));
            }
            Operation::Advance(millis) => set_clock(clock() + millis),
        }
        Ok(())
    }

    fn put<B: Backend>(
        &mut self,
        session: &mut Session<B>,
        entries: Vec<Entry>,
        condition: Condition,
    ) -> TestCaseResult {
        let expect = entries.iter().map(|entry| {
            let (stamp, expires_at, value) = (entry.stamp, entry.expires_at, Some(entry.value.clone()));
            self.write(&entry.key, Record { stamp, expires_at, value }, condition)
        });
        let expect: Vec<Outcome> = expect.collect();
        prop_assert_eq!(session.put_many(entries, condition), Ok(expect));
        Ok(())
    }

    fn scan<B: Backend>(&mut self, session: &mut Session<B>, limit: u32, between: Vec<Entry>) -> TestCaseResult {
        let mut always_there: BTreeSet<String> =
            self.records.keys().filter(|key| self.live(key).is_some()).cloned().collect();
        let mut between = between.into_iter();
        let mut seen = BTreeSet::new();
        let mut cursor = None;
        for _ in 0..1000 {
            let page =
                session.scan(cursor.as_deref(), limit).map_err(|error| TestCaseError::fail(error.to_string()))?;
            for mark in page.marks {
                let live = self.live(&mark.key);
                let expect = live.map(|Entry { key, stamp, expires_at, .. }| Mark { key, stamp, expires_at });
                prop_assert_eq!(Some(&mark), expect.as_ref());
                seen.insert(mark.key);
            }
            cursor = page.next;
            if cursor.is_none() {
                let missed: Vec<&String> = always_there.difference(&seen).collect();
                prop_assert!(missed.is_empty(), "the scan missed {:?}", missed);
                return Ok(());
            }
            // An entry that a live one replaces is there all the time; one that an expired one replaces has been away.
            if let Some(entry) = between.next() {
                self.put(session, vec![entry], Condition::NotOlder)?;
                always_there.retain(|key| self.live(key).is_some());
            }
        }
        Err(TestCaseError::fail("the scan doesn't end"))
    }

    fn live(&self, key: &str) -> Option<Entry> {
        let Record { stamp, expires_at, value } = self.records.get(key)?.clone();
        let value = value?;
        (!Moment::new(clock).has_passed(expires_at)).then_some(Entry { key: key.to_owned(), stamp, expires_at, value })
    }

    fn write(&mut self, key: &str, record: Record, condition: Condition) -> Outcome {
        let stored: Option<Header> = self.records.get(key).map(Record::header);
        match Rule::new(condition, Moment::new(clock)).judge(stored, record.stamp) {
            Some(stamp) => {
                self.records.insert(key.to_owned(), Record { stamp, ..record });
                Outcome::Applied
            }
            None => Outcome::Stale,
        }
    }
}
