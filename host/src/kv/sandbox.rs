//! What an instance gets of the outside world: a clock, randomness, and nothing else.
//!
//! It has no directory, no environment, no arguments, no network and no standard input. What it writes to its standard error
//! is kept, up to a bound, for the reason that a crash is reported with; its standard output goes nowhere.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::limits::Limiter;
use crate::config::LimitsConfig;

/// Handles (streams, pollables, …) that an instance may hold at a time. Far more than an honest one needs.
const MAX_HANDLES: usize = 10_000;

/// How much of its standard error is kept: enough for a panic's message and place.
const STDERR_TAIL_BYTES: usize = 2048;

/// The host's side of one instance.
pub(super) struct Sandbox {
    pub(super) limiter: Limiter,
    stderr: Tail,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Sandbox {
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        let stderr = Tail::default();
        // A shard has a thread of its own, so a guest that blocks it harms nobody, and handing its file and clock calls to
        // other threads would only cost.
        let wasi = WasiCtx::builder()
            .allow_blocking_current_thread(true)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .stderr(stderr.clone())
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self { limiter: Limiter::new(limits), stderr, wasi, table }
    }

    /// The last it wrote to its standard error, on one line; empty if nothing.
    pub(super) fn last_words(&self) -> String {
        super::error::shown(&self.stderr.text())
    }
}

impl WasiView for Sandbox {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A stream that remembers its last bytes.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = bytes.get(bytes.len().saturating_sub(STDERR_TAIL_BYTES)..).unwrap_or_default();
        let excess = (kept.len() + new.len()).saturating_sub(STDERR_TAIL_BYTES);
        let excess = excess.min(kept.len());
        kept.drain(..excess);
        kept.extend(new);
    }
}

impl IsTerminal for Tail {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Tail {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

/// Written to in the guest's own call: what a crashing guest said last is there when its crash is reported.
impl OutputStream for Tail {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STDERR_TAIL_BYTES)
    }
}

impl Pollable for Tail {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for Tail {
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
        let tail = Tail::default();
        tail.push(&[b'a'; STDERR_TAIL_BYTES * 3]);
        tail.push(b"the end");
        let text = tail.text();
        assert_eq!(text.len(), STDERR_TAIL_BYTES);
        assert!(text.ends_with("aathe end"));
    }
}
