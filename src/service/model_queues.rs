//! The queues of a fleet that this daemon takes requests from beside the common one: those of the models that it has in
//! memory. A state machine without I/O.

use std::collections::BTreeSet;

/// A daemon with this many jobs of a model leaves the model's queue, so that another one opens the model too.
const MAX_JOBS: usize = 8;
/// It joins the queue again when it has this many.
const FEW_JOBS: usize = 4;

/// A model, as far as its queue depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelLoadFacts<'a> {
    pub(super) name: &'a str,
    pub(super) is_open: bool,
    /// Its unfinished jobs.
    pub(super) jobs: usize,
}

/// A change of the subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueueChange {
    Join(String),
    Leave(String),
}

/// The models whose queues the daemon has joined.
#[derive(Debug, Default)]
pub(super) struct ModelQueues(BTreeSet<String>);

impl ModelQueues {
    /// Returns the queues to leave and to join. A model that has jobs is open soon, so that further jobs of it come here
    /// and no second daemon opens it.
    pub(super) fn changes<'a>(&self, models: impl Iterator<Item = ModelLoadFacts<'a>>) -> Vec<QueueChange> {
        let is_joined = |model: &ModelLoadFacts<'_>| {
            let limit = if self.0.contains(model.name) { MAX_JOBS } else { FEW_JOBS + 1 };
            (model.is_open || model.jobs > 0) && model.jobs < limit
        };
        let joined: BTreeSet<_> = models.filter(is_joined).map(|model| model.name.to_owned()).collect();
        let left = self.0.difference(&joined).cloned().map(QueueChange::Leave);
        let new = joined.difference(&self.0).cloned().map(QueueChange::Join);
        left.chain(new).collect()
    }

    /// The change was made.
    pub(super) fn apply(&mut self, change: QueueChange) {
        match change {
            QueueChange::Join(model) => self.0.insert(model),
            QueueChange::Leave(model) => self.0.remove(&model),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_joined_while_its_model_is_open_and_has_few_jobs() {
        let mut queues = ModelQueues::default();
        let mut update = |facts: &[(&str, bool, usize)]| {
            let models = facts.iter();
            let models =
                models.map(|(name, is_open, jobs)| ModelLoadFacts { name, is_open: *is_open, jobs: *jobs });
            let changes = queues.changes(models);
            changes.iter().cloned().for_each(|change| queues.apply(change));
            let words = changes.into_iter().map(|change| match change {
                QueueChange::Join(name) => format!("+{name}"),
                QueueChange::Leave(name) => format!("-{name}"),
            });
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(update(&[("a", true, 0), ("b", false, 0)]), "+a");
        assert_eq!(update(&[("a", true, 1), ("b", false, 1)]), "+b");
        assert_eq!(update(&[("a", true, 7), ("b", true, 0)]), "");
        assert_eq!(update(&[("a", true, 8), ("b", false, 0)]), "-a -b");
        assert_eq!(update(&[("a", true, 5), ("b", false, 0)]), "");
        assert_eq!(update(&[("a", true, 4), ("b", false, 0)]), "+a");
        // A model that is unloaded, and a daemon that stops.
        assert_eq!(update(&[]), "-a");
    }
}
