//! A backend that keeps its entries in a Redis server or a Redis Cluster (or a Valkey one), of version 7 or newer.
//!
//! # Settings
//!
//! | Setting | Default | |
//! |---|---|---|
//! | `address` | – | `host:port` of the server; for a cluster one or more of its nodes, separated by commas |
//! | `cluster` | `auto` | `true`, `false`, or `auto`: ask the server |
//! | `username` | – | a user of the server's access list, beside a password |
//! | `password_env` | – | the environment variable with the password |
//! | `password` | – | the password itself, in the configuration |
//! | `database` | `0` | the number of the database; a cluster has only this one |
//! | `key_prefix` | `memcell:` | what the names of all keys begin with |
//! | `connect_timeout` | `500ms` | for connecting and logging in |
//! | `timeout` | `1500ms` | for one call, whatever it takes; has to stay below the host's `limits.call_timeout` |
//! | `persistent` | `true` | whether the server keeps its data when it is restarted |
//! | `tls` | `false` | whether connections are encrypted |
//! | `tls_ca` | – | the authorities to trust, certificates in PEM; left out: those that browsers trust |
//! | `tls_server_name` | the host of the address | the name that the server's certificate must have |
//! | `tls_cert` | – | a certificate to show to the server, and those that vouch for it, in PEM |
//! | `tls_key_env` | – | the environment variable with its private key, in PEM |
//! | `tls_key` | – | the private key itself, in the configuration |
//!
//! The host grants what these name: in `grants.connect` the address of **every** node that may be in charge of keys, replicas
//! included, as the cluster itself names them (`CLUSTER SLOTS`); in `grants.environment` the variables.
//!
//! The user needs, on keys that begin with `key_prefix`: `+hello +info +script|load +evalsha +hmget +hset +hdel +del +hstrlen
//! +persist +pexpireat +scan +dbsize +ping +select`, and in a cluster `+cluster|slots +asking`.
//!
//! # What is stored
//!
//! A hash for each key, named `key_prefix` + key, which `redis-cli` can read:
//!
//! ```text
//! 127.0.0.1:6379> HGETALL memcell:685c8c52a1b2c3d4e5f60718
//! stamp    01882615244592775168     the version, in 20 decimal digits
//! expires  1798761600000            when it ceases to exist, in Unix milliseconds; left out: never
//! value    …                        the value; HGET memcell:685c8c52a1b2c3d4e5f60718 value
//! fence    00000000000000000003     where hosts share the server: whose turn it was to write what is not newer
//! ```
//!
//! A tombstone has a field `deleted` (`1`) in place of `value`. The server itself expires entries and tombstones (`PEXPIREAT`),
//! by its own clock. `write.lua` compares stamps and writes in one step, so that any number of shards and hosts may share a
//! server, and none of them ever puts an older entry over a newer one.
//!
//! # What the server has to be like
//!
//! - **It must not evict**: `maxmemory-policy noeviction`. With it, a full server refuses entries (`quota-exceeded`) and goes on
//!   taking deletes. With any other policy it drops entries that nobody told it to.
//! - **It should save every write**: `appendonly yes`. What `flush` acknowledges then survives a crash of the host at once, and
//!   one of the server after a second at the most (`appendfsync everysec`) or at once (`always`). With `persistent = "false"`,
//!   the host copies everything again after each restart of the server. A server that comes back empty is noticed either way. One that
//!   comes back with what it had saved a while ago is too, and the host goes on from there; in a cluster, only if the checkpoint
//!   (`key_prefix` + `memcell:checkpoint`) lies on the same server, and verifying finds what others lack.
//! - **A failover can lose writes**, since Redis replicates without waiting. The host's comparing and verifying finds what is
//!   missing.
//!
//! # How it answers
//!
//! The connection is made when it is needed, so a server that isn't there yet, or not there any more, is `unavailable` until it
//! is; tries are made at intervals that double up to two seconds. Batches are pipelined: one round trip for each server that has
//! some of the keys, all servers at once. Nodes that moved, failed over or were added are found as the cluster tells.
//! Counting (`stats`) is exact for up to 10,000 keys on a server, and an estimate from as many above that.

mod address;
mod command;
mod connection;
mod deadline;
mod failure;
mod layout;
mod node;
mod reply;
mod router;
mod scan;
mod script;
mod settings;
mod slot;
mod socket;
mod tls;
mod topology;

use memcell_plugin::{
    Backend, Condition, Error, Header, Limits, Moment, Outcome, Record, Result, Rule, Settings, Stats, Step, Write,
};
use redis::cmd;

use crate::command::Command;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::router::Router;
use crate::script::ScriptCall;
use crate::settings::Config;

/// See the module documentation.
pub struct Remote {
    router: Router,
    /// See [`Backend::hold`].
    token: Option<u64>,
}

