//! The figures of the demo, and the table that sums them up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::Backend;

/// What the validated reads came to.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    outcomes: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
}

impl Figures {
    /// Counts a read.
    pub(crate) fn add(&mut self, outcome: &str, latency: Duration) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
        self.latencies.push(latency);
    }

    /// How many reads there were in all.
    pub(crate) fn reads(&self) -> usize {
        self.latencies.len()
    }

    fn outcomes(&self) -> String {
        let counts: Vec<String> = self.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        counts.join(", ")
    }

    /// The latency that this share of the reads stayed within: the nearest rank.
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

/// The table at the end.
pub(crate) fn table(imported: u64, live: u64, figures: &Figures, backend: &Backend) -> String {
    let latency = |percent| figures.percentile(percent).map_or_else(|| "none".to_owned(), milliseconds);
    let size = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let rows = [
        ("documents", format!("{imported} imported, {live} there now")),
        ("validated reads", format!("{}: {}", figures.reads(), figures.outcomes())),
        ("their latency", format!("p50 {}, p99 {}, over HTTP, one at a time", latency(50), latency(99))),
        (
            "backend",
            format!(
                "{}: {}, {} entries of {} in {} sandboxed instances using {}, {} restarts",
                backend.name,
                backend.state,
                backend.entries.unwrap_or_default(),
                size(backend.bytes.unwrap_or_default()),
                backend.shards,
                size(backend.memory_bytes),
                backend.restarts,
            ),
        ),
    ];
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("  {name:<17}{value}")).collect();
    lines.join("\n")
}

fn milliseconds(latency: Duration) -> String {
    format!("{:.2} ms", latency.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut figures = Figures::default();
        assert_eq!(figures.percentile(50), None);
        for millis in (1..=100).rev() {
            figures.add(if millis == 7 { "missing" } else { "consistent" }, Duration::from_millis(millis));
        }
        assert_eq!(figures.percentile(50), Some(Duration::from_millis(50)));
        assert_eq!(figures.percentile(99), Some(Duration::from_millis(99)));
        assert_eq!(figures.outcomes(), "99 consistent, 1 missing");
        assert_eq!(milliseconds(Duration::from_micros(1234)), "1.23 ms");
    }
}
