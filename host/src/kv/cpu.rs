//! How much processor time a guest may use within one call.
//!
//! The engine's clock interrupts a computing guest every 10 ms; only then is the time looked at, so
//! that a call that is over before costs nothing. What counts is the processor time of the shard's thread, which works for
//! nobody else meanwhile: waiting, sleeping and being held up by other processes are free, and what host functions do for the
//! guest is not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The budget of the call that is under way.
#[derive(Debug)]
pub(super) struct CpuBudget {
    limit: Duration,
    /// What the thread's clock said at the first interruption of the call. At most a tick of computing came before.
    since: Option<Duration>,
}

/// What ends a call whose budget is used up.
#[derive(Debug, thiserror::Error)]
#[error("its processor time is used up")]
pub(super) struct CpuExhausted;

impl CpuBudget {
    /// A budget for each call to come.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// The next call has all of it again.
    pub(super) fn refill(&mut self) {
        self.since = None;
    }

    /// The guest was interrupted: may it go on?
    pub(super) fn tick(&mut self) -> Result<(), CpuExhausted> {
        self.tick_at(thread_cpu_time())
    }

    fn tick_at(&mut self, now: Duration) -> Result<(), CpuExhausted> {
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) >= self.limit { Err(CpuExhausted) } else { Ok(()) }
    }
}

/// Processor time that the calling thread has used since it was started.
pub(super) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_measured_from_its_first_interruption() {
        let mut budget = CpuBudget::new(Duration::from_millis(30));
        let at = |millis: u64| Duration::from_millis(5000 + millis);
        assert!(budget.tick_at(at(0)).is_ok());
        assert!(budget.tick_at(at(29)).is_ok());
        assert!(budget.tick_at(at(30)).is_err());
        budget.refill();
        assert!(budget.tick_at(at(30)).is_ok());
        assert!(budget.tick_at(at(59)).is_ok());
        assert!(budget.tick_at(at(60)).is_err());
    }

    #[test]
    fn computing_counts_and_sleeping_does_not() {
        let before = thread_cpu_time();
        std::thread::sleep(Duration::from_millis(50));
        assert!(thread_cpu_time() - before < Duration::from_millis(40));
        let before = thread_cpu_time();
        let mut rounds = 0_u64;
        while thread_cpu_time() - before < Duration::from_millis(2) {
            rounds = std::hint::black_box(rounds + 1);
        }
        assert!(rounds > 0);
    }
}
