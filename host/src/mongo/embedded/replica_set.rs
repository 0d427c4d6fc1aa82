//! Makes a starting server the primary of a replica set of its own, and waits until it is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{ClientOptions, ServerAddress};
use mongodb::{Client, Database};

use super::POLL;
use super::process::ServerProcess;
use super::program::{Kind, Program};
use crate::error::{Error, ErrorKind, Result};

/// The name of the set.
pub(super) const NAME: &str = "rs0";

/// How long one question to a starting server may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// MongoDB's error for a member that was never told its set.
const NOT_YET_INITIALIZED: i32 = 94;

/// Returns when the server at `address` takes writes.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if the process ends, or `deadline` passes, before that.
pub(super) async fn wait_until_primary(
    program: &Program,
    address: SocketAddr,
    process: &ServerProcess,
    deadline: Instant,
) -> Result<()> {
    let admin = connect(address)?;
    loop {
        let state = match program.kind() {
            Kind::Mongod => urge(&admin, address).await,
            Kind::Secantus => is_primary(&admin).await,
        };
        // Whoever answered was another server if this one is gone.
        if let Some(status) = process.exit_status().await {
            return Err(Error::new(ErrorKind::Unavailable, format!("it ended with {status}")));
        }
        let reason = match state {
            Ok(true) => return Ok(()),
            Ok(false) => "it has not become primary".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(Error::new(ErrorKind::Unavailable, format!("it was not ready in time: {reason}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn connect(address: SocketAddr) -> Result<Database> {
    let host = ServerAddress::Tcp { host: address.ip().to_string(), port: Some(address.port()) };
    let options = ClientOptions::builder()
        .hosts(vec![host])
        .direct_connection(true)
        .connect_timeout(ANSWER_TIMEOUT)
        .server_selection_timeout(ANSWER_TIMEOUT)
        .build();
    let client = Client::with_options(options).map_err(|error| {
        Error::new(ErrorKind::Internal, "can't make a client for the embedded MongoDB server").with_source(error)
    })?;
    Ok(client.database("admin"))
}

async fn is_primary(admin: &Database) -> mongodb::error::Result<bool> {
    let hello = admin.run_command(doc! { "hello": 1 }).await?;
    Ok(hello.get_bool("isWritablePrimary").unwrap_or(false))
}

/// One step of bringing up a `mongod`: founds the set, or tells it its new address. Whether it is primary there.
async fn urge(admin: &Database, address: SocketAddr) -> mongodb::error::Result<bool> {
    let host = address.to_string();
    let config = match admin.run_command(doc! { "replSetGetConfig": 1 }).await {
        Ok(answer) => answer.get_document("config").cloned().unwrap_or_default(),
        Err(error) if code(&error) == Some(NOT_YET_INITIALIZED) => {
            let config = doc! { "_id": NAME, "members": [{ "_id": 0, "host": &host }] };
            admin.run_command(doc! { "replSetInitiate": config }).await?;
            return is_primary(admin).await;
        }
        Err(error) => return Err(error),
    };
    if let Some(moved) = moved_to(config, &host) {
        // Forced, because a member that doesn't find itself in its configuration is no primary that could change it.
        admin.run_command(doc! { "replSetReconfig": moved, "force": true }).await?;
    }
    is_primary(admin).await
}

/// The configuration with its one member at `host`; `None` if that is where it is already.
fn moved_to(mut config: Document, host: &str) -> Option<Document> {
    let member = config.get_array_mut("members").ok()?.first_mut()?.as_document_mut()?;
    if member.get_str("host").is_ok_and(|current| current == host) {
        return None;
    }
    member.insert("host", host);
    let version = match config.get("version") {
        Some(Bson::Int32(version)) => i64::from(*version),
        Some(Bson::Int64(version)) => *version,
        _ => 0,
    };
    config.insert("version", version.saturating_add(1));
    Some(config)
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_moved_only_if_its_address_changed() {
        let config = doc! { "_id": NAME, "version": 3, "members": [{ "_id": 0, "host": "127.0.0.1:1", "votes": 1 }] };
        assert_eq!(moved_to(config.clone(), "127.0.0.1:1"), None);
        let moved =
            doc! { "_id": NAME, "version": 4_i64, "members": [{ "_id": 0, "host": "127.0.0.1:2", "votes": 1 }] };
        assert_eq!(moved_to(config, "127.0.0.1:2"), Some(moved));
    }
}
