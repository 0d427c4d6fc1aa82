//! Running A and B in turns and timing them.

use std::future::{Future, Ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::report::{Row, Suite};
use super::stats::Target;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Blocks of A, and of B. Fewer than about 10 rarely allow a conclusion.
    pub pairs: usize,
    /// Timed iterations in a block. A block should last some milliseconds, so that what disturbs it disturbs its neighbour too.
    pub iterations: usize,
    /// Iterations of each before the first block, which aren't counted.
    pub warm_up: usize,
}

impl Default for Plan {
    /// 20 pairs of 100 iterations, after a warm-up of 100.
    fn default() -> Self {
        Self { pairs: 20, iterations: 100, warm_up: 100 }
    }
}

impl Plan {
    /// How often A is called in all, and how often B: what a closure that uses up prepared input must have in store.
    pub fn calls(self) -> usize {
        self.warm_up + self.pairs * self.iterations
    }
}

/// What a measured time is turned into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds an item.
    Nanoseconds,
    /// Items a second, under this name.
    PerSecond(String),
}

impl Unit {
    /// The name in tables and files.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Nanoseconds => "ns",
            Self::PerSecond(name) => name,
        }
    }

    fn value(&self, elapsed: Duration, items: f64) -> f64 {
        // A clock that did not move would make a rate infinite.
        let nanos = elapsed.as_nanos().max(1) as f64;
        match self {
            Self::Nanoseconds => nanos / items,
            Self::PerSecond(_) => items * 1e9 / nanos,
        }
    }
}

/// A row of a [`Suite`] that is about to be measured. Its last call runs it and adds it to the suite; an error of one of the
/// closures ends it, and nothing is added.
#[must_use = "nothing is measured before `compare` or `report`"]
pub struct RowBuilder<'s> {
    suite: &'s mut Suite,
    name: String,
    unit: Unit,
    items: usize,
    plan: Plan,
    target: Option<Target>,
}

impl<'s> RowBuilder<'s> {
    pub(crate) fn new(suite: &'s mut Suite, name: String) -> Self {
        Self { suite, name, unit: Unit::Nanoseconds, items: 1, plan: Plan::default(), target: None }
    }

    /// How much to measure, if not the default.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// How many items one iteration deals with: times are given per item. 1 if not said.
    pub fn items(mut self, items: usize) -> Self {
        self.items = items;
        self
    }

    /// Gives rates instead of times: `items` an iteration, in `unit` (like `documents/s`). More is better then, the p99 is the
    /// rate that 99 % of the iterations reach, and a target is [`Target::AtLeast`].
    pub fn throughput(mut self, unit: &str, items: usize) -> Self {
        self.unit = Unit::PerSecond(unit.to_owned());
        self.items = items;
        self
    }

    /// What the ratio of A to B has to be.
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Compares two functions. What they return is kept from being optimised away, and dropped within the time.
    ///
    /// # Errors
    /// The first error of either; or a plan without pairs, iterations or items.
    pub fn compare<T, U>(self, mut a: impl FnMut() -> Result<T>, mut b: impl FnMut() -> Result<U>) -> Result<()> {
        let a = async || a().map(black_box).map(drop);
        let b = async || b().map(black_box).map(drop);
        at_once(self.compare_async(a, b))
    }

    /// Like [`Self::compare`], for async functions.
    ///
    /// # Errors
    /// As [`Self::compare`].
    pub async fn compare_async<T, U>(
        self,
        mut a: impl AsyncFnMut() -> Result<T>,
        mut b: impl AsyncFnMut() -> Result<U>,
    ) -> Result<()> {
        self.compare_timed_async(async || timed(&mut a).await, async || timed(&mut b).await).await
    }

    /// Like [`Self::compare`], for functions that return the time that counts, leaving out what they prepare.
    ///
    /// # Errors
    /// As [`Self::compare`].
    pub fn compare_timed(
        self,
        mut a: impl FnMut() -> Result<Duration>,
        mut b: impl FnMut() -> Result<Duration>,
    ) -> Result<()> {
        at_once(self.compare_timed_async(async || a(), async || b()))
    }

