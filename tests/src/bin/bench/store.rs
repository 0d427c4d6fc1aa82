//! What the in-memory backend costs one client, operation by operation, through the store and against a real server.

use anyhow::{Context, Result};
use memcell_host::memcell::{EventId, NewMemCell, Patch};
use memcell_host::store::{MemCellStore, Validate};
use memcell_tests::bench::{Plan, Suite, Summary, Target};
use memcell_tests::host::{TestHost, in_memory};
use memcell_tests::sample::Samples;
use serde_json::{Map, Value, json};

/// Documents that reads and updates go over: more than any cache line of luck, less than a second to load.
const DOCUMENTS: usize = 2000;
const BATCH: usize = 100;

const SINGLE: Plan = Plan { pairs: 24, iterations: 250, warm_up: 100 };
const BATCHES: Plan = Plan { pairs: 24, iterations: 30, warm_up: 10 };

pub(crate) async fn run() -> Result<Summary> {
    let with = TestHost::start(vec![in_memory()?]).await?;
    with.live().await?;
    let mut config = with.config.clone();
    config.backends.clear();
    config.validation.backend = None;
    config.mongodb.collection = "without".into();
    let without = MemCellStore::open(&config, std::sync::Arc::default()).await?;
    let mut suite = Suite::new("store");

    let (mut a, mut b) = (Cells::new(), Cells::new());
    suite
        .row("append: in-memory backend / no backend")
        .plan(SINGLE)
        .target(Target::AtMost(1.05))
        .compare_async(async || Ok(with.store.append(a.next()?).await?), async || Ok(without.append(b.next()?).await?))
        .await?;

    let ids = fill(&with.store).await?;
    let others = fill(&without).await?;
    with.settled().await?;
    let (mut a, mut b) = (0, 0);
    suite
        .row("update: in-memory backend / no backend")
        .plan(SINGLE)
        .target(Target::AtMost(1.05))
        .compare_async(
            async || Ok(with.store.update(turn(&ids, &mut a)?, &patch(a)?).await?),
            async || Ok(without.update(turn(&others, &mut b)?, &patch(b)?).await?),
        )
        .await?;

    with.settled().await?;
    let (mut a, mut b) = (0, 0);
    suite
        .row("get: validated / unvalidated")
        .plan(SINGLE)
        .target(Target::AtMost(1.10))
        .compare_async(
            async || Ok(with.store.get(turn(&ids, &mut a)?, Validate::Yes).await?),
            async || Ok(with.store.get(turn(&ids, &mut b)?, Validate::No).await?),
        )
        .await?;

    let batches: Vec<Vec<EventId>> = ids.chunks(BATCH).map(<[EventId]>::to_vec).collect();
    let (mut a, mut b) = (0, 0);
    suite
        .row("get_many of 100: validated / unvalidated")
        .plan(BATCHES)
        .items(BATCH)
        .target(Target::AtMost(1.25))
        .compare_async(
            async || Ok(with.store.get_many(&turn(&batches, &mut a)?, None, Validate::Yes).await?),
            async || Ok(with.store.get_many(&turn(&batches, &mut b)?, None, Validate::No).await?),
        )
        .await?;

    let summary = suite.finish()?;
    without.close(config.http.shutdown_grace).await;
    with.stop().await?;
    Ok(summary)
}

/// Documents of 2 KB, made ready outside of what is measured: a thousand at a time.
struct Cells {
    samples: Samples,
    ready: Vec<NewMemCell>,
}

impl Cells {
    fn new() -> Self {
        Self { samples: Samples::new(1), ready: Vec::new() }
    }

    fn next(&mut self) -> Result<NewMemCell> {
        if self.ready.is_empty() {
            self.ready = self.samples.by_ref().take(10_000).map(cell).collect::<Result<_>>()?;
        }
        self.ready.pop().context("there are no samples")
    }
}

fn cell(value: Value) -> Result<NewMemCell> {
    let Value::Object(fields) = value else { anyhow::bail!("a sample is no object") };
    Ok(NewMemCell::from_api(fields)?)
}

async fn fill(store: &MemCellStore) -> Result<Vec<EventId>> {
    let cells = Samples::new(2).take(DOCUMENTS).map(cell).collect::<Result<Vec<_>>>()?;
    let stored = store.append_many(cells).await?;
    stored.value.into_iter().map(|cell| cell?.event_id().context("a stored document has no id")).collect()
}

fn turn<T: Clone>(all: &[T], next: &mut usize) -> Result<T> {
    let one = all.get(*next % all.len()).context("nothing to take turns over")?;
    *next += 1;
    Ok(one.clone())
}

fn patch(n: usize) -> Result<Patch> {
    let mut fields = Map::new();
    fields.insert("summary".into(), json!(format!("the summary number {n}")));
    Ok(Patch::from_api(fields)?)
}
