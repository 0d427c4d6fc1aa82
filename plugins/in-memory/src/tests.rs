//! The backend as the host sees it, through the SDK's rules.

use memcell_plugin::{Condition, Entry, Error, Mark, Outcome, Session, Stats, testing};

use super::*;
use crate::records::OVERHEAD_BYTES;

fn opened(settings: &[(&str, &str)]) -> Session<InMemory> {
    let mut session = Session::new(testing::clock);
    session.open(0, settings.iter().map(|(name, value)| (name.to_string(), value.to_string()))).unwrap();
    session
}

fn entry(key: impl ToString, stamp: u64, value_bytes: usize) -> Entry {
    Entry { key: key.to_string(), stamp, expires_at: None, value: vec![7; value_bytes] }
}

fn mark(key: impl ToString, stamp: u64, expires_at: Option<u64>) -> Mark {
    Mark { key: key.to_string(), stamp, expires_at }
}

#[test]
fn random_operations_agree_with_the_model() {
    testing::check_backend::<InMemory>(&[], 512);
}

#[test]
fn a_scan_is_complete_while_entries_come_and_go() {
    let mut session = opened(&[]);
    for key in 0..1000 {
        session.put_many([entry(key, 1, 1)], Condition::Newer).unwrap();
    }
    let mut seen = vec![];
    let mut cursor = None;
    let mut round = 0;
    loop {
        let page = session.scan(cursor.as_deref(), 10).unwrap();
        assert!(page.marks.len() <= 10);
        seen.extend(page.marks.into_iter().map(|mark| mark.key));
        let Some(next) = page.next else { break };
        cursor = Some(next);
        // The even ones stay all the time; odd ones are deleted, and new ones appear.
        session.delete_many([mark(round * 2 + 1, 2, Some(0))], Condition::Newer).unwrap();
        session.put_many([entry(format!("new{round}"), 1, 1), entry(round * 4, 2, 3)], Condition::Newer).unwrap();
        round += 1;
    }
    let evens = seen.iter().filter(|key| key.parse::<u32>().is_ok_and(|key| key % 2 == 0)).count();
    assert_eq!(evens, 500, "each exactly once, since slots don't move");
}

#[test]
fn a_step_of_a_scan_is_short_work_also_among_tombstones() {
    let mut session = opened(&[]);
    for key in 0..4000 {
        session.delete_many([mark(key, 1, None)], Condition::Newer).unwrap();
    }
    session.put_many([entry("last", 1, 1)], Condition::Newer).unwrap();
    let mut page = session.scan(None, 10).unwrap();
    let mut steps = 1;
    while let Some(next) = page.next {
        assert_eq!(page.marks, []);
        page = session.scan(Some(&next), 10).unwrap();
        steps += 1;
    }
    assert_eq!(page.marks, [mark("last", 1, None)]);
    assert_eq!(steps, 4001_usize.div_ceil(10 * PASSED_PER_WANTED));
}

#[test]
fn foreign_cursors_are_refused() {
    let mut session = opened(&[]);
    session.put_many([entry("a", 1, 1), entry("b", 1, 1)], Condition::Newer).unwrap();
    assert_eq!(session.scan(None, 1).unwrap().next.as_deref(), Some("slot:1"));
    for cursor in ["", "1", "slot:", "slot:+1", "slot:-1", "slot:2", "slot:99999999999999999999", "after:a"] {
        assert!(matches!(session.scan(Some(cursor), 1), Err(Error::InvalidArgument(_))), "{cursor:?}");
    }
}

#[test]
fn beyond_max_bytes_puts_fail_and_deletes_work() {
    let one = OVERHEAD_BYTES + 1 + 100;
    let mut session = opened(&[("max_bytes", &(2 * one).to_string())]);
    let applied = Ok(vec![Outcome::Applied]);
    assert_eq!(session.put_many([entry("a", 1, 100)], Condition::Newer), applied);
    assert_eq!(session.put_many([entry("b", 1, 100)], Condition::Newer), applied);
    assert!(matches!(session.put_many([entry("c", 1, 0)], Condition::Newer), Err(Error::QuotaExceeded(_))));
    assert!(matches!(session.put_many([entry("a", 2, 101)], Condition::Newer), Err(Error::QuotaExceeded(_))));
    assert_eq!(session.put_many([entry("a", 0, 101)], Condition::Newer), Ok(vec![Outcome::Stale]));
    assert_eq!(session.put_many([entry("a", 2, 100)], Condition::Newer), applied);
    assert_eq!(session.get_many(vec!["a".into()]), Ok(vec![Some(entry("a", 2, 100))]));
    assert_eq!(session.delete_many([mark("d", 1, None)], Condition::Newer), applied);
    assert_eq!(session.put_many([entry("a", 3, 50)], Condition::Newer), applied, "smaller than before");
    assert_eq!(session.stats(), Ok(Stats { entries: 2, bytes: 1 + 50 + 1 + 100 }));
}

