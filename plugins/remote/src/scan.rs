//! Walking along all entries, server by server, and counting them.

use std::collections::HashSet;

use memcell_plugin::{Error, Found, Moment, Result, Stats, Step};
use redis::{Cmd, Value, cmd};

use crate::address::Address;
use crate::command::Command;
use crate::conclude;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::layout;
use crate::router::Router;

const CURSOR: &str = "scan";

/// How many keys of a server's are looked at for [`stats`], and how many at a time.
pub(crate) const SAMPLED_KEYS: usize = 10_000;
const SAMPLE_STEP: usize = 1000;

/// Where a scan goes on.
///
/// The cursor of a server is good for that life of that server only, and says nothing of entries that another one hands over to
/// it meanwhile. So a cursor of ours remembers who the servers were; once they are others, the scan begins anew. What is found
/// twice for that does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    servers: u64,
    server: usize,
    cursor: u64,
}

impl Position {
    fn parse(text: &str) -> Result<Self> {
        let foreign = || Error::invalid_argument("the cursor is not one of this backend's");
        let mut parts = text.split(':');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
        let [Some(CURSOR), Some(servers), Some(server), Some(cursor), None] = parts else { return Err(foreign()) };
        let position = Self {
            servers: u64::from_str_radix(servers, 16).map_err(|_| foreign())?,
            server: server.parse().map_err(|_| foreign())?,
            cursor: cursor.parse().map_err(|_| foreign())?,
        };
        // What parses in more ways than one was not written by this backend either.
        if position.to_string() == text { Ok(position) } else { Err(foreign()) }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{CURSOR}:{:016x}:{}:{}", self.servers, self.server, self.cursor)
    }
}

/// One step: what one `SCAN` of one server finds.
pub(crate) fn scan(router: &mut Router, cursor: Option<&str>, limit: usize, deadline: Deadline) -> Result<Step> {
    let position = cursor.map(Position::parse).transpose()?;
    let (masters, servers) = router.masters(deadline).map_err(conclude)?;
    let position = position.filter(|position| position.servers == servers && position.server < masters.len());
    let position = position.unwrap_or(Position { servers, server: 0, cursor: 0 });
    let Some(address) = masters.get(position.server) else { return Ok(Step::default()) };
    let mut scan = cmd("SCAN");
    scan.arg(position.cursor).arg("MATCH").arg(pattern(&router.config.key_prefix));
    scan.arg("COUNT").arg(limit).arg("TYPE").arg("hash");
    let (cursor, keys) = scan_once(router, address, &scan, deadline)?;
    let keys = own_keys(&router.config.key_prefix, keys);
    let found = headers(router, keys, deadline)?;
    let next = match cursor {
        0 => Position { server: position.server + 1, cursor: 0, ..position },
        cursor => Position { cursor, ..position },
    };
    Ok(Step { found, next: (next.server < masters.len()).then(|| next.to_string()) })
}

/// Counts the entries: each of them where a server holds no more than [`SAMPLED_KEYS`] keys, else as many as the share that the
/// first so many keys of its scan suggest. A scan goes along hashes, so that those are a random sample.
pub(crate) fn stats(router: &mut Router, moment: &Moment, deadline: Deadline) -> Result<Stats> {
    let (masters, _) = router.masters(deadline).map_err(conclude)?;
    let mut stats = Stats::default();
    for address in &masters {
        let sample = sample(router, address, deadline)?;
        let mut counted = Stats::default();
        for Found { key, header } in headers(router, sample.own, deadline)? {
            if let Some(value_bytes) = header.value_bytes.filter(|_| !moment.has_passed(header.expires_at)) {
                counted.entries += 1;
                counted.bytes += (key.len() + value_bytes) as u64;
            }
        }
        stats.entries += sample.share.whole(counted.entries);
        stats.bytes += sample.share.whole(counted.bytes);
    }
    Ok(stats)
}

struct Sample {
    own: Vec<String>,
    share: Share,
}

/// Which part of a server's keys was looked at.
#[derive(Debug, Clone, Copy)]
struct Share {
    seen: u64,
    of: u64,
}

