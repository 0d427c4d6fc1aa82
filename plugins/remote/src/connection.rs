//! One connection: bytes out, replies in, under a deadline.
//!
//! Commands are packed and replies parsed as by the `redis` crate's own connection. What differs is that everything on its way
//! is gathered: each system call of a sandboxed plugin goes through the host.
//!
//! And it goes in *windows*: what fits into one write of the host is sent at once, and the next is sent when the last has been
//! answered. WASI 0.2 has no `TCP_NODELAY` (the standard library's setting of it does nothing there), so the system holds back
//! the end of a write as long as that of an earlier one is not acknowledged, which a waiting server may do as late as 40 ms
//! after. Here nothing is ever on its way but one window, whose end is sent without delay. Meanwhile the next one is packed.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use redis::{Cmd, Parser, RedisError, Value};

use crate::address::Address;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::tls::{Tls, TlsStream};

/// What one crossing into the host moves at the most: wasmtime's own bound.
pub(crate) const WINDOW_BYTES: usize = 64 * 1024;

/// What the first read after sending asks for. It is mostly made before the answer is there, and the host clears as much memory
/// as is asked for, for each try.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// How finely the socket's timeouts follow the deadline: finer than this, they would have to be set anew for every call.
const TIMEOUT_STEP: Duration = Duration::from_millis(50);

/// After a failure that [`Failure::ends_connection`] it must be dropped.
pub(crate) struct Connection {
    address: Address,
    input: BufReader<Socket>,
    /// Whole commands, but for the one that is being packed.
    output: Vec<u8>,
    packed: usize,
    parser: Parser,
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
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Failure::Unreachable { address: address.clone(), reason: "it did not answer in time".into() }
            }
            _ => Failure::Unreachable { address: address.clone(), reason: error.to_string() },
        };
        let resolved = (address.host.as_str(), address.port).to_socket_addrs().map_err(|error| {
            // In the sandbox, the names that are granted are the only ones there are.
            if cfg!(target_family = "wasm") {
                return Failure::NotGranted { address: address.clone(), because };
            }
            fail(&error)
        })?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for resolved in resolved {
            match Socket::connect(&resolved, address, tls, deadline) {
                Ok(socket) => {
                    return Ok(Self {
                        address: address.clone(),
                        input: BufReader::with_capacity(WINDOW_BYTES, socket),
                        output: Vec::with_capacity(WINDOW_BYTES),
                        packed: 0,
                        parser: Parser::new(),
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
        self.input.get_mut().deadline = deadline;
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
        let sent = self.input.get_mut().send(&self.output);
        self.output.clear();
        // A command that was larger than that should not cost the instance its memory for good.
        self.output.shrink_to(WINDOW_BYTES);
        self.unanswered = std::mem::take(&mut self.packed);
        sent.map_err(|error| self.failure(error))
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
        self.parser.parse_value(&mut self.input).map_err(|error| self.failed_to_receive(&error))
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

    fn failed_to_receive(&self, error: &RedisError) -> Failure {
        if error.is_timeout() {
            return Failure::Timeout { address: self.address.clone() };
        }
        if error.is_io_error() {
            return Failure::Lost { address: self.address.clone(), reason: error.to_string() };
        }
        Failure::Protocol { address: self.address.clone(), reason: error.to_string() }
    }

    fn failure(&self, error: io::Error) -> Failure {
        self.failed_to_receive(&error.into())
    }
}

/// Decimal digits and the end of the line.
fn push_number(output: &mut Vec<u8>, number: usize) {
    // Writing into memory can't fail.
    let _ = write!(output, "{number}\r\n");
}

/// A stream whose every wait ends at the deadline.
struct Socket {
    stream: Stream,
    deadline: Deadline,
    /// What the stream's timeouts are set to.
    timeout: Duration,
    has_sent: bool,
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream>),
}

impl Socket {
    fn connect(resolved: &SocketAddr, address: &Address, tls: Option<&Tls>, deadline: Deadline) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(resolved, deadline.remaining().ok_or(io::ErrorKind::TimedOut)?)?;
        // Where the standard library has lost the error of a failed attempt (as on WASI, up to Rust 1.95 at least), this shows
        // it.
        if stream.peer_addr().is_err() {
            return Err(io::Error::other("nobody listens there, or it can't be reached"));
        }
        stream.set_nodelay(true)?;
        let mut socket = Self { stream: Stream::Plain(stream), deadline, timeout: Duration::ZERO, has_sent: false };
        let Some(tls) = tls else { return Ok(socket) };
        socket.arm()?;
        if let Stream::Plain(stream) = socket.stream {
            socket.stream = Stream::Encrypted(Box::new(tls.handshake(address, stream)?));
        }
        Ok(socket)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.has_sent = true;
        let mut left = bytes;
        while !left.is_empty() {
            self.arm()?;
            let sent = match &mut self.stream {
                Stream::Plain(stream) => stream.write(left),
                Stream::Encrypted(stream) => stream.write(left),
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => left = left.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Stream::Encrypted(stream) = &mut self.stream {
            stream.flush()?;
        }
        Ok(())
    }

    fn arm(&mut self) -> io::Result<()> {
        let left = self.deadline.remaining().ok_or(io::ErrorKind::TimedOut)?;
        let steps = left.as_millis() / TIMEOUT_STEP.as_millis() + 1;
        let timeout = TIMEOUT_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        if timeout != self.timeout {
            let stream = match &self.stream {
                Stream::Plain(stream) => stream,
                Stream::Encrypted(stream) => &stream.get_ref().stream,
            };
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            self.timeout = timeout;
        }
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        let most = if std::mem::take(&mut self.has_sent) { FIRST_READ_BYTES.min(buffer.len()) } else { buffer.len() };
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        match &mut self.stream {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Encrypted(stream) => stream.read(buffer),
        }
    }
}
