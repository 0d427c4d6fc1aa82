//! Text divided into records, one for each document: the lines of JSON Lines, or the elements of one JSON array.
//!
//! Which of the two it is, the first character that isn't blank tells. Records are handed out as they are read, so memory is bounded by
//! the longest of them, and that by [`MAX_RECORD_BYTES`]. Whether a record is valid JSON is not decided here.

use std::io::{self, BufRead, Cursor, Read};

/// The longest record that is kept. The largest document (16 MiB of BSON) is shorter in every form that `export` and mongoexport write.
pub(super) const MAX_RECORD_BYTES: usize = 128 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A part of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The line that it begins on, from 1.
    pub(super) line: u64,
    /// How many bytes of that line are before it.
    pub(super) offset: u64,
    /// Its bytes, or why there is no use for them.
    pub(super) text: Result<Vec<u8>, &'static str>,
}

/// The records of an input. Blank lines are none.
pub(super) struct Records<R> {
    input: io::Chain<Cursor<Vec<u8>>, R>,
    form: Form,
    line: u64,
    /// How many bytes of the current line were consumed.
    offset: u64,
    /// How many bytes were consumed in all.
    bytes: u64,
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Lines,
    /// `expects_element`: behind a comma, where the array can't end.
    Array {
        expects_element: bool,
    },
    /// Behind the closing bracket.
    Ended,
    /// Nothing more is to be read, whatever there is.
    Finished,
}

impl<R: BufRead> Records<R> {
    /// Skips the byte order mark, if there is one.
    ///
    /// # Errors
    /// If the input can't be read.
    pub(super) fn new(mut input: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(BYTE_ORDER_MARK.len());
        input.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut head)?;
        let mut bytes = 0;
        if head == BYTE_ORDER_MARK {
            bytes = head.len() as u64;
            head.clear();
        }
        let input = Cursor::new(head).chain(input);
        Ok(Self { input, form: Form::Unknown, line: 1, offset: 0, bytes, limit: MAX_RECORD_BYTES })
    }

    /// How many bytes of the input lie before the next record.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next record; `None` at the end. After a record that says the array is damaged there is none.
    ///
    /// # Errors
    /// If the input can't be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            return match self.form {
                Form::Lines => self.next_line(),
                Form::Array { expects_element } => self.next_element(expects_element),
                Form::Unknown => match self.skip_blanks()? {
                    None => Ok(None),
                    Some(b'[') => {
                        self.consume(b'[');
                        self.form = Form::Array { expects_element: false };
                        continue;
                    }
                    Some(_) => {
                        self.form = Form::Lines;
                        continue;
                    }
                },
                Form::Ended => match self.skip_blanks()? {
                    None => Ok(None),
                    Some(_) => self.damage("the array has ended, and what comes here is not read"),
                },
                Form::Finished => Ok(None),
            };
        }
    }

    fn next_line(&mut self) -> io::Result<Option<Record>> {
        loop {
            let (line, offset) = (self.line, self.offset);
            let mut text = Vec::new();
            // One more than is allowed, so that too long a line is told from one that just fits.
            let read = self.input.by_ref().take(self.limit as u64 + 1).read_until(b'\n', &mut text)?;
            if read == 0 {
                return Ok(None);
            }
            self.bytes += read as u64;
            let is_whole = text.last() == Some(&b'\n');
            if !is_whole && text.len() > self.limit {
                self.skip_line()?;
                return Ok(Some(Record { line, offset, text: Err(TOO_LONG) }));
            }
            if is_whole {
                self.line += 1;
                self.offset = 0;
                // Who finds that a record is cut short finds it at its end, which is not the beginning of the next line.
                text.pop();
                text.pop_if(|last| *last == b'\r');
            }
            if !text.trim_ascii().is_empty() {
                return Ok(Some(Record { line, offset, text: Ok(text) }));
            }
        }
    }

    /// Consumes the rest of the line.
    fn skip_line(&mut self) -> io::Result<()> {
        self.bytes += self.input.skip_until(b'\n')? as u64;
        self.line += 1;
        self.offset = 0;
        Ok(())
    }

    fn next_element(&mut self, expects_element: bool) -> io::Result<Option<Record>> {
        match self.skip_blanks()? {
            None => return self.damage("the array is not closed"),
            Some(b']') if !expects_element => {
                self.consume(b']');
                self.form = Form::Ended;
                return self.next();
            }
            Some(_) => {}
        }
        let (line, offset) = (self.line, self.offset);
        let mut text = Vec::new();
        let mut scanner = Scanner::default();
        let mut is_too_long = false;
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return self.damage("the array is not closed");
            }
            let end = chunk.iter().position(|&byte| scanner.ends_before(byte));
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            is_too_long |= text.len() + part.len() > self.limit;
            if is_too_long {
                text = Vec::new();
            } else {
                text.extend_from_slice(part);
            }
            let newlines = part.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.line += newlines;
            match part.iter().rposition(|&byte| byte == b'\n') {
                Some(last) => self.offset = (part.len() - last - 1) as u64,
                None => self.offset += part.len() as u64,
            }
            let ending = end.and_then(|end| chunk.get(end)).copied();
            let length = part.len();
            self.bytes += length as u64;
            self.input.consume(length);
            if let Some(ending) = ending {
                self.consume(ending);
                self.form = if ending == b']' { Form::Ended } else { Form::Array { expects_element: true } };
                break;
            }
        }
        let text = match () {
            () if is_too_long => Err(TOO_LONG),
            () if text.trim_ascii().is_empty() => Err("an element of the array is missing"),
            () => Ok(text),
        };
        Ok(Some(Record { line, offset, text }))
    }

    /// The last record: why no more can be read.
    fn damage(&mut self, reason: &'static str) -> io::Result<Option<Record>> {
        let record = Record { line: self.line, offset: self.offset, text: Err(reason) };
        self.form = Form::Finished;
        Ok(Some(record))
    }

    /// Consumes blanks, and tells the byte behind them.
    fn skip_blanks(&mut self) -> io::Result<Option<u8>> {
        loop {
            let Some(&byte) = self.input.fill_buf()?.first() else { return Ok(None) };
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.consume(byte);
        }
    }

    /// Consumes one byte, which is this one.
    fn consume(&mut self, byte: u8) {
        self.input.consume(1);
        self.bytes += 1;
        if byte == b'\n' {
            self.line += 1;
            self.offset = 0;
        } else {
            self.offset += 1;
        }
    }
}

