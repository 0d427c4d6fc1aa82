//! What the servers are asked about one key, or a few that are written together.

use memcell_plugin::Condition;
use redis::Value;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::layout::{HEADER_FIELDS, RECORD_FIELDS};
use crate::node::Link;
use crate::script::ScriptCall;

/// More than what a command without values takes, for most keys.
const COMMAND_BYTES: usize = 256;

/// A command that goes to the server with its key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command<'a> {
    /// The record of a key. Answered as [`crate::layout::record`] takes it.
    Record(&'a str),
    /// The header of the record of a key. Answered as [`crate::layout::header`] takes it.
    Header(&'a str),
    /// Writes, to keys that one server has. Answered as [`crate::layout::outcomes`] takes it.
    Script(ScriptCall<'a>),
}

impl Command<'_> {
    /// The key that says where to.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Record(key) | Self::Header(key) => key,
            Self::Script(call) => call.writes.first().map_or("", |write| &write.key),
        }
    }

    /// Whether it writes over whatever is there.
    pub(crate) fn overwrites(&self) -> bool {
        matches!(self, Self::Script(call) if call.rule.condition() == Condition::Always)
    }

    /// How much of an answer is a value, in bytes.
    pub(crate) fn value_bytes(&self, answer: &Value) -> usize {
        match (self, answer) {
            (Self::Record(_), Value::Array(fields)) => match fields.last() {
                Some(Value::BulkString(value)) => value.len(),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Puts the command on its way; `asking` if an `ASK` sends it to a server that isn't in charge yet.
    ///
    /// # Errors
    /// As [`Connection::flush`].
    pub(crate) fn pack(&self, link: &mut Link, key_prefix: &str, asking: bool) -> Result<(), Failure> {
        let Link { connection, scripts, .. } = link;
        let key = &[key_prefix.as_bytes(), self.key().as_bytes()];
        if asking {
            pack_asking(connection)?;
        }
        match self {
            Self::Record(_) => pack_fields(connection, key, RECORD_FIELDS),
            Self::Header(_) => {
                pack_fields(connection, key, HEADER_FIELDS)?;
                if asking {
                    pack_asking(connection)?;
                }
                connection.begin(3, COMMAND_BYTES)?;
                connection.push(&[b"HSTRLEN"]);
                connection.push(key);
                connection.push(&[b"value"]);
                Ok(())
            }
            Self::Script(call) => call.pack(connection, scripts, key_prefix),
        }
    }

    /// Takes the reply, or an error of the server in its place.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub(crate) fn receive(&self, connection: &mut Connection, asking: bool) -> Result<Value, Failure> {
        let mut receive = || {
            if asking {
                // It says yes. Were it to say no, the reply that follows tells why.
                connection.receive()?;
            }
            connection.receive()
        };
        let first = receive()?;
        match self {
            Self::Header(_) => {}
            // What others keep in the place of a record is said of that one; all other errors are the server's.
            Self::Record(_) if is_wrong_type(&first) => return Ok(Value::Okay),
            Self::Record(_) | Self::Script(_) => return Ok(first),
        }
        Ok(match (first, receive()?) {
            // Found in a scan: what others keep under such a name is none of this plugin's business.
            (error, _) if is_wrong_type(&error) => Value::Nil,
            (Value::ServerError(error), _) | (_, Value::ServerError(error)) => Value::ServerError(error),
            (fields, length) => Value::Array(vec![fields, length]),
        })
    }
}

/// Whether a key holds something else than a hash.
fn is_wrong_type(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "WRONGTYPE")
}

fn pack_fields(connection: &mut Connection, key: &[&[u8]], fields: [&str; 3]) -> Result<(), Failure> {
    connection.begin(2 + fields.len(), COMMAND_BYTES)?;
    connection.push(&[b"HMGET"]);
    connection.push(key);
    fields.iter().for_each(|field| connection.push(&[field.as_bytes()]));
    Ok(())
}

/// Makes the next command pass on a server that is only taking its slot over.
fn pack_asking(connection: &mut Connection) -> Result<(), Failure> {
    connection.begin(1, COMMAND_BYTES)?;
    connection.push(&[b"ASKING"]);
    Ok(())
}
