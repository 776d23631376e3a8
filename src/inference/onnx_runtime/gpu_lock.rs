//! Keeps other threads from the GPU while a CUDA graph is captured.
//!
//! ONNX Runtime captures in CUDA's global mode: an allocation or a copy by any thread of the process fails meanwhile, and ends
//! the capture. All sessions on GPUs therefore share this lock while they use the GPU, and a capture takes it alone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static GPU: GpuLock = GpuLock::new();

/// Waits until no graph is captured, and keeps captures away until the guard is dropped.
pub(super) fn share() -> SharedGuard<'static> {
    GPU.share()
}

/// Waits until no thread uses a GPU, and keeps all away until the guard is dropped. `None` if that takes longer than the
/// timeout, as it does while a thread builds an engine.
pub(super) fn exclude_others(timeout: Duration) -> Option<ExclusiveGuard<'static>> {
    GPU.exclude_others(timeout)
}

struct GpuLock {
    users: Mutex<Users>,
    /// Notified when a guard is dropped.
    released: Condvar,
}

struct Users {
    sharing: usize,
    is_exclusive: bool,
}

pub(super) struct SharedGuard<'a>(&'a GpuLock);

pub(super) struct ExclusiveGuard<'a>(&'a GpuLock);

impl GpuLock {
    const fn new() -> Self {
        let users = Users { sharing: 0, is_exclusive: false };
        Self { users: Mutex::new(users), released: Condvar::new() }
    }

    fn share(&self) -> SharedGuard<'_> {
        let released = self.released.wait_while(self.lock(), |users| users.is_exclusive);
        released.unwrap_or_else(PoisonError::into_inner).sharing += 1;
        SharedGuard(self)
    }

    fn exclude_others(&self, timeout: Duration) -> Option<ExclusiveGuard<'_>> {
        let is_used = |users: &mut Users| users.is_exclusive || users.sharing > 0;
        let released = self.released.wait_timeout_while(self.lock(), timeout, is_used);
        let (mut users, timeout) = released.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return None;
        }
        users.is_exclusive = true;
        Some(ExclusiveGuard(self))
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SharedGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().sharing -= 1;
        self.0.released.notify_all();
    }
}

impl Drop for ExclusiveGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().is_exclusive = false;
        self.0.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_capture_waits_for_all_others() {
        let lock = GpuLock::new();
        let (one, two) = (lock.share(), lock.share());
        assert!(lock.exclude_others(Duration::ZERO).is_none());
        drop(one);
        assert!(lock.exclude_others(Duration::ZERO).is_none());
        drop(two);
        let exclusive = lock.exclude_others(Duration::ZERO);
        assert!(exclusive.is_some() && lock.exclude_others(Duration::ZERO).is_none());
        drop(exclusive);
        drop(lock.share());
        assert!(lock.exclude_others(Duration::ZERO).is_some());
    }

    #[test]
    fn nothing_runs_beside_a_capture() {
        const ALONE: usize = 1000;
        let (lock, running) = (GpuLock::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _sharing = lock.share();
                        assert!(running.fetch_add(1, Ordering::SeqCst) < ALONE);
                        running.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..50 {
                let _alone = lock.exclude_others(Duration::from_secs(60)).unwrap();
                assert_eq!(running.fetch_add(ALONE, Ordering::SeqCst), 0);
                std::thread::yield_now();
                assert_eq!(running.fetch_sub(ALONE, Ordering::SeqCst), ALONE);
            }
        });
    }
}
