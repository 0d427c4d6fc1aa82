//! What was measured: rows of figures, the table for people and the file for programs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::measure::{RowBuilder, Unit};
use super::stats::{Interval, Ratio, Target, Verdict, quantile};
use crate::artifacts;

/// Figures of one side, in the unit of its row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Half of the iterations are at or below this.
    pub median: f64,
    /// What 99 % of the iterations don't exceed; of a rate: what 99 % of them reach.
    pub p99: f64,
    /// How many iterations were timed.
    pub n: usize,
}

/// One comparison, or one figure alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// `ns` (per item), or the name of a rate.
    pub unit: String,
    /// The way under test.
    pub a: Figures,
    /// The yardstick, if there is one.
    pub b: Option<Figures>,
    /// The median over the pairs of blocks of median of A / median of B.
    pub ratio_p50: Option<f64>,
    /// p99 of A / p99 of B, each over all iterations.
    pub ratio_p99: Option<f64>,
    /// Where `ratio_p50` lies with a probability of 95 %.
    pub ci: Option<Interval>,
    /// The bound for `ratio_p50`: the most for times, the least for rates.
    pub target: Option<f64>,
    /// Whether the target was met; null without a target, and if the measurements don't tell.
    pub met: Option<bool>,
    /// The target with its direction, and what became of it.
    #[serde(skip)]
    pub verdict: Option<(Target, Verdict)>,
}

impl Row {
    /// From the values of all iterations, block by block; `b` is empty or has as many blocks as `a`.
    pub(crate) fn new(name: String, unit: &Unit, a: &[Vec<f64>], b: &[Vec<f64>], target: Option<Target>) -> Self {
        let pairs: Vec<f64> =
            a.iter().zip(b).filter_map(|(a, b)| Some(quantile(a, 0.5)? / quantile(b, 0.5)?)).collect();
        let ratio = Ratio::of_pairs(&pairs);
        let verdict = target.map(|target| (target, ratio.map_or(Verdict::Inconclusive, |ratio| ratio.verdict(target))));
        let (a, b) = (figures(a, unit), (!b.is_empty()).then(|| figures(b, unit)));
        Self {
            name,
            unit: unit.name().to_owned(),
            a,
            b,
            ratio_p50: ratio.map(|ratio| ratio.median),
            ratio_p99: b.map(|b| a.p99 / b.p99),
            ci: ratio.map(|ratio| ratio.confidence),
            target: target.map(Target::bound),
            met: verdict.and_then(|(_, verdict)| match verdict {
                Verdict::Met => Some(true),
                Verdict::Missed => Some(false),
                Verdict::Inconclusive => None,
            }),
            verdict,
        }
    }

    /// The row of the table that people read.
    fn cells(&self) -> [String; 10] {
        let value = |value: f64| shown(value, &self.unit);
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let (target, verdict) = match self.verdict {
            None => ("-".to_owned(), "-"),
            Some((target, verdict)) => {
                let sign = if matches!(target, Target::AtMost(_)) { "≤" } else { "≥" };
                let verdict = match verdict {
                    Verdict::Met => "met",
                    Verdict::Missed => "MISSED",
                    Verdict::Inconclusive => "too noisy to tell",
                };
                (format!("{sign} {}", target.bound()), verdict)
            }
        };
        [
            self.name.clone(),
            value(self.a.median),
            value(self.a.p99),
            self.b.map_or_else(|| "-".to_owned(), |b| value(b.median)),
            self.b.map_or_else(|| "-".to_owned(), |b| value(b.p99)),
            ratio(self.ratio_p50),
            self.ci.map_or_else(|| "-".to_owned(), |ci| format!("{:.3}–{:.3}", ci.low, ci.high)),
            ratio(self.ratio_p99),
            target,
            verdict.to_owned(),
        ]
    }
}

const HEADINGS: [&str; 10] =
    ["", "A median", "A p99", "B median", "B p99", "A/B p50", "95 % interval", "A/B p99", "target", "verdict"];

/// How the rows of a suite came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Rows whose target was met.
    pub met: usize,
    /// Rows whose target was missed.
    pub missed: usize,
    /// Rows with a target about which the measurements don't tell.
    pub inconclusive: usize,
}

/// Rows that belong together: one table, one file.
#[derive(Debug)]
pub struct Suite {
    name: String,
    rows: Vec<Row>,
}

