//! Values that are put together: where they are, what is left of them, and that the books are right.

use std::collections::BTreeMap;

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::*;
use crate::database::{Database, META, RECORDS};
use crate::packs::{PACK_USE, PACKS, SPARSE};
use crate::row::Row;

fn engine(backend: &Temporary) -> &redb::Database {
    backend.store.database.as_ref().unwrap().engine()
}

fn meta(backend: &Temporary, name: &str) -> Option<u64> {
    let meta = engine(backend).begin_read().unwrap().open_table(META).unwrap();
    meta.get(name).unwrap().map(|found| found.value())
}

/// How many packs there are, and how many bytes of values are in them, after all that is known of them was compared.
fn audited(backend: &Temporary) -> (usize, u64) {
    let transaction = engine(backend).begin_read().unwrap();
    let Ok(packs) = transaction.open_table(PACKS) else { return (0, 0) };
    let (uses, sparse) = (transaction.open_table(PACK_USE).unwrap(), transaction.open_table(SPARSE).unwrap());
    let mut used = BTreeMap::<u64, u32>::new();
    let mut packed_bytes = 0;
    for row in transaction.open_table(RECORDS).unwrap().iter().unwrap() {
        let (key, row) = row.unwrap();
        let Row::Packed(header, place) = Row::decode(row.value()).unwrap() else { continue };
        assert_eq!(header.value_bytes, Some(place.length as usize));
        let pack = packs.get(place.pack).unwrap().expect("a record points to a pack that is there");
        let start = place.offset as usize - key.value().len();
        assert_eq!(&pack.value()[start..place.offset as usize], key.value().as_bytes());
        *used.entry(place.pack).or_default() += 8 + key.value().len() as u32 + place.length;
        packed_bytes += u64::from(place.length);
    }
    let mut wasted = 0;
    for pack in packs.iter().unwrap() {
        let (number, pack) = pack.unwrap();
        let (number, bytes) = (number.value(), pack.value().len() as u32);
        assert!(bytes <= 16 * 1024);
        let in_use = used.remove(&number).unwrap_or_default();
        assert_eq!(uses.get(number).unwrap().expect("its use is known").value(), (in_use, bytes));
        let is_sparse = sparse.get(number).unwrap().is_some();
        assert!(is_sparse || in_use >= bytes / 2, "pack {number} is {in_use} of {bytes} and nobody cares");
        wasted += u64::from(bytes - in_use);
    }
    assert!(used.is_empty());
    assert_eq!(uses.len().unwrap(), packs.len().unwrap());
    assert!(sparse.iter().unwrap().all(|number| packs.get(number.unwrap().0.value()).unwrap().is_some()));
    assert_eq!(meta(backend, "wasted"), Some(wasted));
    (packs.len().unwrap() as usize, packed_bytes)
}

fn puts(keys: impl IntoIterator<Item = u32>, stamp: u64, value_bytes: usize) -> Vec<Entry> {
    keys.into_iter().map(|key| entry(format!("{key:04}"), stamp, value_bytes)).collect()
}

#[test]
fn values_that_are_put_together_share_packs() {
    let mut backend = Temporary::new(&[]);
    backend.put(puts(0..1000, 1, 2000)).unwrap();
    assert_eq!(audited(&backend), (125, 2_000_000), "eight in each");
    assert_eq!(meta(&backend, "wasted"), Some(0));
    let keys: Vec<String> = (0..1001).map(|key| format!("{key:04}")).collect();
    let found = backend.store.read_many(&keys).unwrap();
    assert!(found[..1000].iter().all(|record| record.as_ref().unwrap().value == Some(vec![7; 2000])));
    assert_eq!(found[1000], None);
    let moment = Moment::new(testing::clock);
    for (key, digest) in keys.iter().zip(backend.store.digest_many(&keys, 100, &moment).unwrap()) {
        assert_eq!(digest, backend.store.read(key).unwrap().and_then(|record| Digest::of(&record, 100, &moment)));
    }
    assert_eq!(backend.store.header("0000").unwrap().unwrap().value_bytes, Some(2000));
    let scanned = backend.store.scan(None, 2000).unwrap().found;
    assert!(scanned.len() == 1000 && scanned.iter().all(|found| found.header.value_bytes == Some(2000)));
    assert_eq!(backend.stats(), Stats { entries: 1000, bytes: 2_004_000 });
}

#[test]
fn few_values_and_short_and_long_ones_are_not_packed() {
    let mut backend = Temporary::new(&[]);
    backend.put(puts(0..3, 1, 2000)).unwrap();
    backend.put(puts(10..100, 1, 500)).unwrap();
    backend.put(puts(200..210, 1, 17_000)).unwrap();
    backend.delete((300..400).map(|key| mark(format!("{key:04}"), 1, None))).unwrap();
    assert_eq!(audited(&backend), (0, 0));
    // Among others that are.
    backend.put([puts(0..4, 2, 2000), puts(10..20, 2, 10), puts(200..205, 2, 20_000)].concat()).unwrap();
    assert_eq!(audited(&backend), (1, 8000));
    assert_eq!(backend.value("0010"), Some(vec![7; 10]));
    assert_eq!(backend.value("0204"), Some(vec![7; 20_000]));
}

