//! A restart while clients write: every request that the host has taken is answered, and every write that it has acknowledged
//! is there afterwards, in MongoDB and in the mirror.
//!
//! A connection that the kernel has made for the host, and that the host has not accepted when it ends, is reset. Nothing was
//! taken from it then: there is no document more than were acknowledged.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use memcell_tests::host::eventually;
use serde_json::json;

use super::client::Client;
use super::{Program, address};

const WRITERS: usize = 64;

/// Acknowledged writes before the host is told to end.
const ENOUGH: usize = 500;

/// What one writer has been told.
#[derive(Default)]
struct Written {
    ids: Vec<String>,
    last_words: usize,
}

/// Writes until nobody takes connections any more. Every second writer opens a new connection for each request. Any request that
/// was taken and not answered is a failure.
async fn write(address: &str, number: usize, acknowledged: &AtomicUsize) -> Result<Written> {
    let mut written = Written::default();
    let mut connection: Option<Client> = None;
    loop {
        let is_new = connection.is_none();
        let mut client = match connection.take() {
            Some(client) => client,
            None => match Client::connect(address).await {
                Ok(client) => client,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(written),
                // The handshake was done, and the listener gone before the first word.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(written),
                Err(error) => return Err(error).context("connecting"),
            },
        };
        let sequence = written.ids.len();
        let body = json!({ "timestamp": "2025-06-26T00:00:00Z", "user_id": format!("w{number}"), "summary": sequence.to_string() });
        let answer = match client.ask("POST", "/v1/memcells", "", &body.to_string()).await {
            Ok(answer) => answer,
            // The last connections that the kernel made for the host, and that it never saw, are reset with the listener.
            Err(error) if is_new && is_unseen(&error) && Client::connect(address).await.is_err() => return Ok(written),
            Err(error) => return Err(error.context(format!("writer {number}, after {sequence} writes"))),
        };
        ensure!(answer.status == 201, "{answer:?}");
        let id = answer.json()["event_id"].as_str().context("no id")?.to_owned();
        written.ids.push(id);
        acknowledged.fetch_add(1, Ordering::Relaxed);
        if answer.is_last() {
            written.last_words += 1;
        } else if number.is_multiple_of(2) {
            connection = Some(client);
        }
    }
}

/// Whether a connection was reset, rather than closed in order.
fn is_unseen(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_loses_nothing_and_answers_everything() -> Result<()> {
    let program = Program::new("").await?;
    let mut all = Vec::new();
    for round in 0..2 {
        let host = program.serve().await?;
        let url = host.url().to_owned();
        let acknowledged = AtomicUsize::new(0);
        let writers =
            try_join_all((0..WRITERS).map(|number| write(address(&url).unwrap_or_default(), number, &acknowledged)));
        let restart = async {
            eventually("enough is written", async || Ok(acknowledged.load(Ordering::Relaxed) >= ENOUGH)).await?;
            host.stop().await
        };
        let (written, ()) = futures::future::try_join(writers, restart).await.with_context(|| program.log())?;
        let last_words: usize = written.iter().map(|written| written.last_words).sum();
        let ids: Vec<String> = written.into_iter().flat_map(|written| written.ids).collect();
        eprintln!("round {round}: {} acknowledged, {last_words} connections heard that it was over", ids.len());
        ensure!(ids.len() >= ENOUGH);
        all.extend(ids);
    }
    // Everything is there, and copied.
    let host = program.serve().await?;
    let mut client = Client::connect(address(host.url())?).await?;
    eventually("the mirror is live", async || {
        Ok(client.ask("GET", "/v1/backends", "", "").await?.json()["items"][0]["state"] == "live")
    })
    .await?;
    let mut unique = all.clone();
    unique.sort_unstable();
    unique.dedup();
    ensure!(unique.len() == all.len(), "an id was acknowledged twice");
    let count = client.ask("GET", "/v1/memcells/count", "", "").await?;
    ensure!(count.json()["count"] == all.len(), "{} were acknowledged, and there are {}", all.len(), count.json());
    for ids in all.chunks(100) {
        let body = json!({ "event_ids": ids, "fields": ["summary"] }).to_string();
        let answer = client.ask("POST", "/v1/memcells/batch-get", "", &body).await?;
        let found = answer.json()["items"].as_object().map(serde_json::Map::len);
        ensure!(found == Some(ids.len()), "{} of {} are there: {}", found.unwrap_or(0), ids.len(), answer.json());
    }
    for id in all.iter().step_by(20) {
        let answer = client.ask("GET", &format!("/v1/memcells/{id}"), "", "").await?;
        ensure!(answer.status == 200, "{answer:?}");
        let outcome = answer.header("x-memcell-validation");
        ensure!(matches!(outcome, Some("consistent" | "in-flight" | "unavailable")), "{answer:?}");
    }
    host.stop().await
}
