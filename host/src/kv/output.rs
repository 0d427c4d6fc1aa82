//! What a guest prints: the last of it is kept for the report of a crash, and its lines go to the host's log if that is granted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::error::shown;
use super::secrets::Secrets;

/// How much of its output is kept: enough for a panic's message and place.
const TAIL_BYTES: usize = 2048;

/// A line is cut off here; what follows up to the line's end is dropped.
const LINE_BYTES: usize = 2048;

/// How many lines may come at once, and how soon a further one may follow in the long run.
const LINE_BURST: u32 = 100;
const LINE_INTERVAL: Duration = Duration::from_millis(50);

/// One of a guest's two output streams.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<Stream>>);

struct Stream {
    tail: VecDeque<u8>,
    lines: Option<Lines>,
}

/// Whose lines they are.
#[derive(Clone)]
pub(super) struct Tag {
    pub(super) backend: String,
    pub(super) shard: u32,
    pub(super) stream: &'static str,
    pub(super) secrets: Secrets,
}

struct Lines {
    tag: Tag,
    line: Vec<u8>,
    allowance: Allowance,
    suppressed: u64,
}

impl Output {
    /// A stream whose lines are logged under `tag`, if there is one.
    pub(super) fn new(tag: Option<Tag>) -> Self {
        let lines =
            tag.map(|tag| Lines { tag, line: Vec::new(), allowance: Allowance::full(Instant::now()), suppressed: 0 });
        Self(Arc::new(Mutex::new(Stream { tail: VecDeque::new(), lines })))
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last that was written, on one line and without secrets.
    pub(super) fn last_words(&self, secrets: &Secrets) -> String {
        let bytes: Vec<u8> = self.stream().tail.iter().copied().collect();
        shown(&secrets.hide(&String::from_utf8_lossy(&bytes)))
    }

    fn push(&self, bytes: &[u8]) {
        let mut stream = self.stream();
        let new = bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
        let excess = (stream.tail.len() + new.len()).saturating_sub(TAIL_BYTES).min(stream.tail.len());
        stream.tail.drain(..excess);
        stream.tail.extend(new);
        if let Some(lines) = &mut stream.lines {
            lines.push(bytes);
        }
    }
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE_BYTES.saturating_sub(self.line.len()).min(text.len());
            self.line.extend_from_slice(text.get(..room).unwrap_or_default());
            if ends {
                self.emit();
            }
        }
    }

    fn emit(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !self.allowance.take(Instant::now()) {
            self.suppressed += 1;
            return;
        }
        let Tag { backend, shard, stream, secrets } = &self.tag;
        if self.suppressed > 0 {
            tracing::warn!(target: "plugin", backend, shard, stream, lines = self.suppressed, "the plugin printed too much, lines were left out");
            self.suppressed = 0;
        }
        let line = shown(&secrets.hide(&String::from_utf8_lossy(&line)));
        if !line.is_empty() {
            tracing::info!(target: "plugin", backend, shard, stream, line, "the plugin printed");
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() || self.suppressed > 0 {
            // What the end of a stream leaves is one more line, and the last chance to tell what was left out.
            self.allowance = Allowance::full(Instant::now());
            self.emit();
        }
    }
}

/// A token bucket.
struct Allowance {
    tokens: u32,
    counted: Instant,
}

impl Allowance {
    fn full(now: Instant) -> Self {
        Self { tokens: LINE_BURST, counted: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let due = now.duration_since(self.counted).as_millis() / LINE_INTERVAL.as_millis();
        if due > 0 {
            let due = u32::try_from(due).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(due).min(LINE_BURST);
            self.counted = now;
        }
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

/// Written to in the guest's own call: what a crashing guest said last is there when its crash is reported.
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(TAIL_BYTES)
    }
}

impl Pollable for Output {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tail_is_kept() {
        let output = Output::new(None);
        output.push(&[b'a'; TAIL_BYTES * 3]);
        output.push(b"the end");
        let kept = output.stream().tail.iter().copied().collect::<Vec<u8>>();
        assert_eq!(kept.len(), TAIL_BYTES);
        assert!(kept.ends_with(b"aathe end"));
    }

    #[test]
    fn a_flood_is_throttled_and_a_line_cut_short() {
        let now = Instant::now();
        let mut allowance = Allowance::full(now);
        let taken = (0..1000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken, LINE_BURST as usize);
        assert!(!allowance.take(now + LINE_INTERVAL / 2));
        assert!(allowance.take(now + LINE_INTERVAL));
        assert!(!allowance.take(now + LINE_INTERVAL));

        let tag = Tag { backend: "test".into(), shard: 0, stream: "stderr", secrets: Secrets::none() };
        let output = Output::new(Some(tag));
        output.push(&[b'x'; LINE_BYTES * 4]);
        assert_eq!(output.stream().lines.as_ref().unwrap().line.len(), LINE_BYTES);
        output.push(b"tail\nnext");
        assert_eq!(output.stream().lines.as_ref().unwrap().line, b"next");
        output.push("\n".repeat(1000).as_bytes());
        assert!(output.stream().lines.as_ref().unwrap().suppressed > 800);
    }
}