/// A file of before there were packs is one without any.
#[test]
fn the_format_is_the_former_one_until_there_is_a_pack() {
    let mut backend = Temporary::new(&[]);
    backend.put(puts(0..100, 1, 300)).unwrap();
    assert_eq!((meta(&backend, "format"), meta(&backend, "wasted")), (Some(1), None));
    backend = backend.reopened();
    backend.put(puts(50..60, 2, 3000)).unwrap();
    assert_eq!((meta(&backend, "format"), meta(&backend, "wasted")), (Some(2), Some(0)));
    backend = backend.reopened();
    assert_eq!((backend.value("0049"), backend.value("0050")), (Some(vec![7; 300]), Some(vec![7; 3000])));
    assert_eq!(audited(&backend), (2, 30_000));
}

#[test]
fn what_is_refused_leaves_nothing() {
    let mut backend = Temporary::new(&[]);
    backend.put(puts(0..20, 5, 2000)).unwrap();
    let before = audited(&backend);
    let outcomes = backend.put(puts(0..20, 4, 3000)).unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stale));
    assert_eq!(audited(&backend), before);
    let outcomes = backend.put([puts(10..20, 4, 3000), puts(20..30, 4, 3000), puts(10..12, 3, 3000)].concat()).unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Applied).count(), 10);
    assert_eq!(audited(&backend), (before.0 + 2, before.1 + 30_000));
    assert_eq!(meta(&backend, "wasted"), Some(0));
    assert_eq!((backend.value("0010"), backend.value("0020")), (Some(vec![7; 2000]), Some(vec![7; 3000])));
}

#[test]
fn what_is_replaced_makes_room() {
    let mut backend = Temporary::new(&[("durability", "flush")]);
    let mut random = Random(7);
    for stamp in 1..=60 {
        let keys: Vec<u32> = (0..100).map(|_| random.below(1000)).collect();
        backend.put(puts(keys, stamp, 2000)).unwrap();
        let (_, packed_bytes) = audited(&backend);
        let wasted = meta(&backend, "wasted").unwrap();
        assert!(wasted <= packed_bytes + 256 * 1024, "{wasted} beside {packed_bytes}");
    }
    backend.store.flush().unwrap();
    let length = fs::metadata(backend.file()).unwrap().len();
    assert!(length < 16 * 1024 * 1024, "{length}");
    // One by one, by puts that aren't packed themselves, by deletes, and by expiry.
    for key in 0..500 {
        backend.put(puts([key], 100, 2000)).unwrap();
    }
    audited(&backend);
    for key in 500..750 {
        backend.delete([mark(format!("{key:04}"), 100, None)]).unwrap();
    }
    audited(&backend);
    let expiring = puts(750..1000, 100, 2000).into_iter().map(|entry| Entry { expires_at: Some(2000), ..entry });
    backend.put(expiring).unwrap();
    testing::set_clock(5000);
    backend.stats();
    for key in 0..20 {
        backend.put(puts([key], 101, 2000)).unwrap();
    }
    let (packs, packed_bytes) = audited(&backend);
    assert!(packs < 16 && packed_bytes < 16 * 8000, "{packs} packs of {packed_bytes}");
}

#[test]
fn packs_that_are_half_wasted_are_cleared_together() {
    let mut backend = Temporary::new(&[]);
    backend.put(puts(0..800, 1, 2000)).unwrap();
    assert_eq!(audited(&backend).0, 100);
    let mut sparse = Vec::new();
    for pack in 0..20 {
        for key in 0..5 {
            backend.delete([mark(format!("{:04}", pack * 8 + key), 2, None)]).unwrap();
        }
        audited(&backend);
        sparse.push(count(&backend, SPARSE));
    }
    assert_eq!(sparse[..15], (1..=15).collect::<Vec<u64>>());
    assert_eq!(sparse[15..], [0, 1, 2, 3, 4]);
    assert_eq!(count(&backend, PACKS), 100 - 16 + 6, "three of each, eight in one again");
    for key in 0..160 {
        let expected = (key % 8 >= 5).then(|| vec![7; 2000]);
        assert_eq!(backend.value(&format!("{key:04}")), expected, "{key}");
    }
    // All of a pack is gone at once.
    backend.delete((160..168).map(|key| mark(format!("{key:04}"), 2, None))).unwrap();
    assert_eq!((audited(&backend).0, count(&backend, SPARSE)), (89, 4));
}

