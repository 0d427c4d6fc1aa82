//! What an instance gets of the outside world: a clock, randomness, and what it was granted.
//!
//! Without a grant it has no directory, no environment and no network. It never has arguments, a standard input, UDP, or a
//! socket that listens. The last that it printed is kept for the reason that a crash is reported with.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};

use super::cpu::CpuBudget;
use super::error::{KvError, shown};
use super::grants::{GUEST_DIRECTORY, Grants, Pins};
use super::limits::Limiter;
use super::output::{Output, Tag};
use super::secrets::Secrets;
use super::{files, names, sockets, streams};
use crate::config::BackendConfig;
use crate::metrics::BackendMetrics;

/// Random bytes that one call hands out. They are made in the host's memory first; seeds take some dozens, and who needs more
/// asks again.
const MAX_RANDOM_BYTES: u64 = 1024 * 1024;

/// How many refusals of one instance are logged; a guest that keeps trying gets no more room in the log than that.
const LOGGED_REFUSALS: u32 = 10;

/// The host's side of one instance.
pub(super) struct Sandbox {
    pub(super) limiter: Limiter,
    pub(super) cpu: CpuBudget,
    stderr: Output,
    secrets: Secrets,
    pins: Arc<Pins>,
    refusals: Arc<Refusals>,
    wasi: WasiCtx,
    table: ResourceTable,
}

/// What a guest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// To open, change or remove something outside of its directory, or to change anything in one that it may only read.
    File,
    /// To have a socket: any at all, or a UDP one.
    Socket,
    /// To connect to an address.
    Connect,
    /// To bind to an address or to listen there.
    Bind,
    /// To look up a name.
    Name,
}

impl Refused {
    /// A short stable word for metrics.
    fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Socket => "socket",
            Self::Connect => "connect",
            Self::Bind => "bind",
            Self::Name => "name",
        }
    }
}

/// Everything that a component may import: WASI 0.2, with what the sandbox does differently put in its place.
pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    names::add_to_linker(linker)?;
    files::add_to_linker(linker)?;
    sockets::add_to_linker(linker)?;
    streams::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Sandbox {
    /// A sandbox for one instance, with what `grants` and `pins` allow.
    ///
    /// # Errors
    /// If the granted directory can't be opened.
    pub(super) fn new(config: &BackendConfig, shard: u32, grants: &Grants, pins: Pins) -> Result<Self, KvError> {
        let secrets = Secrets::of(config);
        let tag =
            |stream| grants.log.then(|| Tag { backend: config.name.clone(), shard, stream, secrets: secrets.clone() });
        let (stdout, stderr) = (Output::new(tag("stdout")), Output::new(tag("stderr")));
        let pins = Arc::new(pins);
        let refusals = Arc::new(Refusals {
            backend: config.name.clone(),
            shard,
            metrics: grants.metrics.clone(),
            count: AtomicU32::new(0),
        });
        let mut wasi = WasiCtx::builder();
        // A shard has a thread of its own, so a guest that blocks it harms nobody, and handing its file and clock calls to
        // other threads would only cost.
        wasi.allow_blocking_current_thread(true)
            .allow_tcp(grants.any_network())
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(MAX_RANDOM_BYTES)
            .stdout(stdout)
            .stderr(stderr.clone())
            .envs(&grants.environment);
        if grants.any_network() {
            let (pins, refusals) = (Arc::clone(&pins), Arc::clone(&refusals));
            wasi.socket_addr_check(move |address, usage| {
                let (kind, allowed) = match usage {
                    // What comes before every connection: the system picks the local address and port.
                    SocketAddrUse::TcpBind => (Refused::Bind, address.ip().is_unspecified() && address.port() == 0),
                    SocketAddrUse::TcpConnect => (Refused::Connect, pins.allow(&address)),
                    _ => (Refused::Bind, false),
                };
                if !allowed {
                    refusals.note(kind, format_args!("{usage:?} {address}"));
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
        table.set_max_capacity(config.limits.handles);
        let limiter = Limiter::new(&config.limits);
        // While it is being opened, it may compute as long as that may take.
        let cpu = CpuBudget::new(Duration::MAX);
        Ok(Self { limiter, cpu, stderr, secrets, pins, refusals, wasi: wasi.build(), table })
    }

    /// The last it wrote to its standard error, on one line and without secrets; empty if nothing.
    pub(super) fn last_words(&self) -> String {
        self.stderr.last_words(&self.secrets)
    }

    /// What it must not tell anybody.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
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
    pub(super) fn refused(&self, kind: Refused, what: fmt::Arguments<'_>) {
        self.refusals.note(kind, what);
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
    metrics: Option<BackendMetrics>,
    count: AtomicU32,
}

impl Refusals {
    fn note(&self, kind: Refused, what: fmt::Arguments<'_>) {
        if let Some(metrics) = &self.metrics {
            metrics.kv_refusal(kind.label());
        }
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED_REFUSALS {
            let (backend, shard, wanted) = (&self.backend, self.shard, shown(&what.to_string()));
            tracing::warn!(backend, shard, kind = kind.label(), wanted, "the plugin wanted what it was not granted");
        }
    }
}
