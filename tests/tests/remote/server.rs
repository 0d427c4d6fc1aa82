//! One server: what is stored there, and what goes wrong.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memcell_plugin::{Condition, Error, Outcome, Stats, unix_millis};
use memcell_tests::redis::RedisServer;

use super::{entry, error, eventually, get, mark, put, scan_all, try_open};

const APPLIED: Result<Outcome, Error> = Ok(Outcome::Applied);

#[test]
fn what_is_stored_can_be_read_with_redis_cli() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address()), ("key_prefix", "app:")])?;
    let expires_at = unix_millis() + 3_600_000;
    let mut first = entry("685c8c52a1b2c3d4e5f60718", 1_882_615_244_592_775_168, br#"{"summary":"hot pot"}"#);
    first.expires_at = Some(expires_at);
    session.put_many([first], Condition::Newer)?;
    let key = "app:685c8c52a1b2c3d4e5f60718";
    assert_eq!(server.cli(&["HGET", key, "value"])?.trim(), r#"{"summary":"hot pot"}"#);
    assert_eq!(server.cli(&["HGET", key, "stamp"])?.trim(), "01882615244592775168");
    assert_eq!(server.cli(&["HGET", key, "expires"])?.trim(), expires_at.to_string());
    assert_eq!(server.command::<u64>(&format!("PEXPIRETIME {key}"))?, expires_at);

    session.delete_many([mark("685c8c52a1b2c3d4e5f60718", u64::MAX)], Condition::Newer)?;
    let mut fields: Vec<String> = server.command(&format!("HKEYS {key}"))?;
    fields.sort();
    assert_eq!(fields, ["deleted", "stamp"]);
    assert_eq!(server.cli(&["HGET", key, "stamp"])?.trim(), u64::MAX.to_string());
    assert_eq!(server.command::<i64>(&format!("PTTL {key}"))?, -1, "the tombstone stays for good, as asked");
    Ok(())
}

#[test]
fn the_server_expires_entries_and_tombstones() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address())])?;
    let soon = Some(unix_millis() + 300);
    let (mut expiring, mut tombstone) = (entry("a", 1, b"x"), mark("b", 1));
    (expiring.expires_at, tombstone.expires_at) = (soon, soon);
    session.put_many([expiring], Condition::Newer)?;
    session.delete_many([tombstone], Condition::Newer)?;
    session.put_many([entry("c", 1, b"stays")], Condition::Newer)?;
    let deadline = Instant::now() + memcell_tests::host::PATIENCE;
    while server.command::<u64>("DBSIZE")? != 1 {
        assert!(Instant::now() < deadline, "the server keeps what has expired");
    }
    assert_eq!(get(&mut session, "a")?, None);
    assert_eq!(put(&mut session, "b", 1, b"again"), APPLIED);
    // An expiry that is over is no obstacle, and one that the server can't count to is none at all.
    let mut past = entry("c", 2, b"gone");
    past.expires_at = Some(5);
    let mut never = entry("d", 2, b"stays");
    never.expires_at = Some(u64::MAX);
    session.put_many([past, never.clone()], Condition::Newer)?;
    assert_eq!(get(&mut session, "c")?, None);
    assert_eq!(session.get_many(vec!["d".into()])?, [Some(never)]);
    Ok(())
}

#[test]
fn a_batch_keeps_its_order_whatever_it_consists_of() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address())])?;
    let batch: Vec<_> = (0..100).map(|n| entry(&format!("k{}", n % 10), n, n.to_string().as_bytes())).collect();
    assert_eq!(session.put_many(batch.clone(), Condition::Newer)?, [Outcome::Applied; 100]);
    assert_eq!(session.put_many(batch, Condition::Newer)?, [Outcome::Stale; 100]);
    let keys: Vec<String> = ["k3", "nothing", "k3", "k9"].map(str::to_owned).to_vec();
    let found: Vec<_> = session.get_many(keys)?.into_iter().map(|entry| entry.map(|entry| entry.stamp)).collect();
    assert_eq!(found, [Some(93), None, Some(93), Some(99)]);
    let unusual = ["a b", "\0", "日本語", "*", "{x}", "\r\n", "k[1]?\\"];
    session.put_many(unusual.map(|key| entry(key, 1, b"")), Condition::Newer)?;
    let marks = scan_all(&mut session, 3)?;
    let keys: BTreeSet<&str> = marks.iter().map(|mark| mark.key.as_str()).collect();
    assert_eq!(keys.len(), 17);
    assert!(unusual.iter().all(|key| keys.contains(key)));
    Ok(())
}