const TOO_LONG: &str = "longer than 128 MiB, which no document is";

/// Where in the JSON of an array's element a byte is. It knows brackets and strings, and takes everything else as it comes.
#[derive(Debug, Default)]
struct Scanner {
    depth: u64,
    in_string: bool,
    is_escaped: bool,
}

impl Scanner {
    /// Whether the element ends before this byte.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// Every record as `line+offset: text`, read through a buffer of this size.
    fn read(input: &[u8], buffer: usize, limit: usize) -> Vec<String> {
        let mut records = Records::new(BufReader::with_capacity(buffer, input)).unwrap();
        records.limit = limit;
        let mut all = Vec::new();
        while let Some(record) = records.next().unwrap() {
            let text = match record.text {
                Ok(text) => String::from_utf8_lossy(&text).trim().to_owned(),
                Err(reason) => format!("! {reason}"),
            };
            all.push(format!("{}+{}: {text}", record.line, record.offset));
        }
        assert_eq!(records.next().unwrap(), None);
        all
    }

    #[track_caller]
    fn check(input: &str, expected: &[&str]) {
        for buffer in [1, 2, 3, 7, 4096] {
            assert_eq!(read(input.as_bytes(), buffer, 1000), expected, "through a buffer of {buffer}");
        }
    }

    #[test]
    fn lines() {
        check("", &[]);
        check(" \r\n\n", &[]);
        check("{}\n{\"a\":1}", &["1+0: {}", "2+0: {\"a\":1}"]);
        check("\n {}\r\n\r\n \t\n{}\r\n", &["2+1: {}", "5+0: {}"]);
        check("\u{feff}{}\n", &["1+0: {}"]);
        check("x", &["1+0: x"]);
    }

    #[test]
    fn arrays() {
        check("[]", &[]);
        check("\u{feff} [ ] \n", &[]);
        check("[{}]", &["1+1: {}"]);
        check("[\n  {\n\"a\": [1, 2]},\n  {} ]\n", &["2+2: {\n\"a\": [1, 2]}", "4+2: {}"]);
        check(r#"[{"a,]}":"\"],"},"x\\",7]"#, &[r#"1+1: {"a,]}":"\"],"}"#, r#"1+17: "x\\""#, "1+23: 7"]);
    }

    #[test]
    fn damaged_arrays() {
        check("[", &["1+1: ! the array is not closed"]);
        check("[{},\n", &["1+1: {}", "2+0: ! the array is not closed"]);
        check("[{},{\"a", &["1+1: {}", "1+7: ! the array is not closed"]);
        check("[{},]", &["1+1: {}", "1+4: ! an element of the array is missing"]);
        check("[,{}]", &["1+1: ! an element of the array is missing", "1+2: {}"]);
        check("[{}]\n{}", &["1+1: {}", "2+0: ! the array has ended, and what comes here is not read"]);
    }

    #[test]
    fn what_is_too_long_is_passed_over() {
        for buffer in [1, 4, 4096] {
            let lines = b"{1}\n{12345678901}\n{2}\n12345678\n123456789";
            let expected = ["1+0: {1}", "2+0: ! longer", "3+0: {2}", "4+0: 12345678", "5+0: ! longer"];
            let found = read(lines, buffer, 8);
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:?}");
            let found = read(b"[{1},\n{12345678901}, {2}]", buffer, 8);
            assert!(found[1].starts_with("2+0: ! longer") && found[2] == "2+15: {2}", "{found:?}");
        }
    }

    #[test]
    fn bytes_are_counted() {
        for input in ["\u{feff}{}\n\n{}\r\n", "[{},\n {}]\n"] {
            let mut records = Records::new(BufReader::with_capacity(3, input.as_bytes())).unwrap();
            while records.next().unwrap().is_some() {}
            assert_eq!(records.bytes(), input.len() as u64);
        }
    }
}
