//! The scripts that judge and write in one step, on the server.
//!
//! Two from one source, `write.lua`: the one for deletes may go beyond the server's `maxmemory`, so that a full server can still
//! be emptied and never forgets a deletion.

use memcell_plugin::{Condition, Rule, Write};

use crate::connection::Connection;
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

/// Writes of one kind, puts or deletes, that go into one call of a script.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScriptCall<'a> {
    pub(crate) writes: &'a [Write],
    pub(crate) rule: &'a Rule,
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
        connection.begin(6 + count * (1 + per_write))?;
        connection.push(&[b"EVALSHA"])?;
        connection.push(&[digest])?;
        connection.push(&[count.to_string().as_bytes()])?;
        for write in self.writes {
            connection.push(&[key_prefix.as_bytes(), write.key.as_bytes()])?;
        }
        connection.push(&[condition_name(self.rule.condition())])?;
        connection.push(&[self.rule.moment().millis().to_string().as_bytes()])?;
        connection.push(&[kind])?;
        for Write { record, .. } in self.writes {
            connection.push(&[format!("{:0STAMP_DIGITS$}", record.stamp).as_bytes()])?;
            match record.expires_at {
                Some(expires_at) => connection.push(&[expires_at.to_string().as_bytes()])?,
                None => connection.push(&[])?,
            }
            if puts {
                connection.push(&[record.value.as_deref().unwrap_or_default()])?;
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
