//! Whether the evaluations of a graph are captured, as all of its sessions know it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the evaluations of a graph are captured. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CaptureStatus(Arc<Mutex<Status>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Status {
    /// No session was opened for it.
    #[default]
    Untried,
    /// The open session captures.
    Capturing,
    /// Capturing failed, and is not tried again in this process.
    Unavailable,
}

impl CaptureStatus {
    /// Whether evaluations are captured now.
    pub(crate) fn is_capturing(&self) -> bool {
        *self.lock() == Status::Capturing
    }

    /// Whether capturing has failed.
    pub(in crate::inference) fn is_unavailable(&self) -> bool {
        *self.lock() == Status::Unavailable
    }

    /// Records that a session captures.
    pub(in crate::inference) fn set_capturing(&self) {
        *self.lock() = Status::Capturing;
    }

    /// Records that no session captures, for the graph's sake or its provider's. Another provider may capture it.
    pub(in crate::inference) fn set_idle(&self) {
        let mut status = self.lock();
        if *status == Status::Capturing {
            *status = Status::Untried;
        }
    }

    /// Records that capturing failed, and logs the reason the first time.
    pub(in crate::inference) fn set_unavailable(&self, graph: &str, reason: &str) {
        let before = std::mem::replace(&mut *self.lock(), Status::Unavailable);
        if before != Status::Unavailable {
            let reason = reason.trim_end_matches(['.', ' ', '\n']);
            log::info!("{graph}: evaluations are not captured as CUDA graphs, because {reason}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_final_for_all_sessions() {
        let status = CaptureStatus::default();
        let other = status.clone();
        assert!(!status.is_capturing() && !status.is_unavailable());
        status.set_capturing();
        assert!(other.is_capturing());
        other.set_idle();
        assert!(!status.is_capturing() && !status.is_unavailable());
        status.set_capturing();
        other.set_unavailable("unet", "a node runs on the CPU.");
        assert!(!status.is_capturing() && status.is_unavailable());
        status.set_idle();
        assert!(status.is_unavailable());
    }
}
