//! The clock by which answers age. It counts the seconds that the daemon runs, and continues at the next start.
//!
//! A board without a battery boots in the past, and its wall clock jumps by decades once it is set. No age may depend on
//! it: after a jump forward all answers would be evicted, and after a jump back none ever.

use std::time::Instant;

#[derive(Debug)]
pub(super) struct SpoolClock {
    /// The time when the spool was opened, in seconds.
    at_open: u64,
    opened: Instant,
}

impl SpoolClock {
    /// Continues at this number of seconds.
    pub(super) fn resume(at: u64) -> Self {
        Self { at_open: at, opened: Instant::now() }
    }

    /// Returns the time in seconds. It never decreases.
    pub(super) fn now(&self) -> u64 {
        self.at_open.saturating_add(self.opened.elapsed().as_secs())
    }
}
