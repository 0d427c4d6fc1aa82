//! Cases: what a backend says of its entries in a few bytes.

use xxhash_rust::xxh3::xxh3_64;

use super::contract;
use super::failure::{Checked, failed, refused, same};
use super::run::{FAR, PAST, Run, STAMP};
use crate::kv::{Condition, Digest, Entry, GuestError, KvError};

pub(super) fn digests_are_of_what_is_stored(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    let lengths = [0, 1, 31, 32, 33, 255, 256, 257, 5000];
    let entry = |length: usize| {
        let value = (0..length).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        let expires_at = (length == 33).then_some(FAR);
        Entry { key: run.key(&length.to_string()), stamp: STAMP + length as u64, expires_at, value }
    };
    let entries: Vec<Entry> = lengths.into_iter().map(entry).collect();
    backend.store(&entries)?;
    let mut keys: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    keys.push(run.key("absent"));
    for head_bytes in [0, 32, 256] {
        let due = entries.iter().map(|entry| Some(digest(entry, head_bytes))).chain([None]).collect::<Vec<_>>();
        let found = digests(&mut backend, &keys, head_bytes)?;
        same(contract::DIGEST, &format!("digest-many with heads of {head_bytes} bytes"), &found, &due)?;
    }
    // Of the value that is there now.
    let changed = run.entry("5000", STAMP + 9000, "another value");
    backend.puts(contract::NEWER, &changed, Condition::Newer, crate::kv::Outcome::Applied)?;
    let found = digests(&mut backend, std::slice::from_ref(&changed.key), 4)?;
    same(contract::DIGEST, "digest-many after the value was replaced", &found, &vec![Some(digest(&changed, 4))])
}

pub(super) fn what_is_no_entry_has_no_digest(run: &Run<'_>) -> Checked {
    let mut backend = run.open()?;
    backend.store(&[run.entry("deleted", STAMP, "v"), run.entry("kept", STAMP, "v")])?;
    backend.delete(&[run.mark("deleted", STAMP + 1)], Condition::Newer)?;
    backend.put(&[Entry { expires_at: Some(PAST), ..run.entry("expired", STAMP, "v") }], Condition::Newer)?;
    let keys = ["deleted", "kept", "expired", "kept"].map(|name| run.key(name));
    let kept = Some(digest(&run.entry("kept", STAMP, "v"), 32));
    let found = digests(&mut backend, &keys, 32)?;
    same(
        contract::DIGEST,
        "digest-many of a deleted key, an entry, an expired one",
        &found,
        &vec![None, kept.clone(), None, kept],
    )?;
    let answer = backend.trial().digest_many(&keys, 257);
    refused(contract::HEAD, "digest-many with heads of 257 bytes", &answer, "invalid-argument", |error| {
        matches!(error, KvError::Refused(GuestError::InvalidArgument(_)))
    })
}

fn digests(backend: &mut super::run::Client, keys: &[String], head_bytes: u32) -> Checked<Vec<Option<Digest>>> {
    match backend.trial().digest_many(keys, head_bytes) {
        Ok(digests) => Ok(digests),
        Err(error) => {
            failed(contract::DIGEST, format!("an answer to digest-many of {} keys", keys.len()), error.to_string())
        }
    }
}

fn digest(entry: &Entry, head_bytes: u32) -> Digest {
    let (head, rest) = entry.value.split_at_checked(head_bytes as usize).unwrap_or((&entry.value, &[]));
    Digest {
        stamp: entry.stamp,
        expires_at: entry.expires_at,
        head: head.to_vec(),
        value_bytes: u32::try_from(entry.value.len()).unwrap_or(u32::MAX),
        rest_hash: xxh3_64(rest),
    }
}
