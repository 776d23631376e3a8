//! The batch sizes in which a network is evaluated before jobs need them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::guidance::slots_per_image;
use crate::inference::EngineError;
use crate::job::{JobLimits, ModelCard, Request};
use crate::model::{Model, Predictor};

/// How many of the smallest batch sizes are warmed up, besides the largest.
const WARMUP_SIZES: usize = 8;

/// Any default job passes these.
const LIMITS: JobLimits = JobLimits { steps: u64::MAX, count: 1, pixels: u64::MAX, memory: None };

/// The batch sizes that are left, those that jobs use first at the front.
#[derive(Debug, Default)]
pub(super) struct Warmup(VecDeque<usize>);

impl Warmup {
    /// The batch of one image of a default job, then the others in ascending order.
    /// `max` is the largest batch of the default size that fits in memory.
    fn new(card: &Arc<ModelCard>, max: usize) -> Self {
        let min = card.signature.smallest_batch();
        Self(batches(default_slots(card), min, max))
    }

    /// The batch sizes of a model's network.
    pub(super) fn of_network(card: &Arc<ModelCard>, network: &dyn Predictor) -> Self {
        Self::new(card, network.largest_batch(&network.signature().sample_shape))
    }

    /// The next batch size that the network does not pad to another.
    pub(super) fn next_batch_of(&mut self, network: &dyn Predictor) -> Option<usize> {
        let sample = &network.signature().sample_shape;
        self.next_batch(|batch| network.padded_batch(batch, sample))
    }

    /// The next batch size, of those that are not padded to another: `padded` returns the size to which one is padded.
    fn next_batch(&mut self, padded: impl Fn(usize) -> usize) -> Option<usize> {
        std::iter::from_fn(|| self.0.pop_front()).find(|size| padded(*size) == *size)
    }
}

/// Evaluates the network of a model in the batch that a default job takes, before it has a pipeline. Its provider is known
/// from then on.
pub(crate) fn warm_up(model: &mut Model) -> Result<(), EngineError> {
    let mut warmup = Warmup::of_network(&ModelCard::new(model), model.predictor.as_ref());
    match warmup.next_batch_of(model.predictor.as_ref()) {
        Some(batch) => model.warm_up(batch),
        None => Ok(()),
    }
}

fn batches(first: usize, min: usize, max: usize) -> VecDeque<usize> {
    let first = first.clamp(min, max.max(min));
    let others = (min..=max).filter(|size| *size == max || *size < min + WARMUP_SIZES);
    std::iter::once(first).chain(others.filter(|size| *size != first)).collect()
}

/// The batch slots of one image of a job that sets nothing but what it must.
fn default_slots(card: &Arc<ModelCard>) -> usize {
    let request = Request {
        prompt: card.latent.as_ref().map(|_| String::new()),
        class: card.signature.class.as_ref().map(|_| 0),
        ..Request::default()
    };
    let job = request.check(std::slice::from_ref(card), LIMITS, || 0);
    // A network that fills in parts of an image has no job without one. Like the others it is guided by its prompt.
    job.map_or(2, |job| slots_per_image(&job))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::padded_batch;

    #[test]
    fn batch_sizes_that_are_padded_to_others_are_left_out() {
        let sizes = |padded: fn(usize) -> usize| {
            let mut warmup = Warmup(batches(2, 1, 6));
            std::iter::from_fn(|| warmup.next_batch(padded)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(|size| size), [2, 1, 3, 4, 5, 6]);
        assert_eq!(sizes(|size| padded_batch(size, 6)), [2, 1, 4, 6]);
    }

    #[test]
    fn the_warm_up_has_a_bounded_number_of_batch_sizes() {
        assert_eq!(batches(2, 1, 3), [2, 1, 3]);
        assert_eq!(batches(1, 1, 1024), [1, 2, 3, 4, 5, 6, 7, 8, 1024]);
        // A graph with a fixed batch size, and one that takes less than a guided image needs.
        assert_eq!(batches(2, 5, 5), [5]);
        assert_eq!(batches(2, 1, 1), [1]);
    }
}
