//! Cases: an entry is there until its time has come, and not a moment longer.

use std::time::{Duration, Instant};

use super::contract;
use super::failure::{Checked, ensure, failed, same};
use super::run::{Client, FAR, PAST, Run, STAMP, now};
use crate::kv::{Condition, Entry, GuestError, KvError, Mark, Outcome};

/// How long after its time an entry may still be seen: the clock of a store behind the plugin may be another machine's.
const TOLERANCE: Duration = Duration::from_secs(5);

fn expiring(run: &Run<'_>, name: &str, stamp: u64, expires_at: u64) -> Entry {
    Entry { expires_at: Some(expires_at), ..run.entry(name, stamp, "expiring") }
}

pub(super) fn an_expiry_in_the_past(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let before = backend.stats()?;
    for expires_at in [0, PAST, now() - 1000] {
        let name = expires_at.to_string();
        // Over nothing, and over an entry: that one is replaced all the same.
        backend.puts(contract::PAST, &expiring(run, &name, STAMP, expires_at), Condition::Newer, Outcome::Applied)?;
        backend.lacks(contract::EXPIRED, "of what had expired when it was put", &run.key(&name))?;
        let over = format!("over {expires_at}");
        backend.store(&[run.entry(&over, STAMP, "stored")])?;
        backend.puts(
            contract::PAST,
            &expiring(run, &over, STAMP + 1, expires_at),
            Condition::Newer,
            Outcome::Applied,
        )?;
        backend.lacks(contract::EXPIRED, "of an entry overwritten with what had expired", &run.key(&over))?;
    }
    same(contract::EXPIRED, "a scan", &backend.scan(100)?, &vec![])?;
    same(contract::EXPIRED, "stats", &backend.stats()?, &before)
}

pub(super) fn an_expiry_soon(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let stays = run.entry("stays", STAMP, "for ever");
    backend.store(std::slice::from_ref(&stays))?;
    let before = backend.stats()?;
    let entry = expiring(run, "goes", STAMP, now() + 1000);
    backend.store(std::slice::from_ref(&entry))?;
    until_expired(&mut backend, &entry)?;
    let listed: Vec<String> = backend.scan(100)?.into_iter().map(|mark| mark.key).collect();
    same(contract::EXPIRED, "a scan after that", &listed, &vec![stays.key.clone()])?;
    same(contract::EXPIRED, "stats after that", &backend.stats()?, &before)?;
    backend.has(contract::EXPIRY, "of what doesn't expire", &stays)?;
    backend.puts(contract::NEWER, &run.entry("goes", STAMP + 1, "again"), Condition::Newer, Outcome::Applied)?;
    backend.has(contract::PUT, "of what was put again", &run.entry("goes", STAMP + 1, "again"))
}

pub(super) fn an_expiry_far_away(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let hour = expiring(run, "hour", STAMP, now() + 3_600_123);
    let century = expiring(run, "century", STAMP, FAR + 7);
    backend.store(&[hour.clone(), century.clone()])?;
    for entry in [&hour, &century] {
        backend.has(contract::EXPIRY, "to the millisecond", entry)?;
    }
    let mut listed = backend.scan(100)?;
    listed.sort_by(|a, b| a.key.cmp(&b.key));
    let mark = |entry: &Entry| Mark { key: entry.key.clone(), stamp: entry.stamp, expires_at: entry.expires_at };
    same(contract::EXPIRY, "a scan", &listed, &vec![mark(&century), mark(&hour)])?;
    // The end of the type: kept, or refused, but not turned into another time.
    let never = expiring(run, "never", STAMP, u64::MAX);
    match backend.trial().put_many(std::slice::from_ref(&never), Condition::Newer) {
        Ok(_) => backend.has(contract::EXPIRY, "of the largest expiry there is", &never),
        Err(KvError::Refused(GuestError::InvalidArgument(_) | GuestError::Unsupported(_))) => {
            backend.lacks(contract::INVALID, "of what was refused", &never.key)
        }
        Err(error) => failed(
            contract::INVALID,
            "the largest expiry there is: kept, or refused as invalid-argument or unsupported",
            error.to_string(),
        ),
    }
}

pub(super) fn overwriting_replaces_the_expiry(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let soon = now() + 700;
    backend.store(&["freed", "prolonged"].map(|name| expiring(run, name, STAMP, soon)))?;
    backend.store(&[run.entry("bounded", STAMP, "for ever")])?;
    let freed = run.entry("freed", STAMP + 1, "for ever");
    let prolonged = expiring(run, "prolonged", STAMP + 1, FAR);
    let bounded = expiring(run, "bounded", STAMP + 1, now() + 700);
    for entry in [&freed, &prolonged, &bounded] {
        backend.puts(contract::NEWER, entry, Condition::Newer, Outcome::Applied)?;
    }
    until_expired(&mut backend, &bounded)?;
    // By now the first expiry of the other two has passed as well.
    for entry in [&freed, &prolonged] {
        backend.has(contract::EXPIRY, "after its first expiry was overwritten", entry)?;
    }
    Ok(())
}

pub(super) fn an_expiry_survives_reopening(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let far = expiring(run, "far", STAMP, FAR);
    let soon = expiring(run, "soon", STAMP, now() + 1500);
    backend.store(&[far.clone(), soon.clone()])?;
    backend.flush()?;
    drop(backend);
    let mut backend = run.open()?;
    until_expired(&mut backend, &soon)?;
    backend.has(contract::PERSISTENT, "after reopening", &far)?;
    backend.close()?;
    let mut backend = run.open()?;
    backend.lacks(contract::EXPIRED, "of what expired before reopening", &soon.key)?;
    let listed: Vec<String> = backend.scan(100)?.into_iter().map(|mark| mark.key).collect();
    same(contract::EXPIRED, "a scan after reopening", &listed, &vec![far.key])
}

/// Looks at an entry until it is gone: not before its time, nor long after.
fn until_expired(backend: &mut Client, entry: &Entry) -> Checked {
    let expires_at = entry.expires_at.unwrap_or_default();
    let started = Instant::now();
    let patience = Duration::from_millis(expires_at.saturating_sub(now())) + TOLERANCE;
    loop {
        match backend.get_one(&entry.key)? {
            Some(found) => same(contract::EXPIRY, "get before its time", &found, entry)?,
            None => {
                let early = expires_at.saturating_sub(now());
                return ensure(
                    early == 0,
                    contract::EXPIRY,
                    "the entry until its time",
                    format!("none, {early} ms too early"),
                );
            }
        }
        if started.elapsed() > patience {
            return failed(
                contract::EXPIRED,
                "none once its time has come",
                format!("the entry, still there {TOLERANCE:?} after it"),
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
