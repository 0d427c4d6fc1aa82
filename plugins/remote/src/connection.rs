//! One connection: bytes out, replies in, under a deadline.
//!
//! Everything on its way is gathered: each system call of a sandboxed plugin goes through the host.
//!
//! And it goes in *windows*: what fits into one write of the host is sent at once, and the next is sent when the last has been
//! answered. WASI 0.2 has no `TCP_NODELAY`, so the system holds back the end of a write as long as that of an earlier one is not
//! acknowledged, which a waiting server may do as late as 40 ms after. Here nothing is ever on its way but one window, whose end is
//! sent without delay. Meanwhile the next one is packed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};

use redis::{Cmd, Value};

use crate::address::Address;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::reply::{Replies, ReplyError, Source};
use crate::socket::Socket;
use crate::tls::{Tls, TlsStream};

/// What one crossing into the host moves at the most: wasmtime's own bound.
pub(crate) const WINDOW_BYTES: usize = 64 * 1024;

/// What the first read after sending asks for: most answers are shorter, and the host clears as much memory as is asked for.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// What one record of TLS holds.
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// After a failure that [`Failure::ends_connection`] it must be dropped.
pub(crate) struct Connection {
    address: Address,
    stream: Stream,
    /// Nothing has been read since something was sent.
    awaits_first: bool,
    /// Whole commands, but for the one that is being packed.
    output: Vec<u8>,
    packed: usize,
    incoming: Replies,
    /// How many commands were sent whose replies have not been read.
    unanswered: usize,
    /// Replies that had to be read before more could be sent.
    replies: VecDeque<Value>,
}

