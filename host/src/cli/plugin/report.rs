//! The report of a conformance run: for people, and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::clock::whole_millis;
use crate::conformance::{CaseReport, Suite, Verdict};
use crate::kv::{Capabilities, KvError};

/// What is tested.
pub(super) struct Head {
    plugin: String,
    sha256: String,
    /// What it declares, or why it can't be opened.
    pub(super) capabilities: Result<Capabilities, KvError>,
    seed: u64,
}

/// How many cases ended how.
pub(super) struct Totals {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    pub(super) elapsed: Duration,
}

/// One case, for programs.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    case: &'a str,
    verdict: &'static str,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contract: Option<&'a str>,
}

/// The end of the report, for programs.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    summary: Counts,
    seed: u64,
    plugin: &'a str,
    sha256: &'a str,
    capabilities: Option<Declared>,
}

#[derive(Serialize)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    elapsed_ms: u64,
}

/// [`Capabilities`], for programs.
#[derive(Serialize)]
pub(super) struct Declared {
    max_key_bytes: u32,
    max_value_bytes: u32,
    max_batch: u32,
    persistent: bool,
    shared: bool,
}

impl Head {
    /// Opens the plugin for the first time.
    pub(super) fn of(suite: &Suite) -> Self {
        let plugin = suite.trials().plugin();
        Self {
            plugin: plugin.path().display().to_string(),
            sha256: plugin.sha256().to_owned(),
            capabilities: suite.capabilities(),
            seed: suite.seed_in_use(),
        }
    }

    /// The file's name and digest, for what identifies the run elsewhere.
    pub(super) fn plugin(&self) -> (&str, &str) {
        (&self.plugin, &self.sha256)
    }

    /// The seed of everything random.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// The lines above the cases.
    pub(super) fn text(&self) -> String {
        let capabilities = match &self.capabilities {
            Ok(capabilities) => describe(capabilities),
            Err(_) => "can't be opened".to_owned(),
        };
        format!("{}\n  sha256 {}\n  {capabilities}\n", self.plugin, self.sha256)
    }

    /// The line below them.
    pub(super) fn summary(&self, totals: &Totals) -> Summary<'_> {
        let Totals { passed, failed, skipped, elapsed } = *totals;
        Summary {
            summary: Counts { passed, failed, skipped, elapsed_ms: whole_millis(elapsed) },
            seed: self.seed,
            plugin: &self.plugin,
            sha256: &self.sha256,
            capabilities: self.capabilities.as_ref().ok().map(declared),
        }
    }
}

impl Totals {
    /// Counts.
    pub(super) fn of(reports: &[CaseReport], elapsed: Duration) -> Self {
        let count = |fits: fn(&Verdict) -> bool| reports.iter().filter(|report| fits(&report.verdict)).count();
        Self {
            passed: count(|verdict| matches!(verdict, Verdict::Passed { .. })),
            failed: count(|verdict| matches!(verdict, Verdict::Failed(_))),
            skipped: count(|verdict| matches!(verdict, Verdict::Skipped { .. })),
            elapsed,
        }
    }

    /// The last line for people.
    pub(super) fn text(&self, head: &Head) -> String {
        let Self { passed, failed, skipped, elapsed } = self;
        let seconds = elapsed.as_secs_f64();
        format!("{passed} passed, {failed} failed, {skipped} skipped in {seconds:.1} s (seed {})\n", head.seed)
    }
}

/// What a plugin declares, in words.
pub(super) fn describe(capabilities: &Capabilities) -> String {
    let Capabilities { max_key_bytes, max_value_bytes, max_batch, persistent, shared } = capabilities;
    let not = |is: bool| if is { "" } else { "not " };
    format!(
        "keys up to {}, values up to {}, batches up to {max_batch}; {}persistent, {}shared",
        size(u64::from(*max_key_bytes)),
        size(u64::from(*max_value_bytes)),
        not(*persistent),
        not(*shared)
    )
}

/// What a plugin declares, for programs.
pub(super) fn declared(capabilities: &Capabilities) -> Declared {
    let Capabilities { max_key_bytes, max_value_bytes, max_batch, persistent, shared } = *capabilities;
    Declared { max_key_bytes, max_value_bytes, max_batch, persistent, shared }
}

/// Bytes in the largest unit that leaves a whole number.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// The lines of one case, for people.
pub(super) fn text(report: &CaseReport) -> String {
    let name = report.name;
    let time = format!("{} ms", whole_millis(report.elapsed));
    let mut text = String::new();
    // Writing to a string can't fail.
    match &report.verdict {
        Verdict::Passed { notes } => {
            let _ = writeln!(text, "ok       {name:<45}{time:>9}");
            for note in notes {
                let _ = writeln!(text, "           note      {note}");
            }
        }
        Verdict::Skipped { reason } => {
            let _ = writeln!(text, "skipped  {name:<45}         {reason}");
        }
        Verdict::Failed(failure) => {
            let _ = writeln!(text, "FAILED   {name:<45}{time:>9}");
            let _ = writeln!(text, "           expected  {}", failure.expected);
            let _ = writeln!(text, "           found     {}", failure.found);
            let _ = writeln!(text, "           contract  “{}”", failure.contract);
        }
    }
    text
}

/// One case, for programs.
pub(super) fn line(report: &CaseReport) -> Line<'_> {
    let mut line = Line {
        case: report.name,
        verdict: "passed",
        elapsed_ms: whole_millis(report.elapsed),
        notes: &[],
        reason: None,
        expected: None,
        found: None,
        contract: None,
    };
    match &report.verdict {
        Verdict::Passed { notes } => line.notes = notes,
        Verdict::Skipped { reason } => {
            line.verdict = "skipped";
            line.reason = Some(reason);
        }
        Verdict::Failed(failure) => {
            line.verdict = "failed";
            line.expected = Some(&failure.expected);
            line.found = Some(&failure.found);
            line.contract = Some(failure.contract);
        }
    }
    line
}
