//! The contract's rules over a store that knows none: what of a batch of writes is to be stored, and what of a stored record
//! is an entry. The rules themselves are the SDK's, so that there is one text of them.
//!
//! Under each key lies a record in the layout of [`Record::encode`]: version (1), flags (1 byte: 1 = tombstone, 2 = expires),
//! stamp (8), expiry in Unix milliseconds or 0 (8), value. Numbers are big-endian.

use std::collections::{HashMap, HashSet};

use memcell_plugin::{Header, Moment, Record, Rule};

use crate::kv::bindings::exports::memcell::kv::store::{Condition, Entry, Mark, Outcome};
use crate::kv::bindings::memcell::kv::types::Error as GuestError;

/// One write of a batch: an entry, or a tombstone (without a value).
pub(super) struct Offer<'a> {
    pub(super) key: &'a str,
    stamp: u64,
    expires_at: Option<u64>,
    value: Option<&'a [u8]>,
}

impl Offer<'_> {
    /// The length of its value; 0 for a tombstone.
    pub(super) fn value_bytes(&self) -> usize {
        self.value.map_or(0, <[u8]>::len)
    }
}

impl<'a> From<&'a Entry> for Offer<'a> {
    fn from(entry: &'a Entry) -> Self {
        let Entry { key, stamp, expires_at, value } = entry;
        Self { key, stamp: *stamp, expires_at: *expires_at, value: Some(value) }
    }
}

impl<'a> From<&'a Mark> for Offer<'a> {
    fn from(mark: &'a Mark) -> Self {
        let Mark { key, stamp, expires_at } = mark;
        Self { key, stamp: *stamp, expires_at: *expires_at, value: None }
    }
}

/// What a batch of writes comes to.
pub(super) struct Judgement {
    /// One per write, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// What is to be stored: of each key, the last that was applied.
    pub(super) records: Vec<(String, Vec<u8>)>,
}

/// The keys of a batch, each once.
pub(super) fn distinct_keys(offers: &[Offer<'_>]) -> Vec<String> {
    let mut seen = HashSet::with_capacity(offers.len());
    offers.iter().filter(|offer| seen.insert(offer.key)).map(|offer| offer.key.to_owned()).collect()
}

/// Judges writes in their order. `stored` is what lies under each of their keys; a key that is not in it has nothing.
pub(super) fn judge(offers: &[Offer<'_>], stored: HashMap<String, Header>, rule: &Rule) -> Judgement {
    let mut stored = stored;
    let mut outcomes = Vec::with_capacity(offers.len());
    let mut prevailing: HashMap<&str, (u64, &Offer<'_>)> = HashMap::with_capacity(offers.len());
    for offer in offers {
        match rule.judge(stored.get(offer.key).copied(), offer.stamp) {
            Some(stamp) => {
                let value_bytes = offer.value.map(<[u8]>::len);
                stored.insert(offer.key.to_owned(), Header { stamp, expires_at: offer.expires_at, value_bytes });
                prevailing.insert(offer.key, (stamp, offer));
                outcomes.push(Outcome::Applied);
            }
            None => outcomes.push(Outcome::Stale),
        }
    }
    let encode = |(key, (stamp, offer)): (&str, (u64, &Offer<'_>))| {
        let record = Record { stamp, expires_at: offer.expires_at, value: offer.value.map(<[u8]>::to_vec) };
        (key.to_owned(), record.encode())
    };
    Judgement { outcomes, records: prevailing.into_iter().map(encode).collect() }
}

/// The entry that a stored record is at `moment`, if it is one.
pub(super) fn live(key: &str, bytes: &[u8], moment: &Moment) -> Result<Option<Entry>, GuestError> {
    let header = header(key, bytes)?;
    if header.is_tombstone() || moment.has_passed(header.expires_at) {
        return Ok(None);
    }
    let record = Record::decode(bytes).map_err(|error| corrupt(key, &error))?;
    let (stamp, expires_at, value) = (record.stamp, record.expires_at, record.value.unwrap_or_default());
    Ok(Some(Entry { key: key.to_owned(), stamp, expires_at, value }))
}

/// The header of a stored record.
pub(super) fn header(key: &str, bytes: &[u8]) -> Result<Header, GuestError> {
    Header::decode(bytes).map_err(|error| corrupt(key, &error))
}

/// How the SDK calls a condition.
pub(super) fn condition(condition: Condition) -> memcell_plugin::Condition {
    match condition {
        Condition::Newer => memcell_plugin::Condition::Newer,
        Condition::NotOlder => memcell_plugin::Condition::NotOlder,
        Condition::Always => memcell_plugin::Condition::Always,
    }
}

fn corrupt(key: &str, error: &memcell_plugin::Error) -> GuestError {
    GuestError::Corrupt(format!("under the key {key}: {error}; the bucket must be this backend's alone"))
}
