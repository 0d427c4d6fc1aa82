//! The remote plugin against real Redis servers: natively, where the server is what is under test, and as a component inside a
//! whole host.

#![expect(clippy::indexing_slicing, reason = "tests may panic")]

mod cluster;
mod host;
mod losses;
mod model;
mod sandboxed;
mod server;
mod tls;

use anyhow::{Context, Result, ensure};
use memcell_plugin::{Condition, Entry, Error, Mark, Outcome, Session, unix_millis};
use memcell_remote::Remote;
use std::time::{Duration, Instant};

use memcell_tests::host::PATIENCE;

fn try_open(settings: &[(&str, &str)]) -> Result<Session<Remote>, Error> {
    let mut session = Session::new(unix_millis);
    session.open(0, settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))?;
    Ok(session)
}

fn entry(key: &str, stamp: u64, value: &[u8]) -> Entry {
    Entry { key: key.to_owned(), stamp, expires_at: None, value: value.to_vec() }
}

fn mark(key: &str, stamp: u64) -> Mark {
    Mark { key: key.to_owned(), stamp, expires_at: None }
}

fn get(session: &mut Session<Remote>, key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(session.get_many(vec![key.to_owned()])?.pop().flatten().map(|entry| entry.value))
}

fn put(session: &mut Session<Remote>, key: &str, stamp: u64, value: &[u8]) -> Result<Outcome, Error> {
    let outcomes = session.put_many([entry(key, stamp, value)], Condition::Newer)?;
    outcomes.into_iter().next().ok_or_else(|| Error::other("no outcome"))
}

/// All marks of a scan, however many steps it takes.
fn scan_all(session: &mut Session<Remote>, limit: u32) -> Result<Vec<Mark>, Error> {
    let mut marks = Vec::new();
    let mut cursor = None;
    loop {
        let page = session.scan(cursor.as_deref(), limit)?;
        marks.extend(page.marks);
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(marks),
        }
    }
}

/// Tries until a call succeeds, and fails after [`PATIENCE`]. Errors other than those that say «later» fail at once.
fn eventually<T>(what: &str, mut call: impl FnMut() -> Result<T, Error>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(error) => {
                ensure!(matches!(error, Error::Unavailable(_) | Error::Timeout), "{what}: {error}");
                ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}: {error}");
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The error that a call must end with.
fn error<T: std::fmt::Debug>(result: Result<T, Error>) -> Result<Error> {
    result.err().context("it succeeded")
}
