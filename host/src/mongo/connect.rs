//! From a URI to a client that knows our bounds, and the bound itself.

use std::fmt;
use std::future::IntoFuture;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::poll;
use mongodb::Client;
use mongodb::error::{Error as DriverError, ErrorKind as DriverKind};
use mongodb::options::{Acknowledgment, ClientOptions, ConnectionString};
use tracing::Instrument as _;

use super::error::convert;
use crate::{Error, ErrorKind, Result};

/// The most connections of one host, unless the URI says otherwise. The driver's own default of 10 would make 64
/// clients queue.
const MAX_POOL_SIZE: u32 = 100;

/// Which collection, and how long to wait for it.
#[derive(Clone)]
pub struct ConnectOptions {
    /// A `mongodb://` or `mongodb+srv://` URI. What it says about pools, concerns and preferences is honoured.
    pub uri: String,
    /// Name of the database.
    pub database: String,
    /// Name of the collection that holds the MemCells.
    pub collection: String,
    /// How long an operation waits for a server that can take it. `serverSelectionTimeoutMS` and `connectTimeoutMS` in
    /// the URI override it.
    pub connect_timeout: Duration,
    /// How long one operation, or one step of a stream, may take in all.
    pub operation_timeout: Duration,
}

/// Leaves the URI out, for it may bear a password.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("database", &self.database)
            .field("collection", &self.collection)
            .field("connect_timeout", &self.connect_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .finish_non_exhaustive()
    }
}

/// A client that connects once it is used.
///
/// # Errors
/// [`ErrorKind::Config`] for a malformed URI or one that asks for unacknowledged writes; [`ErrorKind::Unavailable`] or
/// [`ErrorKind::Timeout`] if the DNS records of a `mongodb+srv` URI can't be read.
pub(super) async fn client(options: &ConnectOptions) -> Result<Client> {
    let parsed = tokio::time::timeout(options.connect_timeout, ClientOptions::parse(&options.uri)).await;
    let mut settings = match parsed {
        Ok(parsed) => parsed.map_err(|error| malformed(&options.uri, error))?,
        Err(_) => return Err(timed_out(options.connect_timeout)),
    };
    settings.app_name.get_or_insert_with(|| "memcell".into());
    settings.connect_timeout.get_or_insert(options.connect_timeout);
    settings.server_selection_timeout.get_or_insert(options.connect_timeout);
    settings.max_pool_size.get_or_insert(MAX_POOL_SIZE);
    let concern = settings.write_concern.get_or_insert_default();
    if concern.w == Some(Acknowledgment::Nodes(0)) {
        return Err(Error::new(ErrorKind::Config, "the mongodb uri asks for unacknowledged writes (w=0)"));
    }
    concern.w.get_or_insert(Acknowledgment::Majority);
    // Without it, a server whose replicas are down would keep a write waiting long after its caller has gone.
    concern.w_timeout.get_or_insert(options.operation_timeout);
    Client::with_options(settings).map_err(|error| malformed(&options.uri, error))
}

/// Whether a client can be made of this URI, as far as that can be told without asking anybody: the names behind a `mongodb+srv` URI
/// are not looked up.
///
/// # Errors
/// [`ErrorKind::Config`], as when it is used.
pub async fn check_uri(options: &ConnectOptions) -> Result<()> {
    if options.uri.starts_with("mongodb+srv://") {
        return ConnectionString::parse(&options.uri).map(drop).map_err(|error| malformed(&options.uri, error));
    }
    client(options).await.map(drop)
}

/// The driver's text may quote parts of the URI, so it is shown only where the URI bears no credentials.
fn malformed(uri: &str, error: DriverError) -> Error {
    match &*error.kind {
        DriverKind::InvalidArgument { .. } | DriverKind::InvalidTlsConfig { .. } if uri.contains('@') => Error::new(
            ErrorKind::Config,
            "the mongodb uri is malformed; user name and password need percent-encoding, options their exact names",
        ),
        DriverKind::InvalidArgument { message, .. } | DriverKind::InvalidTlsConfig { message, .. } => {
            Error::new(ErrorKind::Config, format!("the mongodb uri is malformed: {message}"))
        }
        _ => convert(error),
    }
}

/// Waits for the driver, but no longer than `limit`. A write whose time is up may or may not have taken place.
pub(super) async fn bounded<T>(
    limit: Duration,
    operation: impl IntoFuture<Output = Result<T, DriverError>>,
) -> Result<T> {
    let mut operation = pin!(operation.into_future().instrument(tracing::debug_span!("mongodb")));
    // Many an answer is there already, such as the next document of a cursor, and needs no timer.
    if let Poll::Ready(answer) = poll!(&mut operation) {
        return answer.map_err(convert);
    }
    match tokio::time::timeout(limit, operation).await {
        Ok(answer) => answer.map_err(convert),
        Err(_) => Err(timed_out(limit)),
    }
}

fn timed_out(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("mongodb did not answer within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(uri: &str) -> ConnectOptions {
        ConnectOptions {
            uri: uri.into(),
            database: "d".into(),
            collection: "c".into(),
            connect_timeout: Duration::from_secs(1),
            operation_timeout: Duration::from_secs(2),
        }
    }

    #[tokio::test]
    async fn a_malformed_uri_is_a_config_error_that_keeps_secrets() {
        for uri in [
            "",
            "localhost",
            "mongodb://",
            "mongodb://u:pass:word@host/",
            "mongodb://h/?w=x&nonsense",
            "mongodb://h/?w=0",
        ] {
            let error = client(&options(uri)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{uri}");
            assert_eq!(check_uri(&options(uri)).await.unwrap_err().to_string(), error.to_string(), "{uri}");
            assert!(!format!("{error:?} {error}").contains("word@"), "{error:?}");
        }
        assert!(!format!("{:?}", options("mongodb://u:secret@h/")).contains("secret"));
    }

    #[tokio::test]
    async fn names_are_not_looked_up_to_check_a_uri() {
        assert!(check_uri(&options("mongodb+srv://u:p@no.such.host.invalid/")).await.is_ok());
        assert!(check_uri(&options("mongodb://no.such.host.invalid/")).await.is_ok());
        for uri in [
            "mongodb+srv://a:1/",
            "mongodb+srv://a.b.c/?nonsense=1&x",
            "mongodb://h:99999/",
            "mongodb://h/?tlsCAFile=/nope",
        ] {
            assert_eq!(check_uri(&options(uri)).await.unwrap_err().kind(), ErrorKind::Config, "{uri}");
        }
    }

    #[tokio::test]
    async fn what_the_uri_says_stands() {
        let given = client(&options("mongodb://h/?w=1&wtimeoutMS=7&appName=mine")).await.unwrap();
        let concern = given.write_concern().unwrap();
        assert_eq!(concern.w, Some(Acknowledgment::Nodes(1)));
        assert_eq!(concern.w_timeout, Some(Duration::from_millis(7)));
        let default = client(&options("mongodb://h/")).await.unwrap();
        assert_eq!(default.write_concern().unwrap().w, Some(Acknowledgment::Majority));
    }

    #[tokio::test]
    async fn a_wait_is_bounded() {
        let error = bounded::<()>(Duration::from_millis(1), std::future::pending()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
