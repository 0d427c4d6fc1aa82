//! The signals that a process heeds. Its end on request (a signal, or a test's word) is a future that everything long-running
//! waits for; SIGHUP is told to whoever reads the configuration again.

use std::future::Future;
use std::io::{self, IsTerminal as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A request to end that is made once and stays made. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A request that only [`trigger`](Self::trigger) makes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that SIGINT or SIGTERM makes, the first one of them: the second ends the process at once, with 128 and the signal's
    /// number for an exit code, as a shell would report it. Watches until the runtime ends.
    ///
    /// # Errors
    /// If the signals can't be watched.
    pub fn on_signals() -> io::Result<Self> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let shutdown = Self::new();
        let request = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let (name, number) = tokio::select! {
                    _ = interrupts.recv() => ("sigint", SignalKind::interrupt().as_raw_value()),
                    _ = terminations.recv() => ("sigterm", SignalKind::terminate().as_raw_value()),
                };
                if request.is_requested() {
                    tracing::warn!(signal = name, "second signal, ending at once");
                    std::process::exit(128 + number);
                }
                tracing::info!(signal = name, "ending; a second signal ends at once");
                request.trigger();
            }
        });
        Ok(shutdown)
    }

    /// Makes the request. Any further time does nothing.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether the request was made.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the request; ready at once if it was made before. Dropping the future gives up nothing but the wait.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.token.clone().cancelled_owned()
    }

    /// A request of its own that this one makes too, but that doesn't make this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }
}

/// Watches for SIGHUP.
#[derive(Debug)]
pub struct Hangups {
    signals: Signal,
    on_terminal: bool,
}

/// What a SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// Somebody sent it.
    Signal,
    /// The terminal that the process was started on is gone, and with it whoever would end it.
    TerminalGone,
}

impl Hangups {
    /// From now on SIGHUP doesn't end the process.
    ///
    /// # Errors
    /// If the signal can't be watched.
    pub fn watch() -> io::Result<Self> {
        Ok(Self { signals: signal(SignalKind::hangup())?, on_terminal: io::stdin().is_terminal() })
    }

    /// The next one; several that came since the last are one. Cancel safe.
    pub async fn next(&mut self) -> Hangup {
        if self.signals.recv().await.is_none() {
            // There are no more signals: the runtime is ending.
            std::future::pending::<()>().await;
        }
        // A terminal that has hung up answers as no terminal any more.
        if self.on_terminal && !io::stdin().is_terminal() { Hangup::TerminalGone } else { Hangup::Signal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_learns_of_the_request() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn(shutdown.clone().requested());
        assert!(!shutdown.is_requested());
        shutdown.trigger();
        waiting.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.clone().is_requested());
    }

    #[test]
    fn a_child_ends_with_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (first, second) = (parent.child(), parent.child());
        first.trigger();
        assert!(first.is_requested() && !parent.is_requested() && !second.is_requested());
        parent.trigger();
        assert!(second.is_requested());
    }
}
