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
    last_line: Instant,
}

impl ProgressDisplay {
    pub(super) fn new(title: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
            let bar = ProgressBar::new(0).with_message(title.to_owned());
            style.map_or(bar.clone(), |style| bar.with_style(style))
        });
        Self { title: title.to_owned(), bar, last_line: Instant::now() }
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

    /// Removes the bar.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