impl Backend for Remote {
    fn open(_shard: u32, settings: &mut Settings) -> Result<Self> {
        let mut remote = Self { router: Router::new(Config::read(settings)?), token: None };
        let deadline = remote.deadline();
        match remote.router.topology(deadline).err().and_then(Failure::at_open) {
            Some(error) => Err(error),
            None => Ok(remote),
        }
    }

    fn limits(&self) -> Limits {
        // Persistent in any case: whatever the server does, an instance that is opened again doesn't start empty.
        Limits { max_batch: 4096, persistent: true, shared: true, ..Limits::default() }
    }

    fn read(&mut self, key: &str) -> Result<Option<Record>> {
        let answers = self.execute(&[Command::Record(key)])?;
        Ok(answers.into_iter().next().and_then(layout::record))
    }

    fn write(&mut self, key: String, record: Record) -> Result<()> {
        let rule = Rule::new(Condition::Always, Moment::new(memcell_plugin::unix_millis));
        self.apply(vec![Write { key, record }], &rule).map(drop)
    }

    /// The server expires records by itself.
    fn forget(&mut self, _key: &str, _seen: &Header) -> Result<()> {
        Ok(())
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
        let deadline = self.deadline();
        scan::scan(&mut self.router, cursor, limit, deadline)
    }

    fn read_many(&mut self, keys: &[String]) -> Result<Vec<Option<Record>>> {
        let commands: Vec<Command<'_>> = keys.iter().map(|key| Command::Record(key)).collect();
        let answers = self.execute(&commands)?;
        Ok(answers.into_iter().map(layout::record).collect())
    }

    fn apply(&mut self, writes: Vec<Write>, rule: &Rule) -> Result<Vec<Outcome>> {
        let token = self.token;
        let deadline = self.deadline();
        let is_cluster = self.conclude(|router| router.topology(deadline).map(|topology| topology.is_cluster()))?;
        // In a cluster, the keys of one call have to have one slot, which those of different documents never do.
        let calls: Vec<ScriptCall<'_>> = match is_cluster {
            true => writes.chunks(1).map(|writes| ScriptCall { writes, rule, token }).collect(),
            false => script::calls(&writes, rule, token),
        };
        let commands: Vec<Command<'_>> = calls.iter().copied().map(Command::Script).collect();
        let answers = self.conclude(|router| router.execute(&commands, deadline))?;
        let mut outcomes = Vec::with_capacity(writes.len());
        for (call, answer) in calls.iter().zip(answers) {
            outcomes.extend(layout::outcomes(call.writes.len(), &answer)?);
        }
        Ok(outcomes)
    }

    /// Says whether a server was restarted since the last time. Until then nothing is written over, such as what tells the host how far its
    /// copies had come: the server's own word on that counts, for it has gone back along with the copies.
    fn flush(&mut self) -> Result<()> {
        match self.router.take_restarted() {
            Some(address) => Err(Failure::Restarted { address }.into()),
            None => Ok(()),
        }
    }

    fn hold(&mut self, token: u64) -> Result<()> {
        self.token = Some(token);
        Ok(())
    }

    fn stats(&mut self, moment: &Moment) -> Result<Stats> {
        let deadline = self.deadline();
        scan::stats(&mut self.router, moment, deadline)
    }

    /// Whether every server answers that has keys, and every key has a server.
    fn health(&mut self) -> Result<()> {
        let deadline = self.deadline();
        let (masters, _) = self.conclude(|router| router.masters(deadline))?;
        for address in &masters {
            self.conclude(|router| router.ask(address, &[cmd("PING")], deadline))?;
        }
        match self.conclude(|router| router.topology(deadline).map(|topology| topology.is_complete()))? {
            true => Ok(()),
            false => Err(Error::unavailable("no node of the cluster is in charge of some of its slots")),
        }
    }
}

impl Remote {
    fn deadline(&self) -> Deadline {
        Deadline::after(self.router.config.timeout)
    }

    fn execute(&mut self, commands: &[Command<'_>]) -> Result<Vec<redis::Value>> {
        let deadline = self.deadline();
        self.conclude(|router| router.execute(commands, deadline))
    }

    fn conclude<T>(&mut self, call: impl FnOnce(&mut Router) -> Result<T, Failure>) -> Result<T> {
        call(&mut self.router).map_err(conclude)
    }
}

/// The error that the host is told; for one that the host must fill the store again after, the end of this instance, since that
/// is what makes it do so.
fn conclude(failure: Failure) -> Error {
    #[cfg(target_family = "wasm")]
    if let Failure::Emptied(reason) = &failure {
        eprintln!("{reason}");
        std::process::abort();
    }
    failure.into()
}

memcell_plugin::export!(Remote);
