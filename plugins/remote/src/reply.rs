//! Replies of a server, in version 2 of its protocol, out of the pieces in which they come in.
//!
//! The `redis` crate's parser collects a reply as a whole, goes through it piece by piece, and copies what it finds; within the
//! sandbox that takes longer than the server needs for its answer. Here each value is put together in the place where it
//! stays. What is answered is the crate's [`Value`], and so are the errors.

use std::io;

use redis::Value;

/// The longest line: numbers, statuses, errors.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The longest value, by default, that a server takes or gives.
const MAX_VALUE_BYTES: usize = 512 * 1024 * 1024;

/// How deep lists may be nested. Those of a server are four deep at the most.
const MAX_DEPTH: usize = 16;

/// What is set aside for a value or a list that a server has announced: as it has sent no more than that yet, it may be wrong.
const MAX_TRUSTED_BYTES: usize = 1024 * 1024;
const MAX_TRUSTED_ITEMS: usize = 4096;

/// Where replies come from.
pub(crate) trait Source {
    /// What comes next, at least a byte.
    ///
    /// # Errors
    /// Those of the connection, its end among them.
    fn receive(&mut self) -> io::Result<Vec<u8>>;
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No server sends this.
    #[error("{0}")]
    Nonsense(String),
}

/// Reads replies. After an error it is of no use any more.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    piece: Vec<u8>,
    /// How much of the piece has been read.
    read: usize,
    /// The beginning of a line that a piece has only a part of.
    part: Vec<u8>,
}

/// What a reply begins with.
enum Head {
    /// It is all of it.
    Whole(Value),
    /// A value of so many bytes follows.
    Value(usize),
    /// So many replies follow.
    List(usize),
}

impl Replies {
    /// The next reply, errors of the server among them.
    ///
    /// # Errors
    /// See [`ReplyError`].
    pub(crate) fn next(&mut self, source: &mut impl Source) -> Result<Value, ReplyError> {
        self.reply(source, MAX_DEPTH)
    }

    fn reply(&mut self, source: &mut impl Source, depth: usize) -> Result<Value, ReplyError> {
        match head(self.line(source)?)? {
            Head::Whole(value) => Ok(value),
            Head::Value(bytes) => Ok(Value::BulkString(self.value(source, bytes)?)),
            Head::List(_) if depth == 0 => Err(ReplyError::Nonsense("lists too deep within each other".into())),
            Head::List(items) => {
                let mut values = Vec::with_capacity(items.min(MAX_TRUSTED_ITEMS));
                for _ in 0..items {
                    values.push(self.reply(source, depth - 1)?);
                }
                Ok(Value::Array(values))
            }
        }
    }

    /// A line, with its end.
    fn line(&mut self, source: &mut impl Source) -> Result<&[u8], ReplyError> {
        self.part.clear();
        loop {
            let left = self.piece.get(self.read..).unwrap_or_default();
            let end = left.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let bytes = end.unwrap_or(left.len());
            let line = self.read..self.read + bytes;
            if self.part.len() + bytes > MAX_LINE_BYTES {
                return Err(nonsense("a line that is too long", left));
            }
            self.read = line.end;
            if end.is_some() && self.part.is_empty() {
                return Ok(self.piece.get(line).unwrap_or_default());
            }
            self.part.extend_from_slice(self.piece.get(line).unwrap_or_default());
            if end.is_some() {
                return Ok(&self.part);
            }
            self.more(source)?;
        }
    }

    /// A value of this length, and what ends it.
    fn value(&mut self, source: &mut impl Source, length: usize) -> Result<Vec<u8>, ReplyError> {
        let mut value = Vec::with_capacity(length.min(MAX_TRUSTED_BYTES));
        while value.len() < length {
            if self.read == self.piece.len() {
                self.more(source)?;
            }
            let left = self.piece.get(self.read..).unwrap_or_default();
            let taken = left.get(..length - value.len()).unwrap_or(left);
            value.extend_from_slice(taken);
            self.read += taken.len();
        }
        match self.line(source)? {
            b"\r\n" => Ok(value),
            line => Err(nonsense("a value longer than it was said to be", line)),
        }
    }

    fn more(&mut self, source: &mut impl Source) -> io::Result<()> {
        self.piece = source.receive()?;
        self.read = 0;
        Ok(())
    }
}

fn head(line: &[u8]) -> Result<Head, ReplyError> {
    let (Some(kind), Some(rest)) = (line.first(), line.strip_suffix(b"\r\n")) else {
        return Err(nonsense("a line that doesn't end as one", line));
    };
    let digits = rest.get(1..).unwrap_or_default();
    let head = match kind {
        b'$' => length(digits, MAX_VALUE_BYTES).map(|length| length.map_or(Head::Whole(Value::Nil), Head::Value)),
        b'*' => length(digits, usize::MAX).map(|length| length.map_or(Head::Whole(Value::Nil), Head::List)),
        b':' | b'+' | b'-' => redis::parse_redis_value(line).ok().map(Head::Whole),
        _ => None,
    };
    head.ok_or_else(|| nonsense("no reply of a server", line))
}

