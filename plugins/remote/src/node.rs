//! One server: its connection while there is one, when to try again while there is none, and what is known of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::{ServerError, Value, cmd};

use crate::address::Address;
use crate::connection::Connection;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::script;
use crate::settings::Config;

/// The pause after a failed connection, and what it doubles up to.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The oldest server that has what the scripts need.
const MIN_VERSION: u32 = 7;

/// Which server has been restarted and came back with data, the first of them, until somebody takes that. All nodes share it.
pub(crate) type Restarted = Rc<RefCell<Option<Address>>>;

/// A server that is asked for something now and then.
pub(crate) struct Node {
    address: Address,
    because: &'static str,
    link: Option<Link>,
    /// The life of the server that was spoken to last: a restart begins another one.
    run_id: Option<String>,
    restarted: Restarted,
    failures: u32,
    retry_at: Option<(Instant, Failure)>,
}

/// A connection that is ready for commands.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) scripts: script::Digests,
    pub(crate) is_cluster: bool,
}

impl Node {
    /// `because` says where the address comes from.
    pub(crate) fn new(address: Address, because: &'static str, restarted: Restarted) -> Self {
        Self { address, because, link: None, run_id: None, restarted, failures: 0, retry_at: None }
    }

    /// The connection, made if there is none.
    ///
    /// # Errors
    /// The one that there is none for; without a try, if the last one is too recent.
    pub(crate) fn link(&mut self, config: &Config, deadline: Deadline) -> Result<&mut Link, Failure> {
        if self.link.is_none() {
            if let Some((retry_at, failure)) = &self.retry_at
                && Instant::now() < *retry_at
            {
                return Err(failure.clone());
            }
            match self.connect(config, deadline) {
                Ok(link) => {
                    self.failures = 0;
                    self.retry_at = None;
                    self.link = Some(link);
                }
                Err(failure) => {
                    let pause = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
                    self.failures = self.failures.saturating_add(1);
                    self.retry_at = Instant::now().checked_add(pause).map(|retry_at| (retry_at, failure.clone()));
                    return Err(failure);
                }
            }
        }
        let address = &self.address;
        let lost = || Failure::Lost { address: address.clone(), reason: "there is no connection".into() };
        let link = self.link.as_mut().ok_or_else(lost)?;
        link.connection.set_deadline(deadline);
        Ok(link)
    }

