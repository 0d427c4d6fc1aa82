//! How a case goes wrong, and values in a form that fits on a line.

use std::fmt::Write as _;

use crate::kv::{Condition, Digest, Entry, GuestError, KvError, Mark, Outcome, Usage};

/// The most items of a list, and bytes of a text, that are shown.
const SHOWN_ITEMS: usize = 8;
const SHOWN_BYTES: usize = 60;

/// What was expected, what came instead, and what says that it should have been otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the case did, and what should have come of it.
    pub expected: String,
    /// What came of it.
    pub found: String,
    /// The sentence of the contract that this breaks.
    pub contract: &'static str,
}

/// What a part of a case comes to.
pub(super) type Checked<T = ()> = Result<T, Stop>;

/// Why a case does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The backend breaks the contract.
    Failed(Box<Failure>),
    /// There is nothing to try, for this reason: the backend says that it can't do what the case is about, as the contract lets it,
    /// or something is missing that the case needs.
    Skip(String),
}

/// The backend breaks the contract.
pub(super) fn failed<T>(contract: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Checked<T> {
    Err(Stop::Failed(Box::new(Failure { expected: expected.into(), found: found.into(), contract })))
}

/// That something holds; `found` says what was found if it doesn't.
pub(super) fn ensure(
    holds: bool,
    contract: &'static str,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Checked {
    if holds { Ok(()) } else { failed(contract, expected, found) }
}

/// That `found`, which came of `what`, is what was expected.
pub(super) fn same<T: PartialEq + Show>(contract: &'static str, what: &str, found: &T, expected: &T) -> Checked {
    ensure(found == expected, contract, format!("{what}: {}", expected.text()), found.text())
}

/// That a call was refused, with an error that `fits`; `kind` is what to call such an error.
pub(super) fn refused<T: Show>(
    contract: &'static str,
    what: &str,
    answer: &Result<T, KvError>,
    kind: &str,
    fits: impl Fn(&KvError) -> bool,
) -> Checked {
    let found = match answer {
        Err(error) if fits(error) => return Ok(()),
        Err(error) => error.to_string(),
        Ok(answer) => format!("no error, but the answer {}", answer.text()),
    };
    failed(contract, format!("{what}: the error {kind}"), found)
}

/// Whether the backend says that it has no such function.
pub(super) fn is_unsupported(error: &KvError) -> bool {
    matches!(error, KvError::Refused(GuestError::Unsupported(_)))
}

/// A value as a short text.
pub(super) trait Show {
    /// On one line, whatever is in it.
    fn show(&self, text: &mut String);

    /// The same, as a new text.
    fn text(&self) -> String {
        let mut text = String::new();
        self.show(&mut text);
        text
    }
}

impl Show for Entry {
    fn show(&self, text: &mut String) {
        show_key(text, &self.key, self.stamp, self.expires_at);
        text.push_str(" = ");
        show_bytes(text, &self.value);
    }
}

impl Show for Digest {
    fn show(&self, text: &mut String) {
        let Self { stamp, expires_at, head, value_bytes, rest_hash } = self;
        show_key(text, "", *stamp, *expires_at);
        text.push_str(" = ");
        show_bytes(text, head);
        // Writing to a String can't fail.
        let _ = write!(text, " of {value_bytes} bytes, the rest hashed to {rest_hash:016x}");
    }
}

impl Show for Mark {
    fn show(&self, text: &mut String) {
        show_key(text, &self.key, self.stamp, self.expires_at);
    }
}

impl Show for Outcome {
    fn show(&self, text: &mut String) {
        text.push_str(match self {
            Self::Applied => "applied",
            Self::Stale => "stale",
        });
    }
}

impl Show for Usage {
    fn show(&self, text: &mut String) {
        // Writing to a string can't fail.
        let _ = write!(text, "{} entries of {} bytes", self.entries, self.bytes);
    }
}

impl Show for () {
    fn show(&self, text: &mut String) {
        text.push_str("ok");
    }
}

impl Show for usize {
    fn show(&self, text: &mut String) {
        let _ = write!(text, "{self}");
    }
}

impl Show for String {
    fn show(&self, text: &mut String) {
        show_bytes(text, self.as_bytes());
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self, text: &mut String) {
        match self {
            Some(value) => value.show(text),
            None => text.push_str("none"),
        }
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self, text: &mut String) {
        text.push('[');
        for (index, item) in self.iter().take(SHOWN_ITEMS).enumerate() {
            if index > 0 {
                text.push_str(", ");
            }
            item.show(text);
        }
        if self.len() > SHOWN_ITEMS {
            let _ = write!(text, ", … {} in all", self.len());
        }
        text.push(']');
    }
}

/// The name of a condition in the contract.
pub(super) fn name_of(condition: Condition) -> &'static str {
    match condition {
        Condition::Newer => "newer",
        Condition::NotOlder => "not-older",
        Condition::Always => "always",
    }
}

fn show_key(text: &mut String, key: &str, stamp: u64, expires_at: Option<u64>) {
    show_bytes(text, key.as_bytes());
    let _ = write!(text, " at stamp {stamp}");
    if let Some(expires_at) = expires_at {
        let _ = write!(text, " until {expires_at}");
    }
}

fn show_bytes(text: &mut String, bytes: &[u8]) {
    let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(_) => {
            let _ = write!(text, "{:?}", String::from_utf8_lossy(shown));
        }
        Err(_) => shown.iter().take(SHOWN_ITEMS).for_each(|byte| {
            let _ = write!(text, "{byte:02x} ");
        }),
    }
    if bytes.len() > shown.len() || std::str::from_utf8(bytes).is_err() {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &[u8]) -> Entry {
        Entry { key: "a\0".into(), stamp: 5, expires_at: Some(9), value: value.to_vec() }
    }

    #[test]
    fn values_are_shown_on_one_short_line() {
        assert_eq!(entry(b"").text(), r#""a\0" at stamp 5 until 9 = """#);
        assert_eq!(entry(&[0xff, 1]).text(), r#""a\0" at stamp 5 until 9 = ff 01 … (2 bytes)"#);
        assert!(entry(&[b'x'; 5000]).text().ends_with("xx\"… (5000 bytes)"));
        assert_eq!(vec![Some(Outcome::Applied), None].text(), "[applied, none]");
        assert_eq!(vec![7_usize; 9].text(), "[7, 7, 7, 7, 7, 7, 7, 7, … 9 in all]");
    }

    #[test]
    fn a_failure_says_what_was_done() {
        let Err(Stop::Failed(failure)) = same("rule", "get", &None, &Some(entry(b"v"))) else { panic!() };
        assert_eq!(failure.expected, r#"get: "a\0" at stamp 5 until 9 = "v""#);
        assert_eq!(failure.found, "none");
        assert!(same("rule", "get", &1_usize, &1).is_ok());
        let answer: Result<usize, KvError> = Ok(3);
        let Err(Stop::Failed(failure)) = refused("rule", "get", &answer, "too-large", |_| true) else { panic!() };
        assert_eq!(failure.found, "no error, but the answer 3");
        assert!(refused("rule", "get", &Err::<usize, _>(KvError::Closed), "x", |_| true).is_ok());
    }
}
