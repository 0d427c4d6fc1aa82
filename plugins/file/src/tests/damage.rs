//! Files that aren't what they should be: each is refused with a text that says what to do.

use super::*;
use crate::failure::Failure;
use crate::incidents::{History, Incidents};

fn open(directory: &Path, shard: u32) -> Result<FileStore> {
    FileStore::open_in(directory, shard, options(&[]))
}

/// The text of the error that a damaged file must lead to.
fn corrupt(opened: Result<FileStore>) -> String {
    match opened.err() {
        Some(Error::Corrupt(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_others_are_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("shard-0.redb");
    fs::write(&path, "not a database").unwrap();
    let text = corrupt(open(directory.path(), 0));
    assert!(text.contains("shard-0.redb") && text.contains("Move it away"), "{text}");

    fs::remove_file(&path).unwrap();
    let foreign = redb::Database::create(&path).unwrap();
    let transaction = foreign.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(foreign);
    let error = open(directory.path(), 0).err().unwrap();
    assert!(error.to_string().contains("meta"), "{error}");
}

#[test]
fn the_file_of_another_shard_or_version_is_refused() {
    let backend = Temporary::new(&[]);
    let directory = backend.directory;
    backend.store.close().unwrap();
    fs::rename(directory.path().join("shard-0.redb"), directory.path().join("shard-1.redb")).unwrap();
    let text = corrupt(open(directory.path(), 1));
    assert!(text.contains("the file of shard 0"), "{text}");

    let path = directory.path().join("shard-1.redb");
    let engine = redb::Database::create(&path).unwrap();
    let transaction = engine.begin_write().unwrap();
    transaction.open_table(database::META).unwrap().insert("format", 3).unwrap();
    transaction.commit().unwrap();
    drop(engine);
    let text = corrupt(open(directory.path(), 1));
    assert!(text.contains("its format is 3"), "{text}");
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let mut backend = Temporary::new(&[]);
    backend.put((0..2000).map(|key| entry(key, 1, 500))).unwrap();
    let path = backend.file();
    backend.store.close().unwrap();
    let length = fs::metadata(&path).unwrap().len();
    for part in [1, 100, 4096, length / 2, length - 4096] {
        let copy = TempDir::new().unwrap();
        let cut = copy.path().join("shard-0.redb");
        fs::copy(&path, &cut).unwrap();
        fs::File::options().write(true).open(&cut).unwrap().set_len(part).unwrap();
        corrupt(open(copy.path(), 0));
    }
}

/// The engine trusts its pages until it has reason not to.
#[test]
fn altered_pages_are_found_by_a_check_and_after_a_crash() {
    let mut backend = Temporary::new(&[]);
    backend.put((0..2000).map(|key| entry(key, 1, 500))).unwrap();
    let (path, directory) = (backend.file(), backend.directory);
    backend.store.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(16).position(|window| window == [7; 16]).unwrap();
    bytes[place] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let checked = FileStore::open_in(directory.path(), 0, options(&[("check_on_open", "true")]));
    assert!(corrupt(checked).contains("Move it away"));

    fs::write(&path, &bytes).unwrap();
    let incidents = Incidents::new(directory.path().join("shard-0.incidents"));
    incidents.add("panicked at engine.rs:\nan assertion failed");
    assert_eq!(incidents.history(), History::Suspect);
    corrupt(open(directory.path(), 0));
    incidents.add("panicked again");
    let text = corrupt(open(directory.path(), 0));
    assert!(text.contains("an assertion failed"), "{text}");

    // Moved away, it is forgotten.
    fs::remove_file(&path).unwrap();
    let mut store = open(directory.path(), 0).unwrap();
    assert_eq!(store.read("1").unwrap(), None);
    assert_eq!(incidents.history(), History::Clean);
}

#[test]
fn a_crash_without_damage_is_forgotten_after_a_check() {
    let mut backend = Temporary::new(&[]);
    backend.put([entry("a", 1, 3)]).unwrap();
    let incidents = Incidents::new(backend.directory.path().join("shard-0.incidents"));
    incidents.add("panicked");
    backend = backend.reopened();
    assert_eq!(incidents.history(), History::Clean);
    assert_eq!(backend.value("a"), Some(vec![7; 3]));
}

/// The engine quotes the file, which can be long where that is damaged; hosts cut texts off.
#[test]
fn what_to_do_comes_before_what_was_found() {
    let error = redb::Error::TableTypeMismatch {
        table: "records".into(),
        key: redb::TypeName::new(&"x".repeat(1000)),
        value: redb::TypeName::new(""),
    };
    let Error::Corrupt(text) = Failure::Engine(Box::new(error)).told("shard-0.redb") else { panic!() };
    assert!(text.find("Move it away").unwrap() < 100, "{text}");
    assert!(text.find("records").unwrap() > 100, "{text}");
}

/// A record that can't be understood ends the trust in the whole file.
#[test]
fn a_damaged_record_is_reported_with_what_to_do() {
    let mut backend = Temporary::new(&[]);
    backend.put((0..2000).map(|key| entry(key, 1, 500))).unwrap();
    let (path, directory) = (backend.file(), backend.directory);
    backend.store.close().unwrap();
    // The header of some record, which is right before its value.
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(34).position(|window| window[0] == 1 && window[18..] == [7; 16]).unwrap();
    bytes[place] = 99;
    fs::write(&path, &bytes).unwrap();
    let mut store = open(directory.path(), 0).unwrap();
    let keys: Vec<String> = (0..2000).map(|key: u32| key.to_string()).collect();
    for attempt in 0..4 {
        match store.read_many(&keys) {
            Err(Error::Corrupt(text)) => assert_eq!(text.matches("Move it away").count(), 1, "{attempt}: {text}"),
            other => panic!("{attempt}: {other:?}"),
        }
        assert!(store.database.is_none());
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(store.read("1"), Ok(None), "a new file is made without a restart");
}
