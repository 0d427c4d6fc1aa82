//! Where the tail gets its events from: a task that reads ahead, and stops when nobody takes.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::mongo::{ChangeEvent, Changes, ChangesError};

/// How many events are read ahead. They are small.
const READ_AHEAD: usize = 4096;

/// Events in MongoDB's order.
pub(super) struct Feed {
    events: mpsc::Receiver<Result<ChangeEvent, ChangesError>>,
    reader: AbortHandle,
}

impl Feed {
    /// Starts reading.
    pub(super) fn start(mut changes: Changes) -> Self {
        let (sender, events) = mpsc::channel(READ_AHEAD);
        let reader = tokio::spawn(async move {
            loop {
                let event = changes.next().await;
                let last = matches!(event, Err(_) | Ok(ChangeEvent::Ended { .. }));
                if sender.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        Self { events, reader: reader.abort_handle() }
    }

    /// The next event. Cancellation safe. `None` after an error, and after the end of the collection.
    pub(super) async fn next(&mut self) -> Option<Result<ChangeEvent, ChangesError>> {
        self.events.recv().await
    }

    /// The next event, if it is there already.
    pub(super) fn ready(&mut self) -> Option<Result<ChangeEvent, ChangesError>> {
        self.events.try_recv().ok()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
