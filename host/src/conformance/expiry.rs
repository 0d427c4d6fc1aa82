//! Cases: an entry is there until its time has come, and not a moment longer.

use std::time::{Duration, Instant};

use super::contract;
use super::failure::{Checked, ensure, failed, same};
use super::run::{Client, FAR, PAST, Run, STAMP, now};
use crate::kv::{Condition, Entry, GuestError, KvError, Mark, Outcome};

/// How long after its time an entry may still be seen: the clock of a store behind the plugin may be another machine's.
const TOLERANCE: Duration = Duration::from_secs(5);

/// How long an entry lives that is watched, in milliseconds: longer each time, should it be gone before anybody could look.
const LIVES: [u64; 3] = [1000, 4000, 16_000];

fn expiring(run: &Run<'_>, name: &str, stamp: u64, expires_at: u64) -> Entry {
    Entry { expires_at: Some(expires_at), ..run.entry(name, stamp, "expiring") }
}

/// A time to come that is no whole second, nor of any other unit a store might round it to: in an odd millisecond.
fn after(milliseconds: u64) -> u64 {
    (now() + milliseconds) | 1
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
    let last = watch_expire(run, &mut backend, "goes")?;
    let listed: Vec<String> = backend.scan(100)?.into_iter().map(|mark| mark.key).collect();
    same(contract::EXPIRED, "a scan after that", &listed, &vec![stays.key.clone()])?;
    same(contract::EXPIRED, "stats after that", &backend.stats()?, &before)?;
    backend.has(contract::EXPIRY, "of what doesn't expire", &stays)?;
    let again = run.entry("goes", last + 1, "again");
    backend.puts(contract::NEWER, &again, Condition::Newer, Outcome::Applied)?;
    backend.has(contract::PUT, "of what was put again", &again)
}

pub(super) fn an_expiry_far_away(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let hour = expiring(run, "hour", STAMP, after(3_600_000));
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
    let soon = after(700);
    backend.store(&["freed", "prolonged"].map(|name| expiring(run, name, STAMP, soon)))?;
    backend.store(&[run.entry("bounded", STAMP, "for ever")])?;
    let freed = run.entry("freed", STAMP + 1, "for ever");
    let prolonged = expiring(run, "prolonged", STAMP + 1, FAR);
    for entry in [&freed, &prolonged] {
        backend.puts(contract::NEWER, entry, Condition::Newer, Outcome::Applied)?;
    }
    watch_expire(run, &mut backend, "bounded")?;
    // By now the first expiry of the other two has passed as well.
    for entry in [&freed, &prolonged] {
        backend.has(contract::EXPIRY, "after its first expiry was overwritten", entry)?;
    }
    Ok(())
}

pub(super) fn an_expiry_survives_reopening(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let far = expiring(run, "far", STAMP, FAR);
    let soon = expiring(run, "soon", STAMP, after(1500));
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

/// Puts an entry, over what is there, that expires soon, and looks at it until it is gone. Answers its stamp.
fn watch_expire(run: &Run<'_>, backend: &mut Client, name: &str) -> Checked<u64> {
    let mut stamp = STAMP;
    for life in LIVES {
        stamp += 1;
        let entry = expiring(run, name, stamp, after(life));
        backend.puts(contract::NEWER, &entry, Condition::Newer, Outcome::Applied)?;
        if until_expired(backend, &entry)? {
            break;
        }
    }
    Ok(stamp)
}

/// Looks at an entry until it is gone: not before its time, nor long after. Answers whether it was there to be seen: on a busy
/// machine, its time may be over before the first look.
fn until_expired(backend: &mut Client, entry: &Entry) -> Checked<bool> {
    let expires_at = entry.expires_at.unwrap_or_default();
    let started = Instant::now();
    let patience = Duration::from_millis(expires_at.saturating_sub(now())) + TOLERANCE;
    let mut was_seen = false;
    loop {
        match backend.get_one(&entry.key)? {
            Some(found) => {
                same(contract::EXPIRY, "get before its time", &found, entry)?;
                was_seen = true;
            }
            None => {
                let early = expires_at.saturating_sub(now());
                let found = format!("none, {early} ms too early");
                ensure(early == 0, contract::EXPIRY, "the entry until its time", found)?;
                return Ok(was_seen);
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
