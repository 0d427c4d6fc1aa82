//! The component's own connection, which is made of WASI's streams: what it makes of servers and networks at their worst. An instance
//! survives all of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memcell_host::kv::{Condition, Entry, GuestError, KvError, Outcome, Trial};
use memcell_tests::artifacts::trials;
use memcell_tests::host::{PATIENCE, remote};
use memcell_tests::proxy::{Conduct, Proxy};
use memcell_tests::redis::RedisServer;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

fn open(address: &str, settings: &[(&str, &str)]) -> Result<Trial> {
    // A busy machine may need longer to connect than the half second that is the default.
    let settings = [&[("connect_timeout", "20s")], settings].concat();
    let mut config = remote(&[address.to_owned()], &settings)?;
    config.limits.call_timeout = PATIENCE;
    Ok(trials(config)?.open(0)?)
}

/// A server, and what is between it and the plugin. The runtime is that of the proxy.
fn behind_a_proxy() -> Result<(RedisServer, Proxy, Runtime)> {
    let server = RedisServer::start(&[])?;
    let runtime = Runtime::new()?;
    let proxy = {
        let _within = runtime.enter();
        Proxy::start(server.address())?
    };
    Ok((server, proxy, runtime))
}

fn put(trial: &mut Trial, key: &str, stamp: u64, value: &[u8]) -> Result<Outcome, KvError> {
    let entry = Entry { key: key.to_owned(), stamp, expires_at: None, value: value.to_vec() };
    let outcomes = trial.put_many(&[entry], Condition::Newer)?;
    outcomes.into_iter().next().ok_or(KvError::Closed)
}

fn get(trial: &mut Trial, key: &str) -> Result<Option<Vec<u8>>, KvError> {
    Ok(trial.get_many(&[key.to_owned()])?.pop().flatten().map(|entry| entry.value))
}

/// What the plugin answers to a get, once it does: it pauses between two tries to connect.
fn eventually(trial: &mut Trial, key: &str) -> Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match get(trial, key) {
            Ok(value) => return Ok(value),
            Err(KvError::Refused(GuestError::Unavailable(_) | GuestError::Timeout)) => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(Instant::now() < deadline, "it doesn't answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_hangs_costs_a_timeout_and_not_the_instance() -> Result<()> {
    let server = RedisServer::start(&[])?;
    // Nothing is read there, so that more than what the system keeps for it waits to be written.
    for value in [b"x".to_vec(), vec![7; 24 << 20]] {
        let mut trial = open(&server.address(), &[("timeout", "2s")])?;
        assert_eq!(put(&mut trial, "a", 1, b"1")?, Outcome::Applied);
        server.freeze()?;
        let started = Instant::now();
        assert_eq!(put(&mut trial, "b", 1, &value), Err(KvError::Refused(GuestError::Timeout)));
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(1990) && elapsed < Duration::from_secs(30), "{elapsed:?}");
        server.thaw()?;
        assert_eq!(eventually(&mut trial, "a")?, Some(b"1".to_vec()));
        server.command::<()>("FLUSHALL")?;
    }
    Ok(())
}

#[test]
fn a_call_waits_as_long_as_it_may_however_many_were_made_before() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let server = RedisServer::start(&[])?;
    let mut trial = open(&server.address(), &[("timeout", "1s")])?;
    let ends_in_time = |call: &mut dyn FnMut() -> Result<(), KvError>| {
        let started = Instant::now();
        let ended = call();
        let elapsed = started.elapsed();
        assert!(ended.is_ok() || elapsed >= TIMEOUT - Duration::from_millis(10), "{ended:?} after {elapsed:?}");
        ended
    };
    // Longer than a timeout, in short calls: none of them is ended by what was set for one before.
    let began = Instant::now();
    for stamp in 1.. {
        // A machine that is busy enough may need a timeout itself.
        if ends_in_time(&mut || put(&mut trial, "a", stamp, b"1").map(drop)).is_err() {
            eventually(&mut trial, "a")?;
        }
        if began.elapsed() > TIMEOUT * 5 / 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(eventually(&mut trial, "a")?, Some(b"1".to_vec()));
    server.freeze()?;
    let ended = ends_in_time(&mut || get(&mut trial, "a").map(drop));
    assert_eq!(ended, Err(KvError::Refused(GuestError::Timeout)));
    server.thaw()?;
    assert_eq!(eventually(&mut trial, "a")?, Some(b"1".to_vec()));
    Ok(())
}

#[test]
fn answers_in_single_bytes_are_answers() -> Result<()> {
    let (_server, proxy, _runtime) = behind_a_proxy()?;
    let mut trial = open(&proxy.address().to_string(), &[("timeout", "30s")])?;
    proxy.set(Conduct::Dribble);
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(put(&mut trial, key, 1, &vec![b'\n'; n * 50])?, Outcome::Applied);
    }
    let found = trial.get_many(&keys)?;
    let lengths: Vec<usize> =
        found.into_iter().map(|entry| entry.map_or(usize::MAX, |entry| entry.value.len())).collect();
    assert_eq!(lengths, (0..20).map(|n| n * 50).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_connection_that_breaks_within_an_answer_is_made_again() -> Result<()> {
    let (_server, proxy, _runtime) = behind_a_proxy()?;
    let mut trial = open(&proxy.address().to_string(), &[("timeout", "5s")])?;
    let value = vec![7; 300_000];
    assert_eq!(put(&mut trial, "a", 1, &value)?, Outcome::Applied);
    proxy.set(Conduct::Break);
    let ended = get(&mut trial, "a");
    assert!(matches!(&ended, Err(KvError::Refused(GuestError::Unavailable(_)))), "{ended:?}");
    proxy.set(Conduct::Pass);
    assert_eq!(eventually(&mut trial, "a")?, Some(value));
    // Between two calls, it costs nothing.
    proxy.cut();
    assert_eq!(get(&mut trial, "a")?.map(|value| value.len()), Some(300_000));
    Ok(())
}

#[test]
fn a_server_that_is_none_is_told_by_what_it_says() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream?;
            let mut some = [0; 64];
            let _ = stream.read(&mut some)?;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut trial = open(&address, &[])?;
    let told = get(&mut trial, "a").err().context("it answered")?.to_string();
    assert!(told.contains(&format!("{address} answered nonsense")) && told.contains("HTTP/1.1 400"), "{told}");
    assert!(!trial.is_lost());
    Ok(())
}

#[test]
fn where_nobody_listens_and_where_nobody_may_is_told() -> Result<()> {
    // Taken, so that nobody else listens there meanwhile.
    let taken = TcpSocket::new_v4()?;
    taken.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = taken.local_addr()?.to_string();
    let mut trial = open(&address, &[])?;
    let told = get(&mut trial, "a");
    let expected = format!("can't connect to {address}: nobody listens there");
    assert_eq!(told, Err(KvError::Refused(GuestError::Unavailable(expected))));
    let mut config = remote(std::slice::from_ref(&address), &[])?;
    config.grants.connect.clear();
    let Err(refused) = trials(config)?.open(0) else { anyhow::bail!("it opened") };
    assert!(refused.to_string().contains("add it to grants.connect"), "{refused}");
    Ok(())
}