/// Values larger than every buffer, and more of them than an answer may have.
#[test]
fn large_values_and_large_answers() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address()), ("timeout", "20s")])?;
    let large = |n: u8| (0..9 << 20).map(|at: u32| (at.wrapping_mul(31) as u8) ^ n).collect::<Vec<u8>>();
    for n in 0..3 {
        assert_eq!(put(&mut session, &n.to_string(), 1, &large(n)), APPLIED);
    }
    let three: Vec<String> = (0..3).map(|n: u8| n.to_string()).collect();
    assert!(matches!(session.get_many(three.clone()), Err(Error::TooLarge(_))));
    let two = session.get_many(three[1..].to_vec())?;
    assert!(two.into_iter().zip(1..3).all(|(entry, n)| entry.is_some_and(|entry| entry.value == large(n))));
    Ok(())
}

#[test]
fn stamps_never_go_down_whoever_writes() -> Result<()> {
    const KEYS: u64 = 5;
    let server = RedisServer::start(&[])?;
    let address = server.address();
    let is_done = AtomicBool::new(false);
    let key = |n: u64| format!("k{}", n % KEYS);
    std::thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let address = &address;
                scope.spawn(move || -> Result<()> {
                    let mut session = try_open(&[("address", address)])?;
                    let mut random = writer + 1;
                    for _ in 0..150 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let condition =
                            [Condition::Newer, Condition::NotOlder, Condition::Always][(random >> 40) as usize % 3];
                        let stamp = |n: u64| (random >> 33).wrapping_mul(n + 1) % 10_000;
                        session.put_many((0..KEYS).map(|n| entry(&key(n), stamp(n), b"x")), condition)?;
                        session.delete_many([mark(&key(random >> 50), stamp(7))], condition)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let watcher = scope.spawn(|| -> Result<u32> {
            let mut connection = server.connect()?;
            let (mut highest, mut rises) = (vec![String::new(); KEYS as usize], 0);
            while !is_done.load(Ordering::Relaxed) {
                for (n, highest) in highest.iter_mut().enumerate() {
                    let name = format!("memcell:{}", key(n as u64));
                    let stamp: Option<String> = redis::cmd("HGET").arg(name).arg("stamp").query(&mut connection)?;
                    let Some(stamp) = stamp else { continue };
                    assert!(stamp >= *highest, "{stamp} after {highest}");
                    rises += u32::from(stamp > *highest);
                    *highest = stamp;
                }
            }
            Ok(rises)
        });
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_done.store(true, Ordering::Relaxed);
        for written in written {
            written.expect("a writer panicked")?;
        }
        let rises = watcher.join().expect("the watcher panicked")?;
        assert!(rises > KEYS as u32, "it saw nothing happen");
        Ok(())
    })
}

#[test]
fn a_server_that_has_forgotten_the_scripts_is_told_them_again() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address())])?;
    assert_eq!(put(&mut session, "a", 1, b"1"), APPLIED);
    server.command::<()>("SCRIPT FLUSH")?;
    let batch = (0..100).map(|n| entry(&format!("k{n}"), 1, b"x"));
    assert_eq!(session.put_many(batch, Condition::Newer)?, [Outcome::Applied; 100]);
    Ok(())
}

