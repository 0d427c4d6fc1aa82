//! A private MongoDB server for a first look and for tests: a child process on the loopback interface.
//!
//! It keeps its data between starts, is the only member of a replica set (so that transactions and change streams
//! work), and doesn't outlive this process, however that ends: it is told to finish by the kernel then, and should it
//! hang, the next start on its data kills it. Nothing here is meant for production data: that belongs on a deployment
//! with several members.

mod directory;
mod process;
mod program;
mod replica_set;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use directory::{DataDirectory, is_free};
use process::ServerProcess;
use program::Program;

/// How long a start may take in all. Normally a second or two; recovering a large journal on a busy machine takes
/// longer.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How often a server that isn't ready yet is asked again.
const POLL: Duration = Duration::from_millis(50);

/// How often another port is tried when somebody takes the chosen one before the server does.
const PORT_ATTEMPTS: usize = 5;

/// A running server. [`EmbeddedServer::stop`] is the way to end it; dropping it does the same, but blocks the thread
/// meanwhile and kills it after three seconds.
///
/// The server also ends with the process (on Linux: even one that is killed), and isn't reached by a Ctrl-C in the
/// terminal, so that it is there until the host has drained.
#[derive(Debug)]
pub struct EmbeddedServer {
    process: ServerProcess,
    address: SocketAddr,
    /// Last, so that the data directory is given back when the server is gone.
    _host_lock: File,
}

impl EmbeddedServer {
    /// Starts a server on `data_directory`, which is created if need be, and waits until it takes writes.
    ///
    /// The program is the one that `MEMCELL_MONGOD` names, else `mongod` or `secantusd-rs` on the `PATH`, else the
    /// development server that `cargo xtask setup` installs. It listens on a free port of the loopback interface: the
    /// same one as last time, if nobody has taken it.
    ///
    /// Cancel safe: a server that was being started is ended as by dropping it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no such program, or if the directory can't be used or is in use by another
    /// host already; [`ErrorKind::Unavailable`] if the server doesn't come up, with the last lines of its log.
    pub async fn start(data_directory: &Path) -> Result<Self> {
        let program = Program::find()?;
        let directory = DataDirectory::open(data_directory).await?;
        let data = directory.data_of(&program)?;
        let deadline = Instant::now() + START_DEADLINE;
        for _ in 0..PORT_ATTEMPTS {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, directory.choose_port()?));
            directory.rotate_log()?;
            let command = program.command(address, &data, &directory)?;
            let process = ServerProcess::spawn(command, directory.server_lock()?)?;
            directory.note_server(process.pid())?;
            match replica_set::wait_until_primary(&program, address, &process, deadline).await {
                Ok(()) => {
                    directory.remember_port(address.port())?;
                    let path = program.path().display();
                    tracing::info!(pid = process.pid(), %address, program = %path, "started embedded MongoDB");
                    return Ok(Self { process, address, _host_lock: directory.into_host_lock() });
                }
                Err(error) if process.exit_status().await.is_none() || is_free(address.port()) => {
                    return Err(failed_to_start(error, &program, &directory));
                }
                // Between choosing a port and listening on it, somebody else has taken it.
                Err(_) => directory.forget_port()?,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("no free port for MongoDB after {PORT_ATTEMPTS} attempts")))
    }

    /// The connection string of this server.
    pub fn uri(&self) -> String {
        // Direct: with one member there is nothing to discover.
        format!("mongodb://{}/?directConnection=true", self.address)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks the server to finish, and kills it if it doesn't do so within twenty seconds. Returns when it is gone.
    ///
    /// If the future is dropped before that, the server is ended as by dropping it.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}

fn failed_to_start(error: Error, program: &Program, directory: &DataDirectory) -> Error {
    let log = directory.log_path();
    let mut message =
        format!("the MongoDB server {} did not start: {error}; its log is {}", program.path().display(), log.display());
    let tail = directory.last_log_lines();
    if !tail.is_empty() {
        message.push_str(", which ends with:");
        for line in tail {
            message.push_str("\n  ");
            message.push_str(&line);
        }
    }
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}
