//! How far a job is: a bar on a terminal, otherwise a plain line every few seconds, always on the standard error.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::output;
use super::JobView;

/// How often a plain line is written.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// What is seen of a job while it goes on.
pub(super) struct Watch {
    bar: Option<ProgressBar>,
    silent: bool,
    last_line: Instant,
}

impl Watch {
    /// `silent`: programs that read the result have no use for it.
    pub(super) fn start(job: &JobView, silent: bool) -> Self {
        let bar = (!silent && io::stderr().is_terminal()).then(|| {
            let template = "{bar:30} {percent:>3} %  {msg}  {elapsed_precise}";
            // The template is a constant; a bar in the default style would still be a bar.
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let target = ProgressDrawTarget::stderr();
            ProgressBar::with_draw_target(Some(job.progress.estimate), target).with_style(style)
        });
        Self { bar, silent, last_line: Instant::now() }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, job: &JobView) {
        let progress = &job.progress;
        let left = progress.seconds_left.filter(|seconds| seconds.is_finite() && (0.0..1e9).contains(seconds));
        let left = left.map(|seconds| format!(", {} to go", HumanDuration(Duration::from_secs_f64(seconds))));
        let rest = match &job.reason {
            Some(reason) => format!("; {reason}"),
            None => left.unwrap_or_default(),
        };
        let (examined, rate) = (HumanCount(progress.examined), HumanCount(progress.per_second as u64));
        let message = format!("{examined} documents and copies, {rate}/s{rest}");
        if let Some(bar) = &self.bar {
            bar.set_length(progress.estimate.max(progress.examined));
            bar.set_position(progress.examined);
            bar.set_message(message);
        } else if !self.silent && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            output::note(message);
        }
    }

    /// Writes a line to the standard error without disturbing the bar.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(line)),
            None if self.silent => {}
            None => output::note(line),
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
