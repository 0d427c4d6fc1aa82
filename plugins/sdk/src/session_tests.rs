//! The rules around the smallest possible backend: a map that holds nothing but bytes.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::*;
use crate::backend::{Found, Step, after_cursor, key_of_cursor};
use crate::record::Header;
use crate::testing;

/// Sorted, and encoded as a store of bytes would have it; nothing but the required methods.
#[derive(Debug)]
struct Bytes {
    records: BTreeMap<String, Vec<u8>>,
    limits: Limits,
}

impl Backend for Bytes {
    fn open(_shard: u32, settings: &mut Settings) -> Result<Self> {
        let max_batch = settings.integer("max_batch", 1..=1000)?.unwrap_or(1000) as u32;
        let limits = Limits { max_key_bytes: 256, max_value_bytes: 1000, max_batch, ..Limits::default() };
        Ok(Self { records: BTreeMap::new(), limits })
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn read(&mut self, key: &str) -> Result<Option<Record>> {
        self.records.get(key).map(|bytes| Record::decode(bytes)).transpose()
    }

    fn write(&mut self, key: String, record: Record) -> Result<()> {
        self.records.insert(key, record.encode());
        Ok(())
    }

    fn forget(&mut self, key: &str, _seen: &Header) -> Result<()> {
        self.records.remove(key);
        Ok(())
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
        let from = match cursor {
            Some(cursor) => Bound::Excluded(key_of_cursor(cursor)?),
            None => Bound::Unbounded,
        };
        let mut step = Step::default();
        for (key, bytes) in self.records.range::<str, _>((from, Bound::Unbounded)) {
            if step.found.len() == limit {
                step.next = step.found.last().map(|found| after_cursor(&found.key));
                break;
            }
            step.found.push(Found { key: key.clone(), header: Header::decode(bytes)? });
        }
        Ok(step)
    }
}

fn opened() -> Session<Bytes> {
    let mut session = Session::new(testing::clock);
    session.open(0, []).unwrap();
    session
}

fn entry(key: &str, stamp: u64) -> Entry {
    Entry { key: key.to_owned(), stamp, expires_at: None, value: vec![1] }
}

fn mark(key: &str, stamp: u64) -> Mark {
    Mark { key: key.to_owned(), stamp, expires_at: None }
}

#[test]
fn random_operations_agree_with_the_model() {
    testing::check_backend::<Bytes>(&[], 256);
}

#[test]
fn a_session_is_opened_once_and_closed_once() {
    let mut session = Session::<Bytes>::new(testing::clock);
    assert!(matches!(session.get_many(vec![]), Err(Error::Other(_))));
    assert!(matches!(session.close(), Err(Error::Other(_))));
    assert!(matches!(session.open(0, [("no".to_owned(), String::new())]), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.flush(), Err(Error::Other(_))));
    assert_eq!(session.open(0, []).unwrap().max_value_bytes, 1000);
    assert!(matches!(session.open(0, []), Err(Error::InvalidArgument(_))));
    assert_eq!(session.health(), Ok(()));
    assert_eq!(session.close(), Ok(()));
    assert!(matches!(session.open(0, []), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.stats(), Err(Error::Other(_))));
    assert!(matches!(session.scan(None, 1), Err(Error::Other(_))));
    assert!(matches!(session.put_many([entry("k", 1)], Condition::Newer), Err(Error::Other(_))));
    assert!(matches!(session.close(), Err(Error::Other(_))));
}

#[test]
fn duplicates_in_a_call_take_place_in_order() {
    let mut session = opened();
    let batch = [entry("k", 2), entry("k", 1), entry("other", 1), entry("k", 3)];
    let outcomes = session.put_many(batch, Condition::Newer).unwrap();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Stale, Outcome::Applied, Outcome::Applied]);
    let answers = session.get_many(vec!["k".into(), "absent".into(), "k".into()]).unwrap();
    assert_eq!(answers, [Some(entry("k", 3)), None, Some(entry("k", 3))]);
}

#[test]
fn a_tombstone_is_kept_where_nothing_was() {
    let mut session = opened();
    assert_eq!(session.delete_many([mark("k", 5)], Condition::Newer), Ok(vec![Outcome::Applied]));
    assert_eq!(session.put_many([entry("k", 5)], Condition::Newer), Ok(vec![Outcome::Stale]));
    assert_eq!(session.stats(), Ok(Stats::default()));
    assert_eq!(session.scan(None, 10), Ok(Page { marks: vec![], next: None }));
    assert_eq!(session.put_many([entry("k", 5)], Condition::NotOlder), Ok(vec![Outcome::Applied]));
    assert_eq!(session.stats(), Ok(Stats { entries: 1, bytes: 2 }));
}

#[test]
fn a_forced_write_never_lowers_the_stamp() {
    let mut session = opened();
    session.put_many([entry("k", 5)], Condition::Newer).unwrap();
    let forced = Entry { value: vec![9], ..entry("k", 3) };
    assert_eq!(session.put_many([forced], Condition::Always), Ok(vec![Outcome::Applied]));
    let answers = session.get_many(vec!["k".into()]).unwrap();
    assert_eq!(answers, [Some(Entry { value: vec![9], ..entry("k", 5) })]);
    session.delete_many([mark("k", 1)], Condition::Always).unwrap();
    assert_eq!(session.put_many([entry("k", 5)], Condition::Newer), Ok(vec![Outcome::Stale]));
}

