//! Redis servers for one test: single ones and clusters, on free ports of the loopback interface, in temporary directories.
//!
//! They end when they are dropped, also by a failing test, and with the thread that started them, also if that is killed.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use redis::{Connection, FromRedisValue, IntoConnectionInfo as _, RedisConnectionInfo};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use crate::child::{free_port, spawn_tied};
use crate::host::PATIENCE;

/// How long a node of a test cluster may be silent before the others take it for dead. Shorter, and a busy machine alone would
/// cause failovers.
const NODE_TIMEOUT_MILLIS: u32 = 3000;

const POLL: Duration = Duration::from_millis(20);

/// A single server.
pub struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    directory: TempDir,
}

impl RedisServer {
    /// A server with its data in memory, and these arguments on top (`--maxmemory 2mb`).
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Self { port: free_port()?, arguments, child: None, directory: TempDir::new()? };
        server.run()?;
        Ok(server)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Starts it again after [`RedisServer::kill`], on the same port and with the same arguments.
    pub fn run(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--dir", &self.directory.path().display().to_string()]).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(spawn_tied(command)?);
        self.wait_until_ready()
    }

    /// Between [`RedisServer::kill`] and [`RedisServer::run`]: lets it run for a while where nobody looks for it, on the same data.
    pub fn elsewhere<T>(&mut self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let port = std::mem::replace(&mut self.port, free_port()?);
        let done = self.run().and_then(|()| work(self));
        let ended = self.kill();
        self.port = port;
        let done = done?;
        ended.map(|()| done)
    }

    /// SIGKILL, as by a crash.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server doesn't run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Lets it hang: it keeps its connections, takes new ones, and answers nothing.
    pub fn freeze(&self) -> Result<()> {
        kill_process(self.pid()?, Signal::STOP)?;
        // On a busy machine, it answers for a while after it was told to stop.
        waitid(WaitId::Pid(self.pid()?), WaitIdOptions::STOPPED)?;
        Ok(())
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// A connection of the test's own, with the password that [`RedisServer::start`] was given, if any.
    pub fn connect(&self) -> Result<Connection> {
        let password = self.arguments.iter().position(|argument| argument == "--requirepass");
        let password = password.and_then(|at| self.arguments.get(at + 1)).map_or("", String::as_str);
        let mut settings = RedisConnectionInfo::default();
        if !password.is_empty() {
            settings = settings.set_password(password);
        }
        let address = (Ipv4Addr::LOCALHOST.to_string(), self.port).into_connection_info()?;
        let client = redis::Client::open(address.set_redis_settings(settings))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// What the server answers to a command, its words separated by spaces.
    pub fn command<T: FromRedisValue>(&self, words: &str) -> Result<T> {
        command(&mut self.connect()?, words)
    }

    /// What `redis-cli` prints for these arguments, as an operator would see it.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut cli = Command::new("redis-cli");
        output(cli.args(["-p", &self.port.to_string()]).args(arguments))
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_child(self.child.as_ref().context("the server doesn't run")?))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // One that is loading its data answers with an error until it has.
            let answered = self.connect().and_then(|mut connection| command::<String>(&mut connection, "PING"));
            let Err(error) = answered else { return Ok(()) };
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("redis-server did not start ({ended:?}): {error}; its log:\n{log}");
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // If it can't be killed, it is gone already.
        let _ = self.kill();
    }
}

/// A cluster: three masters with a third of the slots each, and a replica of each of them.
pub struct RedisCluster {
    /// The masters, then the replicas.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// A cluster that takes reads and writes, with these arguments on top for each node.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let bus = free_port()?.to_string();
            let timeout = NODE_TIMEOUT_MILLIS.to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", &timeout];
            nodes.push(RedisServer::start(&[&cluster, arguments].concat())?);
        }
        let cluster = Self { nodes };
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(cluster.nodes.iter().map(RedisServer::address));
        output(create.args(["--cluster-replicas", "1", "--cluster-yes"]))?;
        cluster.wait_until("every node knows all slots and their replicas", |cluster| {
            for node in &cluster.nodes {
                let info: String = node.command("CLUSTER INFO")?;
                let replication: String = node.command("INFO replication")?;
                let is_linked = replication.contains("role:master") || replication.contains("master_link_status:up");
                if !info.contains("cluster_state:ok") || !info.contains("cluster_size:3") || !is_linked {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        Ok(cluster)
    }

    /// The addresses of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::address).collect()
    }

    /// The number of the node that is in charge of a key, as `by` sees it.
    pub fn owner(&self, by: usize, key: &str) -> Result<usize> {
        let node = self.nodes.get(by).context("no such node")?;
        let slot: i64 = node.command(&format!("CLUSTER KEYSLOT {key}"))?;
        let ranges: Vec<(i64, i64, redis::Value)> = {
            let slots: Vec<redis::Value> = node.command("CLUSTER SLOTS")?;
            let read = |range: redis::Value| -> Result<_> {
                let redis::Value::Array(range) = range else { bail!("no range: {range:?}") };
                let [redis::Value::Int(first), redis::Value::Int(last), master, ..] = range.as_slice() else {
                    bail!("no range: {range:?}")
                };
                Ok((*first, *last, master.clone()))
            };
            slots.into_iter().map(read).collect::<Result<_>>()?
        };
        let range = ranges.into_iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        let (_, _, master) = range.with_context(|| format!("nobody is in charge of slot {slot}"))?;
        let redis::Value::Array(master) = master else { bail!("no master: {master:?}") };
        let Some(redis::Value::Int(port)) = master.get(1) else { bail!("no port: {master:?}") };
        let found = self.nodes.iter().position(|node| i64::from(node.port) == *port);
        found.with_context(|| format!("no node has the port {port}"))
    }

    /// Waits until `condition` holds, and fails after [`PATIENCE`] with `what`.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self)? {
            ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// What a server answers to a command, its words separated by spaces.
pub fn command<T: FromRedisValue>(connection: &mut Connection, words: &str) -> Result<T> {
    let mut parts = words.split(' ');
    let mut command = redis::cmd(parts.next().unwrap_or_default());
    for part in parts.by_ref() {
        command.arg(part);
    }
    command.query(connection).with_context(|| words.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("can't run {command:?}: run `cargo xtask setup`"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
