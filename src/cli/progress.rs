//! Progress on stderr: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of one job.
#[derive(Debug)]
pub(super) struct ProgressDisplay {
    title: String,
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Instant,
}

impl ProgressDisplay {
    pub(super) fn new(title: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
            let bar = ProgressBar::new(0).with_message(title.to_owned());
            style.map_or(bar.clone(), |style| bar.with_style(style))
        });
        let start = Instant::now();
        Self { title: title.to_owned(), bar, start, last_line: start }
    }

    /// Shows that `step` of `of` evaluations are done.
    pub(super) fn show(&mut self, step: usize, of: usize, eta_ms: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of as u64);
                bar.set_position(step as u64);
            }
            None if self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                let seconds = eta_ms.div_ceil(1000);
                eprintln!("{}: evaluation {step} of {of}, about {seconds} s left", self.title);
            }
            None => {}
        }
    }

    /// Shows that `step` of `of` are done, with the remaining time if the others take as long.
    pub(super) fn count(&mut self, step: usize, of: usize) {
        let each = self.start.elapsed().as_millis() as u64 / step.max(1) as u64;
        self.show(step, of, each * of.saturating_sub(step) as u64);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
