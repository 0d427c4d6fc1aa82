//! Clients that take their time with an answer, and those that don't take it at all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use memcell_tests::host::{PATIENCE, TestHost};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::address;

const IDLE: Duration = Duration::from_secs(1);

const DOCUMENTS: usize = 6;
const DOCUMENT_BYTES: usize = 1 << 20;

const LIST: &str = "/v1/memcells?user_id=ana";

/// What is taken at a time, and how long it takes until the next. All of it takes several times as long as one may be idle.
const SIP: usize = 128 << 10;
const PAUSE: Duration = Duration::from_millis(100);

/// A host that soon sends idle clients away, with a long list.
async fn host() -> Result<TestHost> {
    let host = TestHost::start_from_file(&format!("[http]\nidle_timeout = \"{}s\"\n", IDLE.as_secs())).await?;
    for _ in 0..DOCUMENTS {
        let cell = json!({
            "user_id": "ana", "timestamp": "2025-06-26T00:03:30Z", "summary": "x".repeat(DOCUMENT_BYTES),
        });
        host.append(&cell).await?;
    }
    Ok(host)
}

/// A connection that holds little of what its client hasn't read.
async fn connect(host: &TestHost) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(32 << 10)?;
    Ok(socket.connect(address(&host.url)?.parse()?).await?)
}

async fn asked(host: &TestHost) -> Result<TcpStream> {
    let mut stream = connect(host).await?;
    let head = format!("GET {LIST} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

/// Who takes an answer in sips.
#[derive(Debug)]
struct Drinker {
    begun: Instant,
    taken: usize,
    sip: usize,
}

impl Drinker {
    fn new() -> Self {
        Self { begun: Instant::now(), taken: 0, sip: 0 }
    }

    /// Pauses when it has been a whole sip.
    async fn took(&mut self, bytes: usize) {
        self.taken += bytes;
        self.sip += bytes;
        if self.sip >= SIP {
            self.sip = 0;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// That it got all of it, and took longer than one may be idle.
    fn check(&self) -> Result<()> {
        let elapsed = self.begun.elapsed();
        ensure!(self.taken > DOCUMENTS * DOCUMENT_BYTES, "{} bytes after {elapsed:?}", self.taken);
        ensure!(elapsed > IDLE * 3, "it was over too soon to mean anything: {elapsed:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_be_taken_slowly() -> Result<()> {
    let host = host().await?;
    let mut stream = asked(&host).await?;
    let mut drinker = Drinker::new();
    let mut part = vec![0; SIP];
    loop {
        match tokio::time::timeout(PATIENCE, stream.read(&mut part)).await?? {
            0 => break,
            read => drinker.took(read).await,
        }
    }
    drinker.check()?;

    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let (mut sender, connection) = client.handshake(TokioIo::new(connect(&host).await?)).await?;
    let driven = tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://localhost{LIST}")).body(Empty::<Bytes>::new())?;
    let mut drinker = Drinker::new();
    let mut answer = sender.send_request(request).await?.into_body();
    while let Some(frame) = tokio::time::timeout(PATIENCE, answer.frame()).await? {
        let frame = frame.with_context(|| format!("after {drinker:?}"))?;
        drinker.took(frame.data_ref().map_or(0, Bytes::len)).await;
    }
    drinker.check()?;
    drop(sender);
    // It may have been told to be the last one.
    tokio::time::timeout(PATIENCE, driven).await??.ok();
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_taken_is_given_up() -> Result<()> {
    let host = host().await?;
    let mut stream = asked(&host).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(connect(&host).await?)).await?;
    let driven = tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://localhost{LIST}")).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    tokio::time::timeout(PATIENCE, driven).await.context("the host waits for a client that takes nothing")??.ok();
    drop(answer);
    // This one has waited as long, and finds what was on its way.
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await?;
    ensure!(end.is_err() || rest.len() < DOCUMENTS * DOCUMENT_BYTES, "all {} bytes were kept for it", rest.len());
    host.stop().await?;
    Ok(())
}
