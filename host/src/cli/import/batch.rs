//! A batch of records on its way: read on one thread, parsed on another.

use std::error::Error as _;
use std::io::{self, BufRead};
use std::mem;

use tokio::sync::mpsc::Sender;

use super::records::{Record, Records};
use crate::fuzzing::Imported;
use crate::memcell::NewMemCell;
use crate::shutdown::Shutdown;
use crate::{Error, Result};

/// The most text in a batch, but for a single record that is longer.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How the text of a record is read.
pub(super) type Read = fn(&str) -> Result<NewMemCell>;

/// Records that were read together.
#[derive(Default)]
pub(super) struct Batch {
    records: Vec<Record>,
    /// How much text the records are.
    text_bytes: usize,
    /// How much of the input was read for them.
    input_bytes: u64,
}

/// What a batch turned out to hold.
#[derive(Default)]
pub(super) struct Parsed {
    /// How many records were looked at.
    pub(super) read: u64,
    /// The valid documents.
    pub(super) cells: Vec<NewMemCell>,
    /// Where each of them begins.
    pub(super) lines: Vec<u64>,
    /// All other records.
    pub(super) invalid: Vec<Complaint>,
    /// How much of the input was read for all this.
    pub(super) input_bytes: u64,
}

/// Why a record was not imported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The line it is about, from 1.
    pub(super) line: u64,
    /// The byte of that line, from 1, if it is about a certain one.
    pub(super) column: Option<u64>,
    /// What is wrong.
    pub(super) reason: String,
}

/// Reads all of the input into the queue, batch by batch, and waits while the queue is full. Ends early if nobody takes batches any more
/// or `stop` is requested; but not while a read of the input blocks.
pub(super) fn read_all(input: impl BufRead, size: usize, stop: &Shutdown, queue: &Sender<io::Result<Batch>>) {
    let read = || -> io::Result<()> {
        let mut records = Records::new(input)?;
        let mut batch = Batch::default();
        let mut before = 0;
        while let Some(record) = records.next()? {
            if stop.is_requested() {
                return Ok(());
            }
            batch.text_bytes += record.text.as_ref().map_or(0, Vec::len);
            batch.records.push(record);
            if batch.records.len() >= size || batch.text_bytes >= BATCH_BYTES {
                batch.input_bytes = records.bytes() - before;
                before = records.bytes();
                if queue.blocking_send(Ok(mem::take(&mut batch))).is_err() {
                    return Ok(());
                }
            }
        }
        if !batch.records.is_empty() {
            batch.input_bytes = records.bytes() - before;
            // Whoever doesn't take it has a reason to, and says so.
            let _ = queue.blocking_send(Ok(batch));
        }
        Ok(())
    };
    if let Err(error) = read() {
        let _ = queue.blocking_send(Err(error));
    }
}

/// All of an input that is held in memory.
pub(crate) fn parse_all(input: impl BufRead) -> Vec<Imported> {
    let mut all = Vec::new();
    let Ok(mut records) = Records::new(input) else { return all };
    while let Ok(Some(record)) = records.next() {
        let (line, result) = match parse(&record, NewMemCell::from_import_line) {
            Ok(cell) => (record.line, Ok(cell)),
            Err(complaint) => (complaint.line, Err(complaint.reason)),
        };
        all.push(Imported { line, result });
    }
    all
}

impl Batch {
    /// Makes documents of the records; with `strict` only of those before the first that isn't valid.
    pub(super) fn parse(self, strict: bool, read: Read) -> Parsed {
        let mut parsed = Parsed { input_bytes: self.input_bytes, ..Parsed::default() };
        parsed.cells.reserve(self.records.len());
        parsed.lines.reserve(self.records.len());
        for record in self.records {
            parsed.read += 1;
            match parse(&record, read) {
                Ok(cell) => {
                    parsed.cells.push(cell);
                    parsed.lines.push(record.line);
                }
                Err(complaint) => {
                    parsed.invalid.push(complaint);
                    if strict {
                        break;
                    }
                }
            }
        }
        parsed
    }
}

fn parse(record: &Record, read: Read) -> Result<NewMemCell, Complaint> {
    let here = |reason: String| Complaint { line: record.line, column: None, reason };
    let text = record.text.as_ref().map_err(|reason| here((*reason).to_owned()))?;
    let text = str::from_utf8(text).map_err(|_| here("not utf-8 text".to_owned()))?;
    read(text).map_err(|error| complain(record, &error))
}

