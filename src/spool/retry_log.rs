//! Limits how often the error of a retried operation is logged.

use std::time::{Duration, Instant};

const MIN_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(10 * 60);

/// The time of the next line in the log. The delay between lines doubles. Attempts stay frequent, so that the daemon
/// resumes soon after the fault ends.
#[derive(Debug, Default)]
pub struct RetryLog {
    /// When the next line is due, and the delay after it; `None` before the first error.
    next: Option<(Instant, Duration)>,
}

impl RetryLog {
    /// Records an error. Returns whether it should be logged.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let delay = match self.next {
            Some((due, _)) if now < due => return false,
            Some((_, delay)) => delay,
            None => MIN_DELAY,
        };
        self.next = Some((now + delay, (delay * 2).min(MAX_DELAY)));
        true
    }

    /// Records a success. Returns whether there was an error before.
    pub fn succeeded(&mut self) -> bool {
        self.next.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same error was logged every second, for as long as the disk was full.
    #[test]
    fn a_full_disk_filled_the_log() {
        let (mut log, start) = (RetryLog::default(), Instant::now());
        let logged = |log: &mut RetryLog, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| log.is_due(start + Duration::from_secs(*second))).collect()
        };
        assert!(!log.succeeded());
        assert_eq!(logged(&mut log, 0..100), [0, 1, 3, 7, 15, 31, 63]);
        assert_eq!(logged(&mut log, 2000..10_000).len(), 15);
        assert!(log.succeeded() && !log.succeeded());
        assert_eq!(logged(&mut log, 10_000..10_003), [10_000, 10_001]);
    }
}
