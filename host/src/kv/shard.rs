//! One shard: one instance on one thread, fed from its queue in batches, replaced when it breaks.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Instrument as _, Span};

use super::bindings::exports::memcell::kv::store::{Condition, Entry};
use super::bindings::memcell::kv::types::Error as GuestError;
use super::breaker::{Breaker, Verdict};
use super::calls::{self, Calls, MaxRead};
use super::cpu::thread_cpu_time;
use super::error::KvError;
use super::grants::Grants;
use super::instance::Instance;
use super::plugin::Plugin;
use super::queue::{End, Queue, Reply, Request, Taken, Work};
use super::status::{ShardState, ShardStatus};
use super::write::{PendingWrite, Write};
use crate::config::BackendConfig;
use crate::metrics::BackendMetrics;
use crate::trace::{self, Origin};

/// What the thread of a shard owns.
pub(super) struct Shard {
    pub(super) number: u32,
    pub(super) plugin: Plugin,
    pub(super) config: Arc<BackendConfig>,
    pub(super) grants: Arc<Grants>,
    pub(super) queue: Arc<Queue>,
    pub(super) status: Arc<ShardStatus>,
    pub(super) metrics: BackendMetrics,
    pub(super) max_read: MaxRead,
    /// How much of the thread's processor time is in the metrics.
    pub(super) cpu_counted: Cell<Duration>,
    /// What instances hold, and so has to be told to each new one.
    pub(super) token: Cell<Option<u64>>,
}

/// Whether an instance is there to be called.
enum Phase {
    Running(Box<Calls>),
    /// The instance, if there still is one, only answered with errors: it is asked for its health when the pause is over.
    Paused {
        until: Instant,
        reason: String,
        instance: Option<Box<Calls>>,
    },
    GivenUp {
        reason: String,
    },
}

impl Shard {
    /// Runs until the queue is closed and empty. The thread's runtime has nothing else to do.
    pub(super) async fn run(self) {
        let mut breaker = Breaker::new(&self.config.supervision);
        let mut generation = 0;
        let mut phase = self.open(&mut breaker, &mut generation).await;
        loop {
            self.status.is_back();
            self.count_cpu();
            phase = match phase {
                Phase::Running(calls) => {
                    let Some(taken) = self.queue.take(self.config.queue.batch).await else {
                        self.close(*calls).await;
                        return;
                    };
                    self.work(*calls, taken, &mut breaker).await
                }
                Phase::Paused { until, reason, instance } => {
                    let over = tokio::time::sleep_until(until.into());
                    tokio::select! {
                        biased;
                        () = over => match instance {
                            Some(calls) => self.probe(*calls, &mut breaker, generation).await,
                            None => self.open(&mut breaker, &mut generation).await,
                        },
                        taken = self.queue.take(usize::MAX) => {
                            let Some(taken) = taken else { break };
                            refuse(taken, &KvError::Down(reason.clone()));
                            Phase::Paused { until, reason, instance }
                        }
                    }
                }
                Phase::GivenUp { reason } => {
                    let Some(taken) = self.queue.take(usize::MAX).await else { break };
                    refuse(taken, &KvError::Down(reason.clone()));
                    Phase::GivenUp { reason }
                }
            };
        }
        self.status.set_state(ShardState::Closed);
    }

    fn count_cpu(&self) {
        let now = thread_cpu_time();
        self.metrics.kv_cpu(now.saturating_sub(self.cpu_counted.replace(now)));
    }

    async fn open(&self, breaker: &mut Breaker, generation: &mut u64) -> Phase {
        let limits = &self.config.limits;
        self.status.expect_back_within(limits.open_timeout.saturating_add(limits.call_timeout));
        match self.open_instance().await {
            Ok(instance) => {
                self.status.opened(instance.capabilities());
                self.status.set_memory_bytes(instance.memory_bytes());
                if *generation > 0 {
                    self.status.count_restart();
                    self.metrics.kv_restart();
                }
                *generation += 1;
                tracing::info!(backend = %self.config.name, shard = self.number, generation, "plugin instance opened");
                let calls = self.calls(instance);
                if breaker.is_open() {
                    return self.probe(calls, breaker, *generation).await;
                }
                self.status.set_state(ShardState::Running { generation: *generation });
                Phase::Running(Box::new(calls))
            }
            // A plugin that refuses its settings would refuse them again. If it took the same ones before, it is about something else.
            Err(KvError::Refused(GuestError::InvalidArgument(text) | GuestError::Unsupported(text)))
                if *generation == 0 =>
            {
                self.metrics.kv_failure("refused_settings");
                let reason = format!("the plugin refuses its settings: {}", super::error::shown(&text));
                self.give_up(reason)
            }
            Err(error) if error.ends_instance() => self.lost(&error, breaker),
            Err(error) => self.unopened(&error, breaker),
        }
    }