/// The number of bytes or items that a line announces: `Some(None)` if there is no value, `None` if it says nothing of the kind.
fn length(digits: &[u8], most: usize) -> Option<Option<usize>> {
    match digits {
        b"-1" => Some(None),
        [b'0'..=b'9', ..] => {
            let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
            (length <= most).then_some(Some(length))
        }
        _ => None,
    }
}

fn nonsense(what: &str, line: &[u8]) -> ReplyError {
    let shown = String::from_utf8_lossy(line.get(..64).unwrap_or(line));
    ReplyError::Nonsense(format!("{what}: {shown:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in pieces of one size, and then the end.
    struct Pieces<'a> {
        left: &'a [u8],
        size: usize,
    }

    impl Source for Pieces<'_> {
        fn receive(&mut self) -> io::Result<Vec<u8>> {
            let (piece, left) = self.left.split_at(self.size.min(self.left.len()));
            self.left = left;
            if piece.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(piece.to_vec()) }
        }
    }

    fn only(bytes: &[u8], size: usize) -> Result<Value, ReplyError> {
        Replies::default().next(&mut Pieces { left: bytes, size })
    }

    const REPLIES: [&[u8]; 16] = [
        b"+OK\r\n",
        b"+PONG\r\n",
        b"-ERR unknown command 'X'\r\n",
        b"-MOVED 3999 127.0.0.1:6381\r\n",
        b":0\r\n",
        b":-9223372036854775808\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\r\nb\n\r\n",
        b"*0\r\n",
        b"*3\r\n$20\r\n01882615244592775168\r\n$-1\r\n$5\r\nvalue\r\n",
        b"*2\r\n*1\r\n*2\r\n:1\r\n+x\r\n*-1\r\n",
        b"*2\r\n-ERR within a list\r\n:7\r\n",
        b"$9\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
    ];

    #[test]
    fn replies_are_the_same_as_those_of_the_crates_parser_wherever_they_are_cut() {
        let whole = REPLIES.concat();
        for size in 1..=whole.len() {
            let (mut replies, mut pieces) = (Replies::default(), Pieces { left: &whole, size });
            for reply in REPLIES {
                let expected = redis::parse_redis_value(reply).unwrap();
                assert_eq!(replies.next(&mut pieces).unwrap(), expected, "in pieces of {size}");
            }
            assert!(matches!(replies.next(&mut pieces), Err(ReplyError::Io(_))));
        }
    }

    #[test]
    fn values_larger_than_what_is_set_aside_arrive_whole() {
        let value: Vec<u8> = (0..3 * MAX_TRUSTED_BYTES).map(|n| n as u8).collect();
        let reply = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        assert_eq!(only(&reply, 64 * 1024).unwrap(), Value::BulkString(value));
        let items = 3 * MAX_TRUSTED_ITEMS;
        let reply = format!("*{items}\r\n{}", ":1\r\n".repeat(items));
        assert_eq!(only(reply.as_bytes(), 1000).unwrap(), Value::Array(vec![Value::Int(1); items]));
    }

    #[test]
    fn nonsense_is_told_as_what_it_is() {
        let deep = "*1\r\n".repeat(MAX_DEPTH + 2);
        let long = format!("+{}\r\n", "x".repeat(2 * MAX_LINE_BYTES));
        for reply in [
            "\r\n",
            "\n",
            "+OK\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "$\r\n",
            "$-2\r\n",
            "$+1\r\nx\r\n",
            "$1x\r\nx\r\n",
            "$ 1\r\nx\r\n",
            "$536870913\r\n",
            "$99999999999999999999\r\n",
            "$1\r\nxy\r\n",
            "*one\r\n",
            "*2\r\n:1\r\n?\r\n",
            ":one\r\n",
            "%1\r\n+k\r\n+v\r\n",
            &deep,
            &long,
        ] {
            for size in [1, 7, reply.len()] {
                let answer = only(reply.as_bytes(), size);
                assert!(matches!(answer, Err(ReplyError::Nonsense(_))), "{reply:.80?} in pieces of {size}");
            }
        }
        let Err(error) = only(b"\x1b[31m red\r\n", 100) else { panic!("it was understood") };
        assert!(!error.to_string().contains('\x1b'), "{error}");
    }

    #[test]
    fn what_was_announced_and_does_not_come_is_the_end_of_the_connection() {
        for reply in ["$536870912\r\nx", "*4294967295\r\n:1\r\n", "$3\r\nabc", "+O", ""] {
            assert!(matches!(only(reply.as_bytes(), 3), Err(ReplyError::Io(_))), "{reply:?}");
        }
    }
}
