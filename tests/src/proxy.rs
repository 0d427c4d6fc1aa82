//! A TCP proxy that misbehaves as networks do: it cuts connections, delays answers, or swallows everything.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How a request for more of a cursor begins in MongoDB's protocol: a BSON element of type int64 with this name. The id follows.
const GET_MORE: &[u8] = b"\x12getMore\0";

/// What comes through of an answer that is broken off.
const BROKEN_BYTES: usize = 10;

/// How it treats what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// Passes it on.
    Pass,
    /// Passes each part of an answer on after this long.
    Delay(Duration),
    /// Passes answers on byte by byte.
    Dribble,
    /// Passes on the first bytes of each answer, and ends the connection.
    Break,
    /// Keeps it for itself, and takes new connections: the black hole of a firewall. What it has kept is passed on once it is told
    /// to behave.
    Silence,
}

/// The proxy. Its connections end with it.
pub struct Proxy {
    address: SocketAddr,
    conduct: watch::Sender<Conduct>,
    cuts: watch::Sender<u64>,
    cursor: Arc<AtomicI64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port, and passes everything on to `target` (`127.0.0.1:PORT`). To be called within a runtime.
    ///
    /// # Errors
    /// Those of opening a port.
    pub fn start(target: String) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (conduct, conducts) = watch::channel(Conduct::Pass);
        let (cuts, cut) = watch::channel(0);
        let cursor = Arc::new(AtomicI64::new(0));
        let seen = Arc::clone(&cursor);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target.clone(), conducts.clone(), cut.clone(), Arc::clone(&seen)));
            }
        });
        Ok(Self { address, conduct, cuts, cursor, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it behaves like this.
    pub fn set(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }

    /// Cuts all connections. New ones are taken.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The id of the cursor that a client has asked for more of last; 0 if none has.
    pub fn last_cursor(&self) -> i64 {
        self.cursor.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// One connection, until either side ends it or it is cut.
async fn connect(
    client: TcpStream,
    target: String,
    conduct: watch::Receiver<Conduct>,
    mut cut: watch::Receiver<u64>,
    cursor: Arc<AtomicI64>,
) {
    cut.mark_unchanged();
    // A target that is away shows as a connection that ends at once.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let note = move |part: &[u8]| {
        if let Some(id) = requested_cursor(part) {
            cursor.store(id, Ordering::Relaxed);
        }
    };
    tokio::select! {
        _ = pass(client_in, server_out, conduct.clone(), false, note) => {}
        _ = pass(server_in, client_out, conduct, true, |_| {}) => {}
        _ = cut.changed() => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut conduct: watch::Receiver<Conduct>,
    are_answers: bool,
    note: impl Fn(&[u8]),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        let part = buffer.get(..count).unwrap_or_default();
        if part.is_empty() {
            return Ok(());
        }
        note(part);
        // The sender is gone with the proxy, and the connection with both.
        let Ok(conduct) = conduct.wait_for(|conduct| *conduct != Conduct::Silence).await.map(|conduct| *conduct) else {
            return Ok(());
        };
        match conduct {
            Conduct::Delay(delay) if are_answers => tokio::time::sleep(delay).await,
            Conduct::Dribble if are_answers => {
                for byte in part {
                    to.write_all(std::slice::from_ref(byte)).await?;
                }
                continue;
            }
            Conduct::Break if are_answers => {
                return to.write_all(part.get(..part.len().min(BROKEN_BYTES)).unwrap_or_default()).await;
            }
            Conduct::Pass | Conduct::Delay(_) | Conduct::Dribble | Conduct::Break | Conduct::Silence => {}
        }
        to.write_all(part).await?;
    }
}

fn requested_cursor(part: &[u8]) -> Option<i64> {
    let at = part.windows(GET_MORE.len()).position(|window| window == GET_MORE)? + GET_MORE.len();
    let id = part.get(at..at + 8)?;
    Some(i64::from_le_bytes(id.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every part with itself.
    async fn echo() -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        Ok(address)
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut [0; 5]).await.map(drop)
    }

    #[tokio::test]
    async fn it_misbehaves_as_told() -> Result<()> {
        let proxy = Proxy::start(echo().await?)?;
        let mut stream = TcpStream::connect(proxy.address()).await?;
        ask(&mut stream).await?;
        let delay = Duration::from_millis(100);
        proxy.set(Conduct::Delay(delay));
        let started = std::time::Instant::now();
        ask(&mut stream).await?;
        assert!(started.elapsed() >= delay);
        proxy.set(Conduct::Silence);
        assert!(tokio::time::timeout(delay, ask(&mut stream)).await.is_err());
        proxy.set(Conduct::Pass);
        stream.read_exact(&mut [0; 5]).await?;
        proxy.cut();
        assert!(ask(&mut stream).await.is_err());
        ask(&mut TcpStream::connect(proxy.address()).await?).await?;
        Ok(())
    }

    #[test]
    fn cursors_are_seen() {
        let request = mongodb::bson::rawdoc! { "getMore": 77_i64, "collection": "memcells" };
        assert_eq!(requested_cursor(request.as_bytes()), Some(77));
        assert_eq!(requested_cursor(b"getMore"), None);
    }
}
