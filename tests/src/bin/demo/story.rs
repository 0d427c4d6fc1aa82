//! What the demo prints: numbered lines.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::Result;

/// Counts the steps.
#[derive(Debug, Default)]
pub(crate) struct Story {
    steps: u32,
}

impl Story {
    /// The next step: what was done, and what was seen.
    pub(crate) fn step(&mut self, text: impl Display) -> Result<()> {
        self.steps += 1;
        line(format_args!("{:>3}. {text}", self.steps))
    }
}

/// A line beside the steps.
pub(crate) fn line(text: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    // A pipe gets each line as soon as there is one, like a terminal.
    out.flush()?;
    Ok(())
}
