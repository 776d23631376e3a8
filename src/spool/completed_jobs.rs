//! Looks up which jobs are completed, without reading the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// A read handle to the completed jobs whose answers the spool keeps. Only the spool's store adds
/// and removes jobs, when it commits the change.
///
/// There can be millions of jobs, so the map holds 8 bytes of the SHA-256 of each id and of its
/// request's digest. The probability that a new id collides with one of a million is 5 · 10⁻¹⁴; its
/// request would be rejected as a conflict.
#[derive(Debug, Clone, Default)]
pub struct CompletedJobs(Arc<Mutex<BTreeMap<u64, CompletedJob>>>);

/// A completed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedJob {
    digest: u64,
}

impl CompletedJob {
    /// Returns whether the job's request has this digest.
    pub fn has_digest(self, digest: &str) -> bool {
        self.digest == short_hash(digest)
    }
}

impl CompletedJobs {
    /// Returns the completed job with this id.
    pub fn get(&self, id: &str) -> Option<CompletedJob> {
        self.lock().get(&short_hash(id)).copied()
    }

    pub(super) fn insert(&self, id: &str, digest: &str) {
        self.lock().insert(short_hash(id), CompletedJob { digest: short_hash(digest) });
    }

    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(&short_hash(id));
    }

    /// Replaces all jobs by those of another map.
    pub(super) fn replace(&self, other: &Self) {
        let jobs = std::mem::take(&mut *other.lock());
        *self.lock() = jobs;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, CompletedJob>> {
        // Every critical section is a single map operation, so a poisoned map is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn short_hash(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
