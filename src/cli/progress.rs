//! Progress on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// One thing's progress.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// Begin to show it.
    pub(super) fn begin(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
            let bar = ProgressBar::new(0).with_message(what.to_owned());
            style.map_or(bar.clone(), |style| bar.with_style(style))
        });
        Self { what: what.to_owned(), bar, last_line: Instant::now() }
    }

    /// So far it has come.
    pub(super) fn show(&mut self, step: usize, of: usize, eta_ms: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of as u64);
                bar.set_position(step as u64);
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let seconds = eta_ms.div_ceil(1000);
                eprintln!("{}: evaluation {step} of {of}, about {seconds} s left", self.what);
            }
            None => {}
        }
    }

    /// It is over; the bar goes.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