impl Suite {
    /// An empty suite. `name` is what the user calls it, and what the file is called.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rows: Vec::new() }
    }

    /// Begins a row; see [`RowBuilder`].
    pub fn row(&mut self, name: &str) -> RowBuilder<'_> {
        RowBuilder::new(self, name.to_owned())
    }

    /// What has been measured so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Prints the table to standard output and writes `target/bench/NAME.json` of the workspace.
    ///
    /// # Errors
    /// If the output or the file can't be written.
    pub fn finish(self) -> Result<Summary> {
        writeln!(std::io::stdout(), "\n{}", self.table())?;
        let file = self.write_into(&artifacts::workspace().join("target").join("bench"))?;
        eprintln!("bench: wrote {}", file.display());
        Ok(self.summary())
    }

    /// How the rows have come out so far.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for (_, verdict) in self.rows.iter().filter_map(|row| row.verdict) {
            match verdict {
                Verdict::Met => summary.met += 1,
                Verdict::Missed => summary.missed += 1,
                Verdict::Inconclusive => summary.inconclusive += 1,
            }
        }
        summary
    }

    /// The rows as an aligned table.
    pub fn table(&self) -> String {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let mut widths = [0; 10];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut table = format!("{}: medians of A and B, in alternating blocks\n", self.name);
        for line in &lines {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                // Names and verdicts begin together, figures end together.
                let cell =
                    if column == 0 || column == 9 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                text.push_str("  ");
                text.push_str(&cell);
            }
            table.push_str(text.trim_end());
            table.push('\n');
        }
        table
    }

    /// Writes `NAME.json` into a folder, which is made if need be, and returns where it is.
    pub(crate) fn write_into(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let file = folder.join(format!("{}.json", self.name));
        let mut json = serde_json::to_string_pretty(&self.rows)?;
        json.push('\n');
        fs::write(&file, json).with_context(|| format!("can't write {}", file.display()))?;
        Ok(file)
    }

    /// Tells the user what is being measured.
    pub(crate) fn announce(&self, row: &str) {
        eprintln!("bench: {}: {row}", self.name);
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

fn figures(blocks: &[Vec<f64>], unit: &Unit) -> Figures {
    let all: Vec<f64> = blocks.iter().flatten().copied().collect();
    let tail = if matches!(unit, Unit::Nanoseconds) { 0.99 } else { 0.01 };
    let at = |q| quantile(&all, q).unwrap_or(f64::NAN);
    Figures { median: at(0.5), p99: at(tail), n: all.len() }
}

/// A value to three or four digits; nanoseconds in the unit that suits them.
fn shown(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "ns" if value >= 1e9 => (value / 1e9, "s"),
        "ns" if value >= 1e6 => (value / 1e6, "ms"),
        "ns" if value >= 1e3 => (value / 1e3, "µs"),
        other => (value, other),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(folder: &str) -> Suite {
        let mut suite = Suite::new(folder);
        let blocks = |value: f64| vec![vec![value, value * 1.5]; 12];
        suite.add(Row::new(
            "get".into(),
            &Unit::Nanoseconds,
            &blocks(2000.0),
            &blocks(1000.0),
            Some(Target::AtMost(1.1)),
        ));
        let rate = Unit::PerSecond("documents/s".into());
        suite.add(Row::new("import".into(), &rate, &blocks(900.0), &blocks(1000.0), Some(Target::AtLeast(0.8))));
        suite.add(Row::new("single call".into(), &Unit::Nanoseconds, &blocks(12.0), &[], None));
        suite
    }

    #[test]
    fn the_table_is_aligned_and_says_it_all() {
        let table = suite("store").table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5, "{table}");
        let column = |line: &str, word: &str| line.find(word).map(|at| line[..at].chars().count());
        assert_eq!(column(lines[1], "verdict"), column(lines[2], "MISSED"), "{table}");
        assert_eq!(column(lines[1], "verdict"), column(lines[3], "met"), "{table}");
        assert!(
            lines[2].contains("2.50 µs") && lines[2].contains("2.000–2.000") && lines[2].contains("≤ 1.1"),
            "{table}"
        );
        assert!(lines[3].contains("1125 documents/s") && lines[3].contains("≥ 0.8"), "{table}");
        assert!(lines[4].contains("15.0 ns"), "{table}");
    }

    #[test]
    fn the_file_has_the_promised_shape() {
        let folder = std::env::temp_dir().join(format!("memcell-bench-{}", std::process::id()));
        let file = suite("shape").write_into(&folder).unwrap();
        assert_eq!(file, folder.join("shape.json"));
        let rows: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let keys: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["name", "unit", "a", "b", "ratio_p50", "ratio_p99", "ci", "target", "met"]);
        assert_eq!(rows[0]["ci"], serde_json::json!([2.0, 2.0]));
        assert_eq!(rows[0]["a"]["n"], 24);
        assert_eq!(rows[0]["met"], false);
        assert_eq!(rows[1]["met"], true);
        assert_eq!(rows[2]["b"], serde_json::Value::Null);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn outcomes_are_counted_and_the_p99_of_a_rate_is_its_slow_end() {
        let suite = suite("count");
        assert_eq!(suite.summary(), Summary { met: 1, missed: 1, inconclusive: 0 });
        assert!(suite.rows()[0].a.p99 > suite.rows()[0].a.median);
        assert!(suite.rows()[1].a.p99 < suite.rows()[1].a.median);
    }
}