#[test]
fn what_others_keep_in_the_place_of_a_copy_is_replaced_and_left_alone_elsewhere() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address())])?;
    assert_eq!(put(&mut session, "ours", 1, b"12345"), APPLIED);
    server.command::<()>("SET memcell:text x")?;
    server.command::<()>("HSET memcell:hash other field")?;
    server.command::<()>("HSET memcell:damaged stamp 7 value x")?;
    server.command::<()>("HSET somebody:else stamp 00000000000000000007 value x")?;
    server.command::<()>("HSET memcell:late stamp 00000000000000000007 expires soon value x")?;
    let foreign = ["text", "hash", "damaged", "late"];
    assert_eq!(scan_all(&mut session, 100)?, [mark("ours", 1)]);
    assert_eq!(session.stats()?, Stats { entries: 1, bytes: 4 + 5 });
    // The others of a batch are read and written as ever.
    let keys: Vec<String> = foreign.iter().chain(&["ours", "none"]).map(|key| (*key).to_owned()).collect();
    let found: Vec<Option<(u64, Vec<u8>)>> =
        session.get_many(keys)?.into_iter().map(|entry| entry.map(|entry| (entry.stamp, entry.value))).collect();
    let damaged = Some((0, vec![]));
    assert_eq!(found[..4], [damaged.clone(), None, damaged.clone(), damaged]);
    assert_eq!(found[4..], [Some((1, b"12345".to_vec())), None]);
    let puts = ["text", "ours", "hash", "damaged", "late"].map(|key| entry(key, 2, b"mended"));
    assert_eq!(session.put_many(puts, Condition::Newer)?, [Outcome::Applied; 5]);
    for key in ["text", "hash", "damaged", "late", "ours"] {
        assert_eq!(get(&mut session, key)?.as_deref(), Some(b"mended".as_slice()), "{key}");
    }
    // Neither a stamp that doesn't fit into 64 bits nor such a token is one, whatever the condition.
    for stamp in ["99999999999999999999", "0000000000000000000x"] {
        server.command::<()>(&format!("HSET memcell:late stamp {stamp} fence {stamp} value x"))?;
        server.command::<()>("HDEL memcell:late expires")?;
        for condition in [Condition::Newer, Condition::NotOlder, Condition::Always] {
            assert_eq!(session.put_many([entry("late", 3, b"mended")], condition)?, [Outcome::Applied], "{stamp}");
            assert_eq!(get(&mut session, "late")?.as_deref(), Some(b"mended".as_slice()), "{stamp}");
            server.command::<()>(&format!("HSET memcell:late stamp {stamp}"))?;
        }
    }
    server.command::<()>("DEL memcell:text")?;
    server.command::<()>("RPUSH memcell:text x")?;
    assert_eq!(session.delete_many([mark("text", 1)], Condition::Newer)?, [Outcome::Applied]);
    assert_eq!(get(&mut session, "text")?, None);
    assert_eq!(server.command::<String>("HGET somebody:else value")?, "x");
    Ok(())
}

#[test]
fn many_entries_are_scanned_completely_and_counted_about_right() -> Result<()> {
    const ENTRIES: u64 = 25_000;
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address())])?;
    for from in (0..ENTRIES).step_by(1000) {
        session.put_many((from..from + 1000).map(|n| entry(&format!("{n:06}"), 1, b"1234")), Condition::Newer)?;
        if from == 8000 {
            session.delete_many((0..500).map(|n| mark(&format!("{n:06}"), 2)), Condition::Newer)?;
            assert_eq!(session.stats()?, Stats { entries: 8500, bytes: 85_000 }, "exact as long as there are few");
        }
    }
    let live = ENTRIES - 500;
    let stats = session.stats()?;
    assert!(stats.entries.abs_diff(live) < live / 50, "{stats:?}");
    assert!(stats.bytes.abs_diff(stats.entries * 10) < 10, "{stats:?}");
    let keys: BTreeSet<String> = scan_all(&mut session, 777)?.into_iter().map(|mark| mark.key).collect();
    assert_eq!(keys.len() as u64, live);
    assert!(matches!(session.scan(Some("slot:1"), 10), Err(Error::InvalidArgument(_))));
    Ok(())
}

