//! `memcell serve`: the host as a service, from its address to its last drained change.

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use super::{Exit, Failure, output, session};
use crate::config::Config;
use crate::http;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::MemCellStore;

const AFTER_HELP: &str = "\
Writes `listening on http://ADDRESS` to the standard output once it takes requests (with --json an object with the field url), and logs to
the standard error. MongoDB need not be up: /readyz says whether it is.

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

/// Serves until a signal comes.
pub(super) fn run(_: ServeArgs, config: Config, json: bool) -> Result<Exit, Failure> {
    let runtime = session::runtime()?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(|error| Failure::io("signals", &error))?;
        Box::pin(serve(&config, json, &shutdown)).await
    })
}

async fn serve(config: &Config, json: bool, shutdown: &Shutdown) -> Result<Exit, Failure> {
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
    for backend in config.backends.iter().filter(|backend| backend.enabled) {
        let (backend, plugin, required) = (&backend.name, backend.plugin.display(), backend.required);
        tracing::info!(%backend, %plugin, required, "configured backend");
    }
    let store = tokio::select! {
        opened = Box::pin(MemCellStore::open(config, Arc::new(Metrics::new()))) => opened?,
        () = shutdown.requested() => return Ok(Exit::Fine),
    };

    let url = format!("http://{address}");
    tracing::info!(%url, "listening");
    let announced =
        if json { output::json_line(&json!({ "url": url })) } else { output::line(&format!("listening on {url}")) };
    let served = match announced {
        // Nobody wants to know; that is no reason not to serve.
        Ok(()) | Err(Failure::OutputClosed) => http::serve(listener, store.clone(), &config.http, shutdown.requested())
            .await
            .map_err(|error| Failure::io("the http server", &error)),
        Err(failure) => Err(failure),
    };

    tracing::info!("draining the mirror");
    let left = store.close(config.http.shutdown_grace).await;
    served?;
    match left {
        None => {
            tracing::info!("everything is drained and closed");
            Ok(Exit::Fine)
        }
        Some(left) => Err(Failure::Work(format!("not everything could be drained in time: {left}"))),
    }
}
