//! Why a server did not do what it was asked, and what the host is told of it.

use memcell_plugin::Error;
use redis::ServerError;

use crate::address::Address;

/// Why there is no answer, or none that helps.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection can be made.
    #[error("can't connect to {address}: {reason}")]
    Unreachable { address: Address, reason: String },
    /// The connection broke. Whether the server did what it was asked is unknown.
    #[error("the connection to {address} was lost: {reason}")]
    Lost { address: Address, reason: String },
    /// The sandbox doesn't let the plugin connect there.
    #[error("{address} {because}, but the host doesn't let this plugin connect to it: add it to grants.connect")]
    NotGranted { address: Address, because: &'static str },
    #[error("{address} did not answer in time")]
    Timeout { address: Address },
    /// The server answered with an error.
    #[error("{address} answered {}", shown(.error))]
    Server { address: Address, error: ServerError },
    /// The server and the settings don't fit together.
    #[error("{0}")]
    Settings(String),
    /// The server can't do what this plugin needs.
    #[error("{0}")]
    Unsupported(String),
    /// The server is there again without what it had: the host has to copy everything anew.
    #[error("{0}")]
    Emptied(String),
    /// The server was started again, and may have gone back to what it had saved: the host has to know before it writes over what says how
    /// far its copies had come.
    #[error("{address} was restarted: what it had not saved is gone")]
    Restarted { address: Address },
    /// More values than one answer to the host may have.
    #[error("the values of a batch come to more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    /// An answer that no Redis server gives.
    #[error("{address} answered nonsense: {reason}")]
    Protocol { address: Address, reason: String },
}

impl Failure {
    /// Whether a new connection may help at once.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Whether the connection can't be used any more: it is gone, or what comes next on it belongs to an earlier request.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Server { error, .. } => matches!(error.code(), "READONLY" | "MASTERDOWN" | "NOAUTH"),
            Self::Restarted { .. } => false,
            _ => true,
        }
    }

    /// Whether another server may answer in this one's place, if there is a new topology.
    pub(crate) fn asks_for_topology(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Timeout { .. } => true,
            Self::Server { error, .. } => matches!(error.code(), "READONLY" | "CLUSTERDOWN" | "MASTERDOWN"),
            _ => false,
        }
    }

    /// What `open` answers: an error that is final for what only the operator can mend. `None` if the server may only not be
    /// there yet, so that later calls find it.
    pub(crate) fn at_open(self) -> Option<Error> {
        let text = self.to_string();
        match self {
            Self::Settings(_) | Self::NotGranted { .. } => Some(Error::InvalidArgument(text)),
            Self::Unsupported(_) => Some(Error::Unsupported(text)),
            Self::Server { error, .. } if is_refusal(&error) => Some(Error::InvalidArgument(text)),
            _ => None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Timeout { .. } => Self::Timeout,
            Failure::Unreachable { .. }
            | Failure::Lost { .. }
            | Failure::NotGranted { .. }
            | Failure::Restarted { .. } => Self::Unavailable(text),
            Failure::Server { error, .. } => match error.code() {
                "OOM" => Self::QuotaExceeded(text),
                "WRONGTYPE" => Self::Corrupt(text),
                "LOADING" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" | "TRYAGAIN" | "MOVED" | "ASK" | "BUSY"
                | "MISCONF" | "NOREPLICAS" => Self::Unavailable(text),
                _ => Self::Other(text),
            },
            // While the plugin runs, a restart of the server with the right settings mends these.
            Failure::Settings(_) | Failure::Emptied(_) | Failure::Protocol { .. } => Self::Other(text),
            Failure::Unsupported(_) => Self::Unsupported(text),
            Failure::TooLarge { .. } => Self::TooLarge(text),
        }
    }
}

/// Whether the server knows the plugin's user and won't have it.
fn is_refusal(error: &ServerError) -> bool {
    matches!(error.code(), "NOAUTH" | "WRONGPASS" | "NOPERM")
}

/// The server's words, and what an operator can do about them.
fn shown(error: &ServerError) -> String {
    let said = match error.details() {
        Some(details) => format!("«{} {details}»", error.code()),
        None => format!("«{}»", error.code()),
    };
    let advice = match error.code() {
        "OOM" => "the server is at its maxmemory: raise that, or store less",
        "NOAUTH" => "give it a password with the setting \"password_env\" (or \"password\")",
        "WRONGPASS" => "check the settings \"username\" and \"password_env\" (or \"password\")",
        "NOPERM" => {
            "let the user of the setting \"username\" do what the documentation of this plugin lists, on the keys that begin \
             with \"key_prefix\""
        }
        "MISCONF" => "the server can't save its data and therefore takes no writes",
        "WRONGTYPE" => "a key that begins with \"key_prefix\" holds what this plugin did not write",
        "MOVED" | "ASK" => "it is part of a cluster: leave out the setting \"cluster\", or set it to true",
        _ => return said,
    };
    format!("{said}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> Failure {
        let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let redis::Value::ServerError(error) = reply else { panic!("{reply:?}") };
        Failure::Server { address: Address { host: "h".into(), port: 1 }, error }
    }

    #[test]
    fn answers_of_the_server_become_errors_of_the_contract() {
        let of = |line: &str| Error::from(answered(line));
        for line in
            ["LOADING x", "CLUSTERDOWN x", "READONLY x", "MASTERDOWN x", "TRYAGAIN x", "MISCONF x", "NOREPLICAS x"]
        {
            assert!(matches!(of(line), Error::Unavailable(_)), "{line}");
        }
        assert!(matches!(of("OOM command not allowed"), Error::QuotaExceeded(text) if text.contains("maxmemory")));
        assert!(matches!(of("WRONGTYPE x"), Error::Corrupt(_)));
        assert!(matches!(of("WRONGPASS x"), Error::Other(text) if text.contains("\"password_env\"")));
        assert!(matches!(of("ERR x"), Error::Other(text) if text == "h:1 answered «ERR x»"));
    }

    #[test]
    fn only_what_the_operator_must_mend_is_final_at_open() {
        for line in ["NOAUTH x", "WRONGPASS x", "NOPERM x"] {
            assert!(matches!(answered(line).at_open(), Some(Error::InvalidArgument(_))), "{line}");
        }
        for line in ["LOADING x", "CLUSTERDOWN x", "ERR x"] {
            assert_eq!(answered(line).at_open(), None, "{line}");
        }
        let address = Address { host: "h".into(), port: 1 };
        assert_eq!(Failure::Timeout { address: address.clone() }.at_open(), None);
        let denied = Failure::NotGranted { address, because: "is an address of the settings" };
        assert!(matches!(denied.at_open(), Some(Error::InvalidArgument(text)) if text.contains("grants.connect")));
    }
}