/// Deletes find the little room that they need, and what they make is of use to puts.
#[test]
fn on_a_full_disk_packs_are_cleared_sooner_and_little_by_little() {
    let mut backend = Temporary::new(&[]);
    backend.put(puts(0..3000, 1, 2000)).unwrap();
    let (packs, _) = audited(&backend);
    let delete_each_fifth = |database: &mut Database| {
        let writes: Vec<Write> = (0..3000).step_by(5).map(delete).collect();
        database.apply(&writes, &rule()).unwrap();
    };
    let database = backend.store.database.as_mut().unwrap();
    database.set_room(true, u64::MAX);
    delete_each_fifth(database);
    let (after, _) = audited(&backend);
    assert!(after > packs - 30 && after < packs, "{packs} packs, then {after}");
    let mut rounds = 0;
    while count(&backend, SPARSE) > 0 && rounds < 40 {
        backend.store.database.as_mut().unwrap().apply(&[delete(rounds * 5 + 1)], &rule()).unwrap();
        audited(&backend);
        rounds += 1;
    }
    assert!(rounds < 20, "{rounds}");
    assert!(meta(&backend, "wasted").unwrap() < 50_000);
}

fn delete(key: u32) -> Write {
    Write { key: format!("{key:04}"), record: Record { stamp: 2, expires_at: None, value: None } }
}

fn count<V: redb::Value + 'static>(backend: &Temporary, table: redb::TableDefinition<'static, u64, V>) -> u64 {
    engine(backend).begin_read().unwrap().open_table(table).unwrap().len().unwrap()
}

/// All kinds of batches, beside a map, while the backend is closed and killed.
#[test]
fn random_batches_agree_with_a_map() {
    for seed in 1..=6 {
        testing::set_clock(1000);
        let mut random = Random(seed * 0x9e37_79b9);
        let mut backend = Temporary::new(&[("durability", if seed % 2 == 0 { "immediate" } else { "flush" })]);
        let mut map = BTreeMap::<String, Record>::new();
        for step in 0..100 {
            let writes: Vec<Write> = (0..random.below(40)).map(|_| random.write()).collect();
            let rule = || Rule::new(random_condition(step), Moment::new(testing::clock));
            let expected: Vec<Outcome> = writes.iter().map(|write| write_to(&mut map, write, &rule())).collect();
            let outcomes = match random.below(8) {
                0 => {
                    backend.store.prepare("t".into(), writes.clone()).unwrap();
                    backend.store.commit("t", &rule()).unwrap();
                    expected.clone()
                }
                _ => backend.store.apply(writes, &rule()).unwrap(),
            };
            assert_eq!(outcomes, expected, "seed {seed}, step {step}");
            match random.below(12) {
                0 => {
                    backend.store.flush().unwrap();
                    backend.killed();
                }
                1 => backend = backend.reopened(),
                2 => drop(backend.stats()),
                3 => testing::set_clock(testing::clock() + 20),
                _ => {}
            }
            if step % 4 == 0 {
                audited(&backend);
            }
        }
        audited(&backend);
        let moment = Moment::new(testing::clock);
        for (key, record) in &map {
            let found = backend.store.read(key).unwrap();
            if !moment.has_passed(record.expires_at) {
                assert_eq!(found.as_ref(), Some(record), "seed {seed}, key {key}");
            }
        }
        let live = |record: &&Record| record.value.is_some() && !moment.has_passed(record.expires_at);
        assert_eq!(backend.stats().entries, map.values().filter(live).count() as u64);
    }
}

fn random_condition(step: u32) -> Condition {
    [Condition::Newer, Condition::NotOlder, Condition::Always][step as usize % 3]
}

fn write_to(map: &mut BTreeMap<String, Record>, write: &Write, rule: &Rule) -> Outcome {
    let Some(stamp) = rule.judge(map.get(&write.key).map(Record::header), write.record.stamp) else {
        return Outcome::Stale;
    };
    map.insert(write.key.clone(), Record { stamp, ..write.record.clone() });
    Outcome::Applied
}

/// The generator xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % bound
    }

    fn write(&mut self) -> Write {
        let key = format!("{:0width$}", self.below(60), width = 2 + self.below(2) as usize * 300);
        let length = [0, 100, 511, 512, 600, 3000, 9000, 8_000, 8_160, 8_161, 40_000][self.below(11) as usize];
        let value = (self.below(5) > 0).then(|| vec![self.below(256) as u8; length]);
        let expires_at = (self.below(4) == 0).then(|| testing::clock() + u64::from(self.below(60)));
        Write { key, record: Record { stamp: u64::from(self.below(8)), expires_at, value } }
    }
}

/// What points nowhere ends the trust in the whole file.
#[test]
fn a_missing_pack_is_reported_with_what_to_do() {
    let mut backend = Temporary::new(&[]);
    backend.put(puts(0..20, 1, 2000)).unwrap();
    let engine = engine(&backend);
    let transaction = engine.begin_write().unwrap();
    transaction.open_table(PACKS).unwrap().remove(2).unwrap();
    transaction.commit().unwrap();
    backend = backend.reopened();
    assert_eq!(backend.value("0000"), Some(vec![7; 2000]));
    match backend.store.read("0019") {
        Err(Error::Corrupt(text)) => {
            assert!(text.contains("pack 2 is missing") && text.contains("Move it away"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    match backend.delete([mark("0001", 2, None), mark("0019", 2, None)]) {
        Err(Error::Corrupt(_)) | Ok(_) => {}
        other => panic!("{other:?}"),
    }
}
