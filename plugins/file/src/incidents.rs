//! What is remembered of crashes, so that a damaged file can't crash one instance after the other.
//!
//! The engine verifies what it reads after a crash of the host, not what has been altered behind its back since: that can make
//! it panic, which ends the instance. The panic leaves a line in a file beside the database, and so does damage that is noticed
//! without one. Whoever opens the database next and finds a line has every page verified before anything is trusted, and
//! whoever finds [`MOST`] lines doesn't touch it any more.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// From how many lines on the database is given up: what happened, a check that was begun because of it, and what became of
/// that.
const MOST: usize = 3;

/// How much of a line is kept.
const LINE_CHARS: usize = 200;

/// The file with the lines.
#[derive(Debug, Clone)]
pub(crate) struct Incidents {
    path: PathBuf,
}

/// What the lines say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum History {
    /// Nothing: the database can be trusted.
    Clean,
    /// There was a crash, or damage: the database has to be verified.
    Suspect,
    /// Verifying it crashed, took too long, or found damage as well; the first line is why there was a need to.
    Hopeless(String),
}

impl Incidents {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn history(&self) -> History {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let mut lines = text.lines();
        match (lines.next(), lines.count() + 1) {
            (None, _) => History::Clean,
            (Some(first), count) if count >= MOST => History::Hopeless(first.to_owned()),
            _ => History::Suspect,
        }
    }

    /// Adds a line. Where that can't be done there is no history, and every opening is the first.
    pub(crate) fn add(&self, what: &str) {
        let line: String = what.chars().take(LINE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&self.path) {
            let _ = writeln!(file, "{line}");
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        // Mostly, there is nothing.
        let _ = fs::remove_file(&self.path);
    }

    /// Adds a line for every panic from now on.
    #[cfg(target_family = "wasm")]
    pub(crate) fn watch(&self) {
        let incidents = self.clone();
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            incidents.add(&panic.to_string());
        }));
    }
}
