//! One connection, from its encryption to its end: requests are handed to the router, and whoever does nothing, takes
//! nothing, or stays when the host ends is sent away.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Version};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::gate::Peer;
use crate::clock::whole_millis;
use crate::config::HttpConfig;
use crate::security::Security;

/// Requests of one HTTP/2 connection that run at a time. A browser sends a hundred at the most.
const STREAMS: u32 = 128;

/// Headers of an HTTP/1 request that hyper takes unless told otherwise.
const LIBRARY_HEADERS: usize = 100;

/// At a shutdown, an idle HTTP/1 connection is left open for this long. Its client may be sending a request at that very
/// moment, and learns from the answer to it that it was the last one.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long one whose connection is refused may take to hear it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How much of an answer is handed on at a time.
const PART_BYTES: usize = 16 * 1024;

/// How much of an answer the system may hold that it hasn't sent.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;

/// How much of a body that nobody wants is read, and for how long, so that its client gets to the answer.
const MAX_REST_BYTES: usize = 64 * 1024 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a connection that there is no room for.
const NO_ROOM: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    x-content-type-options: nosniff\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 159\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"overloaded\",\
    \"detail\":\"the server has as many connections as it takes; try again soon\"}";

/// What all connections share.
pub(super) struct Attendant {
    router: Router,
    security: Security,
    protocol: Builder<TokioExecutor>,
    idle_timeout: Duration,
    /// From when the moments of [`Activity`] count.
    start: Instant,
    draining: CancellationToken,
    /// In milliseconds; how long idle connections are left open at a shutdown.
    last_call: AtomicU64,
}

impl Attendant {
    /// Hands requests to this router.
    pub(super) fn new(router: Router, security: Security, config: &HttpConfig) -> Self {
        let mut protocol = Builder::new(TokioExecutor::new());
        let idle_timeout = config.idle_timeout;
        let head = usize::try_from(config.max_head).unwrap_or(usize::MAX);
        let mut http1 = protocol.http1();
        http1.timer(TokioTimer::new()).header_read_timeout(idle_timeout);
        http1.max_buf_size(head);
        // What the library takes by itself needs no memory of its own.
        if config.max_headers != LIBRARY_HEADERS {
            http1.max_headers(config.max_headers);
        }
        let mut http2 = protocol.http2();
        http2.timer(TokioTimer::new()).keep_alive_interval(idle_timeout).keep_alive_timeout(idle_timeout);
        http2.max_header_list_size(config.max_head).max_concurrent_streams(STREAMS);
        Self {
            router,
            security,
            protocol,
            idle_timeout,
            start: Instant::now(),
            draining: CancellationToken::new(),
            last_call: AtomicU64::new(whole_millis(LAST_CALL)),
        }
    }

    /// Whether connections are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.security.is_encrypted()
    }

    /// Has all connections end: idle ones soon, all others with their next answer. `grace` is what there is for all of it.
    pub(super) fn drain(&self, grace: Duration) {
        self.last_call.store(whole_millis(LAST_CALL.min(grace / 4)), Ordering::Relaxed);
        self.draining.cancel();
    }

    /// Answers the requests of a connection until it ends.
    ///
    /// # Errors
    /// What ended it early.
    pub(super) async fn attend(self: Arc<Self>, stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        prepare(&stream, self.idle_timeout);
        let Some((acceptor, timeout)) = self.security.acceptor() else { return self.converse(stream, peer).await };
        match tokio::time::timeout(timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Box::pin(self.converse(stream, peer)).await,
            Ok(Err(error)) => Err(io::Error::other(format!("no encrypted connection: {error}"))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client took too long to agree on encryption")),
        }
    }

    async fn converse<S>(self: Arc<Self>, stream: S, peer: IpAddr) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::default());
        activity.touch(self.start);
        let service = Conversation { attendant: Arc::clone(&self), activity: Arc::clone(&activity), peer };
        let connection = self.protocol.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        let mut stage = Stage::Open;
        loop {
            let until = match stage {
                Stage::Open => activity.last(self.start) + self.idle_timeout,
                Stage::LastCall { until } | Stage::Ending { until } => until,
            };
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(io::Error::other),
                () = self.draining.cancelled(), if matches!(stage, Stage::Open) => {
                    let last_call = Duration::from_millis(self.last_call.load(Ordering::Relaxed));
                    stage = Stage::LastCall { until: Instant::now() + last_call };
                    // HTTP/2 can say that no more requests will be taken, and loses none by it.
                    if activity.is_http2.load(Ordering::Relaxed) {
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = tokio::time::sleep_until(until) => match stage {
                    Stage::Open if activity.is_idle(self.start, self.idle_timeout) => {
                        connection.as_mut().graceful_shutdown();
                        stage = Stage::Ending { until: Instant::now() + self.idle_timeout };
                    }
                    Stage::Open => activity.touch_if_running(self.start),
                    // After this the end of the host is what ends it.
                    Stage::LastCall { .. } => {
                        connection.as_mut().graceful_shutdown();
                        stage = Stage::Ending { until: Instant::now() + self.idle_timeout.max(Duration::from_secs(60 * 60)) };
                    }
                    // Whoever takes his answer slowly does take it.
                    Stage::Ending { .. } if activity.last(self.start) + self.idle_timeout > Instant::now() => {
                        stage = Stage::Ending { until: activity.last(self.start) + self.idle_timeout };
                    }
                    Stage::Ending { .. } => {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not take its answers"));
                    }
                }
            }
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy)]
enum Stage {
    Open,
    /// The host ends, and a client that doesn't know it yet is heard until then.
    LastCall {
        until: Instant,
    },
    /// No more requests are taken; what is not done by then is cut off.
    Ending {
        until: Instant,
    },
}

