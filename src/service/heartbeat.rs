//! The worker's pulse: by it the watchdog is fed, so that a worker that is stuck is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Beats with every turn of the worker's loop; both ends share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Heartbeat(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    beats: AtomicU64,
    resting: AtomicBool,
}

impl Heartbeat {
    /// The worker goes on.
    pub(super) fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Wait for something that need not come soon: a job, or room for what is told.
    pub(super) fn rest<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.resting.store(true, Ordering::Relaxed);
        let result = wait();
        self.0.resting.store(false, Ordering::Relaxed);
        self.beat();
        result
    }

    fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    fn is_resting(&self) -> bool {
        self.0.resting.load(Ordering::Relaxed)
    }
}

/// Who looks at the pulse.
#[derive(Debug)]
pub(super) struct Watchdog {
    pulse: Heartbeat,
    felt: u64,
}

impl Watchdog {
    pub(super) fn of(pulse: Heartbeat) -> Self {
        Self { pulse, felt: 0 }
    }

    /// Whether the worker has gone on since the last look, or rests.
    pub(super) fn finds_alive(&mut self) -> bool {
        let (resting, beats) = (self.pulse.is_resting(), self.pulse.beats());
        let alive = resting || beats != self.felt;
        self.felt = beats;
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_neither_goes_on_nor_rests_is_not_alive() {
        let pulse = Heartbeat::default();
        let mut physician = Watchdog::of(pulse.clone());
        pulse.beat();
        assert!(physician.finds_alive());
        assert!(!physician.finds_alive());
        pulse.rest(|| assert!(physician.finds_alive() && physician.finds_alive()));
        assert!(physician.finds_alive());
        assert!(!physician.finds_alive());
    }
}