impl Share {
    fn whole(self, counted: u64) -> u64 {
        if self.of <= self.seen {
            return counted;
        }
        let whole = u128::from(counted) * u128::from(self.of) / u128::from(self.seen.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    }
}

fn sample(router: &mut Router, address: &Address, deadline: Deadline) -> Result<Sample> {
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut cursor = 0;
    loop {
        let (next, keys) = scan_once(router, address, cmd("SCAN").arg(cursor).arg("COUNT").arg(SAMPLE_STEP), deadline)?;
        seen.extend(keys);
        cursor = next;
        if cursor == 0 || seen.len() >= SAMPLED_KEYS {
            break;
        }
    }
    let mut share = Share { seen: seen.len() as u64, of: seen.len() as u64 };
    if cursor != 0 {
        let answers = router.ask(address, &[cmd("DBSIZE")], deadline).map_err(conclude)?;
        if let [Value::Int(keys)] = answers.as_slice() {
            share.of = u64::try_from(*keys).unwrap_or(0).max(share.seen);
        }
    }
    Ok(Sample { own: own_keys(&router.config.key_prefix, seen), share })
}

fn scan_once(router: &mut Router, address: &Address, scan: &Cmd, deadline: Deadline) -> Result<(u64, Vec<Vec<u8>>)> {
    let answers = router.ask(address, std::slice::from_ref(scan), deadline).map_err(conclude)?;
    let read = |answer: &Value| {
        let Value::Array(parts) = answer else { return None };
        let [Value::BulkString(cursor), Value::Array(keys)] = parts.as_slice() else { return None };
        let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
        let keys = keys.iter().map(|key| match key {
            Value::BulkString(key) => Some(key.clone()),
            _ => None,
        });
        Some((cursor, keys.collect::<Option<Vec<_>>>()?))
    };
    let nonsense = || Failure::Protocol { address: address.clone(), reason: "no answer to SCAN".into() };
    answers.first().and_then(read).ok_or_else(|| conclude(nonsense()))
}

/// The keys as the host knows them. Names that aren't text are somebody else's.
fn own_keys(key_prefix: &str, names: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
    let own = |name: Vec<u8>| {
        let name = String::from_utf8(name).ok()?;
        name.strip_prefix(key_prefix).filter(|key| !key.is_empty()).map(str::to_owned)
    };
    names.into_iter().filter_map(own).collect()
}

/// What is known of these keys. One that has gone meanwhile is left out, and so is what others keep under such a name.
fn headers(router: &mut Router, keys: Vec<String>, deadline: Deadline) -> Result<Vec<Found>> {
    let commands: Vec<Command<'_>> = keys.iter().map(|key| Command::Header(key)).collect();
    let answers = router.execute(&commands, deadline).map_err(conclude)?;
    let found = keys.into_iter().zip(answers).filter_map(|(key, answer)| {
        let header = layout::header(&key, answer).ok().flatten()?;
        Some(Found { key, header })
    });
    Ok(found.collect())
}

/// The prefix as the glob pattern of all keys that begin with it.
fn pattern(key_prefix: &str) -> String {
    let mut pattern = String::with_capacity(key_prefix.len() + 1);
    for character in key_prefix.chars() {
        if "*?[]^\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_recognised() {
        let position = Position { servers: 0xfeed, server: 2, cursor: u64::MAX };
        assert_eq!(position.to_string(), "scan:000000000000feed:2:18446744073709551615");
        assert_eq!(Position::parse(&position.to_string()), Ok(position));
        for foreign in
            ["", "0", "scan:1:2:3", "scan:000000000000feed:2", "scan:000000000000feed:+2:0", "slot:1", "scan:x:0:0"]
        {
            assert!(matches!(Position::parse(foreign), Err(Error::InvalidArgument(_))), "{foreign:?}");
        }
    }

    #[test]
    fn prefixes_are_taken_literally() {
        assert_eq!(pattern("memcell:"), "memcell:*");
        assert_eq!(pattern("a*[b]?\\^"), "a\\*\\[b\\]\\?\\\\\\^*");
    }

    #[test]
    fn samples_are_scaled_up() {
        assert_eq!(Share { seen: 10, of: 10 }.whole(7), 7);
        assert_eq!(Share { seen: 10_000, of: 1_000_000 }.whole(5_000), 500_000);
        assert_eq!(Share { seen: 0, of: 0 }.whole(0), 0);
        assert_eq!(Share { seen: 1, of: u64::MAX }.whole(u64::MAX), u64::MAX);
    }
}