    /// Whether a connection is open that an earlier call has used: the server may have closed it since.
    pub(crate) fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// The connection of a call under way.
    pub(crate) fn linked(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// Which life of the server the last connection was to, if it told.
    pub(crate) fn run_id(&self) -> Option<&str> {
        self.run_id.as_deref()
    }

    /// Gives the connection up.
    pub(crate) fn unlink(&mut self) {
        self.link = None;
    }

    /// Gives the connection up if it is of no use after `failure`.
    pub(crate) fn note(&mut self, failure: &Failure) {
        if failure.ends_connection() {
            self.unlink();
        }
    }

    fn connect(&mut self, config: &Config, deadline: Deadline) -> Result<Link, Failure> {
        let deadline = deadline.at_most(config.connect_timeout);
        let mut connection = Connection::open(&self.address, self.because, config.tls.as_ref(), deadline)?;
        let refused = |error| Failure::Server { address: self.address.clone(), error };

        // All at once: connecting takes one round trip more than that of TCP.
        let mut hello = cmd("HELLO");
        hello.arg(2);
        if let Some(password) = &config.password {
            hello.arg("AUTH").arg(config.username.as_deref().unwrap_or("default")).arg(password);
        }
        hello.arg("SETNAME").arg("memcell");
        connection.push_command(&hello);
        if config.database != 0 {
            connection.push_command(cmd("SELECT").arg(config.database));
        }
        connection.push_command(cmd("INFO").arg("server"));
        for source in [script::PUT, script::DELETE] {
            connection.push_command(cmd("SCRIPT").arg("LOAD").arg(source));
        }
        connection.flush()?;

        let greeting = connection.receive().map_err(|failure| match failure {
            Failure::Lost { address, reason } if config.tls.is_none() => {
                // What a server does that takes the greeting for the beginning of TLS.
                let reason = format!("it hung up at the greeting ({reason}); if it expects TLS, set \"tls\" to true");
                Failure::Unreachable { address, reason }
            }
            failure => failure,
        })?;
        let server = match greeting {
            Value::ServerError(error) => return Err(self.refused_hello(error)),
            reply => Hello::read(&reply),
        };
        if server.version.is_some_and(|version| version < MIN_VERSION) {
            let version = server.version.unwrap_or_default();
            let text = format!("{} runs version {version}; {MIN_VERSION} or newer is needed", self.address);
            return Err(Failure::Unsupported(text));
        }
        if config.database != 0
            && let Value::ServerError(error) = connection.receive()?
        {
            let (database, said) = (config.database, error.details().unwrap_or_default());
            let text = format!("{} has no database {database}: {said}; check the setting \"database\"", self.address);
            return Err(Failure::Settings(text));
        }
        // Some operators don't let their users ask; then a restart of the server goes unnoticed.
        let run_id = match connection.receive()? {
            Value::BulkString(text) => run_id(&String::from_utf8_lossy(&text)),
            _ => None,
        };
        let mut digest = || match connection.receive()? {
            Value::BulkString(digest) => Ok(digest),
            Value::ServerError(error) => Err(refused(error)),
            other => {
                Err(Failure::Protocol { address: self.address.clone(), reason: format!("{other:?} for a digest") })
            }
        };
        let scripts = script::Digests { put: digest()?, delete: digest()? };
        self.check_life(config, &mut connection, run_id, server.is_replica)?;
        Ok(Link { connection, scripts, is_cluster: server.is_cluster })
    }

    fn refused_hello(&self, error: ServerError) -> Failure {
        let said = error.details().unwrap_or_default();
        match error.code() {
            "ERR" if said.contains("unknown command") => Failure::Unsupported(format!(
                "{} doesn't know the command HELLO: it is older than version {MIN_VERSION}, which is needed, or HELLO was renamed there",
                self.address
            )),
            _ => Failure::Server { address: self.address.clone(), error },
        }
    }

    /// Notices a server that has been started again. Without its data, everything this plugin wrote there is gone, and nobody but the host
    /// can copy it anew; with data, it may be those of a while ago.
    fn check_life(
        &mut self,
        config: &Config,
        connection: &mut Connection,
        run_id: Option<String>,
        is_replica: bool,
    ) -> Result<(), Failure> {
        let Some(run_id) = run_id else { return Ok(()) };
        let restarted = self.run_id.as_ref().is_some_and(|before| *before != run_id);
        if restarted && !is_replica {
            let address = &self.address;
            if !config.persistent {
                return Err(Failure::Emptied(format!(
                    "{address} was restarted, and the setting \"persistent\" is false"
                )));
            }
            if matches!(connection.call(&cmd("DBSIZE"))?, Value::Int(0)) {
                return Err(Failure::Emptied(format!("{address} was restarted, and has lost its data")));
            }
            self.restarted.borrow_mut().get_or_insert_with(|| address.clone());
        }
        self.run_id = Some(run_id);
        Ok(())
    }
}

/// What a server says of itself in its greeting.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hello {
    version: Option<u32>,
    is_cluster: bool,
    is_replica: bool,
}

impl Hello {
    fn read(reply: &Value) -> Self {
        let mut hello = Self::default();
        let Value::Array(items) = reply else { return hello };
        for pair in items.chunks_exact(2) {
            let [Value::BulkString(name), Value::BulkString(value)] = pair else { continue };
            let value = String::from_utf8_lossy(value);
            match name.as_slice() {
                b"version" => hello.version = value.split('.').next().and_then(|major| major.parse().ok()),
                b"mode" => hello.is_cluster = value == "cluster",
                b"role" => hello.is_replica = value != "master",
                _ => {}
            }
        }
        hello
    }
}

fn run_id(info: &str) -> Option<String> {
    info.lines().find_map(|line| line.trim().strip_prefix("run_id:")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_read() {
        let reply =
            "*6\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$7\r\nreplica\r\n";
        let hello = Hello::read(&redis::parse_redis_value(reply.as_bytes()).unwrap());
        assert_eq!(hello, Hello { version: Some(7), is_cluster: true, is_replica: true });
        assert_eq!(Hello::read(&Value::Nil), Hello::default());
        assert_eq!(run_id("# Server\r\nredis_version:7\r\nrun_id:abc\r\n").as_deref(), Some("abc"));
    }

    #[test]
    fn a_server_that_is_not_there_is_not_tried_at_once_again() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let pairs = [("address".to_owned(), format!("127.0.0.1:{port}"))];
        let config = Config::read(&mut memcell_plugin::Settings::new(pairs).unwrap()).unwrap();
        let mut node = Node::new(config.addresses[0].clone(), "is configured", Restarted::default());
        let mut fail = || node.link(&config, Deadline::after(config.timeout)).err().unwrap();
        assert!(matches!(fail(), Failure::Unreachable { .. }));
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(matches!(fail(), Failure::Unreachable { .. }));
        assert!(listener.accept().is_err(), "nobody has connected");
    }
}
