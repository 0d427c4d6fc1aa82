//! Futures whose work goes on elsewhere once it has begun.

use std::task::Poll;

use futures::future::{BoxFuture, FutureExt as _};
use futures::poll;

/// A future that was asked once: what it does before it first waits, such as handing work over to somebody, is done.
pub(crate) enum Begun<'a, T> {
    Waiting(BoxFuture<'a, T>),
    Over(T),
}

impl<'a, T> Begun<'a, T> {
    /// Asks the future for the first time. Never waits.
    pub(crate) async fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        let mut future = future.boxed();
        match poll!(&mut future) {
            Poll::Pending => Self::Waiting(future),
            Poll::Ready(end) => Self::Over(end),
        }
    }

    /// What it comes to in the end.
    pub(crate) async fn end(self) -> T {
        match self {
            Self::Waiting(future) => future.await,
            Self::Over(end) => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_comes_before_the_first_wait_is_done_at_once() {
        let (sender, mut steps) = mpsc::unbounded_channel();
        let begun = Begun::new(async move {
            sender.send("before").unwrap();
            tokio::task::yield_now().await;
            sender.send("after").unwrap();
            7
        })
        .await;
        assert_eq!(steps.try_recv(), Ok("before"));
        assert!(steps.try_recv().is_err());
        assert_eq!(begun.end().await, 7);
        assert_eq!(steps.try_recv(), Ok("after"));
        assert_eq!(Begun::new(async { 8 }).await.end().await, 8);
    }
}
