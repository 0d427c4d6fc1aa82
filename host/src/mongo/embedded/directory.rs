//! The folder of an embedded server: its locks, its port, its log, and its data.
//!
//! ```text
//! lock               held by the host
//! server.lock        held by the server until it is gone, be its host there or not; says its process id
//! port               the port of the last start
//! server.log         what the server printed since its last start
//! server.log.1       the same of the start before
//! mongod/ or secantusd-rs/   the data, in the format of that program
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::POLL;
use super::process::{STOP_GRACE, kill_left_over};
use super::program::{Kind, Program};
use crate::error::{Error, ErrorKind, Result};

/// How long a server that was killed gets to be gone.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How much of a log an error quotes.
const LOG_LINES: usize = 10;
const LOG_BYTES: u64 = 4096;

/// A data directory that nobody else uses.
#[derive(Debug)]
pub(super) struct DataDirectory {
    root: PathBuf,
    /// Open for as long as the server runs.
    host_lock: File,
    server_lock: File,
}

impl DataDirectory {
    /// Creates the folder if need be and takes its locks. A server that a killed host has left behind is on its way
    /// out: it gets the time that a stopped one gets, and is killed then.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| failed("create", path, error))?;
        let root = path.canonicalize().map_err(|error| failed("open", path, error))?;
        let in_use = || {
            let message = format!(
                "the data directory {} is in use by another MongoDB server; stop that host, or choose another \
                 mongodb.data_directory",
                root.display()
            );
            Error::new(ErrorKind::Conflict, message)
        };
        let (host_lock, host_lock_path) = open_lock(&root, "lock")?;
        if !try_lock(&host_lock, &host_lock_path)? {
            return Err(in_use());
        }
        let (server_lock, path) = open_lock(&root, "server.lock")?;
        if !locked_within(&server_lock, &path, STOP_GRACE).await? {
            // Only the server has this open, so the id in it can't have passed to another process.
            if let Some(pid) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
                kill_left_over(pid);
            }
            if !locked_within(&server_lock, &path, KILL_WAIT).await? {
                return Err(in_use());
            }
        }
        // From here to `note_server` it must not name a process of the past.
        server_lock.set_len(0).map_err(|error| failed("write", &path, error))?;
        Ok(Self { root, host_lock, server_lock })
    }

    /// The lock for the server to share: it is held until all who have it open are gone.
    pub(super) fn server_lock(&self) -> Result<File> {
        self.server_lock.try_clone().map_err(|error| failed("lock", &self.root, error))
    }

    /// Notes which process holds the lock of the server.
    pub(super) fn note_server(&self, pid: u32) -> Result<()> {
        self.write("server.lock", &format!("{pid}\n")).map(drop)
    }

    /// Hands over the lock of the host.
    pub(super) fn into_host_lock(self) -> File {
        self.host_lock
    }

    /// The folder with the data of `program`, created if there is none yet. Data of another program is an error:
    /// starting with an empty store instead would look like a loss.
    pub(super) fn data_of(&self, program: &Program) -> Result<PathBuf> {
        let own = self.root.join(program.kind().name());
        let other = Kind::ALL.into_iter().find(|kind| *kind != program.kind() && self.root.join(kind.name()).exists());
        if let Some(other) = other.filter(|_| !own.exists()) {
            let message = format!(
                "the data directory {} was written by {}, but the MongoDB server found is {}; name the former in \
                 MEMCELL_MONGOD, or choose another mongodb.data_directory",
                self.root.display(),
                other.name(),
                program.path().display()
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        fs::create_dir_all(&own).map_err(|error| failed("create", &own, error))?;
        Ok(own)
    }

    /// The port of the last start if it is free, else any free one.
    pub(super) fn choose_port(&self) -> Result<u16> {
        let last = fs::read_to_string(self.root.join("port")).ok().and_then(|text| text.trim().parse().ok());
        if let Some(port) = last.filter(|&port| port != 0 && is_free(port)) {
            return Ok(port);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = listener.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("found no free port for MongoDB: {error}")).with_source(error)
        })?;
        Ok(address.port())
    }

    pub(super) fn remember_port(&self, port: u16) -> Result<()> {
        self.write("port", &format!("{port}\n")).map(drop)
    }

    pub(super) fn forget_port(&self) -> Result<()> {
        self.write("port", "").map(drop)
    }

    /// Replaces a small file of this folder, and returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::write(&path, text).map_err(|error| failed("write", &path, error))?;
        Ok(path)
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// Puts the log of the last start aside, so that logs don't grow over many starts.
    pub(super) fn rotate_log(&self) -> Result<()> {
        match fs::rename(self.log_path(), self.root.join("server.log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("move", &self.log_path(), error)),
            _ => Ok(()),
        }
    }

    pub(super) fn open_log(&self) -> Result<File> {
        let path = self.log_path();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(|error| failed("write", &path, error))
    }

    /// The end of the log, for an error message. Empty if there is nothing, or nothing readable.
    pub(super) fn last_log_lines(&self) -> Vec<String> {
        let tail = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
            let mut tail = Vec::new();
            file.take(LOG_BYTES).read_to_end(&mut tail)?;
            Ok(tail)
        };
        let tail = tail().unwrap_or_default();
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| (*line).to_owned()).collect()
    }
}

/// Whether a server could listen on this port of the loopback interface.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn open_lock(root: &Path, name: &str) -> Result<(File, PathBuf)> {
    let path = root.join(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    Ok((file.map_err(|error| failed("open", &path, error))?, path))
}

async fn locked_within(file: &File, path: &Path, wait: Duration) -> Result<bool> {
    let until = Instant::now() + wait;
    while !try_lock(file, path)? {
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(true)
}

fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(failed("lock", path, error)),
    }
}

/// An error of the file system.
pub(super) fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Config, format!("can't {action} {}: {error}", path.display())).with_source(error)
}
