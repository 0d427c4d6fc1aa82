//! An HTTP/1 client that does exactly what it is told: it keeps its connection, repeats nothing by itself, and says at
//! which point something went wrong.

use std::io;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A connection.
pub(super) struct Client<S = TcpStream> {
    stream: BufReader<S>,
    host: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection ends with this answer.
    pub(super) fn is_last(&self) -> bool {
        self.header("connection") == Some("close")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client<TcpStream> {
    /// Connects to `host:port`.
    pub(super) async fn connect(address: &str) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address).await?, address))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Over a connection that is there.
    pub(super) fn over(stream: S, host: &str) -> Self {
        // Thousands of clients need not have kilobytes each.
        Self { stream: BufReader::with_capacity(512, stream), host: host.to_owned() }
    }

    /// Sends a request and waits for the answer.
    pub(super) async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Result<Answer> {
        self.send(method, path, headers, body).await?;
        self.receive().await
    }

    /// Sends a request.
    pub(super) async fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Result<()> {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{headers}{length}\r\n{body}", self.host);
        self.stream.get_mut().write_all(request.as_bytes()).await.context("the request was not taken")
    }

    /// Waits for an answer.
    pub(super) async fn receive(&mut self) -> Result<Answer> {
        let status = self.line().await?;
        if status.is_empty() {
            bail!("the connection was closed without an answer");
        }
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| status.clone())?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
                None if line.is_empty() => break,
                None => bail!("{line} is no header"),
            }
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(Ok(0), str::parse)?;
        answer.body = vec![0; length];
        self.stream.read_exact(&mut answer.body).await.context("the answer was cut off")?;
        Ok(answer)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.context("no answer")?;
        Ok(line.trim_end().to_owned())
    }

    /// Waits until the other side closes the connection without saying anything more.
    pub(super) async fn closed(&mut self) -> Result<()> {
        match self.stream.read_u8().await {
            Err(_) => Ok(()),
            Ok(byte) => bail!("something more came: {byte}"),
        }
    }
}
