//! Accepting connections, within bounds, and ending them in time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::{Attendant, refuse};
use super::router;
use crate::config::HttpConfig;
use crate::descriptors;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::reload::Reloader;
use crate::security::Security;
use crate::store::MemCellStore;

/// Connections beyond the bound that are told so at a time. Any further ones are closed without a word.
const REFUSALS: usize = 256;

/// How often the log says that connections are refused.
const REFUSALS_SAID: Duration = Duration::from_secs(10);

/// At a shutdown, connections are accepted until none has come for this long: the kernel has made them, so their clients
/// may have sent a request already.
const QUIET: Duration = Duration::from_millis(20);

/// And for no longer than this in all.
const LAST_CONNECTIONS: Duration = Duration::from_millis(250);

/// Answers requests (HTTP/1 and HTTP/2, encrypted if `security` has a certificate) until `shutdown` completes. Then it accepts
/// no more, has clients end their connections with their next answer, closes those that stay idle, and waits for running
/// requests for `config.shutdown_grace` at the most. Connections that are left then are cut. The store stays open, and is the
/// caller's to close. Without a `reloader`, the configuration can't be reloaded.
///
/// Dropped, it cuts all connections at once.
///
/// # Errors
/// None at present: what goes wrong with one connection ends that one, and accepting is tried again.
pub async fn serve(
    listener: TcpListener,
    store: MemCellStore,
    jobs: Jobs,
    reloader: Option<Reloader>,
    config: &HttpConfig,
    security: Security,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let metrics = Arc::clone(store.metrics());
    let router = router(store, jobs, reloader, config, security.clone());
    let mut door = Door::new(Attendant::new(router, security, config), config.max_connections, metrics);
    let mut listener = listener;
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // This `accept` never fails: it waits and tries again when there are no file descriptors left, for example.
            (stream, peer) = Listener::accept(&mut listener) => door.open(stream, peer),
            Some(ended) = door.connections.join_next() => door.close(ended),
        }
    }
    door.attendant.drain(config.shutdown_grace);
    let last = tokio::time::Instant::now() + LAST_CONNECTIONS;
    while tokio::time::Instant::now() < last
        && let Ok((stream, peer)) = tokio::time::timeout(QUIET, Listener::accept(&mut listener)).await
    {
        door.open(stream, peer);
    }
    drop(listener);
    let ended = async {
        while let Some(ended) = door.connections.join_next().await {
            door.close(ended);
        }
    };
    if tokio::time::timeout(config.shutdown_grace, ended).await.is_err() {
        tracing::warn!(grace = ?config.shutdown_grace, "requests still ran when the grace period was over");
    }
    door.connections.shutdown().await;
    Ok(())
}

/// Where connections come in.
struct Door {
    attendant: Arc<Attendant>,
    connections: JoinSet<io::Result<()>>,
    most: usize,
    slots: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    said: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Door {
    fn new(attendant: Attendant, wanted: usize, metrics: Arc<Metrics>) -> Self {
        let most = descriptors::connections().map_or(wanted, |possible| wanted.min(possible));
        if most < wanted {
            tracing::warn!(
                wanted,
                most,
                "http.max_connections is more than this process may have files open; raise its limit (ulimit -n, LimitNOFILE)"
            );
        }
        metrics.http_connections(0);
        metrics.http_refusals(0);
        Self {
            attendant: Arc::new(attendant),
            connections: JoinSet::new(),
            most,
            slots: Arc::new(Semaphore::new(most)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            said: None,
            metrics,
        }
    }

    /// Attends to a connection in a task of its own, or refuses it at once if there are too many.
    fn open(&mut self, stream: TcpStream, peer: SocketAddr) {
        let peer: IpAddr = peer.ip().to_canonical();
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            let attendant = Arc::clone(&self.attendant);
            self.connections.spawn(async move {
                let ended = attendant.attend(stream, peer).await;
                drop(slot);
                ended
            });
            self.count();
            return;
        }
        self.metrics.http_refusals(1);
        if self.said.is_none_or(|said| said.elapsed() > REFUSALS_SAID) {
            self.said = Some(Instant::now());
            tracing::warn!(
                connections = self.most,
                "there are as many connections as there may be, and more are refused"
            );
        }
        // Over an encrypted connection nothing can be said without agreeing on it first, which is what there is no room for.
        if !self.attendant.is_encrypted()
            && let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned()
        {
            self.connections.spawn(async move {
                let refused = refuse(stream).await;
                drop(permit);
                refused
            });
        }
    }

    /// Sees to a connection that has ended. A client that goes away is nothing to worry about, but somebody who looks for it should
    /// find it.
    fn close(&self, ended: Result<io::Result<()>, tokio::task::JoinError>) {
        self.count();
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
            Err(error) => tracing::error!(%error, "the task of a connection failed"),
        }
    }

    fn count(&self) {
        self.metrics.http_connections(self.most.saturating_sub(self.slots.available_permits()));
    }
}