impl Connection {
    /// Connects, and no more than that. `because` says where the address comes from.
    ///
    /// # Errors
    /// [`Failure::Unreachable`], [`Failure::NotGranted`]; [`Failure::Settings`] if the two sides don't agree on TLS.
    pub(crate) fn open(
        address: &Address,
        because: &'static str,
        tls: Option<&Tls>,
        deadline: Deadline,
    ) -> Result<Self, Failure> {
        let fail = |error: &io::Error| match error.kind() {
            io::ErrorKind::InvalidData if tls.is_some() => Failure::Settings(format!(
                "no TLS with {address}: {error}; check the settings \"tls\", \"tls_ca\" and \"tls_server_name\""
            )),
            io::ErrorKind::PermissionDenied => Failure::NotGranted { address: address.clone(), because },
            io::ErrorKind::TimedOut => {
                // One that doesn't speak TLS waits for the rest of what it takes for a command.
                let hint = if tls.is_some() { "; the setting \"tls\" is true: does it speak TLS there?" } else { "" };
                Failure::Unreachable { address: address.clone(), reason: format!("it did not answer in time{hint}") }
            }
            _ => Failure::Unreachable { address: address.clone(), reason: error.to_string() },
        };
        let resolved = (&*address.host, address.port).to_socket_addrs().map_err(|error| {
            // In the sandbox, the names that are granted are the only ones there are.
            if cfg!(target_family = "wasm") {
                return Failure::NotGranted { address: address.clone(), because };
            }
            fail(&error)
        })?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for resolved in resolved {
            match Stream::connect(&resolved, address, tls, deadline) {
                Ok(stream) => {
                    return Ok(Self {
                        address: address.clone(),
                        stream,
                        awaits_first: false,
                        output: Vec::with_capacity(WINDOW_BYTES),
                        packed: 0,
                        incoming: Replies::default(),
                        unanswered: 0,
                        replies: VecDeque::new(),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(fail(&last))
    }

    /// The call that follows has to be over by then.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.stream.socket().set_deadline(deadline);
    }

    /// Begins a command of `arguments` parts, which come to about `bytes`.
    ///
    /// # Errors
    /// As [`Connection::flush`].
    pub(crate) fn begin(&mut self, arguments: usize, bytes: usize) -> Result<(), Failure> {
        if !self.output.is_empty() && self.output.len() + bytes > WINDOW_BYTES {
            self.flush()?;
        }
        self.packed += 1;
        self.output.reserve(bytes);
        self.output.push(b'*');
        push_number(&mut self.output, arguments);
        Ok(())
    }

    /// The next argument of a command, in parts.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        self.output.push(b'$');
        push_number(&mut self.output, parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.output.extend_from_slice(part);
        }
        self.output.extend_from_slice(b"\r\n");
    }

    /// A whole command, packed by the `redis` crate.
    pub(crate) fn push_command(&mut self, command: &Cmd) {
        self.packed += 1;
        command.write_packed_command(&mut self.output);
    }

    /// Sends what has gathered.
    ///
    /// # Errors
    /// [`Failure::Lost`], [`Failure::Timeout`]; [`Failure::Protocol`] if what it waits for is nonsense.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        while self.unanswered > 0 {
            let reply = self.parse()?;
            self.replies.push_back(reply);
        }
        let sent = self.stream.send(&self.output);
        self.awaits_first = true;
        self.output.clear();
        // A command that was larger than that should not cost the instance its memory for good.
        self.output.shrink_to(WINDOW_BYTES);
        self.unanswered = std::mem::take(&mut self.packed);
        sent.map_err(|error| self.failure(&error))
    }

    /// The next reply, errors of the server among them.
    ///
    /// # Errors
    /// [`Failure::Lost`], [`Failure::Timeout`], [`Failure::Protocol`].
    pub(crate) fn receive(&mut self) -> Result<Value, Failure> {
        match self.replies.pop_front() {
            Some(reply) => Ok(reply),
            None => self.parse(),
        }
    }

    fn parse(&mut self) -> Result<Value, Failure> {
        self.unanswered = self.unanswered.saturating_sub(1);
        let mut source = Incoming { stream: &mut self.stream, awaits_first: &mut self.awaits_first };
        self.incoming.next(&mut source).map_err(|error| match error {
            ReplyError::Io(error) => self.failure(&error),
            ReplyError::Nonsense(reason) => Failure::Protocol { address: self.address.clone(), reason },
        })
    }

    /// One command and its reply.
    ///
    /// # Errors
    /// As [`Connection::receive`]; [`Failure::Server`] for an error of the server.
    pub(crate) fn call(&mut self, command: &Cmd) -> Result<Value, Failure> {
        self.push_command(command);
        self.flush()?;
        match self.receive()? {
            Value::ServerError(error) => Err(Failure::Server { address: self.address.clone(), error }),
            value => Ok(value),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::TimedOut => Failure::Timeout { address: self.address.clone() },
            _ => Failure::Lost { address: self.address.clone(), reason: error.to_string() },
        }
    }
}

/// Decimal digits and the end of the line.
fn push_number(output: &mut Vec<u8>, number: usize) {
    output.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    output.extend_from_slice(b"\r\n");
}

/// What goes to the server and comes from it.
enum Stream {
    Plain(Socket),
    Encrypted(Box<TlsStream>),
}

impl Stream {
    fn connect(resolved: &SocketAddr, address: &Address, tls: Option<&Tls>, deadline: Deadline) -> io::Result<Self> {
        let socket = Socket::connect(resolved, deadline)?;
        match tls {
            None => Ok(Self::Plain(socket)),
            Some(tls) => Ok(Self::Encrypted(Box::new(tls.handshake(address, socket)?))),
        }
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Encrypted(stream) => &mut stream.sock.socket,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Encrypted(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    fn receive(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let bytes = match self {
            Self::Plain(socket) => socket.receive(most)?,
            Self::Encrypted(stream) => {
                let mut bytes = vec![0; most.min(MAX_RECORD_BYTES)];
                let received = stream.read(&mut bytes)?;
                bytes.truncate(received);
                bytes
            }
        };
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"));
        }
        Ok(bytes)
    }
}

/// Where a connection's replies come from.
struct Incoming<'a> {
    stream: &'a mut Stream,
    awaits_first: &'a mut bool,
}

impl Source for Incoming<'_> {
    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let most = if std::mem::take(self.awaits_first) { FIRST_READ_BYTES } else { WINDOW_BYTES };
        self.stream.receive(most)
    }
}
