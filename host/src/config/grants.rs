//! What a plugin is granted of the world outside its sandbox. Whatever isn't granted is not there for it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// `[backends.NAME.grants]`. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantsConfig {
    /// The one directory it sees, as `/data`. The host makes it if need be, and locks it against other hosts.
    pub directory: Option<PathBuf>,
    /// Whether it can only read there.
    pub read_only: bool,
    /// The TCP endpoints that it may connect to.
    pub connect: Vec<Destination>,
    /// The host's environment variables that it gets, by name.
    pub environment: Vec<String>,
    /// Whether what it prints goes to the host's log.
    pub log: bool,
}

/// A TCP endpoint: `host:port`, where the host is a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// A DNS name in lower case, or an IP address as it is usually written (IPv6 without brackets).
    pub host: String,
    /// From 1 to 65535.
    pub port: u16,
}

impl Destination {
    /// Reads `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
    ///
    /// # Errors
    /// What is wrong with the text, to be put behind the name of what it was given for.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            Err(format!(
                "must be a host and a port, such as \"redis.internal:6379\" or \"[::1]:6379\"; {what}, found {text:?}"
            ))
        };
        let Some((host, port)) = text.rsplit_once(':') else { return wrong("the port is missing") };
        let Some(port) = port.parse().ok().filter(|port| *port != 0 && port_is_plain(text)) else {
            return wrong("the port is a number from 1 to 65535");
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match (bracketed, host.parse()) {
            (Some(inner), _) => match inner.parse() {
                Ok(IpAddr::V6(address)) => address.to_string(),
                _ => return wrong("only an IPv6 address stands in brackets"),
            },
            (None, Ok(IpAddr::V6(_))) => return wrong("an IPv6 address stands in brackets"),
            (None, Ok(IpAddr::V4(address))) => address.to_string(),
            (None, Err(_)) if is_host_name(host) => host.to_ascii_lowercase(),
            (None, Err(_)) => return wrong("that is no name of a host"),
        };
        Ok(Self { host, port })
    }

    /// The address, if the host is given as one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Digits only: `str::parse` would take a plus sign as well.
fn port_is_plain(text: &str) -> bool {
    text.rsplit(':').next().is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Labels of letters, digits, hyphens and underscores (which internal names have), as in RFC 1123. A name whose last label is
/// a number would be taken for an IPv4 address by some resolvers and is refused.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last_is_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= 253 && !last_is_number && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let check = |text: &str, expect: &str| {
            let parsed = Destination::parse(text).unwrap();
            assert_eq!(parsed.to_string(), expect);
            assert_eq!(Destination::parse(&parsed.to_string()), Ok(parsed));
        };
        check("redis:6379", "redis:6379");
        check("Redis-1.Internal.example:1", "redis-1.internal.example:1");
        check("127.0.0.1:65535", "127.0.0.1:65535");
        check("[::1]:6379", "[::1]:6379");
        check("[2001:DB8:0::1]:6379", "[2001:db8::1]:6379");
    }

    #[test]
    fn what_is_no_destination() {
        for wrong in [
            "",
            "redis",
            ":6379",
            "redis:",
            "redis:0",
            "redis:+1",
            "redis:65536",
            "redis:6379/0",
            "redis://redis:6379",
            "::1:6379",
            "[127.0.0.1]:1",
            "[::1:1",
            "1.2.3:1",
            "0x7f000001.0:1",
            "a b:1",
            "*:1",
            "-a:1",
            "a..b:1",
            "user@redis:1",
        ] {
            let error = Destination::parse(wrong).unwrap_err();
            assert!(error.starts_with("must be a host and a port"), "{wrong}: {error}");
        }
    }
}