    fn calls(&self, instance: Instance) -> Calls {
        let (max_read, metrics, status) = (self.max_read.clone(), self.metrics.clone(), Arc::clone(&self.status));
        Calls::new(instance, &self.config, max_read, metrics, status)
    }

    /// An instance that holds what those before it did.
    async fn open_instance(&self) -> Result<Instance, KvError> {
        let mut instance = Instance::open(&self.plugin, &self.config, &self.grants, self.number).await?;
        if let Some(token) = self.token.get() {
            instance.hold(token).await?;
        }
        Ok(instance)
    }

    /// Half-open: one health check decides.
    async fn probe(&self, mut calls: Calls, breaker: &mut Breaker, generation: u64) -> Phase {
        self.status.expect_back_within(self.config.limits.call_timeout);
        self.status.set_probed(true);
        let health = calls.health().await;
        self.status.set_probed(false);
        match health {
            Ok(()) => {
                self.status.set_state(ShardState::Running { generation });
                Phase::Running(Box::new(calls))
            }
            Err(error) if error.ends_instance() => self.lost(&error, breaker),
            Err(error) => self.paused(&error, Some(calls), breaker),
        }
    }

    /// Does what was taken. Once an instance breaks, the rest is refused: it can be asked for again.
    async fn work(&self, mut calls: Calls, taken: Taken, breaker: &mut Breaker) -> Phase {
        self.status.expect_back_within(self.config.limits.call_timeout);
        let mut broken = self.answer_requests(&mut calls, taken.requests).await.err();
        let mut direct = Vec::new();
        for work in taken.work {
            if let Work::Direct(write) = work {
                direct.push(write);
                continue;
            }
            if broken.is_none() {
                broken = self.write_direct(&mut calls, std::mem::take(&mut direct)).await.err();
            }
            match (work, &broken) {
                (work, Some(error)) => refuse(Taken { work: vec![work], ..Taken::default() }, error),
                (Work::Batch { writes, condition, reply }, None) => {
                    let ends = calls.write(writes, condition).await;
                    broken = calls::breaking(&ends);
                    // Whoever asked may have given up waiting.
                    let _ = reply.send(ends);
                }
                // Whoever wanted it has gone on without it.
                (Work::Prepare { reply, .. }, None) if reply.is_closed() => {}
                (Work::Prepare { transaction, writes, origin, reply, .. }, None) => {
                    let span = self.span("prepare", writes.len(), [&*origin].into_iter());
                    broken = reply_with(reply, calls.prepare(&transaction, writes).instrument(span).await).err();
                }
                (Work::Conclude { transaction, end, origin, reply }, None) => {
                    let span = |function| self.span(function, 0, [&*origin].into_iter());
                    let answer = match end {
                        End::Commit => calls.commit(&transaction).instrument(span("commit")).await,
                        End::Abort => calls.abort(&transaction).instrument(span("abort")).await,
                    };
                    broken = reply_with(reply, answer).err();
                }
                (Work::InDoubt { reply }, None) => broken = reply_with(reply, calls.in_doubt().await).err(),
                (Work::Hold { token, reply }, None) => {
                    let answer = calls.hold(token).await;
                    if answer.is_ok() {
                        self.token.set(Some(token));
                    }
                    broken = reply_with(reply, answer).err();
                }
                (Work::Flush { reply }, None) => broken = reply_with(reply, calls.flush().await).err(),
                (Work::Direct(_), None) => {}
            }
        }
        match &broken {
            Some(error) => {
                refuse(Taken { work: direct.into_iter().map(Work::Direct).collect(), ..Taken::default() }, error);
            }
            None => broken = self.write_direct(&mut calls, direct).await.err(),
        }
        self.status.set_memory_bytes(calls.memory_bytes());
        match broken.or_else(|| calls.take_trouble()) {
            Some(error) if error.ends_instance() => self.lost(&error, breaker),
            Some(error) => self.paused(&error, Some(calls), breaker),
            None => {
                if calls.take_success() {
                    breaker.succeeded();
                }
                Phase::Running(Box::new(calls))
            }
        }
    }