#[test]
fn settings_that_the_server_refuses_are_named() -> Result<()> {
    let server = RedisServer::start(&["--requirepass", "s3cret"])?;
    let address = server.address();
    let open = |settings: &[(&str, &str)]| try_open(&[&[("address", address.as_str())], settings].concat()).err();
    let refused = |settings: &[(&str, &str)], mentions: &str| {
        let refusal = open(settings);
        let Some(Error::InvalidArgument(text)) = &refusal else { panic!("{settings:?}: {refusal:?}") };
        assert!(text.contains(mentions) && text.contains(&address) && !text.contains("wr0ng"), "{text}");
    };
    assert_eq!(open(&[("password", "s3cret")]), None);
    refused(&[], "\"password_env\"");
    refused(&[("password", "wr0ng")], "\"password_env\"");
    refused(&[("password", "s3cret"), ("username", "nobody")], "\"username\"");
    refused(&[("password", "s3cret"), ("database", "99")], "\"database\"");
    refused(&[("password", "s3cret"), ("cluster", "true")], "\"cluster\"");
    let other = RedisServer::start(&[])?;
    let both = [address.as_str(), other.address().as_str()].join(",");
    let refusal = error(try_open(&[("address", &both), ("password", "s3cret")]).map(drop))?;
    assert!(matches!(&refusal, Error::InvalidArgument(text) if text.contains("\"address\"")), "{refusal}");
    Ok(())
}

/// What the documentation says a user needs is all it needs.
#[test]
fn a_user_with_few_rights_is_enough_and_one_with_fewer_is_told() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let rights =
        "+hello +info +script|load +evalsha +hmget +hset +hdel +del +hstrlen +persist +pexpireat +scan +dbsize +ping";
    server.command::<()>(&format!("ACL SETUSER memcell on >s3cret ~memcell:* {rights}"))?;
    let settings = [("address", server.address()), ("username", "memcell".into()), ("password", "s3cret".into())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut session = try_open(&settings)?;
    let mut expiring = entry("a", 1, b"x");
    expiring.expires_at = Some(unix_millis() + 1_000_000);
    session.put_many([expiring, entry("b", 1, b"x"), entry("a", 2, b"y")], Condition::Newer)?;
    session.delete_many([mark("b", 2)], Condition::NotOlder)?;
    assert_eq!(scan_all(&mut session, 10)?, [mark("a", 2)]);
    assert_eq!(session.stats()?.entries, 1);
    session.health()?;
    server.command::<()>("ACL SETUSER memcell -hmget")?;
    assert!(matches!(get(&mut session, "a"), Err(Error::Other(text)) if text.contains("\"username\"")));
    server.command::<()>("ACL SETUSER memcell -script|load")?;
    let refusal = error(try_open(&settings).map(drop))?;
    assert!(matches!(&refusal, Error::InvalidArgument(text) if text.contains("\"username\"")), "{refusal}");
    Ok(())
}

#[test]
fn a_full_server_refuses_entries_and_takes_deletes() -> Result<()> {
    let server = RedisServer::start(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"])?;
    let mut session = try_open(&[("address", &server.address())])?;
    let value = vec![7; 100_000];
    let mut stored = 0;
    let refusal = loop {
        match put(&mut session, &format!("k{stored}"), 1, &value) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "it takes everything");
    };
    assert!(matches!(&refusal, Error::QuotaExceeded(text) if text.contains("maxmemory")), "{refusal}");
    assert_eq!(get(&mut session, "k0")?.as_deref(), Some(value.as_slice()));
    let marks = (0..stored).map(|n| mark(&format!("k{n}"), 2));
    assert_eq!(session.delete_many(marks, Condition::Newer)?, vec![Outcome::Applied; stored]);
    assert_eq!(
        put(&mut session, "k0", 1, &value),
        Ok(Outcome::Stale),
        "there is room again, and the deletion is remembered"
    );
    assert_eq!(put(&mut session, "k0", 3, &value), APPLIED);
    Ok(())
}

