//! Accepting connections, and ending them in time.

use std::io;
use std::time::Duration;

use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::router;
use crate::config::HttpConfig;
use crate::store::MemCellStore;

/// How long an HTTP/1 connection may take to send the head of its next request, and an HTTP/2 one to answer a ping:
/// those who are gone or never finish a request must not hold connections forever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers requests (HTTP/1 and HTTP/2) until `shutdown` completes; then accepts no more, closes idle connections, and
/// waits for running requests for `config.shutdown_grace` at the most. Connections that are left then are cut. The
/// store stays open, and is the caller's to close.
///
/// Dropped, it cuts all connections at once.
///
/// # Errors
/// None at present: what goes wrong with one connection ends that one, and accepting is tried again.
pub async fn serve(
    mut listener: TcpListener,
    store: MemCellStore,
    config: &HttpConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let service = TowerToHyperService::new(router(store, config));
    let mut protocol = Builder::new(TokioExecutor::new());
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    protocol.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).keep_alive_timeout(HEAD_TIMEOUT);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // This `accept` never fails: it waits and tries again when there are no file descriptors left, for example.
            (stream, _) = Listener::accept(&mut listener) => {
                send_at_once(&stream);
                let connection = protocol.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
                connections.spawn(graceful.watch(connection));
            }
            Some(ended) = connections.join_next() => log_end(ended),
        }
    }
    drop(listener);
    if tokio::time::timeout(config.shutdown_grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(grace = ?config.shutdown_grace, "requests still ran when the grace period was over");
    }
    connections.shutdown().await;
    Ok(())
}

/// Answers are written whole, so there is nothing to gain from holding packets back.
fn send_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "tcp_nodelay is not set");
    }
}

/// A client that goes away is nothing to worry about, but somebody who looks for it should find it.
fn log_end<E: std::fmt::Display>(ended: Result<Result<(), E>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(error) => tracing::error!(%error, "the task of a connection failed"),
    }
}
