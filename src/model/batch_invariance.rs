//! Whether a sample's prediction depends on the batch in which it is evaluated.

use crate::bundle::manifest::Manifest;
use crate::model::denoiser;
use crate::model::predictor::{EvaluationError, Predictor};
use diffusion_samplers::rng::Generator;

/// How a prediction changes with its batch's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchDependence {
    /// The batch size that was compared with the smallest.
    pub batch: usize,
    /// The largest difference of any value.
    pub difference: f32,
}

impl std::fmt::Display for BatchDependence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batch, difference } = self;
        if *difference == 0.0 {
            write!(f, "the same bytes alone and in a batch of {batch}")
        } else {
            write!(
                f,
                "differs by up to {difference:.1e} between alone and a batch of {batch}; \"exact\": \
                 true in a job gives its images batches of their own"
            )
        }
    }
}

/// Evaluate one sample in the smallest and in the largest batch and compare.
pub fn batch_dependence(
    predictor: &mut dyn Predictor,
    manifest: &Manifest,
) -> Result<BatchDependence, EvaluationError> {
    let signature = predictor.signature();
    let (small, large) = (signature.smallest_batch(), signature.largest_batch);
    // A time that every kind of network knows: a step, a level, the index of one.
    let time = 1.0;
    let mut evaluate = |n: usize| {
        let mut batch = denoiser::neutral(predictor.signature(), manifest, n);
        batch.times.fill(time);
        let len = batch.samples.len() / n;
        for (seed, sample) in (0..).zip(batch.samples.chunks_exact_mut(len)) {
            Generator::default().seeded(seed).fill(sample);
        }
        let mut output = Vec::new();
        predictor.evaluate(&batch, &mut output)?;
        output.truncate(output.len() / n);
        Ok::<_, EvaluationError>(output)
    };
    let (alone, together) = (evaluate(small)?, evaluate(large)?);
    let differences = alone.iter().zip(&together).map(|(a, b)| (a - b).abs());
    Ok(BatchDependence { batch: large, difference: differences.fold(0.0, f32::max) })
}
