//! A child process that never outlives this one.
//!
//! Linux can signal a child when its parent dies, but takes the *thread* that forked it for the parent. So each child
//! has a thread of its own here, which starts it, looks after it, and lasts until it is gone.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, ErrorKind, Result};

/// How long the server may take to finish once it was asked to: it flushes its data, and `mongod` lets go of being
/// primary.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(20);

/// The same for a server that is dropped, which holds up a thread of somebody's.
const DROP_GRACE: Duration = Duration::from_secs(3);

/// How soon it is noticed that a child has died of its own.
const WATCH: Duration = Duration::from_millis(250);

/// How soon it is noticed that a child that was asked to finish has done so.
const STOP_POLL: Duration = Duration::from_millis(10);

/// What the thread can be told. That nobody is left to tell it anything counts as [`Order::Finish`].
enum Order {
    /// Look whether the child is still there, and answer with how it ended if not.
    Look(oneshot::Sender<Option<ExitStatus>>),
    /// SIGTERM, and SIGKILL after this long.
    Finish(Duration),
}

/// A child and the thread that looks after it. Dropping it ends the child and waits until it is gone.
#[derive(Debug)]
pub(super) struct ServerProcess {
    pid: u32,
    orders: Sender<Order>,
    exit: watch::Receiver<Option<ExitStatus>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerProcess {
    /// Starts `command`. `lock` is passed on to the child, which holds it open until it is gone.
    pub(super) fn spawn(command: Command, lock: File) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Config, format!("can't start {program}: {error}")).with_source(error)
        };
        let (started, start) = mpsc::sync_channel(1);
        let (orders, inbox) = mpsc::channel();
        let (exited, exit) = watch::channel(None);
        let look_after = move || match spawn_tied(command, lock) {
            Err(error) => {
                // The receiver waits for exactly this.
                let _ = started.send(Err(error));
            }
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                let status = watch_over(&mut child, &inbox);
                exited.send_replace(Some(status));
            }
        };
        let thread = thread::Builder::new().name("mongodb-server".to_owned()).spawn(look_after).map_err(failed)?;
        match start.recv() {
            Ok(Ok(pid)) => Ok(Self { pid, orders, exit, thread: Some(thread) }),
            Ok(Err(error)) => Err(failed(error)),
            Err(error) => Err(failed(std::io::Error::other(error))),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How the child ended, if it has ended at this moment.
    pub(super) async fn exit_status(&self) -> Option<ExitStatus> {
        let (asked, answer) = oneshot::channel();
        // If the thread doesn't take the question, or goes without an answer, it has said how the child ended before.
        let _ = self.orders.send(Order::Look(asked));
        answer.await.unwrap_or_else(|_| *self.exit.borrow())
    }

    /// See [`super::EmbeddedServer::stop`].
    pub(super) async fn stop(mut self) {
        // A thread that is gone has nothing left to stop.
        let _ = self.orders.send(Order::Finish(STOP_GRACE));
        let _ = self.exit.wait_for(Option::is_some).await;
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Finish(DROP_GRACE));
        if let Some(thread) = self.thread.take() {
            // It can't have panicked with anything left to do: the child is its last local, and the kernel ties the
            // two.
            let _ = thread.join();
        }
    }
}

/// Starts a child that is told to finish when this thread ends, in a process group of its own.
fn spawn_tied(mut command: Command, lock: File) -> std::io::Result<Child> {
    let parent = rustix::process::getpid();
    let prepare = move || {
        // Handed down: the lock is released when the last process that has it open is gone.
        rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
        // Not SIGKILL: the development server would lose what it has acknowledged in the last moments.
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        // The parent may have died before the line above took effect.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
    };
    // A Ctrl-C in the terminal goes to the whole group that runs there; the host drains first and then stops the
    // server.
    command.process_group(0);
    #[expect(unsafe_code, reason = "there is no other way to act between fork and exec")]
    // SAFETY: after a fork only async-signal-safe calls are allowed. The closure makes three system calls, and neither
    // allocates, nor takes a lock, nor panics: its errors are plain error numbers.
    unsafe {
        command.pre_exec(prepare);
    }
    command.spawn()
}

/// Returns when the child is gone.
fn watch_over(child: &mut Child, inbox: &Receiver<Order>) -> ExitStatus {
    let grace = loop {
        let order = inbox.recv_timeout(WATCH);
        if let Some(status) = child.try_wait().ok().flatten() {
            tracing::error!(pid = child.id(), %status, "the embedded MongoDB server has ended by itself");
            if let Ok(Order::Look(asked)) = order {
                // Here and below: nobody waits for the answer if the start was cancelled.
                let _ = asked.send(Some(status));
            }
            return status;
        }
        match order {
            Ok(Order::Look(asked)) => {
                let _ = asked.send(None);
            }
            Ok(Order::Finish(grace)) => break grace,
            Err(RecvTimeoutError::Disconnected) => break DROP_GRACE,
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    terminate(child);
    let mut kill_at = Instant::now() + grace;
    while Instant::now() < kill_at {
        if let Ok(Some(status)) = child.try_wait() {
            return status;
        }
        match inbox.recv_timeout(STOP_POLL) {
            // Whoever was waiting for the end has given up.
            Ok(Order::Finish(grace)) => kill_at = kill_at.min(Instant::now() + grace),
            Err(RecvTimeoutError::Disconnected) => thread::sleep(STOP_POLL),
            Ok(Order::Look(_)) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    loop {
        // Both can only fail for a child that has been waited for, and this is the only place that does.
        let _ = child.kill();
        match child.wait() {
            Ok(status) => return status,
            Err(error) => tracing::error!(pid = child.id(), %error, "can't wait for the embedded MongoDB server"),
        }
        thread::sleep(WATCH);
    }
}

fn terminate(child: &Child) {
    // The child hasn't been waited for, so the id is still its own.
    if let Err(error) = signal(child.id(), Signal::TERM) {
        tracing::warn!(pid = child.id(), %error, "can't ask the embedded MongoDB server to finish");
    }
}

/// Kills a server that has outlived its host, and hasn't finished when it was told to.
pub(super) fn kill_left_over(pid: u32) {
    match signal(pid, Signal::KILL) {
        Ok(()) => tracing::warn!(pid, "killed a MongoDB server that a killed host had left behind"),
        Err(error) => tracing::warn!(pid, %error, "can't kill a MongoDB server that a killed host has left behind"),
    }
}

fn signal(pid: u32, signal: Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    Ok(kill_process(pid, signal)?)
}
