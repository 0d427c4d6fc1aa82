//! The rules against a model, and the settings.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use memcell_plugin::{Moment, Rule};
use proptest::prelude::*;

use super::Options;
use super::rules::{Offer, condition, distinct_keys, header, judge, live};
use crate::kv::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome};
use crate::kv::bindings::memcell::kv::types::Error as GuestError;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1000) };
}

fn clock() -> u64 {
    NOW.get()
}

/// A component that keeps bytes by key, as simple as can be.
#[derive(Default)]
struct Store(BTreeMap<String, Vec<u8>>);

impl Store {
    fn write(&mut self, offers: &[Offer<'_>], by: Condition) -> Vec<Outcome> {
        let mut stored = HashMap::new();
        for key in distinct_keys(offers) {
            if let Some(bytes) = self.0.get(&key) {
                let header = header(&key, bytes).unwrap();
                stored.insert(key, header);
            }
        }
        let judgement = judge(offers, stored, &Rule::new(condition(by), Moment::new(clock)));
        let written = judgement.records.len();
        let keys: BTreeMap<String, Vec<u8>> = judgement.records.into_iter().collect();
        assert_eq!(keys.len(), written, "a key is written once");
        self.0.extend(keys);
        judgement.outcomes
    }

    fn get(&self, key: &str) -> Option<Entry> {
        self.0.get(key).and_then(|bytes| live(key, bytes, &Moment::new(clock)).unwrap())
    }
}

/// What the contract says, one write at a time and without any encoding.
#[derive(Default)]
struct Model(BTreeMap<String, Modelled>);

/// Stamp, expiry, value.
type Modelled = (u64, Option<u64>, Option<Vec<u8>>);

impl Model {
    fn write(&mut self, key: &str, stamp: u64, until: Option<u64>, value: Option<Vec<u8>>, by: Condition) -> Outcome {
        let has_passed = |until: Option<u64>| until.is_some_and(|until| until <= clock());
        let stored = self.0.get(key).filter(|(_, until, _)| !has_passed(*until)).map(|(stamp, ..)| *stamp);
        let stamp = match (stored, by) {
            (Some(stored), Condition::Newer) if stamp <= stored => return Outcome::Stale,
            (Some(stored), Condition::NotOlder) if stamp < stored => return Outcome::Stale,
            (Some(stored), Condition::Always) => stamp.max(stored),
            _ => stamp,
        };
        self.0.insert(key.to_owned(), (stamp, until, value));
        Outcome::Applied
    }

    fn get(&self, key: &str) -> Option<Entry> {
        let (stamp, expires_at, value) = self.0.get(key)?.clone();
        let live = expires_at.is_none_or(|until| until > clock());
        value.filter(|_| live).map(|value| Entry { key: key.to_owned(), stamp, expires_at, value })
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Put(Vec<Entry>, Condition),
    Delete(Vec<Mark>, Condition),
    Advance(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    // Few keys, stamps and times, so that they meet, also within one batch.
    let key = || "[a-d]";
    let until = || proptest::option::weighted(0.4, 990..1040_u64);
    let entry = (key(), 0..6_u64, until(), proptest::collection::vec(any::<u8>(), 0..4))
        .prop_map(|(key, stamp, expires_at, value)| Entry { key, stamp, expires_at, value });
    let mark = (key(), 0..6_u64, until()).prop_map(|(key, stamp, expires_at)| Mark { key, stamp, expires_at });
    let by = || prop_oneof![Just(Condition::Newer), Just(Condition::NotOlder), Just(Condition::Always)];
    prop_oneof![
        4 => (proptest::collection::vec(entry, 0..6), by()).prop_map(|(entries, by)| Operation::Put(entries, by)),
        3 => (proptest::collection::vec(mark, 0..6), by()).prop_map(|(marks, by)| Operation::Delete(marks, by)),
        1 => (1..20_u64).prop_map(Operation::Advance),
    ]
}

proptest! {
    #[test]
    fn batches_come_to_what_single_writes_come_to(operations in proptest::collection::vec(operation(), 1..40)) {
        NOW.set(1000);
        let (mut store, mut model) = (Store::default(), Model::default());
        for operation in operations {
            match operation {
                Operation::Put(entries, by) => {
                    let offers: Vec<Offer<'_>> = entries.iter().map(Offer::from).collect();
                    let single = |Entry { key, stamp, expires_at, value }: &Entry| {
                        model.write(key, *stamp, *expires_at, Some(value.clone()), by)
                    };
                    let expected: Vec<Outcome> = entries.iter().map(single).collect();
                    prop_assert_eq!(store.write(&offers, by), expected);
                }
                Operation::Delete(marks, by) => {
                    let offers: Vec<Offer<'_>> = marks.iter().map(Offer::from).collect();
                    let single = |Mark { key, stamp, expires_at }: &Mark| model.write(key, *stamp, *expires_at, None, by);
                    let expected: Vec<Outcome> = marks.iter().map(single).collect();
                    prop_assert_eq!(store.write(&offers, by), expected);
                }
                Operation::Advance(millis) => NOW.set(clock() + millis),
            }
            for key in ["a", "b", "c", "d"] {
                prop_assert_eq!(store.get(key), model.get(key));
            }
        }
    }
}

#[test]
fn what_the_host_did_not_store_is_corrupt() {
    let error = live("k", b"somebody else's", &Moment::new(clock)).unwrap_err();
    assert!(matches!(&error, GuestError::Corrupt(text) if text.contains("the key k")), "{error:?}");
}

fn options(settings: &[(&str, &str)], shards: u32) -> Result<(String, bool), String> {
    let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    match Options::read(&settings, shards, 3) {
        Ok(Options { bucket, persistent }) => Ok((bucket, persistent)),
        Err(GuestError::InvalidArgument(text)) => Err(text),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn the_bucket_is_named_by_the_settings() {
    assert_eq!(options(&[], 1), Ok(("default".into(), false)));
    assert_eq!(options(&[("bucket", ""), ("persistent", "true")], 1), Ok((String::new(), true)));
    assert_eq!(options(&[("bucket", "memcell-{shard}")], 4), Ok(("memcell-3".into(), false)));
}

#[test]
fn settings_that_nobody_would_see_are_refused() {
    let error = options(&[("max_bytes", "1MiB")], 1).unwrap_err();
    assert!(error.contains("\"max_bytes\"; known: bucket, persistent") && error.contains("wasi:keyvalue"), "{error}");
    assert!(options(&[("persistent", "yes")], 1).unwrap_err().contains("\"persistent\""));
    assert!(options(&[("bucket", "b"), ("bucket", "c")], 1).unwrap_err().contains("twice"));
    let error = options(&[("bucket", "all")], 2).unwrap_err();
    assert!(error.contains("{shard}") && error.contains("\"all\""), "{error}");
}