#[test]
fn a_server_that_comes_goes_and_comes_back() -> Result<()> {
    let mut server = RedisServer::start(&["--appendonly", "yes"])?;
    server.kill()?;
    let address = server.address();
    let mut session = try_open(&[("address", &address), ("timeout", "60s"), ("connect_timeout", "60s")])?;
    assert!(matches!(put(&mut session, "a", 1, b"1"), Err(Error::Unavailable(_))));
    assert!(matches!(session.health(), Err(Error::Unavailable(_))));
    server.run()?;
    eventually("the server is found", || put(&mut session, "a", 1, b"1"))?;
    for round in 2..5 {
        server.kill()?;
        let started = Instant::now();
        assert!(matches!(get(&mut session, "a"), Err(Error::Unavailable(_))));
        assert!(started.elapsed() < Duration::from_secs(20), "it knows without waiting for a timeout");
        server.run()?;
        eventually("the server is found again", || put(&mut session, "a", round, b"1"))?;
        assert_eq!(session.get_many(vec!["a".into()])?[0].as_ref().map(|entry| entry.stamp), Some(round));
        session.health()?;
    }
    Ok(())
}

/// The server closed the connection while nothing was under way: the next call notices, and succeeds nevertheless.
#[test]
fn an_idle_connection_that_was_closed_costs_no_call() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address())])?;
    for round in 1..5 {
        assert_eq!(put(&mut session, "a", round, b"1"), APPLIED);
        assert_eq!(server.command::<u64>("CLIENT KILL TYPE normal SKIPME yes")?, 1);
        assert!(get(&mut session, "a")?.is_some());
        assert_eq!(server.command::<u64>("CLIENT KILL TYPE normal SKIPME yes")?, 1);
        session.health()?;
        assert_eq!(server.command::<u64>("CLIENT KILL TYPE normal SKIPME yes")?, 1);
    }
    Ok(())
}

#[test]
fn a_server_that_hangs_is_a_timeout_and_then_works_again() -> Result<()> {
    let server = RedisServer::start(&[])?;
    // Longer than the default, which would be the end of it otherwise.
    let settings = [("address", server.address()), ("timeout", "3s".into()), ("connect_timeout", "200ms".into())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut session = try_open(&settings)?;
    assert_eq!(put(&mut session, "a", 1, b"1"), APPLIED);
    server.freeze()?;
    let started = Instant::now();
    assert_eq!(get(&mut session, "a"), Err(Error::Timeout));
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_secs(3) && elapsed < Duration::from_secs(30), "{elapsed:?}");
    let started = Instant::now();
    let again = error(get(&mut session, "a"))?;
    assert!(matches!(again, Error::Timeout | Error::Unavailable(_)), "{again}");
    assert!(started.elapsed() < Duration::from_secs(30));
    server.thaw()?;
    let value = eventually("the server answers again", || get(&mut session, "a"))?;
    assert_eq!(value.context("it is gone")?, b"1", "an answer to the question asked, not to one before");
    Ok(())
}

/// Without that, the host would take what is gone for mirrored.
#[test]
fn a_server_that_comes_back_without_its_data_is_noticed() -> Result<()> {
    let mut server = RedisServer::start(&[])?;
    let mut session = try_open(&[("address", &server.address())])?;
    assert_eq!(put(&mut session, "a", 1, b"1"), APPLIED);
    server.kill()?;
    server.run()?;
    assert!(matches!(get(&mut session, "a"), Err(Error::Other(text)) if text.contains("lost its data")));

    let mut server = RedisServer::start(&["--appendonly", "yes"])?;
    let mut session = try_open(&[("address", &server.address()), ("persistent", "false")])?;
    assert_eq!(put(&mut session, "a", 1, b"1"), APPLIED);
    server.kill()?;
    server.run()?;
    assert!(matches!(get(&mut session, "a"), Err(Error::Other(text)) if text.contains("\"persistent\"")));
    Ok(())
}
