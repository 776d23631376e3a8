//! Measures how much anonymous memory the process takes while something runs.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::inference::options::Host;

/// The time between two looks at the resident memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// By how many bytes the anonymous memory exceeded that before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    /// At most.
    pub(super) peak: u64,
    /// In the end.
    pub(super) held: u64,
}

/// Runs `work`, and returns how much memory it took. `None` if this machine does not report it.
pub(super) fn measured<R>(host: &dyn Host, work: impl FnOnce() -> R) -> (R, Option<Growth>) {
    let anonymous = || host.resident_memory().map(|resident| resident.anonymous);
    let Some(before) = anonymous() else { return (work(), None) };
    let (done, is_done) = sync_channel::<()>(0);
    std::thread::scope(|scope| {
        let sampler = std::thread::Builder::new().name("memory".to_owned());
        let sampler = sampler.spawn_scoped(scope, move || {
            let mut peak = 0;
            while is_done.recv_timeout(SAMPLE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                peak = peak.max(host.resident_memory().map_or(0, |resident| resident.anonymous));
            }
            peak
        });
        let result = work();
        let after = anonymous().unwrap_or(before);
        drop(done);
        let peak = sampler.ok().and_then(|sampler| sampler.join().ok()).unwrap_or(0);
        let growth = |bytes: u64| bytes.saturating_sub(before);
        (result, Some(Growth { peak: growth(peak.max(after)), held: growth(after) }))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::inference::memory::ResidentMemory;

    /// A machine whose memory the test sets.
    #[derive(Debug, Default)]
    pub(in crate::inference::memory) struct Given {
        pub(in crate::inference::memory) anonymous: AtomicU64,
        looks: AtomicU64,
    }

    impl Host for Given {
        fn device(&self) -> String {
            String::new()
        }

        fn available_memory(&self) -> Option<u64> {
            None
        }

        fn resident_memory(&self) -> Option<ResidentMemory> {
            self.looks.fetch_add(1, Relaxed);
            let anonymous = self.anonymous.load(Relaxed);
            Some(ResidentMemory { anonymous, total: 0, peak: 0 })
        }

        fn library_version(&self, _: &str, _: Option<&Path>) -> Option<String> {
            None
        }
    }

    #[test]
    fn memory_that_is_returned_before_the_end_counts() {
        let host = Given { anonymous: AtomicU64::new(100), looks: AtomicU64::new(0) };
        let (result, growth) = measured(&host, || {
            host.anonymous.store(500, Relaxed);
            let seen = host.looks.load(Relaxed);
            while host.looks.load(Relaxed) < seen + 2 {
                std::thread::yield_now();
            }
            host.anonymous.store(150, Relaxed);
            7
        });
        assert_eq!((result, growth), (7, Some(Growth { peak: 400, held: 50 })));
        let (_, shrunk) = measured(&host, || host.anonymous.store(0, Relaxed));
        assert_eq!(shrunk.map(|growth| growth.held), Some(0));
    }
}
