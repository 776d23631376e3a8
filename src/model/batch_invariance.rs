//! Whether the prediction for a sample depends on the batch in which the sample is evaluated.

use super::{Batch, Predictor};
use crate::bundle::Manifest;
use crate::inference::EvaluationError;
use diffusion_samplers::rng::Generator;

/// How a prediction changes with the size of its batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchDependence {
    /// The batch size that was compared with the smallest one.
    pub batch: usize,
    /// The largest absolute difference of a value; NaN if the network's output contains NaN or infinity.
    pub difference: f32,
}

impl std::fmt::Display for BatchDependence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batch, difference } = self;
        if difference.is_nan() {
            write!(
                f,
                "unknown, because the network's output contains NaN or infinity; try a graph in float32"
            )
        } else if *difference == 0.0 {
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

/// Evaluates one sample in the smallest and in the largest batch, and compares the predictions.
pub fn batch_dependence(
    predictor: &mut dyn Predictor,
    manifest: &Manifest,
) -> Result<BatchDependence, EvaluationError> {
    let signature = predictor.signature();
    let (small, large) = (signature.smallest_batch(), signature.largest_batch);
    // Valid for every kind of network: as a time step, as a noise level, and as an index.
    let time = 1.0;
    let mut evaluate = |n: usize| {
        let mut batch = Batch::zeros(predictor.signature(), manifest, n);
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
    let difference = if alone.iter().chain(&together).all(|x| x.is_finite()) {
        alone.iter().zip(&together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    } else {
        f32::NAN
    };
    Ok(BatchDependence { batch: large, difference })
}