    /// Answers everything that waits for it; the error is one that ends the instance.
    async fn answer_requests(&self, calls: &mut Calls, requests: Vec<Request>) -> Result<(), KvError> {
        // All reads that wait become one call; each gets its part of the answer.
        let mut keys: Vec<String> = Vec::new();
        let mut gets: Vec<(usize, Reply<Found>)> = Vec::new();
        let mut origins: Vec<Origin> = Vec::new();
        let mut broken: Option<KvError> = None;
        for request in requests {
            match (request, &broken) {
                (Request::Get { keys: wanted, origin, reply }, _) if !reply.is_closed() => {
                    origins.push(origin);
                    gets.push((wanted.len(), reply));
                    keys.extend(wanted);
                }
                (Request::Get { .. }, _) => {}
                (request, Some(error)) => refuse(Taken { requests: vec![request], ..Taken::default() }, error),
                (Request::Scan { cursor, limit, reply }, None) => {
                    broken = reply_with(reply, calls.scan(cursor.as_deref(), limit).await).err();
                }
                (Request::Digest { reply, .. }, None) if reply.is_closed() => {}
                (Request::Digest { keys, head_bytes, reply }, None) => {
                    broken = reply_with(reply, calls.digests(&keys, head_bytes).await).err();
                }
                (Request::Stats { reply }, None) => broken = reply_with(reply, calls.stats().await).err(),
            }
        }
        if let Some(error) = broken {
            for (_, reply) in gets {
                let _ = reply.send(Err(error.clone()));
            }
            return Err(error);
        }
        let span = self.span("get-many", keys.len(), origins.iter());
        let mut answers = match calls.get(&keys).instrument(span).await {
            Ok(entries) => entries.into_iter(),
            Err(error) => {
                for (_, reply) in gets {
                    let _ = reply.send(Err(error.clone()));
                }
                return if error.ends_instance() { Err(error) } else { Ok(()) };
            }
        };
        for (count, reply) in gets {
            // Whoever asked may have given up waiting.
            let _ = reply.send(Ok(answers.by_ref().take(count).collect()));
        }
        Ok(())
    }