/// What a connection does.
#[derive(Debug, Default)]
struct Activity {
    running: AtomicUsize,
    /// When something last began or ended, in milliseconds since the start.
    last: AtomicU64,
    is_http2: AtomicBool,
}

impl Activity {
    fn touch(&self, start: Instant) {
        self.last.store(whole_millis(start.elapsed()), Ordering::Relaxed);
    }

    fn touch_if_running(&self, start: Instant) {
        if self.running.load(Ordering::Relaxed) > 0 {
            self.touch(start);
        }
    }

    fn last(&self, start: Instant) -> Instant {
        start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    fn is_idle(&self, start: Instant, timeout: Duration) -> bool {
        // The moments are whole milliseconds, rounded down.
        self.running.load(Ordering::Relaxed) == 0 && self.last(start) + timeout <= Instant::now()
    }
}

/// A request that is worked on, also if its client goes away meanwhile.
struct Running {
    activity: Arc<Activity>,
    start: Instant,
}

impl Running {
    fn begin(activity: &Arc<Activity>, start: Instant) -> Self {
        activity.running.fetch_add(1, Ordering::Relaxed);
        activity.touch(start);
        Self { activity: Arc::clone(activity), start }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.activity.running.fetch_sub(1, Ordering::Relaxed);
        self.activity.touch(self.start);
    }
}

/// The router, for the requests of one connection.
#[derive(Clone)]
struct Conversation {
    attendant: Arc<Attendant>,
    activity: Arc<Activity>,
    peer: IpAddr,
}

impl Service<Request<Incoming>> for Conversation {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The router always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let running = Running::begin(&self.activity, self.attendant.start);
        let is_http2 = request.version() >= Version::HTTP_2;
        self.activity.is_http2.store(is_http2, Ordering::Relaxed);
        request.extensions_mut().insert(Peer(self.peer));
        let draining = self.attendant.draining.clone();
        let (activity, start) = (Arc::clone(&self.activity), self.attendant.start);
        let (head, body) = request.into_parts();
        let body = Lent(Arc::new(Mutex::new(body)));
        let answer = self.attendant.router.clone().call(Request::from_parts(head, body.clone()));
        Box::pin(async move {
            let mut answer = answer.await?;
            if is_http2 && !body.is_end_stream() {
                tokio::spawn(tokio::time::timeout(REST_TIMEOUT, body.take_rest()));
            }
            if !is_http2 && draining.is_cancelled() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(running);
            Ok(answer.map(|body| Body::new(Watched { body, rest: Bytes::new(), activity, start })))
        })
    }
}

/// The body of a request, which doesn't end when its handler has done with it.
///
/// Over HTTP/2, a client whose body isn't wanted any more is told to stop sending. Many take that for the end of all, and lose the
/// answer that they have got.
#[derive(Clone)]
struct Lent(Arc<Mutex<Incoming>>);

impl Lent {
    fn body(&self) -> MutexGuard<'_, Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on, for nothing, to the end or [`MAX_REST_BYTES`].
    async fn take_rest(mut self) {
        let mut left = MAX_REST_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let taken = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(taken) else { return };
            left = rest;
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

/// The body of an answer, handed on in small parts: each that is asked for shows that the client has taken what came before.
struct Watched {
    body: Body,
    rest: Bytes,
    activity: Arc<Activity>,
    start: Instant,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                end => return end,
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        self.activity.touch(self.start);
        let part = self.rest.len().min(PART_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Answers are written whole, so there is nothing to gain from holding packets back; and a client that takes nothing of what
/// is written to it is given up.
fn prepare(stream: &TcpStream, timeout: Duration) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "tcp_nodelay is not set");
    }
    // What the system has taken over can't be told from what the client has taken: so it is to take over little at a time.
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, "tcp_notsent_lowat is not set");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::net::sockopt::set_tcp_user_timeout(stream, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))
    {
        tracing::debug!(%error, "tcp_user_timeout is not set");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = timeout;
}

/// Tells a client that there is no room for it.
///
/// # Errors
/// If it doesn't hear it.
pub(super) async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let refusal = async {
        let mut head = [0; 1024];
        // Whoever is answered before he has asked may take it for nonsense.
        if stream.read(&mut head).await? == 0 {
            return Ok(());
        }
        stream.write_all(NO_ROOM.as_bytes()).await?;
        stream.shutdown().await?;
        // To close while something is unread would take the answer away from the client.
        while stream.read(&mut head).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(REFUSAL_TIMEOUT, refusal).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_well_formed() {
        let (head, body) = NO_ROOM.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&problem["status"], &problem["code"]), (&503.into(), &"overloaded".into()));
    }
}