#[test]
fn sizes_are_limited() {
    let check = |key: &str, value_bytes: usize, expect: fn(&Error) -> bool| {
        let mut session = opened();
        let wrong = Entry { value: vec![0; value_bytes], ..entry(key, 1) };
        let error = session.put_many([entry("first", 1), wrong], Condition::Newer).unwrap_err();
        assert!(expect(&error), "{error}");
        assert_eq!(session.stats(), Ok(Stats::default()), "nothing of a refused call may take place");
    };
    check("", 1, |error| matches!(error, Error::InvalidArgument(_)));
    check(&"k".repeat(257), 1, |error| matches!(error, Error::TooLarge(_)));
    check("k", 1001, |error| matches!(error, Error::TooLarge(_)));

    let mut session = Session::<Bytes>::new(testing::clock);
    session.open(0, [("max_batch".to_owned(), "2".to_owned())]).unwrap();
    let largest = Entry { value: vec![0; 1000], ..entry(&"k".repeat(256), 1) };
    assert!(session.put_many([largest.clone(), largest], Condition::Newer).is_ok());
    assert!(matches!(session.get_many(vec!["k".to_owned(); 3]), Err(Error::TooLarge(_))));
    assert!(matches!(session.get_many(vec![String::new()]), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.delete_many([mark("", 1)], Condition::Newer), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.scan(None, 0), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.scan(Some("foreign"), 1), Err(Error::InvalidArgument(_))));
}

#[test]
fn expiry_is_absence() {
    testing::set_clock(1000);
    let mut session = opened();
    let at = |expires_at| Entry { expires_at: Some(expires_at), ..entry("k", 5) };
    session.put_many([at(1001)], Condition::Newer).unwrap();
    assert_eq!(session.get_many(vec!["k".into()]), Ok(vec![Some(at(1001))]));
    testing::set_clock(1001);
    assert_eq!(session.get_many(vec!["k".into()]), Ok(vec![None]));
    assert_eq!(session.stats(), Ok(Stats::default()));
    assert_eq!(session.scan(None, 10).unwrap().marks, []);
    assert_eq!(session.put_many([entry("k", 1)], Condition::Newer), Ok(vec![Outcome::Applied]));
    assert_eq!(session.put_many([at(7)], Condition::Always), Ok(vec![Outcome::Applied]));
    assert_eq!(session.get_many(vec!["k".into()]), Ok(vec![None]));
}

#[test]
fn what_can_not_be_prepared_is_refused_before_it_gets_here() {
    let mut session = opened();
    let refused = |answer: Result<()>| matches!(answer, Err(Error::InvalidArgument(_) | Error::TooLarge(_)));
    assert!(refused(session.prepare(String::new(), [entry("k", 1)], [])));
    assert!(refused(session.prepare("t".repeat(65), [entry("k", 1)], [])));
    assert!(refused(session.prepare("t".to_owned(), [entry("", 1)], [])));
    assert!(refused(session.prepare("t".to_owned(), [], [mark(&"k".repeat(257), 1)])));
    assert!(refused(session.prepare("t".to_owned(), [Entry { value: vec![0; 1001], ..entry("k", 1) }], [])));
    // By default, there is no place for it.
    assert!(matches!(session.prepare("t".to_owned(), [entry("k", 1)], []), Err(Error::Unsupported(_))));
    assert!(matches!(session.commit("t"), Err(Error::Unsupported(_))));
    assert!(matches!(session.abort("t"), Err(Error::Unsupported(_))));
    assert!(matches!(session.in_doubt(), Err(Error::Unsupported(_))));
}

/// Its scan comes by the same places again and again.
struct Circle;

impl Backend for Circle {
    fn open(_shard: u32, _settings: &mut Settings) -> Result<Self> {
        Ok(Self)
    }

    fn read(&mut self, _key: &str) -> Result<Option<Record>> {
        Ok(None)
    }

    fn write(&mut self, _key: String, _record: Record) -> Result<()> {
        Ok(())
    }

    fn forget(&mut self, _key: &str, _seen: &Header) -> Result<()> {
        Ok(())
    }

    fn scan(&mut self, cursor: Option<&str>, _limit: usize) -> Result<Step> {
        let next = match cursor.map(key_of_cursor).transpose()? {
            Some("b") => "c",
            Some("c") => "d",
            _ => "b",
        };
        Ok(Step { found: Vec::new(), next: Some(after_cursor(next)) })
    }
}

#[test]
fn statistics_do_not_go_round_in_circles_with_a_scan() {
    let mut session = Session::<Circle>::new(testing::clock);
    session.open(0, []).unwrap();
    assert!(matches!(session.stats(), Err(Error::Other(text)) if text.contains("doesn't end")));
}
