//! What an import tells: complaints about single records, and how it all went.

use std::time::Duration;

use indicatif::HumanCount;
use serde::Serialize;
use serde_json::json;

use super::batch::Complaint;
use super::pipeline::Inserted;
use crate::cli::progress::rate;
use crate::cli::{Failure, output};

impl Complaint {
    /// One line of text, or of JSON.
    pub(super) fn show(&self, json: bool) -> String {
        let Self { line, column, reason } = self;
        if json {
            return json!({ "line": line, "column": column, "reason": reason }).to_string();
        }
        match column {
            Some(column) => format!("line {line}, column {column}: {reason}"),
            None => format!("line {line}: {reason}"),
        }
    }
}

/// The figures of an import.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Records that were looked at; the sum of the next four.
    read: u64,
    imported: u64,
    /// Documents whose id was taken.
    already_there: u64,
    invalid: u64,
    /// Documents that MongoDB refused, or did not confirm.
    failed: u64,
    seconds: f64,
    /// Imported documents per second.
    rate: u64,
}

impl Summary {
    /// Counts a batch.
    pub(super) fn add(&mut self, batch: &Inserted) {
        self.read += batch.read;
        self.imported += batch.imported;
        self.already_there += batch.already_there;
        self.invalid += batch.invalid.len() as u64;
        self.failed += batch.refused.len() as u64 + batch.unconfirmed;
    }

    /// Says how long it all took.
    pub(super) fn finish(&mut self, elapsed: Duration) {
        self.seconds = elapsed.as_secs_f64();
        self.rate = rate(self.imported, elapsed);
    }

    /// Whether something was not imported that is not there.
    pub(super) fn has_complaints(&self) -> bool {
        self.invalid + self.failed > 0
    }

    /// Prints it to the standard output.
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        output::though_unread(if json { output::json_line(self) } else { output::line(&self.text()) })
    }

    fn text(&self) -> String {
        let Self { read, imported, already_there, invalid, failed, seconds, rate } = self;
        let mut text = format!("read {}: imported {}", HumanCount(*read), HumanCount(*imported));
        for (count, what) in [(already_there, "already there"), (invalid, "invalid"), (failed, "failed")] {
            if *count > 0 {
                text.push_str(&format!(", {} {what}", HumanCount(*count)));
            }
        }
        text.push_str(&format!("; {seconds:.1} s, {}/s", HumanCount(*rate)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let mut summary = Summary { read: 1203, imported: 1200, already_there: 2, invalid: 1, ..Summary::default() };
        summary.finish(Duration::from_millis(600));
        assert_eq!(summary.text(), "read 1,203: imported 1,200, 2 already there, 1 invalid; 0.6 s, 2,000/s");
        assert!(summary.has_complaints());
        assert_eq!(Summary::default().text(), "read 0: imported 0; 0.0 s, 0/s");

        let complaint = Complaint { line: 3, column: Some(5), reason: "no".into() };
        assert_eq!(complaint.show(false), "line 3, column 5: no");
        assert_eq!(complaint.show(true), r#"{"line":3,"column":5,"reason":"no"}"#);
    }
}
