//! Random writes while what they need is killed, and afterwards a comparison of everything.
//!
//! # What happens
//!
//! The real `memcell serve` mirrors a real MongoDB to one backend. Six workers make every kind of write through its HTTP API:
//! append (with a given id, and with one that the host makes), update, soft and hard deletion, restoration, the same by user,
//! transactions; and behind its back with the driver, leaving revisions alone, taking them away, or replacing the document as a
//! whole. Meanwhile an *outsider* counts up a field of random documents. Then the host, MongoDB or the Redis server is killed
//! with SIGKILL, at a moment that the seed chooses, perhaps another one while the first is coming back, and started again. In
//! half of the rounds nothing is written from the kill on, so that what the host finds at its start has to do. When everything
//! is at rest, everything is compared, and the next round begins.
//!
//! # What is checked
//!
//! - **MongoDB, against the history.** Each worker has keys of its own and changes them one after the other, so the state of
//!   each key is known exactly. What was acknowledged is there, until a later write; what was refused is not. An operation of
//!   unknown fate (the connection broke, the answer was a server error) took place or did not, a transaction as a whole; its
//!   keys are left alone until that is decided by what is found, since it may still be under way. Nothing is there that nobody
//!   wrote, and revisions that the host tells only grow.
//! - **The backend, against MongoDB.** Once it says that it is live and idle: as many entries as there are live documents, a
//!   validated read of *every key ever used* is `consistent` (for a deleted one: nothing has been left or has come back), and no
//!   mismatch was confirmed on the way.
//!
//! # What is not
//!
//! The outsider's count is only bounded from above. Two programs' unordered writes to the *same* field have no predictable
//! result, and are left out. A copy may differ for as long as the backend says that it has work to do.
//!
//! Writers, victims and moments follow from the seed. How far the processes have come at a moment does not, so a seed repeats
//! the circumstances of a failure, and not always the failure.

mod check;
mod client;
mod history;
mod outsider;
mod plan;
mod shared;
mod stage;
mod steps;
mod workload;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use futures::future::join_all;
use mongodb::Collection;
use mongodb::bson::Document;
use mongodb::bson::oid::ObjectId;
use tokio::sync::watch;

use self::client::Api;
use self::outsider::Outsider;
pub use self::plan::Kind;
use self::plan::{Moment, Round, Victim};
use self::shared::Shared;
use self::stage::Stage;
use self::workload::Worker;
use crate::random::Random;

const WORKERS: usize = 6;

/// Operations that there are in any case before a burst or a rest.
const WARM_UP: u64 = 40;

/// How long operations are waited for that can't get on, for the host may be gone.
const PATIENCE: Duration = Duration::from_secs(3);

const POLL: Duration = Duration::from_millis(1);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Says which operations, victims and moments.
    pub seed: u64,
    /// How often something is killed.
    pub kills: u32,
    /// Which backend is kept.
    pub backend: Kind,
}

/// What a run without a difference has done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    /// Kills, by victim.
    pub host: u32,
    /// MongoDB's.
    pub mongodb: u32,
    /// Redis'.
    pub redis: u32,
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Those that were rightly refused.
    pub refused: u64,
    /// Those of unknown fate.
    pub unknown: u64,
    /// Of the documents concerned by those: how many were found changed.
    pub took_place: u64,
    /// Keys that were used.
    pub keys: usize,
    /// The longest that the backend took to agree.
    pub slowest: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills = self.host + self.mongodb + self.redis;
        write!(f, "{kills} kills (host {}, MongoDB {}, Redis {}), ", self.host, self.mongodb, self.redis)?;
        write!(f, "{} operations acknowledged, {} refused, ", self.acknowledged, self.refused)?;
        write!(f, "{} of unknown fate ({} documents changed by them), ", self.unknown, self.took_place)?;
        write!(f, "{} keys; the backend agreed within {:.1?} each time", self.keys, self.slowest)
    }
}

/// Kills as often as `options` say, and compares each time. `say` is told of each.
///
/// # Errors
/// The first difference, with the seed, the number of the kill and the end of the host's log; or that something can't be started.
pub async fn run(options: &Options, mut say: impl FnMut(String)) -> Result<Summary> {
    let Options { seed, kills, backend } = *options;
    let stage = Stage::build(backend).await.with_context(|| format!("backend {backend}"))?;
    let mut run = Run::new(stage, seed).await?;
    let mut random = Random::new(seed);
    let mut killed = 0;
    while killed < kills {
        let round = Round::choose(&mut random, backend, kills - killed > 1);
        let first = killed + 1;
        killed += round.kills();
        let compared = match run.round(&round).await {
            Ok(compared) => compared,
            Err(error) => {
                let log = run.killer.stage.log();
                return Err(anyhow!("{error:#}\nThe end of the host's log:\n{log}"))
                    .with_context(|| format!("backend {backend}, seed {seed}, kill {first} ({round})"));
            }
        };
        say(format!("{backend}, kill {killed} of {kills}: {round}: {compared}"));
    }
    run.finish()
}

