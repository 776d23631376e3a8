//! Classifier-free guidance (Ho & Salimans 2022).

use std::sync::Arc;

use crate::bundle::{Manifest, TensorInput};
use crate::job::Job;
use crate::model::{Batch, Conditions};
use diffusion_samplers::simd::update;

/// The conditioning of one image, and how its conditional and unconditional outputs are combined.
#[derive(Debug, Clone)]
pub(super) struct Guidance {
    class: i64,
    /// The class label of the unconditional evaluation, and the guidance weight.
    unconditional: Option<(i64, f32)>,
    conditions: Vec<f32>,
    /// Guidance rescale φ of Lin et al. 2024.
    rescale: f32,
    /// The conditioning tensors of a text-to-image network.
    tensors: Arc<Conditions>,
    /// Channels appended to the sample: the inpainting mask and the masked image.
    extra_channels: Vec<f32>,
}

/// Batch slots that one evaluation of an image of this job takes.
pub(super) fn slots_per_image(job: &Job) -> usize {
    let guided = match &job.text {
        Some(wish) => wish.guided,
        None => job.guidance != 1.0 && job.model.bundle.manifest.classes.null.is_some(),
    };
    if guided { 2 } else { 1 }
}

impl Guidance {
    pub(super) fn new(
        job: &Job,
        manifest: &Manifest,
        tensors: Arc<Conditions>,
        extra_channels: Vec<f32>,
    ) -> Self {
        let null = manifest.classes.null;
        let guided = slots_per_image(job) == 2;
        Self {
            class: job.class.or(null).unwrap_or(0),
            unconditional: guided.then_some((null.unwrap_or(0), job.guidance as f32)),
            conditions: job.conditions.clone(),
            rescale: job.guidance_rescale,
            tensors,
            extra_channels,
        }
    }

    /// Returns whether both fit into one batch: their tensors have equal shapes, and they have equally many
    /// extra channels.
    pub(super) fn is_batchable_with(&self, other: &Self) -> bool {
        let shapes = self.tensors.conditional.iter().map(|tensor| &tensor.shape);
        self.extra_channels.len() == other.extra_channels.len()
            && shapes.eq(other.tensors.conditional.iter().map(|tensor| &tensor.shape))
    }

    /// Batch slots that one evaluation takes.
    pub(super) fn slots(&self) -> usize {
        if self.unconditional.is_some() { 2 } else { 1 }
    }

    /// Appends the conditional (`slot` 0) or the unconditional (`slot` 1) evaluation to the batch.
    /// `append_sample` appends the network's input.
    pub(super) fn append_to_batch(
        &self,
        slot: usize,
        batch: &mut Batch,
        append_sample: impl FnOnce(&mut Vec<f32>),
        time: f64,
        manifest: &Manifest,
        inputs: &[TensorInput],
    ) {
        let unconditional = self.unconditional.filter(|_| slot == 1);
        let class = unconditional.map_or(self.class, |(null, _)| null);
        let append_input = |x: &mut Vec<f32>| {
            append_sample(x);
            x.extend_from_slice(&self.extra_channels);
        };
        batch.push(append_input, time, class, manifest);
        batch.set_conditions(&self.conditions);
        let tensors =
            if unconditional.is_some() { &self.tensors.unconditional } else { &self.tensors.conditional };
        batch.set_tensors(inputs, tensors);
    }

    /// Combines the outputs of all slots, `len` values each, into the first slot:
    /// ε̃ = ε(∅) + w · (ε(c) − ε(∅)).
    ///
    /// Only the first `guided` values are combined; learned variances remain the conditional ones.
    pub(super) fn combine(&self, outputs: &mut [f32], len: usize, guided: usize) {
        let Some((_, weight)) = self.unconditional else { return };
        let (conditional, unconditional) = outputs.split_at_mut(len);
        let conditional = &mut conditional[..guided];
        let deviation = if self.rescale > 0.0 { standard_deviation(conditional) } else { 0.0 };
        update(conditional, [unconditional], move |c, [u]| u + weight * (c - u));
        if self.rescale > 0.0 {
            rescale(conditional, deviation, self.rescale);
        }
    }
}

/// Rescales a guided prediction towards the standard deviation of the conditional one
/// (Lin et al. 2024, eq. 14 to 16).
fn rescale(guided: &mut [f32], deviation: f64, phi: f32) {
    let factor = (deviation / standard_deviation(guided)) as f32;
    for x in guided {
        *x = phi * (*x * factor) + (1.0 - phi) * *x;
    }
}

fn standard_deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_rescale_restores_the_deviation_of_the_conditional_prediction() {
        let conditional = [1.0, 2.0, 4.0, -3.0];
        let mut guided = [5.0, 1.0, -8.0, 2.0];
        rescale(&mut guided, standard_deviation(&conditional), 1.0);
        assert!((standard_deviation(&guided) - standard_deviation(&conditional)).abs() < 1e-6);
    }
}
