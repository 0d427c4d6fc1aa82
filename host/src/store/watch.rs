//! What MongoDB is asked from time to time, for the figures that nobody's operations bring.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::mongo::Repository;

/// How often it is asked whether it is there, and how long it has to answer.
const PERIOD: Duration = Duration::from_secs(5);

/// How often it is asked for the beginning of its oplog, which moves slowly.
const OPLOG_PERIOD: Duration = Duration::from_secs(60);

/// The same, where it has no oplog to show or doesn't want to show it: rights may change some day.
const NO_OPLOG_PERIOD: Duration = Duration::from_secs(600);

/// No more than one part in so many of a server's time is spent on that: there is one that goes through all of its oplog for it.
const OPLOG_SHARE: u32 = 100;

/// Asks until it is dropped.
pub(super) async fn keep(repository: Repository, metrics: Arc<Metrics>) {
    // Not at once: a host that starts has better things to ask for.
    let mut oplog_due = Instant::now() + PERIOD;
    loop {
        let asked = Instant::now();
        let up = matches!(tokio::time::timeout(PERIOD, repository.ping()).await, Ok(Ok(())));
        metrics.mongodb_up(up);
        if !up {
            metrics.oplog_first(None);
            oplog_due = Instant::now();
        } else if asked >= oplog_due {
            let oldest = repository.oldest_in_oplog().await;
            if let Err(error) = &oldest {
                tracing::debug!(?error, "the beginning of the oplog is not known");
            }
            let oldest = oldest.ok().flatten();
            metrics.oplog_first(oldest.map(f64::from));
            let period = if oldest.is_some() { OPLOG_PERIOD } else { NO_OPLOG_PERIOD };
            oplog_due = asked + period.max(asked.elapsed() * OPLOG_SHARE);
        }
        tokio::time::sleep_until(asked + PERIOD).await;
    }
}
