//! `memcell plugin test`: the conformance suite, applied to one plugin.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::report::{self, Head, Totals};
use super::subject::{Subject, pair};
use super::{Exit, Failure, junit, output};
use crate::conformance::{CASES, Case, CaseReport, Suite, Verdict};

const AFTER_HELP: &str = "\
Each case is one promise of the contract (wit/kv.wit), tried on instances of the plugin that are called directly. A line of the report:
ok, FAILED (with what was expected, what came, and the sentence that it breaks), or skipped (with the reason: what the case is about is not
declared, or the plugin refuses it as unsupported).

What a plugin is granted, it is granted for the test as well: cases work on keys of their own, which begin with `mct-`, and remove them in
the end. Other entries may be there, but nobody may change them meanwhile, or counts will differ. Shards 0 and 1 are opened; a directory had
better be one for the test.

With --format json: an object a case with the fields case, verdict (passed, failed, skipped), elapsed_ms, notes, reason, expected, found and
contract; then one with the fields summary (passed, failed, skipped, elapsed_ms), seed, plugin, sha256 and capabilities.

Exit code 1: a case failed, or the plugin can't be loaded.

Examples:
  memcell plugin test target/plugins/in_memory.wasm
  memcell plugin test my.wasm --setting mode=fast --malformed mode=quick --case stamp --case expir
  memcell plugin test --config memcell.toml --backend local
  memcell plugin test my.wasm --format junit --output report.xml";

/// Arguments of `memcell plugin test`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct TestArgs {
    #[command(flatten)]
    subject: Subject,
    /// A setting with a value that `open` has to refuse. May be repeated; each is tried alone
    ///
    /// Only the author of a plugin can say which values of its settings are malformed.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    malformed: Vec<(String, String)>,
    /// Only the cases whose names contain this. May be repeated
    #[arg(long = "case", value_name = "PATTERN")]
    cases: Vec<String>,
    /// Make the random operations those of another run, whose report says its seed
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The form of the report; human, unless --json is given
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write the report to this file; people get theirs on the standard output all the same
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: one line a case
    Human,
    /// For programs: one object a case
    Json,
    /// For CI servers: JUnit's XML
    Junit,
}

/// Carries it out.
pub(super) fn run(args: TestArgs, config: &Path, json: bool) -> Result<Exit, Failure> {
    let cases = chosen(&args.cases)?;
    let usual = if json { Format::Json } else { Format::Human };
    let format = args.format.unwrap_or(usual);
    // What goes to the standard output: the report, unless that goes to a file.
    let shown = if args.output.is_some() { usual } else { format };
    let mut suite = Suite::new(args.subject.trials(config)?).malformed(args.malformed);
    if let Some(seed) = args.seed {
        suite = suite.seed(seed);
    }
    let started = Instant::now();
    let head = Head::of(&suite);
    if shown == Format::Human {
        output::write(head.text().as_bytes())?;
    }
    let mut reports = Vec::with_capacity(cases.len());
    for case in cases {
        let report = suite.run(case);
        match shown {
            Format::Human => output::write(report::text(&report).as_bytes())?,
            Format::Json => output::json_line(&report::line(&report))?,
            Format::Junit => {}
        }
        let is_unusable = head.capabilities.is_err();
        reports.push(report);
        if is_unusable {
            // Every case would say the same.
            break;
        }
    }
    let totals = Totals::of(&reports, started.elapsed());
    match shown {
        Format::Human => output::write(totals.text(&head).as_bytes())?,
        Format::Json => output::json_line(&head.summary(&totals))?,
        Format::Junit => output::write(junit::document(&head, &reports, &totals).as_bytes())?,
    }
    if let Some(file) = &args.output {
        let document = document(format, &head, &reports, &totals)?;
        std::fs::write(file, document).map_err(|error| Failure::io(file.display(), &error))?;
    }
    Ok(Exit::fine_if(reports.iter().all(|report| !matches!(report.verdict, Verdict::Failed(_)))))
}

fn chosen(patterns: &[String]) -> Result<Vec<&'static Case>, Failure> {
    if let Some(pattern) = patterns.iter().find(|pattern| !CASES.iter().any(|case| case.name.contains(*pattern))) {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(Failure::Usage(format!(
            "no case has {pattern:?} in its name; there are\n  {}",
            names.join("\n  ")
        )));
    }
    let is_chosen = |case: &&Case| patterns.is_empty() || patterns.iter().any(|pattern| case.name.contains(pattern));
    Ok(CASES.iter().filter(is_chosen).collect())
}

fn document(format: Format, head: &Head, reports: &[CaseReport], totals: &Totals) -> Result<Vec<u8>, Failure> {
    let mut document = Vec::new();
    match format {
        Format::Human => {
            document.extend_from_slice(head.text().as_bytes());
            reports.iter().for_each(|report| document.extend_from_slice(report::text(report).as_bytes()));
            document.extend_from_slice(totals.text(head).as_bytes());
        }
        Format::Json => {
            let failed = |error: serde_json::Error| Failure::Work(format!("the report as json: {error}"));
            for report in reports {
                serde_json::to_writer(&mut document, &report::line(report)).map_err(failed)?;
                document.push(b'\n');
            }
            serde_json::to_writer(&mut document, &head.summary(totals)).map_err(failed)?;
            document.push(b'\n');
        }
        Format::Junit => document.extend_from_slice(junit::document(head, reports, totals).as_bytes()),
    }
    Ok(document)
}
