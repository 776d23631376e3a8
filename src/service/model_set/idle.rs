//! Models that leave memory while they have no jobs. They still take jobs, and the next one opens them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ModelSet;
use crate::job::ModelCard;

impl ModelSet {
    /// Sets how long a model stays in memory without jobs; `None` for ever.
    pub(in crate::service) fn set_idle_limit(&mut self, limit: Option<Duration>) {
        self.idle_limit = limit;
    }

    /// A job uses a model.
    pub(in crate::service) fn on_use(&mut self, card: &ModelCard, now: Instant) {
        if let Some(served) = self.served.iter_mut().find(|served| served.is(card)) {
            served.last_used = now;
        }
    }

    /// Returns the models that are to be closed. Each is returned again only after the same time.
    pub(in crate::service) fn take_idle(&mut self, now: Instant) -> Vec<Arc<ModelCard>> {
        let Some(limit) = self.idle_limit else { return Vec::new() };
        let idle = self.served.iter_mut();
        let idle = idle.filter(|served| served.is_open && now.duration_since(served.last_used) >= limit);
        idle.map(|served| {
            // A model with a job that takes long stays open.
            served.last_used = now;
            Arc::clone(&served.card)
        })
        .collect()
    }
}