/// The processes, those who write, and those who are told.
struct Run {
    killer: Killer,
    api: Api,
    workers: Vec<Worker>,
    outsider: Outsider,
    summary: Summary,
}

impl Run {
    async fn new(stage: Stage, seed: u64) -> Result<Self> {
        let api = Api::new(stage.url())?;
        let collection = stage.mongodb.collection().await?;
        let shared = Arc::new(Shared::default());
        let worker = |number| Worker::new(number, WORKERS, seed, &api, &collection, &shared);
        let workers = (0..WORKERS).map(worker).collect();
        let outsider = Outsider::new(&collection, seed);
        let killer = Killer { stage, collection, shared };
        Ok(Self { killer, api, workers, outsider, summary: Summary::default() })
    }

    /// From letting the writers go to the comparison, of which it answers a few words.
    async fn round(&mut self, round: &Round) -> Result<String> {
        let Self { killer, api, workers, outsider, summary } = self;
        for victim in [Some(round.victim), round.second.map(|(_, victim)| victim)].into_iter().flatten() {
            *match victim {
                Victim::Host => &mut summary.host,
                Victim::MongoDb => &mut summary.mongodb,
                Victim::Redis => &mut summary.redis,
            } += 1;
        }
        let unknown_before = unknown(workers);
        let (stop, stopped) = watch::channel(false);
        let ids: Vec<_> = workers.iter().flat_map(|worker| &worker.keys).map(|key| key.id).collect();
        if matches!(round.moment, Moment::Burst(_)) {
            outsider.tries_everywhere();
        }
        let (worked, (), played) = tokio::join!(
            join_all(workers.iter_mut().map(|worker| worker.work(stopped.clone()))),
            outsider.work(&ids, stopped.clone()),
            async {
                let played = killer.play(round, &ids, &stop).await;
                // Whatever happened, the writers have to come back.
                stop.send_replace(true);
                played
            },
        );
        played?;
        killer.stage.ready().await?;
        killer.shared.mongodb_is_back();
        worked.into_iter().collect::<Result<()>>()?;

        let snapshot = check::quiet(&killer.collection).await?;
        let resolved = check::explain(workers, outsider, snapshot)?;
        let elapsed = check::agree(api, workers, &resolved).await?;
        let panics = killer.stage.panics();
        ensure!(panics.is_empty(), "the host has panicked: {}", panics.join("; "));
        summary.took_place += resolved.changed;
        summary.slowest = summary.slowest.max(elapsed);
        Ok(format!(
            "{} live of {} keys, {} of unknown fate, agreed after {elapsed:.1?}",
            resolved.live.len(),
            resolved.all.len(),
            unknown(workers) - unknown_before
        ))
    }

    fn finish(self) -> Result<Summary> {
        let mut summary = self.summary;
        for worker in &self.workers {
            summary.acknowledged += worker.tally.acknowledged;
            summary.refused += worker.tally.refused;
            summary.unknown += worker.tally.unknown;
            summary.keys += worker.keys.len();
        }
        ensure!(summary.acknowledged > 0 && summary.refused > 0, "hardly anything was written: {summary}");
        Ok(summary)
    }
}

/// How many operations have had an unknown fate so far.
fn unknown(workers: &[Worker]) -> u64 {
    workers.iter().map(|worker| worker.tally.unknown).sum()
}

/// The one who kills, while the writers write.
struct Killer {
    stage: Stage,
    collection: Collection<Document>,
    shared: Arc<Shared>,
}

impl Killer {
    /// Kills and starts again as the round says. Tells the writers to stop where the round wants nothing to be written any more.
    async fn play(&mut self, round: &Round, ids: &[ObjectId], stop: &watch::Sender<bool>) -> Result<()> {
        match round.moment {
            Moment::Operations(count, later) => {
                self.wait_for(count).await;
                tokio::time::sleep(later).await;
            }
            Moment::Burst(later) => {
                self.wait_for(WARM_UP).await;
                outsider::burst(&self.collection, ids).await;
                tokio::time::sleep(later).await;
            }
            Moment::Rest(later) => {
                self.wait_for(WARM_UP).await;
                stop.send_replace(true);
                tokio::time::sleep(later).await;
            }
        }
        self.kill(round.victim).await?;
        if round.afterwards.is_none() {
            stop.send_replace(true);
        }
        tokio::time::sleep(round.outage).await;
        self.stage.start(round.victim).await?;
        if let Some((pause, second)) = round.second {
            tokio::time::sleep(pause).await;
            self.kill(second).await?;
            tokio::time::sleep(round.outage).await;
            self.stage.start(second).await?;
        }
        if let Some(count) = round.afterwards {
            self.wait_for(count).await;
        }
        Ok(())
    }

    async fn kill(&mut self, victim: Victim) -> Result<()> {
        if victim == Victim::MongoDb {
            self.shared.mongodb_is_gone();
        }
        self.stage.kill(victim).await
    }

    /// Waits for so many operations of the workers, as long as they get on.
    async fn wait_for(&self, operations: u64) {
        let wanted = self.shared.finished.load(Ordering::Relaxed) + operations;
        let deadline = Instant::now() + PATIENCE;
        while self.shared.finished.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
}
