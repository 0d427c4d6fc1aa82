//! By WASI's streams, with as few crossings into the host as they can be had for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::deadline::Deadline;

/// See the module documentation.
// What depends on something is dropped before it.
pub(crate) struct Socket {
    readable: Pollable,
    writable: Pollable,
    input: InputStream,
    output: OutputStream,
    _connection: TcpSocket,
    alarm: Alarm,
    deadline: Deadline,
    /// There may be more of what has come in than was read.
    may_have_more: bool,
}

impl Socket {
    /// Connects, and no more than that.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`]; [`ErrorKind::PermissionDenied`] if the host doesn't let it.
    pub(crate) fn connect(to: &SocketAddr, deadline: Deadline) -> io::Result<Self> {
        let (family, address) = wasi_address(to);
        let connection = create_tcp_socket(family).map_err(network_failure)?;
        connection.start_connect(&instance_network(), address).map_err(network_failure)?;
        let mut alarm = Alarm::default();
        let connected = connection.subscribe();
        let (input, output) = loop {
            match connection.finish_connect() {
                Ok(streams) => break streams,
                Err(ErrorCode::WouldBlock) => alarm.wait(&connected, deadline)?,
                Err(code) => return Err(network_failure(code)),
            }
        };
        drop(connected);
        Ok(Self {
            readable: input.subscribe(),
            writable: output.subscribe(),
            input,
            output,
            _connection: connection,
            alarm,
            deadline,
            may_have_more: false,
        })
    }

    /// Every wait from now on ends then.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// What comes in next, `most` bytes at the most. None: nothing will come any more.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`], and whatever ends a connection.
    pub(crate) fn receive(&mut self, most: usize) -> io::Result<Vec<u8>> {
        loop {
            // To ask for what isn't there yet would only be another crossing.
            if !self.may_have_more {
                self.alarm.wait(&self.readable, self.deadline)?;
            }
            match self.input.read(most as u64) {
                Ok(bytes) => {
                    self.may_have_more = bytes.len() == most;
                    if !bytes.is_empty() {
                        return Ok(bytes);
                    }
                }
                Err(StreamError::Closed) => return Ok(Vec::new()),
                Err(failure) => return Err(stream_failure(failure)),
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let bytes = self.receive(buffer.len())?;
        let (taken, _) = buffer.split_at_mut_checked(bytes.len()).ok_or(ErrorKind::InvalidData)?;
        taken.copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let permitted = self.output.check_write().map_err(stream_failure)?;
            let permitted = bytes.len().min(usize::try_from(permitted).unwrap_or(usize::MAX));
            let (now, _) = bytes.split_at(permitted);
            if now.is_empty() && !bytes.is_empty() {
                self.alarm.wait(&self.writable, self.deadline)?;
                continue;
            }
            self.output.write(now).map_err(stream_failure)?;
            return Ok(now.len());
        }
    }

    /// Nothing is held back: a stream of a socket is sent as it is written.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What ends a wait. It is set again only when it has gone off, or would go off too late.
#[derive(Default)]
struct Alarm(Option<(Instant, Pollable)>);

impl Alarm {
    /// Returns when `pollable` is ready.
    fn wait(&mut self, pollable: &Pollable, deadline: Deadline) -> io::Result<()> {
        loop {
            let alarm = match &mut self.0 {
                Some((at, alarm)) if *at <= deadline.instant() => alarm,
                alarm => {
                    let left = deadline.remaining().ok_or(ErrorKind::TimedOut)?;
                    let pollable = subscribe_duration(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
                    &mut alarm.insert((deadline.instant(), pollable)).1
                }
            };
            if poll(&[pollable, alarm]).contains(&0) {
                return Ok(());
            }
            self.0 = None;
        }
    }
}

fn wasi_address(address: &SocketAddr) -> (IpAddressFamily, IpSocketAddress) {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            let address = Ipv4SocketAddress { port: v4.port(), address: (a, b, c, d) };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(address))
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            let address = Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                address: (a, b, c, d, e, f, g, h),
                scope_id: v6.scope_id(),
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    }
}

fn stream_failure(failure: StreamError) -> io::Error {
    match failure {
        StreamError::Closed => ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(failure) => io::Error::other(failure.to_debug_string()),
    }
}

fn network_failure(code: ErrorCode) -> io::Error {
    let (kind, text) = match code {
        ErrorCode::AccessDenied => (ErrorKind::PermissionDenied, "the host doesn't allow it"),
        ErrorCode::ConnectionRefused => (ErrorKind::ConnectionRefused, "nobody listens there"),
        ErrorCode::RemoteUnreachable => (ErrorKind::HostUnreachable, "there is no way there"),
        ErrorCode::Timeout => return ErrorKind::TimedOut.into(),
        other => return io::Error::other(other.name()),
    };
    io::Error::new(kind, text)
}