    /// Like [`Self::compare_async`], for functions that return the time that counts, leaving out what they prepare.
    ///
    /// # Errors
    /// As [`Self::compare`].
    pub async fn compare_timed_async(
        self,
        a: impl AsyncFnMut() -> Result<Duration>,
        b: impl AsyncFnMut() -> Result<Duration>,
    ) -> Result<()> {
        self.run(a, Some(b)).await
    }

    /// Measures one function with nothing to compare it with.
    ///
    /// # Errors
    /// As [`Self::compare`]; or a target, which would mean nothing here.
    pub fn report<T>(self, mut a: impl FnMut() -> Result<T>) -> Result<()> {
        at_once(self.report_async(async || a().map(black_box).map(drop)))
    }

    /// Like [`Self::report`], for an async function.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub async fn report_async<T>(self, mut a: impl AsyncFnMut() -> Result<T>) -> Result<()> {
        ensure!(self.target.is_none(), "{}: a target needs something to compare with", self.name);
        self.run(async || timed(&mut a).await, None::<fn() -> Ready<Result<Duration>>>).await
    }

    /// Measures, and adds the row to the suite.
    async fn run(
        self,
        mut a: impl AsyncFnMut() -> Result<Duration>,
        mut b: Option<impl AsyncFnMut() -> Result<Duration>>,
    ) -> Result<()> {
        let Self { suite, name, unit, items, plan, target } = self;
        ensure!(plan.pairs > 0 && plan.iterations > 0 && items > 0, "{name}: there is nothing to measure");
        let block_of_a = async |a: &mut _, count| block(a, count).await.with_context(|| format!("{name}: A"));
        let block_of_b = async |b: &mut _, count| block(b, count).await.with_context(|| format!("{name}: B"));
        if std::env::var(ROWS_VARIABLE).is_ok_and(|part| !name.contains(&part)) {
            return Ok(());
        }
        suite.announce(&name);
        block_of_a(&mut a, plan.warm_up).await?;
        if let Some(b) = &mut b {
            block_of_b(b, plan.warm_up).await?;
        }
        let mut blocks = Blocks::default();
        for pair in 0..plan.pairs {
            match &mut b {
                None => blocks.a.push(block_of_a(&mut a, plan.iterations).await?),
                Some(b) if pair.is_multiple_of(2) => {
                    blocks.a.push(block_of_a(&mut a, plan.iterations).await?);
                    blocks.b.push(block_of_b(b, plan.iterations).await?);
                }
                Some(b) => {
                    blocks.b.push(block_of_b(b, plan.iterations).await?);
                    blocks.a.push(block_of_a(&mut a, plan.iterations).await?);
                }
            }
        }
        let row = blocks.into_row(name, &unit, items, target);
        suite.add(row);
        Ok(())
    }
}

/// Measures only the rows that have this in their names.
const ROWS_VARIABLE: &str = "MEMCELL_BENCH_ROWS";

/// The times of all iterations, block by block. Without a B its list is empty.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    pub(crate) a: Vec<Vec<Duration>>,
    pub(crate) b: Vec<Vec<Duration>>,
}

impl Blocks {
    /// Turns the times into the figures of a row.
    pub(crate) fn into_row(self, name: String, unit: &Unit, items: usize, target: Option<Target>) -> Row {
        let values = |blocks: &[Vec<Duration>]| -> Vec<Vec<f64>> {
            let block =
                |block: &Vec<Duration>| block.iter().map(|elapsed| unit.value(*elapsed, items as f64)).collect();
            blocks.iter().map(block).collect()
        };
        Row::new(name, unit, &values(&self.a), &values(&self.b), target)
    }
}

