//! What is left when the machine stops: the bytes that were synced, and none that weren't.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::*;
use crate::database::Database;
use crate::disk::Disk;

/// A disk that remembers what it was told to sync.
#[derive(Debug, Clone, Default)]
struct Platter(Arc<Mutex<Images>>);

#[derive(Debug, Default)]
struct Images {
    now: Vec<u8>,
    synced: Vec<u8>,
    syncs: usize,
}

impl Platter {
    /// A disk with what is left after a power cut.
    fn after_power_cut(&self) -> Self {
        let synced = self.0.lock().unwrap().synced.clone();
        Self(Arc::new(Mutex::new(Images { now: synced.clone(), synced, syncs: 0 })))
    }

    fn syncs(&self) -> usize {
        self.0.lock().unwrap().syncs
    }

    fn open(&self, settings: &[(&str, &str)]) -> Database {
        Database::open(Disk::new(self.clone()), 0, options(settings), false).unwrap()
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        out.copy_from_slice(&self.0.lock().unwrap().now[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.lock().unwrap().now.resize(bytes as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut images = self.0.lock().unwrap();
        images.synced = images.now.clone();
        images.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.0.lock().unwrap().now[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn put(database: &mut Database, key: u32, stamp: u64, value_bytes: usize) {
    let record = Record { stamp, expires_at: None, value: Some(vec![stamp as u8; value_bytes]) };
    let outcomes = database.apply(&[Write { key: key.to_string(), record }], &rule()).unwrap();
    assert_eq!(outcomes, [Outcome::Applied]);
}

fn stamp(database: &mut Database, key: u32) -> Option<u64> {
    database.header(&key.to_string()).unwrap().map(|header| header.stamp)
}

#[test]
fn an_immediate_batch_is_on_the_disk_when_it_is_answered() {
    let platter = Platter::default();
    let mut database = platter.open(&[("durability", "immediate")]);
    for key in 0..50 {
        put(&mut database, key, 1, 3000);
        assert_eq!(database.unflushed_bytes(), 0);
        let mut after = platter.after_power_cut().open(&[]);
        assert_eq!(stamp(&mut after, key), Some(1));
        assert_eq!(after.stats(&Moment::new(testing::clock)).unwrap().entries, u64::from(key) + 1);
    }
    let syncs = platter.syncs();
    put(&mut database, 0, 2, 10);
    assert_eq!(platter.syncs(), syncs + 1, "one sync a batch");
    // What changes nothing costs nothing.
    let record = Record { stamp: 1, expires_at: None, value: None };
    let outcomes = database.apply(&[Write { key: "0".into(), record }], &rule()).unwrap();
    assert_eq!((outcomes, platter.syncs()), (vec![Outcome::Stale], syncs + 1));
    database.flush().unwrap();
    assert_eq!(platter.syncs(), syncs + 1);
}

#[test]
fn a_flushed_batch_is_on_the_disk_and_the_others_go_together() {
    let settings = &[("durability", "flush")];
    let platter = Platter::default();
    let mut database = platter.open(settings);
    for round in 0..20 {
        for key in 0..10 {
            put(&mut database, key, round * 2 + 1, 500);
        }
        database.flush().unwrap();
        assert_eq!(database.unflushed_bytes(), 0);
        let syncs = platter.syncs();
        for key in 0..5 {
            put(&mut database, key, round * 2 + 2, 500);
        }
        assert_eq!(platter.syncs(), syncs, "no sync before the flush");
        assert!(database.unflushed_bytes() > 0);
        assert_eq!(stamp(&mut database, 0), Some(round * 2 + 2));
        let mut after = platter.after_power_cut().open(settings);
        for key in 0..10 {
            assert_eq!(stamp(&mut after, key), Some(round * 2 + 1));
        }
    }
}

#[test]
fn what_is_not_flushed_is_bounded() {
    let settings = &[("durability", "flush")];
    let platter = Platter::default();
    let mut database = platter.open(settings);
    for key in 0..40 {
        put(&mut database, key, 1, 1024 * 1024);
    }
    let mut after = platter.after_power_cut().open(settings);
    let survived = (0..40).filter(|key| stamp(&mut after, *key).is_some()).count();
    assert!((8..40).contains(&survived), "{survived}");
}

/// A small file is verified after a crash; a large one needs no verifying, at the cost of a second sync.
#[test]
fn a_large_file_opens_quickly_after_a_crash() {
    for durability in ["immediate", "flush"] {
        let small = options(&[("durability", durability)]);
        let large = Options { quick_recovery_from_bytes: 1024 * 1024, ..small };
        for (options, syncs, is_verified) in [(small, 1, true), (large, 2, false)] {
            let platter = Platter::default();
            let open = |platter: &Platter| Database::open(Disk::new(platter.clone()), 0, options, false).unwrap();
            let mut database = open(&platter);
            for key in 0..20 {
                put(&mut database, key, 1, 100_000);
            }
            database.flush().unwrap();
            let before = platter.syncs();
            put(&mut database, 0, 2, 10);
            database.flush().unwrap();
            assert_eq!(platter.syncs(), before + syncs);
            let mut after = open(&platter.after_power_cut());
            assert_eq!(stamp(&mut after, 0), Some(2));
            assert_eq!(after.was_verified(), is_verified, "{durability}");
            // What was closed in order needs none either way.
            let platter = platter.after_power_cut();
            open(&platter).close().unwrap();
            assert!(!open(&platter).was_verified());
        }
    }
}

/// With either durability: an intent and its commit don't wait for a flush.
#[test]
fn what_is_prepared_and_what_is_committed_is_on_the_disk() {
    for durability in ["immediate", "flush"] {
        let settings = &[("durability", durability)];
        let platter = Platter::default();
        let mut database = platter.open(settings);
        put(&mut database, 1, 1, 500);
        let write = |key: u32, stamp: u64, value: Option<Vec<u8>>| Write {
            key: key.to_string(),
            record: Record { stamp, expires_at: None, value },
        };
        database.prepare("gone", &[write(8, 2, Some(vec![8; 10]))]).unwrap();
        database.prepare("t", &[write(9, 2, Some(vec![8; 10]))]).unwrap();
        database.prepare("t", &[write(1, 2, None), write(2, 2, Some(vec![7; 5000]))]).unwrap();

        let platter = platter.after_power_cut();
        let mut database = platter.open(settings);
        assert_eq!(database.in_doubt().unwrap(), ["gone", "t"]);
        assert_eq!((stamp(&mut database, 1), stamp(&mut database, 2)), (Some(1), None));
        database.abort("gone").unwrap();
        database.commit("t", &rule()).unwrap();

        let platter = platter.after_power_cut();
        let mut database = platter.open(settings);
        assert_eq!(database.in_doubt().unwrap(), [""; 0]);
        assert_eq!([1, 2, 8, 9].map(|key| stamp(&mut database, key)), [Some(2), Some(2), None, None]);
        assert_eq!(database.stats(&Moment::new(testing::clock)).unwrap().entries, 1);
        let syncs = platter.syncs();
        database.commit("t", &rule()).unwrap();
        database.abort("t").unwrap();
        assert_eq!(platter.syncs(), syncs, "what isn't there costs nothing");
    }
}