/// What is wrong with a record. The JSON parser counts lines and columns within the record; its reader counts them within the input.
fn complain(record: &Record, error: &Error) -> Complaint {
    let Some(json) = error.source().and_then(|source| source.downcast_ref::<serde_json::Error>()) else {
        return Complaint { line: record.line, column: None, reason: error.to_string() };
    };
    let place = format!(" at line {} column {}", json.line(), json.column());
    let reason = error.to_string();
    let before = if json.line() > 1 { 0 } else { record.offset };
    Complaint {
        line: record.line + (json.line() as u64).saturating_sub(1),
        column: Some(before + (json.column() as u64).max(1)),
        reason: reason.strip_suffix(&place).unwrap_or(&reason).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: u64, offset: u64, text: &[u8]) -> Record {
        Record { line, offset, text: Ok(text.to_vec()) }
    }

    #[track_caller]
    fn check(record: &Record, line: u64, column: Option<u64>, reason: &str) {
        let complaint = parse(record, NewMemCell::from_import_line).err().unwrap();
        assert_eq!((complaint.line, complaint.column), (line, column), "{complaint:?}");
        assert_eq!(complaint.reason, reason);
    }

    #[test]
    fn a_complaint_tells_the_place_in_the_input() {
        check(&record(7, 3, br#"{"a": nope}"#), 7, Some(11), "not valid json: expected ident");
        check(&record(7, 3, b"{\n\"a\": ?}"), 8, Some(6), "not valid json: expected value");
        check(&record(7, 0, b"{}"), 7, None, "timestamp: a MemCell needs a timestamp");
        check(&record(7, 0, b"{\"a\": \"\xff\"}"), 7, None, "not utf-8 text");
        check(&Record { line: 9, offset: 0, text: Err("damaged") }, 9, None, "damaged");
    }

    #[test]
    fn a_record_that_is_cut_short_is_so_on_its_own_line() {
        for input in ["{\"timestamp\": \"2025\n{\"a\":\n", "{\"timestamp\": \"2025\r\n{\"a\":\r\n"] {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(10);
            read_all(input.as_bytes(), 10, &Shutdown::new(), &sender);
            let batch = receiver.blocking_recv().unwrap().unwrap();
            let complaints = batch.parse(false, NewMemCell::from_import_line).invalid;
            let found: Vec<_> = complaints.iter().map(|found| (found.line, found.column, &*found.reason)).collect();
            let expected = [
                (1, Some(19), "not valid json: EOF while parsing a string"),
                (2, Some(5), "not valid json: EOF while parsing a value"),
            ];
            assert_eq!(found, expected, "{input:?}");
        }
        let exact = parse(&record(2, 0, b"{\"a\":"), NewMemCell::from_exact_line).err().unwrap();
        assert_eq!((exact.line, exact.column), (2, Some(5)), "{exact:?}");
        assert_eq!(exact.reason, "not valid json: EOF while parsing a value");
    }

    #[test]
    fn strict_looks_at_nothing_behind_the_first_complaint() {
        let good = br#"{"timestamp": "2025-06-26T00:03:30Z"}"#;
        let batch = || Batch {
            records: vec![record(1, 0, good), record(2, 0, b"?"), record(3, 0, good), record(4, 0, b"?")],
            ..Batch::default()
        };
        let parsed = batch().parse(true, NewMemCell::from_import_line);
        assert_eq!((parsed.read, parsed.lines, parsed.invalid.len()), (2, vec![1], 1));
        let parsed = batch().parse(false, NewMemCell::from_import_line);
        assert_eq!((parsed.read, parsed.lines, parsed.invalid.len()), (4, vec![1, 3], 2));
    }

    #[test]
    fn batches_are_bounded_and_account_for_all_bytes() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(10);
        let input = b"1\n2\n\n3\n4\n5\n";
        read_all(&input[..], 2, &Shutdown::new(), &sender);
        drop(sender);
        let mut sizes = Vec::new();
        while let Some(batch) = receiver.blocking_recv() {
            let batch = batch.unwrap();
            sizes.push((batch.records.len(), batch.input_bytes));
        }
        assert_eq!(sizes, [(2, 4), (2, 5), (1, 2)]);
    }
}