/// Calls `work` that often and returns each time.
async fn block(work: &mut impl AsyncFnMut() -> Result<Duration>, iterations: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(iterations);
    for _ in 0..iterations {
        times.push(work().await?);
    }
    Ok(times)
}

/// The time that one call takes.
async fn timed<T>(work: &mut impl AsyncFnMut() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    black_box(work().await?);
    Ok(start.elapsed())
}

/// The result of a future that only wraps sync functions and so never waits.
fn at_once(future: impl Future<Output = Result<()>>) -> Result<()> {
    match pin!(future).poll(&mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => bail!("a sync function can't be waited for"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn small(pairs: usize) -> Plan {
        Plan { pairs, iterations: 3, warm_up: 2 }
    }

    #[test]
    fn blocks_alternate_and_every_call_is_planned() {
        let calls = RefCell::new(String::new());
        let mut suite = Suite::new("order");
        let call = |side: char| {
            calls.borrow_mut().push(side);
            side
        };
        suite.row("x").plan(small(3)).compare(|| Ok(call('a')), || Ok(call('b'))).unwrap();
        assert_eq!(calls.borrow().as_str(), "aabbaaabbbbbbaaaaaabbb");
        assert_eq!(calls.borrow().len(), 2 * small(3).calls());
    }

    #[test]
    fn self_timed_work_is_turned_into_ratios_and_rates() {
        let mut suite = Suite::new("rates");
        let a = async || Ok(Duration::from_millis(20));
        let b = async || Ok(Duration::from_millis(10));
        let row = suite.row("times").plan(small(10)).items(10).target(Target::AtMost(1.5));
        at_once(row.compare_timed_async(a, b)).unwrap();
        let row = suite.row("rates").plan(small(10)).throughput("items/s", 10).target(Target::AtLeast(0.5));
        at_once(row.compare_timed_async(a, b)).unwrap();
        let [times, rates] = suite.rows() else { panic!("{:?}", suite.rows()) };
        assert_eq!((times.unit.as_str(), times.a.median, times.a.n), ("ns", 2e6, 30));
        assert_eq!((times.ratio_p50, times.ratio_p99, times.met), (Some(2.0), Some(2.0), Some(false)));
        assert_eq!((rates.unit.as_str(), rates.a.median, rates.b.unwrap().median), ("items/s", 500.0, 1000.0));
        assert_eq!((rates.ratio_p50, rates.met), (Some(0.5), Some(true)));
    }

    #[test]
    fn the_slower_one_is_seen_to_be_slower() {
        let work = |rounds: u64| (0..rounds).fold(1_u64, |sum, round| black_box(sum.wrapping_mul(31) ^ round));
        let mut suite = Suite::new("real");
        let row = suite.row("four times the work").plan(Plan { pairs: 10, iterations: 50, warm_up: 10 });
        row.target(Target::AtMost(1.0)).compare(|| Ok(work(40_000)), || Ok(work(10_000))).unwrap();
        assert_eq!(suite.rows()[0].met, Some(false), "{:?}", suite.rows());
    }

    #[test]
    fn a_report_has_no_ratio() {
        let mut suite = Suite::new("report");
        suite.row("x").plan(small(2)).report(|| Ok(())).unwrap();
        let row = &suite.rows()[0];
        assert_eq!((row.b, row.ratio_p50, row.ratio_p99, row.ci, row.met), (None, None, None, None, None));
        assert_eq!(row.a.n, 6);
    }

    #[test]
    fn mistakes_and_errors_add_no_row() {
        let mut suite = Suite::new("errors");
        let none = Plan { pairs: 0, ..Plan::default() };
        assert!(suite.row("x").plan(none).report(|| Ok(())).is_err());
        assert!(suite.row("x").target(Target::AtMost(1.0)).report(|| Ok(())).is_err());
        let error = suite.row("x").compare(|| Ok(()), || -> Result<()> { bail!("no server") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "x: B: no server");
        assert!(suite.rows().is_empty());
    }
}
