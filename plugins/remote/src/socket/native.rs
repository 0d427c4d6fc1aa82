//! By the standard library.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::deadline::Deadline;

/// See the module documentation.
pub(crate) struct Socket {
    stream: TcpStream,
    deadline: Deadline,
}

impl Socket {
    /// Connects, and no more than that.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], and whatever the system says.
    pub(crate) fn connect(to: &SocketAddr, deadline: Deadline) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(to, deadline.remaining().ok_or(io::ErrorKind::TimedOut)?)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, deadline })
    }

    /// Every wait from now on ends then.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// What comes in next, `most` bytes at the most. None: nothing will come any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], and whatever ends a connection.
    pub(crate) fn receive(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let received = self.read(&mut bytes)?;
        bytes.truncate(received);
        Ok(bytes)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.deadline.remaining().ok_or(io::ErrorKind::TimedOut)?))?;
        self.stream.read(buffer).map_err(timed_out)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.deadline.remaining().ok_or(io::ErrorKind::TimedOut)?))?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Unix says of a timeout that it would have to wait.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}
