//! What a job came to, for people; programs get it as it is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Failure;
use crate::cli::output;
use crate::jobs::Needs;

/// A job as the API shows it, as far as the command line looks into it.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::cli) struct JobView {
    pub(in crate::cli) id: String,
    pub(in crate::cli) kind: String,
    pub(in crate::cli) backend: String,
    pub(in crate::cli) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) progress: ProgressView,
    report: ReportView,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// How far it is.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::cli) struct ProgressView {
    pub(in crate::cli) examined: u64,
    pub(in crate::cli) estimate: u64,
    pub(in crate::cli) per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) seconds_left: Option<f64>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ReportView {
    differences: u64,
    examples: Vec<FindingView>,
    #[serde(flatten)]
    counts: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize, Serialize)]
struct FindingView {
    event_id: String,
    kind: String,
    paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    repaired: bool,
}

impl JobView {
    /// Whether there is nothing left to do.
    pub(in crate::cli) fn has_ended(&self) -> bool {
        self.state != "running"
    }

    /// Whether it did all that it was to do, and nothing is left to be mended.
    pub(super) fn is_fine(&self) -> bool {
        let is_open = |name: &str| self.count(name) > 0;
        self.state == "done"
            && self.report.differences <= self.count("repaired")
            && !is_open("rejected")
            && !is_open("unsettled")
            && !is_open("outdated")
    }

    fn count(&self, name: &str) -> u64 {
        self.report.counts.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// Paths that are shown of one example.
const PATHS: usize = 5;

/// Prints it.
///
/// # Errors
/// Those of the standard output.
pub(super) fn print(job: &JobView, json: bool) -> Result<(), Failure> {
    output::though_unread(if json { output::json_line(job) } else { output::write(text(job).as_bytes()) })
}

fn text(job: &JobView) -> String {
    let mut lines = Vec::new();
    let reason = job.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    lines.push(format!("{} of {}: {}{reason}", job.kind, job.backend, job.state));
    let counts: Vec<String> = COUNTS
        .iter()
        .filter(|(name, _)| *name == "examined" || job.count(name) > 0)
        .map(|(name, meaning)| format!("  {:>10} {meaning}", job.count(name)))
        .collect();
    lines.extend(counts);
    if job.state == "done" && matches!(job.kind.as_str(), "verify" | "repair") && job.report.differences == 0 {
        lines.push(format!("  {:>10} differences", 0));
    }
    lines.extend(needs(job));
    if !job.report.examples.is_empty() {
        lines.push("examples:".to_owned());
    }
    for FindingView { event_id, kind, paths, reason, repaired } in &job.report.examples {
        let shown = paths.iter().take(PATHS).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if paths.len() > PATHS { ", …" } else { "" };
        let where_to = if paths.is_empty() { String::new() } else { format!(" in {shown}{more}") };
        let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let mended = if *repaired { ", repaired" } else { "" };
        lines.push(format!("  {event_id} {kind}{where_to}{reason}{mended}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What copies need to be read.
fn needs(job: &JobView) -> Vec<String> {
    let counted = |name: &str| job.report.counts.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let line = |count: &Value, meaning: String| format!("  {:>10} copies {meaning}", count.as_u64().unwrap_or(0));
    let keys = counted("keys").into_iter().map(|(id, count)| match id.as_str() {
        Needs::NO_KEY => line(&count, "that are not encrypted".to_owned()),
        Needs::UNREADABLE => line(&count, "that don't say how they are encrypted".to_owned()),
        id => line(&count, format!("encrypted with the key {id}")),
    });
    let dictionaries = counted("dictionaries").into_iter();
    keys.chain(dictionaries.map(|(id, count)| line(&count, format!("compressed with the dictionary {id}")))).collect()
}

/// What is counted, in the order in which it is told.
const COUNTS: [(&str, &str); 16] = [
    ("examined", "documents and copies looked at"),
    ("copied", "copied"),
    ("restored", "documents brought back"),
    ("present", "copies whose document was there"),
    ("missing", "documents without a copy"),
    ("stale", "copies of an older revision"),
    ("different", "copies with other contents"),
    ("corrupt", "copies that are damaged"),
    ("resurrected", "copies of soft-deleted documents"),
    ("extra", "copies of documents that are gone"),
    ("repaired", "differences repaired"),
    ("rewritten", "copies rewritten"),
    ("outdated", "copies left as they were, since their document is gone or they are not taken"),
    ("unsettled", "documents that kept changing while they were looked at"),
    ("rejected", "documents that are not taken"),
    ("foreign", "entries of somebody else, left alone"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(state: &str, report: Value) -> JobView {
        let mut counts =
            json!({ "differences": 0, "examples": [], "examined": 10, "repaired": 0, "rejected": 0, "unsettled": 0 });
        counts.as_object_mut().unwrap().extend(report.as_object().unwrap().clone());
        let progress = json!({ "examined": 10, "estimate": 10, "per_second": 5.0, "parts": 1, "parts_done": 1 });
        let job = json!({
            "id": "1", "kind": "verify", "backend": "local", "state": state, "progress": progress, "report": counts,
            "created_at": "x",
        });
        serde_json::from_value(job).unwrap()
    }

    #[test]
    fn fine_is_what_leaves_nothing_to_do() {
        for (state, report, fine) in [
            ("done", json!({}), true),
            ("done", json!({ "differences": 2, "missing": 2, "repaired": 2 }), true),
            ("done", json!({ "differences": 2, "missing": 2, "repaired": 1 }), false),
            ("done", json!({ "unsettled": 1 }), false),
            ("done", json!({ "rejected": 1 }), false),
            ("done", json!({ "rewritten": 1 }), true),
            ("done", json!({ "outdated": 1 }), false),
            ("cancelled", json!({}), false),
        ] {
            assert_eq!(job(state, report.clone()).is_fine(), fine, "{state} {report}");
        }
    }

    #[test]
    fn people_read_which_keys_are_needed() {
        let job = job("done", json!({ "keys": { "none": 1, "00ab": 2 }, "dictionaries": { "00cd": 3 } }));
        let text = text(&job);
        for line in [
            "1 copies that are not encrypted",
            "2 copies encrypted with the key 00ab",
            "3 copies compressed with the dictionary 00cd",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn people_read_what_differs() {
        let examples = json!([
            { "event_id": "e", "kind": "stale", "paths": ["a", "b[0]"], "repaired": true },
            { "event_id": "f", "kind": "corrupt", "paths": [], "reason": "it is torn", "repaired": false },
        ]);
        let job = job("done", json!({ "differences": 1, "stale": 1, "repaired": 1, "examples": examples }));
        let text = text(&job);
        for line in [
            "verify of local: done",
            "1 copies of an older revision",
            "e stale in a, b[0], repaired",
            "f corrupt: it is torn",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let json = serde_json::to_value(&job).unwrap();
        assert_eq!(
            (&json["created_at"], &json["progress"]["parts"], &json["report"]["stale"]),
            (&json!("x"), &json!(1), &json!(1))
        );
    }
}
