//! Servers as children of a test: none outlives it, and none loses its port while it is down.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::random::Random;

/// Ports to choose from: below 32768, where Linux begins to give ports to outgoing connections. Any of those can be taken while
/// the server that had it is being restarted; a client that tries to reach it can even end up connected to itself.
const FIRST_PORT: u16 = 20_000;
const PORTS: u64 = 12_000;

const ATTEMPTS: u32 = 100;

/// What keeps the ports of this process from being chosen by another test: each is a locked file, which the kernel unlocks when the
/// process ends.
static CHOSEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port that nobody listens on just now, that no outgoing connection takes, and that no test chooses again while this process lives.
pub fn free_port() -> Result<u16> {
    let locks = std::env::temp_dir().join("memcell-test-ports");
    std::fs::create_dir_all(&locks)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    // Tests that start at the same moment in several processes should not choose the same ones.
    let mut random = Random::new(u64::try_from(now & u128::from(u64::MAX))? ^ u64::from(std::process::id()) << 32);
    for _ in 0..ATTEMPTS {
        let port = FIRST_PORT + u16::try_from(random.below(PORTS))?;
        let lock = File::options().create(true).append(true).open(locks.join(port.to_string()))?;
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return Ok(port);
        }
    }
    bail!("found no free port")
}

/// Has the kernel kill the child when the thread that starts it ends, however that comes about.
pub fn tie(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
    };
    #[expect(unsafe_code, reason = "there is no other way to act between fork and exec")]
    // SAFETY: after a fork only async-signal-safe calls are allowed. The closure makes two system calls, and neither allocates,
    // nor takes a lock, nor panics: its errors are plain error numbers.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Starts a child that is killed when this thread ends.
pub fn spawn_tied(mut command: Command) -> Result<Child> {
    tie(&mut command);
    let program = Path::new(command.get_program()).display().to_string();
    command.spawn().with_context(|| format!("can't start {program}: run `cargo xtask setup`"))
}

/// A process that is killed when it is dropped, or when the thread that started it ends.
pub struct Killed(pub Child);

impl Killed {
    /// Starts it.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(command: Command) -> Result<Self> {
        Ok(Self(spawn_tied(command)?))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_those_of_outgoing_connections() {
        let mut ports: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        assert!(ports.iter().all(|port| (FIRST_PORT..32_768).contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 200, "none was chosen twice");
    }
}