#[test]
fn what_has_expired_makes_room() {
    testing::set_clock(1000);
    let mut session = opened(&[("max_bytes", "4KiB")]);
    let expiring = |key: u32| Entry { expires_at: Some(2000), ..entry(key, 1, 1000) };
    session.put_many((0..3).map(expiring), Condition::Newer).unwrap();
    assert!(matches!(session.put_many([entry("x", 1, 3000)], Condition::Newer), Err(Error::QuotaExceeded(_))));
    testing::set_clock(2000);
    assert_eq!(session.put_many([entry("x", 1, 3000)], Condition::Newer), Ok(vec![Outcome::Applied]));
    assert_eq!(session.stats(), Ok(Stats { entries: 1, bytes: 3001 }));
}

#[test]
fn writes_clear_away_what_has_expired() {
    testing::set_clock(1000);
    let mut backend = InMemory { records: Records::default(), intents: Intents::default(), max_bytes: None };
    let write = |key: u32, expires_at| Write {
        key: key.to_string(),
        record: Record { stamp: 1, expires_at, value: key.is_multiple_of(2).then(Vec::new) },
    };
    let rule = || Rule::new(Condition::Newer, Moment::new(testing::clock));
    backend.apply((0..1000).map(|key| write(key, Some(2000))).collect(), &rule()).unwrap();
    // Replaced over and over, a record has one expiry still.
    for round in 0..1000 {
        let mut again = write(0, Some(2000 + round));
        again.record.stamp += round;
        backend.apply(vec![again], &rule()).unwrap();
    }
    testing::set_clock(5000);
    for key in 1000..1500 {
        backend.apply(vec![write(key, None)], &rule()).unwrap();
    }
    assert_eq!(backend.records.held_bytes(), 500 * (OVERHEAD_BYTES + 4));
    assert_eq!(backend.records.slots(), 1000, "emptied slots are used again");
}

#[test]
fn what_is_prepared_takes_the_room_that_it_will_take() {
    let mut session = opened(&[("max_bytes", "4KiB")]);
    session.prepare("t".to_owned(), [entry("a", 1, 3000)], []).unwrap();
    assert_eq!(session.stats(), Ok(Stats::default()));
    assert!(matches!(session.put_many([entry("b", 1, 3000)], Condition::Newer), Err(Error::QuotaExceeded(_))));
    assert!(matches!(session.prepare("u".to_owned(), [entry("b", 1, 3000)], []), Err(Error::QuotaExceeded(_))));
    // In the place of what was prepared there is room.
    session.prepare("t".to_owned(), [entry("a", 2, 3500)], [mark("c", 1, None)]).unwrap();
    session.commit("t").unwrap();
    assert_eq!(session.stats(), Ok(Stats { entries: 1, bytes: 3501 }));
    assert_eq!(session.in_doubt(), Ok(vec![]));
    session.prepare("t".to_owned(), [], [mark("a", 3, None)]).unwrap();
    session.abort("t").unwrap();
    session.commit("t").unwrap();
    assert_eq!(session.stats(), Ok(Stats { entries: 1, bytes: 3501 }));
}

#[test]
fn settings_are_checked() {
    let mut session = Session::<InMemory>::new(testing::clock);
    let mut open = |name: &str, value: &str| session.open(0, [(name.to_owned(), value.to_owned())]).unwrap_err();
    let unknown = Error::invalid_argument("unknown setting \"max_size\"; known: max_bytes");
    assert_eq!(open("max_size", "1"), unknown);
    assert!(open("max_bytes", "lots").to_string().contains("max_bytes"));
}
