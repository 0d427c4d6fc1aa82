//! Where the tail gets its events from: a task that reads ahead, and stops when nobody takes.
//!
//! A server answers a request for changes as soon as there is one. Asked again at once, it would be asked once for every write,
//! and the tail would re-read documents one by one, at the cost of the writers. So the reader takes its time between two
//! requests as long as it is not behind, and changes come together. It takes more of it while all that it brings is what the
//! host itself has written, which the backend has already.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::clock::unix_millis;
use crate::mongo::{ChangeEvent, Changes, ChangesError};

/// How many events are read ahead. They are small.
const READ_AHEAD: usize = 4096;

/// The pause between two requests: what a copy may lag for no other reason.
const PACE: Duration = Duration::from_millis(8);

/// What is added to it as long as nobody else writes.
const CALM_PACE: Duration = Duration::from_millis(42);

/// An event that took longer than this was asked for; sooner come those that were sent along with one before.
const REQUEST: Duration = Duration::from_micros(100);

/// A reader that is farther behind than this makes no pauses.
const BEHIND_MILLIS: u64 = 250;

/// Events in MongoDB's order.
pub(super) struct Feed {
    events: mpsc::Receiver<Result<ChangeEvent, ChangesError>>,
    is_calm: Arc<AtomicBool>,
    reader: AbortHandle,
}

impl Feed {
    /// Starts reading.
    pub(super) fn start(mut changes: Changes) -> Self {
        let (sender, events) = mpsc::channel(READ_AHEAD);
        let is_calm = Arc::new(AtomicBool::new(false));
        let calm = Arc::clone(&is_calm);
        let reader = tokio::spawn(async move {
            loop {
                let asked = Instant::now();
                let event = changes.next().await;
                let was_requested = asked.elapsed() >= REQUEST;
                let pauses = was_requested && event.as_ref().is_ok_and(is_recent);
                let last = matches!(event, Err(_) | Ok(ChangeEvent::Ended { .. }));
                if sender.send(event).await.is_err() || last {
                    return;
                }
                if pauses {
                    // By then, whoever takes the events has said what this one was.
                    tokio::time::sleep(PACE).await;
                    if calm.load(Ordering::Relaxed) {
                        tokio::time::sleep(CALM_PACE).await;
                    }
                }
            }
        });
        Self { events, is_calm, reader: reader.abort_handle() }
    }

    /// The next event. Cancellation safe. `None` after an error, and after the end of the collection.
    pub(super) async fn next(&mut self) -> Option<Result<ChangeEvent, ChangesError>> {
        self.events.recv().await
    }

    /// Says whether the last events told of nothing that the backend didn't have.
    pub(super) fn set_calm(&self, is_calm: bool) {
        self.is_calm.store(is_calm, Ordering::Relaxed);
    }

    /// The next event, if it is there already.
    pub(super) fn ready(&mut self) -> Option<Result<ChangeEvent, ChangesError>> {
        self.events.try_recv().ok()
    }
}

/// Whether a change has only just happened.
fn is_recent(event: &ChangeEvent) -> bool {
    matches!(event, ChangeEvent::Changed { at_millis, .. } if unix_millis().saturating_sub(*at_millis) < BEHIND_MILLIS)
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
