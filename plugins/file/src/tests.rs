//! The backend as the host sees it, through the SDK's rules, in a directory of the test's own; and its files.

use std::fs;
use std::path::PathBuf;

use memcell_plugin::{Condition, Entry, Mark, Session, testing};
use tempfile::TempDir;

use super::*;
use crate::options::Durability;

mod crashes;
mod damage;
mod packs;

fn options(settings: &[(&str, &str)]) -> Options {
    let pairs = settings.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Options::read(&mut Settings::new(pairs).unwrap()).unwrap()
}

/// A backend in a directory that goes with it.
struct Temporary {
    store: FileStore,
    directory: TempDir,
}

impl Temporary {
    fn new(settings: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        Self { store: FileStore::open_in(directory.path(), 0, options(settings)).unwrap(), directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("shard-0.redb")
    }

    fn reopened(self) -> Self {
        let options = self.store.options;
        self.store.close().unwrap();
        Self { store: FileStore::open_in(self.directory.path(), 0, options).unwrap(), directory: self.directory }
    }

    /// What the next instance finds if this one is killed now: everything that was written to the file, and nothing more.
    fn killed(&mut self) {
        let copy = TempDir::new().unwrap();
        for file in fs::read_dir(self.directory.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        self.store = FileStore::open_in(copy.path(), 0, self.store.options).unwrap();
        self.directory = copy;
    }

    fn put(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<Vec<Outcome>> {
        let writes = entries.into_iter().map(|Entry { key, stamp, expires_at, value }| Write {
            key,
            record: Record { stamp, expires_at, value: Some(value) },
        });
        self.store.apply(writes.collect(), &rule())
    }

    fn delete(&mut self, marks: impl IntoIterator<Item = Mark>) -> Result<Vec<Outcome>> {
        let writes = marks
            .into_iter()
            .map(|Mark { key, stamp, expires_at }| Write { key, record: Record { stamp, expires_at, value: None } });
        self.store.apply(writes.collect(), &rule())
    }

    fn value(&mut self, key: &str) -> Option<Vec<u8>> {
        self.store.read(key).unwrap().and_then(|record| record.value)
    }

    fn stats(&mut self) -> Stats {
        self.store.stats(&Moment::new(testing::clock)).unwrap()
    }

    fn records(&self) -> u64 {
        use redb::{ReadableDatabase, ReadableTableMetadata};
        let engine = self.store.database.as_ref().unwrap().engine();
        engine.begin_read().unwrap().open_table(database::RECORDS).unwrap().len().unwrap()
    }
}

fn rule() -> Rule {
    Rule::new(Condition::Newer, Moment::new(testing::clock))
}

fn entry(key: impl ToString, stamp: u64, value_bytes: usize) -> Entry {
    Entry { key: key.to_string(), stamp, expires_at: None, value: vec![7; value_bytes] }
}

fn mark(key: impl ToString, stamp: u64, expires_at: Option<u64>) -> Mark {
    Mark { key: key.to_string(), stamp, expires_at }
}

/// What the SDK's check opens: a fresh directory each time. After every few calls it is closed and opened again, or killed.
struct Restless {
    backend: Option<Temporary>,
    calls: u32,
    closes: bool,
}

impl Restless {
    fn next(&mut self) -> &mut FileStore {
        self.calls += 1;
        let mut backend = self.backend.take().unwrap();
        if self.calls.is_multiple_of(7) {
            match self.closes {
                true => backend = backend.reopened(),
                false => backend.killed(),
            }
        }
        &mut self.backend.insert(backend).store
    }
}

impl Backend for Restless {
    fn open(_shard: u32, settings: &mut Settings) -> Result<Self> {
        let closes = settings.boolean("closes")?.unwrap_or(false);
        let durability = settings.string("durability").unwrap_or_else(|| "immediate".into());
        Ok(Self { backend: Some(Temporary::new(&[("durability", &durability)])), calls: 0, closes })
    }

    fn limits(&self) -> Limits {
        self.backend.as_ref().unwrap().store.limits()
    }

    fn read(&mut self, key: &str) -> Result<Option<Record>> {
        self.next().read(key)
    }

    fn read_many(&mut self, keys: &[String]) -> Result<Vec<Option<Record>>> {
        self.next().read_many(keys)
    }

    fn header(&mut self, key: &str) -> Result<Option<Header>> {
        self.next().header(key)
    }

    fn write(&mut self, key: String, record: Record) -> Result<()> {
        self.next().write(key, record)
    }

    fn forget(&mut self, key: &str, seen: &Header) -> Result<()> {
        self.next().forget(key, seen)
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
        self.next().scan(cursor, limit)
    }

    fn apply(&mut self, writes: Vec<Write>, rule: &Rule) -> Result<Vec<Outcome>> {
        self.next().apply(writes, rule)
    }

    fn stats(&mut self, moment: &Moment) -> Result<Stats> {
        self.next().stats(moment)
    }
}

/// Where nobody can make a file, not even root.
#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_to_is_no_reason_to_give_a_write_up() {
    let refused = FileStore::open_in(Path::new("/sys"), 0, options(&[]));
    assert!(matches!(refused, Err(Error::InvalidArgument(text)) if text.contains("can't be written to")));
    let mut backend = Temporary::new(&[]);
    backend.store.database = None;
    let place = std::mem::replace(&mut backend.store.place, Place::new(Path::new("/sys"), 0).unwrap());
    let put = backend.put([Entry { key: "k".into(), stamp: 1, expires_at: None, value: vec![1] }]);
    assert!(matches!(&put, Err(Error::Unavailable(text)) if text.contains("can't be written to")), "{put:?}");
    backend.store.place = place;
    assert_eq!(backend.store.health(), Ok(()));
}

#[test]
fn random_operations_agree_with_the_model_although_it_is_killed_all_the_time() {
    testing::check_backend::<Restless>(&[], 48);
}

#[test]
fn random_operations_agree_with_the_model_although_it_is_reopened_all_the_time() {
    testing::check_backend::<Restless>(&[("closes", "true"), ("durability", "flush")], 48);
}

#[test]
fn a_scan_is_sorted_and_complete_while_entries_come_and_go() {
    let mut backend = Temporary::new(&[("durability", "flush")]);
    backend.put((0..1000).map(|key| entry(key, 1, 1))).unwrap();
    let mut seen = vec![];
    let mut cursor: Option<String> = None;
    let mut round = 0;
    loop {
        let step = backend.store.scan(cursor.as_deref(), 10).unwrap();
        assert!(step.found.len() <= 10);
        seen.extend(step.found.into_iter().map(|found| found.key));
        let Some(next) = step.next else { break };
        cursor = Some(next);
        // The even ones stay all the time; odd ones are deleted, and new ones appear.
        backend.delete([mark(round * 2 + 1, 2, Some(0))]).unwrap();
        backend.put([entry(format!("new{round}"), 1, 1), entry(round * 4, 2, 3)]).unwrap();
        round += 1;
    }
    assert!(seen.is_sorted());
    let evens = seen.iter().filter(|key| key.parse::<u32>().is_ok_and(|key| key % 2 == 0)).count();
    assert_eq!(evens, 500, "each exactly once");
}

#[test]
fn a_step_of_a_scan_is_short_work_also_among_tombstones() {
    let mut backend = Temporary::new(&[]);
    backend.delete((0..4000).map(|key| mark(format!("{key:04}"), 1, None))).unwrap();
    backend.put([entry("last", 1, 1)]).unwrap();
    let mut step = backend.store.scan(None, 10).unwrap();
    assert_eq!(step, Step { found: vec![], next: Some("after:0079".into()) });
    let mut steps = 1;
    while let Some(next) = step.next {
        assert_eq!(step.found, []);
        step = backend.store.scan(Some(&next), 10).unwrap();
        steps += 1;
    }
    assert_eq!(step.found.len(), 1);
    assert_eq!(steps, 51);
    assert!(matches!(backend.store.scan(Some("slot:1"), 1), Err(Error::InvalidArgument(_))));
}

#[test]
fn writes_and_statistics_clear_away_what_has_expired() {
    testing::set_clock(1000);
    let mut backend = Temporary::new(&[]);
    let expiring = |key: u32, stamp| Entry { expires_at: Some(2000), ..entry(key, stamp, 10) };
    backend.put((0..500).map(|key| expiring(key, 1))).unwrap();
    backend.delete((500..1000).map(|key| mark(key, 1, Some(2000)))).unwrap();
    // Replaced over and over, a record has one expiry still.
    for stamp in 2..20 {
        backend.put([Entry { expires_at: Some(2000 + stamp), ..entry(0, stamp, 10) }]).unwrap();
    }
    assert_eq!(backend.stats(), Stats { entries: 500, bytes: 10 + 90 * 2 + 400 * 3 + 500 * 10 });
    testing::set_clock(5000);
    for key in 1000..1100 {
        backend.put([entry(key, 1, 1)]).unwrap();
    }
    assert_eq!(backend.records(), 1000 + 100 - 200, "two for each write");
    assert_eq!(backend.stats(), Stats { entries: 100, bytes: 500 });
    assert_eq!(backend.records(), 100);
    backend = backend.reopened();
    assert_eq!((backend.records(), backend.stats()), (100, Stats { entries: 100, bytes: 500 }));
}

#[test]
fn statistics_are_right_before_anything_is_cleared_away() {
    testing::set_clock(1000);
    let mut backend = Temporary::new(&[]);
    let count = 5000_u32;
    backend.put((0..count).map(|key| Entry { expires_at: Some(1500), ..entry(format!("{key:04}"), 1, 6) })).unwrap();
    backend.put([entry("stays", 1, 5)]).unwrap();
    testing::set_clock(1500);
    assert_eq!(backend.stats(), Stats { entries: 1, bytes: 10 });
    assert!(backend.records() > 500, "one call clears only some");
    assert_eq!(backend.stats(), Stats { entries: 1, bytes: 10 });
    assert_eq!(backend.records(), 1);
}

#[test]
fn closing_gives_free_space_back() {
    let mut backend = Temporary::new(&[]);
    backend.put((0..20).map(|key| entry(key, 1, 1024 * 1024))).unwrap();
    backend.delete((1..20).map(|key| mark(key, 2, Some(u64::MAX)))).unwrap();
    let before = fs::metadata(backend.file()).unwrap().len();
    assert!(before > 20 * 1024 * 1024, "{before}");
    backend = backend.reopened();
    let after = fs::metadata(backend.file()).unwrap().len();
    assert!(after < 8 * 1024 * 1024, "{after}");
    assert_eq!(backend.value("0"), Some(vec![7; 1024 * 1024]));
}

#[test]
fn answers_are_bounded_but_for_a_single_value() {
    let mut backend = Temporary::new(&[]);
    let large = 17 * 1024 * 1024;
    backend.put([entry("a", 1, large)]).unwrap();
    backend.put([entry("b", 1, large), entry("c", 1, 3)]).unwrap();
    let keys = |keys: &[&str]| keys.iter().map(|key| key.to_string()).collect::<Vec<_>>();
    assert!(matches!(backend.store.read_many(&keys(&["a", "b"])), Err(Error::TooLarge(_))));
    assert_eq!(backend.store.read_many(&keys(&["c", "b"])).unwrap().len(), 2);
    backend.put([entry("d", 1, MAX_VALUE_BYTES as usize)]).unwrap();
    assert_eq!(backend.value("d").map(|value| value.len()), Some(MAX_VALUE_BYTES as usize));
}

#[test]
fn settings_are_checked() {
    let mut session = Session::<FileStore>::new(testing::clock);
    let mut open = |name: &str, value: &str| session.open(0, [(name.to_owned(), value.to_owned())]).unwrap_err();
    let unknown = "unknown setting \"cache\"; known: cache_size, check_on_open, compact_limit, durability";
    assert_eq!(open("cache", "1"), Error::invalid_argument(unknown));
    let durability = "the setting \"durability\" is \"eventual\", which is not one of immediate, flush";
    assert_eq!(open("durability", "eventual"), Error::invalid_argument(durability));
    assert!(open("cache_size", "lots").to_string().contains("cache_size"));
    assert!(open("compact_limit", "-1").to_string().contains("compact_limit"));
    assert!(open("check_on_open", "yes").to_string().contains("check_on_open"));
    assert_eq!(options(&[("durability", "flush")]).durability, Durability::Flush);
}

#[test]
fn a_missing_grant_is_named() {
    let error = FileStore::open_in(Path::new("/nonexistent/data"), 0, options(&[])).err().unwrap();
    assert!(
        matches!(&error, Error::InvalidArgument(text) if text.contains("`directory` in `[backends.NAME.grants]`")),
        "{error}"
    );
}
