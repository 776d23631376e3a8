//! The worker's heartbeat, from which systemd's watchdog is fed, so that a stuck worker is restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// HeartbeatState by the worker, which beats, and the [`Watchdog`].
#[derive(Debug, Clone, Default)]
pub(super) struct Heartbeat(Arc<HeartbeatState>);

#[derive(Debug, Default)]
struct HeartbeatState {
    beats: AtomicU64,
    is_idle: AtomicBool,
}

impl Heartbeat {
    pub(super) fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs a wait that may take arbitrarily long, for a job or for room in a queue.
    pub(super) fn while_idle<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.is_idle.store(true, Ordering::Relaxed);
        let result = wait();
        self.0.is_idle.store(false, Ordering::Relaxed);
        self.beat();
        result
    }

    fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.0.is_idle.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Watchdog {
    heartbeat: Heartbeat,
    last_seen: u64,
}

impl Watchdog {
    pub(super) fn new(heartbeat: Heartbeat) -> Self {
        Self { heartbeat, last_seen: 0 }
    }

    /// Returns whether the worker has beaten since the last call, or is idle.
    pub(super) fn is_alive(&mut self) -> bool {
        let (is_idle, beats) = (self.heartbeat.is_idle(), self.heartbeat.beats());
        let is_alive = is_idle || beats != self.last_seen;
        self.last_seen = beats;
        is_alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_neither_beats_nor_idles_is_not_alive() {
        let heartbeat = Heartbeat::default();
        let mut watchdog = Watchdog::new(heartbeat.clone());
        heartbeat.beat();
        assert!(watchdog.is_alive());
        assert!(!watchdog.is_alive());
        heartbeat.while_idle(|| assert!(watchdog.is_alive() && watchdog.is_alive()));
        assert!(watchdog.is_alive());
        assert!(!watchdog.is_alive());
    }
}
