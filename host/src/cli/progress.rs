//! How far a long command is: a bar on a terminal, otherwise a plain line every few seconds, always on the standard error.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use super::output;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is written.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a bar moves while nothing happens, so that its clock is seen to run.
const TICK: Duration = Duration::from_millis(200);

/// The progress of one command.
pub(super) struct Progress {
    verb: &'static str,
    started: Instant,
    documents: u64,
    display: Display,
}

enum Display {
    /// Programs that read the result have no use for it.
    None,
    Bar(ProgressBar),
    Lines {
        total_bytes: Option<u64>,
        bytes: u64,
        last: Instant,
    },
}

impl Progress {
    /// Begins at nothing. `verb` says what is done to documents (`imported`); `total_bytes` is the size of the input, if that is known.
    pub(super) fn start(verb: &'static str, total_bytes: Option<u64>, silent: bool) -> Self {
        let display = if silent {
            Display::None
        } else if io::stderr().is_terminal() {
            let template = match total_bytes {
                Some(_) => "{bar:30} {percent:>3} %  {msg}  {elapsed_precise}, {eta_precise} to go",
                None => "{spinner} {msg}  {elapsed_precise}",
            };
            // The templates are constants; a bar in the default style would still be a bar.
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr()).with_style(style);
            bar.enable_steady_tick(TICK);
            Display::Bar(bar)
        } else {
            Display::Lines { total_bytes, bytes: 0, last: Instant::now() }
        };
        Self { verb, started: Instant::now(), documents: 0, display }
    }

    /// Goes on by so many bytes of input and documents.
    pub(super) fn advance(&mut self, bytes: u64, documents: u64) {
        self.documents += documents;
        let message = |progress: &Self| {
            let per_second = rate(progress.documents, progress.started.elapsed());
            format!("{} documents {}, {}/s", HumanCount(progress.documents), progress.verb, HumanCount(per_second))
        };
        match &mut self.display {
            Display::None => {}
            Display::Bar(bar) => {
                let bar = bar.clone();
                bar.inc(bytes);
                bar.set_message(message(self));
            }
            Display::Lines { total_bytes, bytes: done, last } => {
                *done += bytes;
                if last.elapsed() < LINE_INTERVAL {
                    return;
                }
                *last = Instant::now();
                let share =
                    total_bytes.filter(|&total| total > 0).map(|total| u128::from(*done) * 100 / u128::from(total));
                let share = share.map(|percent| format!(" ({percent} %)")).unwrap_or_default();
                output::note(format_args!("{}{share}", message(self)));
            }
        }
    }

    /// Writes a line to the standard error without disturbing the bar.
    pub(super) fn say(&self, line: &str) {
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| output::note(line)),
            Display::None | Display::Lines { .. } => output::note(line),
        }
    }

    /// Since when.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// So many per second; of an instant, all of them.
pub(super) fn rate(count: u64, elapsed: Duration) -> u64 {
    let nanos = elapsed.as_nanos().max(1);
    if elapsed < Duration::from_millis(1) {
        return count;
    }
    u64::try_from(u128::from(count) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate(1000, Duration::from_millis(500)), 2000);
        assert_eq!(rate(7, Duration::ZERO), 7);
        assert_eq!(rate(u64::MAX, Duration::from_millis(1)), u64::MAX);
    }
}
