//! Which jobs were done, by the digest of their requests: known at once to who takes requests in,
//! while the spool writes it down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// The finished jobs whose answers are kept: eight bytes of the SHA-256 of each id, and of its
/// request's digest, since there may be very many. That a fresh id looks like one of a million kept
/// ones has a chance of 5 · 10⁻¹⁴, and its requester would be told to choose another.
#[derive(Debug, Clone, Default)]
pub struct CompletedJobs(Arc<Mutex<BTreeMap<u64, u64>>>);

impl CompletedJobs {
    /// Whether a job was done; and if so, whether for a request with this digest.
    pub fn was_done(&self, id: &str, digest: &str) -> Option<bool> {
        self.lock().get(&short(id)).map(|known| *known == short(digest))
    }

    /// A job is done.
    pub fn insert(&self, id: &str, digest: &str) {
        self.lock().insert(short(id), short(digest));
    }

    /// A job's answers are kept no longer.
    pub fn remove(&self, id: &str) {
        self.lock().remove(&short(id));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        // No operation here can leave the map half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn short(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
