//! `memcell serve`: the host as a service, from its address to its last drained change.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use super::{Exit, Failure, output, session};
use crate::config::{Config, HttpConfig};
use crate::descriptors;
use crate::http;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::reload::{Reloader, SetLogLevel};
use crate::security::Security;
use crate::shutdown::{Hangup, Hangups, Shutdown};
use crate::store::MemCellStore;

const AFTER_HELP: &str = "\
Writes `listening on http://ADDRESS` (https if http.tls is there) to the standard output once it takes requests (with --json an object with the field url), and logs to
the standard error. MongoDB need not be up: /readyz says whether it is.

SIGHUP reads the configuration again, as POST /v1/config/reload does: backends come and go without a restart. A file that is wrong, or that
changes what can't change in a running host, changes nothing; the log says what is wrong with it. Tokens and the certificate are read
again as well; the certificate also by itself when its file changes.

SIGINT or SIGTERM ends it in order: running requests are answered and the mirror is drained, each within http.shutdown_grace. A second
signal ends it at once. It does not start if a required backend can't be used. Exit code 1: it could not start, or something could not
be drained.

Examples:
  memcell serve
  MEMCELL_HTTP_LISTEN=127.0.0.1:0 memcell serve --config /etc/memcell.toml --log info";

/// Arguments of `memcell serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArgs {}

/// What the host was started with.
pub(super) struct Configuration {
    /// The file.
    pub(super) path: PathBuf,
    /// What it said.
    pub(super) config: Config,
    /// What was read for it.
    pub(super) security: Security,
    /// What a new `log.level` is told, unless the command line has the say.
    pub(super) set_log_level: Option<SetLogLevel>,
}

/// Serves until a signal comes.
pub(super) fn run(_: ServeArgs, configuration: Configuration, json: bool) -> Result<Exit, Failure> {
    let runtime = session::runtime()?;
    let outcome = runtime.block_on(async {
        let signals = |error| Failure::io("signals", &error);
        let shutdown = Shutdown::on_signals().map_err(signals)?;
        // Watched from the start, for else it would end the process: one that comes early is heeded later.
        let hangups = Hangups::watch().map_err(signals)?;
        Box::pin(serve(configuration, json, &shutdown, hangups)).await
    });
    // A plugin that is still being compiled can't be stopped; it must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    configuration: Configuration,
    json: bool,
    shutdown: &Shutdown,
    hangups: Hangups,
) -> Result<Exit, Failure> {
    let Configuration { path, config, security, set_log_level } = configuration;
    // First of all, for it is what fails most often, and nothing has to be taken down again then.
    let listen = config.http.listen;
    let listener =
        TcpListener::bind(listen).await.map_err(|error| Failure::io(format_args!("http.listen {listen}"), &error))?;
    let address = listener.local_addr().map_err(|error| Failure::io("the listening socket", &error))?;

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        mongodb = %config.mongodb.redacted_uri(),
        database = %config.mongodb.database,
        collection = %config.mongodb.collection,
        "starting"
    );
    descriptors::raise();
    warn_of_open_doors(&config.http, &security);
    for backend in config.backends.iter().filter(|backend| backend.enabled) {
        let (backend, plugin, required) = (&backend.name, &backend.plugin, backend.required);
        tracing::info!(%backend, %plugin, required, "configured backend");
    }
    let store = tokio::select! {
        opened = Box::pin(MemCellStore::open(&config, Arc::new(Metrics::new()))) => opened?,
        () = shutdown.requested() => return Ok(Exit::Fine),
    };

    let jobs = Jobs::start(&store, &config.host, &config.schedule);
    let reloader = Reloader::new(path, store.clone(), security.clone(), set_log_level);
    let reloading = tokio::spawn(reload_on_hangups(hangups, reloader.clone(), shutdown.clone()));
    let (watched, until) = (security.clone(), shutdown.clone());
    let watching = tokio::spawn(async move { watched.watch(&until).await });
    let scheme = if security.is_encrypted() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    tracing::info!(%url, "listening");
    let announced =
        if json { output::json_line(&json!({ "url": url })) } else { output::line(&format!("listening on {url}")) };
    let served = match announced {
        // Nobody wants to know; that is no reason not to serve.
        Ok(()) | Err(Failure::OutputClosed) => {
            let stop = shutdown.requested();
            let (store, jobs) = (store.clone(), jobs.clone());
            let serving = http::serve(listener, store, jobs, Some(reloader), &config.http, security, stop);
            let served = Box::pin(serving).await;
            served.map_err(|error| Failure::io("the http server", &error))
        }
        Err(failure) => Err(failure),
    };
    shutdown.trigger();
    let reloading = reloading.await.map_err(|error| Failure::Work(format!("the task that reloads: {error}")));
    let watching =
        watching.await.map_err(|error| Failure::Work(format!("the task that watches the certificate: {error}")));

    jobs.close(config.http.shutdown_grace).await;
    tracing::info!("draining the mirror");
    let left = store.close(config.http.shutdown_grace).await;
    served.and(reloading).and(watching)?;
    match left {
        None => {
            tracing::info!("everything is drained and closed");
            Ok(Exit::Fine)
        }
        Some(left) => Err(Failure::Work(format!("not everything could be drained in time: {left}"))),
    }
}

/// Says what is right by the configuration, but may not have been meant so.
fn warn_of_open_doors(http: &HttpConfig, security: &Security) {
    let listen = http.listen;
    if listen.ip().to_canonical().is_loopback() {
        return;
    }
    if security.access().is_open() {
        tracing::warn!(%listen, "whoever can reach this address can read and change everything: auth.unauthenticated is true");
    } else if !security.is_encrypted() {
        tracing::warn!(%listen, "tokens and documents cross the network in the clear: there is no http.tls");
    }
}

/// Takes the configuration file over whenever SIGHUP comes, until the host is to end.
async fn reload_on_hangups(mut hangups: Hangups, reloader: Reloader, shutdown: Shutdown) {
    loop {
        let hangup = tokio::select! {
            hangup = hangups.next() => hangup,
            () = shutdown.requested() => return,
        };
        match hangup {
            Hangup::TerminalGone => {
                tracing::info!("the terminal is gone, ending");
                return shutdown.trigger();
            }
            Hangup::Signal => {
                tracing::info!(signal = "sighup", "reading the configuration again");
                // Cut off by the end of the host, it gives up by itself.
                tokio::select! {
                    reloaded = reloader.reload() => if let Err(error) = reloaded {
                        tracing::error!(%error, "the configuration was not reloaded, nothing was changed");
                    },
                    () = shutdown.requested() => return,
                }
            }
        }
    }
}
