//! The benchmark harness: two ways of doing the same thing, compared fairly, with an answer that says how sure it is.
//!
//! A and B run in the same process in alternating blocks, in the order A B, B A, A B, …, so that neither a machine that slowly
//! heats up nor one that is busy for a moment favours either. Each iteration is timed by itself. Every pair of neighbouring
//! blocks gives one ratio of medians; the figure reported is the median of those ratios, with a 95 % confidence interval from
//! resampling the pairs. A row with a target ends as met, missed, or inconclusive where the machine was too noisy to tell.
//!
//! ```no_run
//! use memcell_tests::bench::{Plan, Suite, Target};
//!
//! # async fn example() -> anyhow::Result<()> {
//! let mut suite = Suite::new("store");
//! // A is the way under test, B the yardstick. One item an iteration, in nanoseconds, unless said otherwise.
//! suite
//!     .row("append: in-memory backend / none")
//!     .plan(Plan { pairs: 20, iterations: 200, warm_up: 50 })
//!     .target(Target::AtMost(1.05))
//!     .compare_async(async || Ok(()), async || Ok(()))
//!     .await?;
//! // What an iteration does with 100 items, per item; what is computed is returned, so that it isn't optimised away.
//! suite.row("get, batches of 100").items(100).target(Target::AtMost(2.5)).compare(|| Ok(1), || Ok(2))?;
//! // Throughput: items a second, where more is better. The closures time themselves, so that preparing an iteration is left out.
//! suite
//!     .row("import / insert_many")
//!     .plan(Plan { pairs: 5, iterations: 1, warm_up: 0 })
//!     .throughput("documents/s", 100_000)
//!     .target(Target::AtLeast(0.8))
//!     .compare_timed_async(async || Ok(std::time::Duration::ZERO), async || Ok(std::time::Duration::ZERO))
//!     .await?;
//! // Only a figure, nothing to compare it with.
//! suite.row("get through the queue").report(|| Ok(()))?;
//! let summary = suite.finish()?; // prints the table, writes target/bench/store.json
//! assert_eq!(summary.missed, 0);
//! # Ok(())
//! # }
//! ```

mod measure;
mod report;
mod stats;

pub use measure::{Plan, RowBuilder};
pub use report::{Figures, Row, Suite, Summary};
pub use stats::{Interval, Target, Verdict};
