//! Records as hashes: what is read of them, and what it means.

use memcell_plugin::{Error, Header, Outcome, Record, Result};
use redis::Value;

use crate::script::STAMP_DIGITS;

/// The fields of a record, in the order in which they are asked for and answered.
pub(crate) const RECORD_FIELDS: [&str; 3] = ["stamp", "expires", "value"];

/// The fields that say everything but the value.
pub(crate) const HEADER_FIELDS: [&str; 3] = ["stamp", "expires", "deleted"];

/// The record behind a reply for [`RECORD_FIELDS`]; `None` if there is none.
///
/// What this plugin can't have written is in the place of a copy all the same: it is handed out as an entry of no value, older than
/// any other, so that the host finds a damaged copy and puts a good one in its place.
pub(crate) fn record(reply: Value) -> Option<Record> {
    let foreign = Some(Record { stamp: 0, expires_at: None, value: Some(Vec::new()) });
    let Value::Array(fields) = reply else { return foreign };
    let Ok([stamp, expires, value]) = <[Value; 3]>::try_from(fields) else { return foreign };
    let value = match value {
        Value::BulkString(value) => Some(value),
        Value::Nil => None,
        _ => return foreign,
    };
    if matches!((&stamp, &expires, &value), (Value::Nil, Value::Nil, None)) {
        return None;
    }
    let Some((stamp, expires_at)) = numbers(&stamp, &expires) else { return foreign };
    Some(Record { stamp, expires_at, value })
}

/// The header behind the replies for [`HEADER_FIELDS`] and for the length of the value.
///
/// # Errors
/// [`Error::Corrupt`] for what this plugin can't have written.
pub(crate) fn header(key: &str, reply: Value) -> Result<Option<Header>> {
    let Value::Array(replies) = reply else { return Err(corrupt(key)) };
    let Ok([Value::Array(fields), Value::Int(length)]) = <[Value; 2]>::try_from(replies) else {
        return Err(corrupt(key));
    };
    let Ok([stamp, expires, deleted]) = <[Value; 3]>::try_from(fields) else { return Err(corrupt(key)) };
    if matches!((&stamp, &expires, &deleted, length), (Value::Nil, Value::Nil, Value::Nil, 0)) {
        return Ok(None);
    }
    let (stamp, expires_at) = numbers(&stamp, &expires).ok_or_else(|| corrupt(key))?;
    let length = usize::try_from(length).map_err(|_| corrupt(key))?;
    let value_bytes = matches!(deleted, Value::Nil).then_some(length);
    Ok(Some(Header { stamp, expires_at, value_bytes }))
}

/// What a script says became of the writes it was given.
///
/// # Errors
/// [`Error::Other`] for what the script can't have answered.
pub(crate) fn outcomes(writes: usize, reply: &Value) -> Result<Vec<Outcome>> {
    let nonsense = || Error::other(format!("the script for {writes} writes answered {reply:?}"));
    let Value::BulkString(digits) = reply else { return Err(nonsense()) };
    if digits.len() != writes {
        return Err(nonsense());
    }
    let outcome = |digit: &u8| match digit {
        b'1' => Ok(Outcome::Applied),
        b'0' => Ok(Outcome::Stale),
        _ => Err(nonsense()),
    };
    digits.iter().map(outcome).collect()
}

fn numbers(stamp: &Value, expires: &Value) -> Option<(u64, Option<u64>)> {
    let Value::BulkString(stamp) = stamp else { return None };
    let stamp = number(stamp).filter(|_| stamp.len() == STAMP_DIGITS)?;
    match expires {
        Value::Nil => Some((stamp, None)),
        Value::BulkString(expires) => Some((stamp, Some(number(expires)?))),
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn corrupt(key: &str) -> Error {
    Error::corrupt(format!("what the server holds for {key} was not written by this plugin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Value {
        redis::parse_redis_value(text.as_bytes()).unwrap()
    }

    const STAMP: &str = "$20\r\n00000000000000000007\r\n";

    #[test]
    fn records_and_tombstones_are_told_apart() {
        let entry = record(reply(&format!("*3\r\n{STAMP}$2\r\n12\r\n$0\r\n\r\n")));
        assert_eq!(entry, Some(Record { stamp: 7, expires_at: Some(12), value: Some(vec![]) }));
        let tombstone = record(reply(&format!("*3\r\n{STAMP}$-1\r\n$-1\r\n")));
        assert_eq!(tombstone, Some(Record { stamp: 7, expires_at: None, value: None }));
        assert_eq!(record(reply("*3\r\n$-1\r\n$-1\r\n$-1\r\n")), None);
        let entry = header("k", reply(&format!("*2\r\n*3\r\n{STAMP}$-1\r\n$-1\r\n:0\r\n")));
        assert_eq!(entry, Ok(Some(Header { stamp: 7, expires_at: None, value_bytes: Some(0) })));
        let tombstone = header("k", reply(&format!("*2\r\n*3\r\n{STAMP}$-1\r\n$1\r\n1\r\n:0\r\n")));
        assert_eq!(tombstone, Ok(Some(Header { stamp: 7, expires_at: None, value_bytes: None })));
        assert_eq!(header("k", reply("*2\r\n*3\r\n$-1\r\n$-1\r\n$-1\r\n:0\r\n")), Ok(None));
    }

    #[test]
    fn what_others_wrote_is_an_entry_that_is_no_copy() {
        for text in [
            "*3\r\n$-1\r\n$-1\r\n$1\r\nv\r\n".to_owned(),
            "*3\r\n$1\r\n7\r\n$-1\r\n$1\r\nv\r\n".to_owned(),
            "*3\r\n$20\r\n+0000000000000000007\r\n$-1\r\n$-1\r\n".to_owned(),
            "*3\r\n$20\r\n99999999999999999999\r\n$-1\r\n$-1\r\n".to_owned(),
            format!("*3\r\n{STAMP}$1\r\nx\r\n$-1\r\n"),
            format!("*2\r\n{STAMP}$-1\r\n"),
            "-WRONGTYPE it is a list\r\n".to_owned(),
        ] {
            let foreign = Record { stamp: 0, expires_at: None, value: Some(vec![]) };
            assert_eq!(record(reply(&text)), Some(foreign), "{text}");
        }
        assert!(matches!(header("k", reply("*2\r\n*3\r\n$-1\r\n$-1\r\n$-1\r\n:3\r\n")), Err(Error::Corrupt(_))));
    }

    #[test]
    fn outcomes_are_one_digit_each() {
        assert_eq!(outcomes(2, &reply("$2\r\n10\r\n")), Ok(vec![Outcome::Applied, Outcome::Stale]));
        for text in ["$1\r\n1\r\n", "$2\r\n1x\r\n", ":1\r\n"] {
            assert!(outcomes(2, &reply(text)).is_err(), "{text}");
        }
    }
}
