//! Where a server is: a host and a port.

use std::fmt;
use std::rc::Rc;

use memcell_plugin::{Error, Result};

/// A host (a name or an IP address) and a port, as `grants.connect` lists them. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    pub(crate) host: Rc<str>,
    pub(crate) port: u16,
}

impl Address {
    /// `host:port` or `[IPv6 address]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let is_plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@[]".contains(c));
        is_plain.then(|| Self { host: host.into(), port })
    }

    /// Addresses separated by commas, each once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], which names the setting and the part that is no address.
    pub(crate) fn parse_list(name: &str, text: &str) -> Result<Vec<Self>> {
        let mut addresses = Vec::new();
        for part in text.split(',') {
            let address = Self::parse(part).ok_or_else(|| {
                let shown: String = part.trim().chars().take(64).collect();
                Error::invalid_argument(format!(
                    "the setting {name:?} has {shown:?}, which is not of the form host:port"
                ))
            })?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        for good in ["127.0.0.1:6379", "redis-0.internal:7000", "[::1]:6379"] {
            assert_eq!(Address::parse(good).map(|address| address.to_string()).as_deref(), Some(good));
        }
        for bad in
            ["", "host", "host:", ":1", "host:0", "host:65536", "::1:6379", "redis://h:1", "u@h:1", "a b:1", "[::1:1"]
        {
            assert_eq!(Address::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lists_name_the_part_that_is_wrong() {
        let list = Address::parse_list("address", "a:1, b:2,a:1").unwrap();
        assert_eq!(list.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
        let error = Address::parse_list("address", "a:1,b").unwrap_err().to_string();
        assert!(error.contains("\"address\"") && error.contains("\"b\""), "{error}");
    }
}
