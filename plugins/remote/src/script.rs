//! The scripts that judge and write in one step, on the server.
//!
//! Two from one source, `write.lua`: the one for deletes may go beyond the server's `maxmemory`, so that a full server can still
//! be emptied and never forgets a deletion.

use memcell_plugin::{Condition, Rule, Write};

use crate::connection::{Connection, WINDOW_BYTES};
use crate::failure::Failure;

/// Puts.
pub(crate) const PUT: &str = concat!("#!lua\n", include_str!("write.lua"));

/// Deletes.
pub(crate) const DELETE: &str = concat!("#!lua flags=allow-oom\n", include_str!("write.lua"));

/// What the server knows the scripts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) put: Vec<u8>,
    pub(crate) delete: Vec<u8>,
}

/// How many decimal digits the largest stamp has: all are stored with as many.
pub(crate) const STAMP_DIGITS: usize = 20;

/// What a call takes beside its writes, and a write beside its key and value, at the most.
const CALL_BYTES: usize = 256;
const WRITE_BYTES: usize = 384;

/// The most writes of one call. The server does nothing else meanwhile.
const MAX_WRITES: usize = 64;

/// What a write takes in a call, about.
fn packed_bytes(write: &Write) -> usize {
    WRITE_BYTES + write.key.len() + write.record.value.as_ref().map_or(0, Vec::len)
}

/// Cuts writes to one server into calls: each as many of one kind as fit into one window of the connection.
pub(crate) fn calls<'a>(writes: &'a [Write], rule: &'a Rule, token: Option<u64>) -> Vec<ScriptCall<'a>> {
    let mut calls = Vec::new();
    let mut left = writes;
    while let Some(first) = left.first() {
        let mut bytes = CALL_BYTES;
        let fitting = left.iter().take(MAX_WRITES).take_while(|write| {
            bytes += packed_bytes(write);
            write.record.value.is_some() == first.record.value.is_some() && bytes <= WINDOW_BYTES
        });
        // One that is larger than a window goes by itself.
        let (writes, rest) = left.split_at(fitting.count().max(1));
        calls.push(ScriptCall { writes, rule, token });
        left = rest;
    }
    calls
}

/// Writes of one kind, puts or deletes, that go into one call of a script.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScriptCall<'a> {
    pub(crate) writes: &'a [Write],
    pub(crate) rule: &'a Rule,
    /// The fencing token of this instance, if it was given one.
    pub(crate) token: Option<u64>,
}

impl ScriptCall<'_> {
    /// Puts the call on its way.
    ///
    /// # Errors
    /// As [`Connection::flush`].
    pub(crate) fn pack(&self, connection: &mut Connection, digests: &Digests, key_prefix: &str) -> Result<(), Failure> {
        let puts = self.is_put();
        let (digest, kind, per_write): (_, &[u8], _) = match puts {
            true => (&digests.put, b"put", 3),
            false => (&digests.delete, b"delete", 2),
        };
        let count = self.writes.len();
        let bytes = self.writes.iter().map(packed_bytes).sum::<usize>() + CALL_BYTES;
        connection.begin(7 + count * (1 + per_write), bytes)?;
        connection.push(&[b"EVALSHA"]);
        connection.push(&[digest]);
        connection.push(&[count.to_string().as_bytes()]);
        for write in self.writes {
            connection.push(&[key_prefix.as_bytes(), write.key.as_bytes()]);
        }
        connection.push(&[condition_name(self.rule.condition())]);
        connection.push(&[self.rule.moment().millis().to_string().as_bytes()]);
        connection.push(&[kind]);
        match self.token {
            Some(token) => connection.push(&[format!("{token:0STAMP_DIGITS$}").as_bytes()]),
            None => connection.push(&[]),
        }
        for Write { record, .. } in self.writes {
            connection.push(&[format!("{:0STAMP_DIGITS$}", record.stamp).as_bytes()]);
            match record.expires_at {
                Some(expires_at) => connection.push(&[expires_at.to_string().as_bytes()]),
                None => connection.push(&[]),
            }
            if puts {
                connection.push(&[record.value.as_deref().unwrap_or_default()]);
            }
        }
        Ok(())
    }

    fn is_put(&self) -> bool {
        self.writes.first().is_some_and(|write| write.record.value.is_some())
    }
}

fn condition_name(condition: Condition) -> &'static [u8] {
    match condition {
        Condition::Newer => b"newer",
        Condition::NotOlder => b"not-older",
        Condition::Always => b"always",
    }
}