    /// Writes what nobody waits for, as one batch, and tells each how it ended.
    async fn write_direct(&self, calls: &mut Calls, pending: Vec<Box<dyn PendingWrite>>) -> Result<(), KvError> {
        let mut ready = Vec::with_capacity(pending.len());
        let mut writes: Vec<Write> = Vec::with_capacity(pending.len());
        for mut write in pending {
            match write.prepare() {
                Ok(prepared) => {
                    writes.push(prepared);
                    ready.push(write);
                }
                Err(reason) => write.finish(Err(KvError::Refused(GuestError::InvalidArgument(reason)))),
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        let origins: Vec<Origin> = ready.iter().map(|write| write.origin()).collect();
        let span = self.span("write", writes.len(), origins.iter());
        let ends = calls.write(writes, Condition::Newer).instrument(span).await;
        let broken = calls::breaking(&ends);
        for (write, end) in ready.into_iter().zip(ends) {
            write.finish(end);
        }
        broken.map_or(Ok(()), Err)
    }

    /// The span of a call for these.
    fn span<'o>(
        &self,
        function: &'static str,
        items: usize,
        origins: impl ExactSizeIterator<Item = &'o Origin> + Clone,
    ) -> Span {
        let call = trace::Call { backend: &self.config.name, shard: self.number, function, items };
        trace::of_call(call, origins)
    }

    fn lost(&self, error: &KvError, breaker: &mut Breaker) -> Phase {
        self.metrics.kv_failure(error.label());
        self.status.set_memory_bytes(0);
        match breaker.failed(Instant::now(), true) {
            Verdict::Pause { until, open } => {
                tracing::warn!(backend = %self.config.name, shard = self.number, %error, breaker_open = open, "plugin instance lost");
                self.status.set_state(ShardState::Down { reason: error.to_string(), breaker_open: open });
                Phase::Paused { until, reason: error.to_string(), instance: None }
            }
            Verdict::GoOn | Verdict::GiveUp => {
                let supervision = &self.config.supervision;
                self.give_up(format!(
                    "{} instances were lost within {:?}, the last one because {error}",
                    supervision.restart_limit.saturating_add(1),
                    supervision.restart_window
                ))
            }
        }
    }

    /// Nothing broke; what the plugin needs (a server, a name, room) isn't there just now. However long that takes, it is no
    /// reason to give up.
    fn unopened(&self, error: &KvError, breaker: &mut Breaker) -> Phase {
        self.metrics.kv_failure(error.label());
        let now = Instant::now();
        let (until, open) = match breaker.failed(now, false) {
            Verdict::Pause { until, open } => (until, open),
            Verdict::GoOn | Verdict::GiveUp => (breaker.retry_at(now), breaker.is_open()),
        };
        tracing::warn!(backend = %self.config.name, shard = self.number, %error, "plugin instance can't be opened yet");
        self.status.set_state(ShardState::Down { reason: error.to_string(), breaker_open: open });
        Phase::Paused { until, reason: error.to_string(), instance: None }
    }

    fn paused(&self, error: &KvError, instance: Option<Calls>, breaker: &mut Breaker) -> Phase {
        match (breaker.failed(Instant::now(), false), instance) {
            (Verdict::GoOn, Some(calls)) => Phase::Running(Box::new(calls)),
            (Verdict::Pause { until, open }, instance) => {
                tracing::warn!(backend = %self.config.name, shard = self.number, %error, "backend fails repeatedly, calls are paused");
                self.status.set_state(ShardState::Down { reason: error.to_string(), breaker_open: open });
                Phase::Paused { until, reason: error.to_string(), instance: instance.map(Box::new) }
            }
            (Verdict::GoOn | Verdict::GiveUp, _) => self.give_up(error.to_string()),
        }
    }

    fn give_up(&self, reason: String) -> Phase {
        tracing::error!(backend = %self.config.name, shard = self.number, reason, "backend given up, MongoDB goes on without it");
        self.status.set_memory_bytes(0);
        self.status.set_state(ShardState::Failed { reason: reason.clone() });
        Phase::GivenUp { reason }
    }

    async fn close(&self, calls: Calls) {
        if let Err(error) = calls.close().await {
            tracing::warn!(backend = %self.config.name, shard = self.number, %error, "plugin instance did not close in order");
        }
        self.status.is_back();
        self.status.set_memory_bytes(0);
        self.status.set_state(ShardState::Closed);
    }
}

/// The answer to a read.
type Found = Result<Vec<Option<Entry>>, KvError>;

/// Sends a result to whoever waits, and keeps the error if it ends the instance.
fn reply_with<T>(reply: Reply<Result<T, KvError>>, result: Result<T, KvError>) -> Result<(), KvError> {
    let broken = result.as_ref().err().filter(|error| error.ends_instance()).cloned();
    // Whoever asked may have given up waiting.
    let _ = reply.send(result);
    broken.map_or(Ok(()), Err)
}

/// Tells everybody who waits for any of this that it won't happen.
fn refuse(taken: Taken, error: &KvError) {
    for request in taken.requests {
        match request {
            Request::Get { reply, .. } => drop(reply.send(Err(error.clone()))),
            Request::Digest { reply, .. } => drop(reply.send(Err(error.clone()))),
            Request::Scan { reply, .. } => drop(reply.send(Err(error.clone()))),
            Request::Stats { reply } => drop(reply.send(Err(error.clone()))),
        }
    }
    for work in taken.work {
        match work {
            Work::Direct(write) => write.finish(Err(error.clone())),
            Work::Batch { writes, reply, .. } => drop(reply.send(vec![Err(error.clone()); writes.len()])),
            Work::Hold { reply, .. }
            | Work::Flush { reply }
            | Work::Prepare { reply, .. }
            | Work::Conclude { reply, .. } => drop(reply.send(Err(error.clone()))),
            Work::InDoubt { reply } => drop(reply.send(Err(error.clone()))),
        }
    }
}
