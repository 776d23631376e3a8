//! The state of a stream in its answers.

use serde::Serialize;
use tokio::time::Instant;

use super::{Stream, StreamEnd};

/// The state of a stream, as its progress and results have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::service) struct StreamReport {
    /// The topic of the pictures.
    pub(in crate::service) topic: String,
    /// The pictures that were drawn.
    drawn: u64,
    /// The pictures that were not drawn because a newer one arrived, or because the stream ended.
    dropped: u64,
    /// The pictures that could not be drawn.
    refused: u64,
    /// Drawn pictures per second: of the latest ones, or of all at the end. `None` before the second one.
    per_second: Option<f64>,
    /// Whether the daemon was restarted since it accepted the job. The numbers count from then on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    resumed: bool,
    /// Why the stream ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'static str>,
}

impl Stream {
    /// Reports a stream that has not ended.
    pub(in crate::service) fn report(&self) -> StreamReport {
        let span = self.finished.front().zip(self.finished.back()).map(|(first, last)| *last - *first);
        let rate = |seconds: f64| (self.finished.len() - 1) as f64 / seconds;
        StreamReport {
            topic: self.settings.topic.clone(),
            drawn: self.drawn,
            dropped: self.dropped,
            refused: self.refused,
            per_second: span.filter(|span| !span.is_zero()).map(|span| rounded(rate(span.as_secs_f64()))),
            resumed: self.is_resumed,
            ended: None,
        }
    }

    /// Reports a stream at its end, and how long it took in milliseconds.
    pub(in crate::service) fn final_report(&self, end: &StreamEnd, now: Instant) -> (StreamReport, u64) {
        let elapsed = now - self.started;
        let ended = match end {
            StreamEnd::Cancelled => "cancelled",
            StreamEnd::Deadline => "deadline",
            StreamEnd::Failed(_) => "failed",
        };
        let per_second = self.drawn as f64 / elapsed.as_secs_f64();
        let report = StreamReport {
            per_second: Some(rounded(per_second)).filter(|rate| rate.is_finite()),
            ended: Some(ended),
            ..self.report()
        };
        (report, elapsed.as_millis() as u64)
    }
}

/// To three decimals.
fn rounded(rate: f64) -> f64 {
    (rate * 1e3).round() / 1e3
}
