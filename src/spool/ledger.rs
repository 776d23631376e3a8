//! Which jobs were done, by the digest of their requests: known at once to who takes requests in,
//! while the spool writes it down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The finished jobs whose answers are kept.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, String>>>);

impl Ledger {
    /// The digest of a finished job's request.
    pub fn digest(&self, id: &str) -> Option<String> {
        self.lock().get(id).cloned()
    }

    /// A job is done.
    pub fn insert(&self, id: &str, digest: &str) {
        self.lock().insert(id.to_owned(), digest.to_owned());
    }

    /// A job's answers are kept no longer.
    pub fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // No operation here can leave the map half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
