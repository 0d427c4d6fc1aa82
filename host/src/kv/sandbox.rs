//! What an instance gets of the outside world: a clock, randomness, and what it was granted.
//!
//! Without a grant it has no directory, no environment and no network. It never has arguments, a standard input, UDP, or a
//! socket that listens. The last that it printed is kept for the reason that a crash is reported with.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};

use super::error::{KvError, shown};
use super::grants::{GUEST_DIRECTORY, Grants, Pins};
use super::limits::Limiter;
use super::output::{Output, Tag};
use crate::config::BackendConfig;

/// Handles (streams, pollables, …) that an instance may hold at a time. Far more than an honest one needs.
const MAX_HANDLES: usize = 10_000;

/// How many refusals of one instance are logged; a guest that keeps trying gets no more room in the log than that.
const LOGGED_REFUSALS: u32 = 10;

/// The host's side of one instance.
pub(super) struct Sandbox {
    pub(super) limiter: Limiter,
    stderr: Output,
    pins: Arc<Pins>,
    refusals: Arc<Refusals>,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Sandbox {
    /// A sandbox for one instance, with what `grants` and `pins` allow.
    ///
    /// # Errors
    /// If the granted directory can't be opened.
    pub(super) fn new(config: &BackendConfig, shard: u32, grants: &Grants, pins: Pins) -> Result<Self, KvError> {
        let tag = |stream| grants.log.then(|| Tag { backend: config.name.clone(), shard, stream });
        let (stdout, stderr) = (Output::new(tag("stdout")), Output::new(tag("stderr")));
        let pins = Arc::new(pins);
        let refusals = Arc::new(Refusals { backend: config.name.clone(), shard, count: AtomicU32::new(0) });
        let mut wasi = WasiCtx::builder();
        // A shard has a thread of its own, so a guest that blocks it harms nobody, and handing its file and clock calls to
        // other threads would only cost.
        wasi.allow_blocking_current_thread(true)
            .allow_tcp(grants.any_network())
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .stdout(stdout)
            .stderr(stderr.clone())
            .envs(&grants.environment);
        if grants.any_network() {
            let (pins, refusals) = (Arc::clone(&pins), Arc::clone(&refusals));
            wasi.socket_addr_check(move |address, usage| {
                let allowed = match usage {
                    // What comes before every connection: the system picks the local address and port.
                    SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
                    SocketAddrUse::TcpConnect => pins.allow(&address),
                    _ => false,
                };
                if !allowed {
                    refusals.note(format_args!("{usage:?} {address}"));
                }
                Box::pin(std::future::ready(allowed))
            });
        }
        if let Some(directory) = &grants.directory {
            let permissions = if directory.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            wasi.preopened_dir(&directory.path, GUEST_DIRECTORY, permissions).map_err(|error| {
                KvError::Down(format!("can't open the granted directory {}: {error:#}", directory.path.display()))
            })?;
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Ok(Self { limiter: Limiter::new(&config.limits), stderr, pins, refusals, wasi: wasi.build(), table })
    }

    /// The last it wrote to its standard error, on one line; empty if nothing.
    pub(super) fn last_words(&self) -> String {
        self.stderr.last_words()
    }

    /// What it may connect to.
    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Its handles.
    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// Says that it wanted what it was not granted.
    pub(super) fn refused(&self, what: fmt::Arguments<'_>) {
        self.refusals.note(what);
    }
}

impl WasiView for Sandbox {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// What an instance tried in vain.
struct Refusals {
    backend: String,
    shard: u32,
    count: AtomicU32,
}

impl Refusals {
    fn note(&self, what: fmt::Arguments<'_>) {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED_REFUSALS {
            let (backend, shard, wanted) = (&self.backend, self.shard, shown(&what.to_string()));
            tracing::warn!(backend, shard, wanted, "the plugin wanted what it was not granted");
        }
    }
}
