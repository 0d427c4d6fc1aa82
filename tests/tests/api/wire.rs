//! What no well-behaved client sends, byte by byte: the answer has a status below 500, and the host goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memcell_tests::host::{PATIENCE, TestHost, in_memory};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::checks::{body, check_mirror};

/// The status that these bytes are answered with; `None` if the connection is closed without an answer, which is wrong.
async fn status(host: &TestHost, bytes: &[u8]) -> Result<Option<u16>> {
    let address = host.url.strip_prefix("http://").context("an address")?;
    let mut stream = TcpStream::connect(address).await?;
    // The host may close the connection while it is still written to.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    let read = async {
        while !answer.contains(&b'\n') {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(count) => answer.extend(part.iter().take(count)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.context("no answer")?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    match text.split(' ').nth(1) {
        Some(status) => Ok(Some(status.parse().with_context(|| text.clone())?)),
        None => Ok(None),
    }
}

#[tokio::test]
async fn requests_that_are_hardly_http_do_no_harm() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let get = |uri: &str, headers: &str| format!("GET {uri} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes();
    let post = |headers: &str, body: &str| {
        format!(
            "POST /v1/memcells HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n{body}"
        )
        .into_bytes()
    };
    for (what, bytes, expected) in [
        ("a good request", get("/healthz", ""), Some(200)),
        ("a header of 50 KB", get("/healthz", &format!("x: {}\r\n", "x".repeat(50_000))), Some(200)),
        ("a header of 100 KB", get("/healthz", &format!("x: {}\r\n", "x".repeat(100_000))), Some(431)),
        ("a header of 1 MB", get("/healthz", &format!("x: {}\r\n", "x".repeat(1_000_000))), Some(431)),
        ("a thousand headers", get("/healthz", &"x: y\r\n".repeat(1000)), Some(431)),
        ("a URI of 60 KB", get(&format!("/{}", "x".repeat(60_000)), ""), Some(404)),
        ("a URI of 64,600 bytes", get(&format!("/{}", "x".repeat(64_600)), ""), Some(414)),
        ("a URI of 100 KB", get(&format!("/{}", "x".repeat(100_000)), ""), Some(431)),
        ("no URI", b"GET HTTP/1.1\r\n\r\n".to_vec(), Some(400)),
        ("no host", b"GET /healthz HTTP/1.1\r\n\r\n".to_vec(), Some(400)),
        ("no host, in the language of before", b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(), Some(200)),
        ("two hosts", get("/healthz", "host: localhost\r\n"), Some(400)),
        ("a header without a colon", get("/healthz", "nonsense\r\n"), Some(400)),
        ("a nul in a header", get("/healthz", "x: \0\r\n"), Some(400)),
        ("a nul in the URI", get("/v1/memcells?user_id=\0", ""), Some(400)),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), Some(400)),
        ("a later HTTP", b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(), Some(400)),
        ("a length that is no number", post("content-length: ten\r\n", "{}"), Some(400)),
        ("a negative length", post("content-length: -1\r\n", "{}"), Some(400)),
        ("two lengths", post("content-length: 2\r\ncontent-length: 3\r\n", "{}x"), Some(400)),
        ("an announced giant", post("content-length: 999999999999\r\n", ""), Some(413)),
        ("a chunk size that is none", post("transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), Some(400)),
        ("an encoded body", post("content-length: 2\r\ncontent-encoding: gzip\r\n", "\x1f\x08"), Some(415)),
    ] {
        let status = status(&host, &bytes).await.with_context(|| what.to_owned())?;
        ensure!(status == expected, "{what} was answered {status:?} instead of {expected:?}");
    }
    // Those who hang up in the middle, and those who never say anything more, cost nothing.
    let address = host.url.strip_prefix("http://").context("an address")?;
    let mut silent = Vec::new();
    for beginning in [&b"POST /v1/mem"[..], &post("content-length: 100\r\n", "{\"timestamp\":")] {
        for hangs_up in [true, false] {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(beginning).await?;
            if !hangs_up {
                silent.push(stream);
            }
        }
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), host.request("GET", "/readyz")).await??;
    assert_eq!(body(answer, 200)["status"], "ready");
    assert_eq!(host.collection.count_documents(mongodb::bson::doc! {}).await?, 0);
    check_mirror(&host).await?;
    drop(silent);
    Ok(())
}
