//! Which server has which keys.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use crate::address::Address;
use crate::slot::{SLOTS, slot_of};

/// Who is in charge of each hash slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topology {
    /// One server has everything.
    Single(Address),
    /// By the last slot of each range: its first one, and its master.
    Cluster(BTreeMap<u16, (u16, Address)>),
}

impl Topology {
    /// From the answer to `CLUSTER SLOTS` by the node at `answering`. `None` if it isn't understood.
    pub(crate) fn read(reply: &Value, answering: &Address) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let mut slots = BTreeMap::new();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else { return None };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            let [host, Value::Int(port), ..] = master.as_slice() else { return None };
            let host = match host {
                Value::BulkString(host) => std::str::from_utf8(host).ok()?,
                Value::Nil => "",
                _ => return None,
            };
            // A node that isn't told its own name leaves it out; one that doesn't know another's says so, and then nobody can
            // be asked for these slots.
            let host = match host {
                "" => answering.host.clone(),
                "?" => continue,
                host => host.into(),
            };
            slots.insert(last, (first, Address { host, port: u16::try_from(*port).ok()? }));
        }
        Some(Self::Cluster(slots))
    }

    /// The server with `prefix` and `key`; `None` if nobody is in charge of it.
    pub(crate) fn owner(&self, prefix: &str, key: &str) -> Option<&Address> {
        match self {
            Self::Single(address) => Some(address),
            Self::Cluster(slots) => {
                let slot = slot_of(prefix.as_bytes(), key.as_bytes());
                let (_, (first, address)) = slots.range(slot..).next()?;
                (*first <= slot).then_some(address)
            }
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// All servers that have keys, each once, in a fixed order.
    pub(crate) fn masters(&self) -> Vec<Address> {
        match self {
            Self::Single(address) => vec![address.clone()],
            Self::Cluster(slots) => {
                let masters: BTreeSet<&Address> = slots.values().map(|(_, address)| address).collect();
                masters.into_iter().cloned().collect()
            }
        }
    }

    /// Whether somebody is in charge of every slot.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Single(_) => true,
            Self::Cluster(slots) => {
                let covered = slots.iter().map(|(last, (first, _))| u32::from(last.saturating_sub(*first)) + 1);
                covered.sum::<u32>() == u32::from(SLOTS)
            }
        }
    }
}

/// Where an error sends the client: `MOVED 3999 host:6381` for good, `ASK 3999 host:6381` for this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) to: Address,
    pub(crate) is_ask: bool,
}

impl Redirect {
    /// `None` for any other error.
    pub(crate) fn read(error: &redis::ServerError, answering: &Address) -> Option<Self> {
        let is_ask = match error.code() {
            "ASK" => true,
            "MOVED" => false,
            _ => return None,
        };
        let (_, address) = error.details()?.split_once(' ')?;
        let (host, port) = address.rsplit_once(':')?;
        let host = match host.trim_matches(['[', ']']) {
            "" => answering.host.clone(),
            host => host.into(),
        };
        Some(Self { to: Address { host, port: port.parse().ok()? }, is_ask })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn read(reply: &str) -> Option<Topology> {
        Topology::read(&redis::parse_redis_value(reply.as_bytes()).unwrap(), &address("asked:1"))
    }

    fn range(first: u16, last: u16, host: &str, port: u16) -> String {
        let master = format!("*3\r\n{host}:{port}\r\n$2\r\nid\r\n");
        let replica = "*3\r\n$7\r\nreplica\r\n:9\r\n$2\r\nid\r\n";
        format!("*4\r\n:{first}\r\n:{last}\r\n{master}{replica}")
    }

    #[test]
    fn slots_have_owners() {
        let reply = ["*2\r\n", &range(0, 8000, "$1\r\na\r\n", 1), &range(8001, 16383, "$-1\r\n", 2)].concat();
        let topology = read(&reply).unwrap();
        assert_eq!(topology.owner("", "foo{bar}"), Some(&address("a:1")), "slot 5061");
        assert_eq!(topology.owner("", "foo"), Some(&address("asked:2")), "slot 12182");
        assert_eq!(topology.masters(), [address("a:1"), address("asked:2")]);
        assert!(topology.is_complete());
    }

    #[test]
    fn slots_without_an_owner_are_noticed() {
        let reply = ["*2\r\n", &range(0, 5000, "$1\r\na\r\n", 1), &range(5001, 16383, "$1\r\n?\r\n", 2)].concat();
        let topology = read(&reply).unwrap();
        assert_eq!(topology.owner("", "foo"), None);
        assert!(!topology.is_complete());
        assert_eq!(Topology::read(&Value::Nil, &address("asked:1")), None);
        assert_eq!(read("*1\r\n*1\r\n:1\r\n"), None);
    }

    #[test]
    fn redirects_are_read() {
        let redirect = |line: &str| match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => Redirect::read(&error, &address("asked:1")),
            other => panic!("{other:?}"),
        };
        assert_eq!(redirect("MOVED 3999 b:7"), Some(Redirect { to: address("b:7"), is_ask: false }));
        assert_eq!(redirect("ASK 3999 :7"), Some(Redirect { to: address("asked:7"), is_ask: true }));
        assert_eq!(redirect("ASK 3999 ::1:7"), Some(Redirect { to: address("[::1]:7"), is_ask: true }));
        assert_eq!(redirect("MOVED nowhere"), None);
        assert_eq!(redirect("ERR 3999 b:7"), None);
    }
}
