//! Classifier-free guidance (Ho & Salimans 2022).

use std::sync::Arc;

use crate::bundle::{GuidanceRule, Manifest, TensorInput};
use crate::job::Job;
use crate::model::{Adaptation, Batch, Conditions, JobControls, SampleControls};
use crate::tensor::Tensor;
use diffusion_samplers::simd::update;

/// The conditioning of one image, and how its conditional and unconditional outputs are combined.
#[derive(Debug, Clone)]
pub(super) struct Guidance {
    class: i64,
    /// The class label of the unconditional evaluation, and the guidance weight.
    unconditional: Option<(i64, f32)>,
    conditions: Vec<f32>,
    rule: GuidanceRule,
    limits: GuidanceLimits,
    /// Guidance rescale φ of Lin et al. 2024.
    rescale: f32,
    /// The conditioning tensors of a text-to-image network.
    tensors: Arc<Conditions>,
    /// Channels appended to the sample: the inpainting mask and the masked image.
    extra_channels: Vec<f32>,
    /// The LoRAs of the network.
    adaptation: Option<Arc<Adaptation>>,
    /// The pictures that steer the job, and the number of evaluations of an image.
    controls: Option<(Arc<JobControls>, usize)>,
}

/// An evaluation of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The time step.
    pub(super) time: f64,
    /// How many evaluations came before.
    pub(super) evaluation: usize,
}

/// The limits of guidance in Z-Image's pipeline.
#[derive(Debug, Clone, Copy, Default)]
struct GuidanceLimits {
    /// The largest norm of a guided prediction, in norms of the conditional one.
    normalization: Option<f64>,
    /// The signal level 1 − t/1000 above which there is no guidance.
    truncation: Option<f64>,
}

impl GuidanceLimits {
    /// Whether the time step t is one with guidance. In f32, as the reference computes the level.
    fn guides_at(self, t: f64) -> bool {
        let level = (1000.0 - t as f32) / 1000.0;
        self.truncation.is_none_or(|largest| f64::from(level) <= largest)
    }
}

/// The most batch slots that one evaluation of an image of this job takes.
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
        adaptation: Option<Arc<Adaptation>>,
        controls: Option<Arc<JobControls>>,
    ) -> Self {
        let null = manifest.classes.null;
        let guided = slots_per_image(job) == 2;
        Self {
            class: job.class.or(null).unwrap_or(0),
            unconditional: guided.then_some((null.unwrap_or(0), job.guidance as f32)),
            conditions: job.conditions.clone(),
            limits: GuidanceLimits {
                normalization: job.text.as_ref().and_then(|text| text.cfg_normalization),
                truncation: job.text.as_ref().and_then(|text| text.cfg_truncation),
            },
            rule: job.text.as_ref().map_or(GuidanceRule::FromUnconditional, |text| text.guidance_rule),
            rescale: job.guidance_rescale,
            tensors,
            extra_channels,
            adaptation,
            controls: controls.map(|controls| (controls, job.sampler.evaluations())),
        }
    }

    /// Returns whether both fit into one batch: their tensors have equal shapes, and they have equally many
    /// extra channels.
    pub(super) fn is_batchable_with(&self, other: &Self) -> bool {
        self.extra_channels.len() == other.extra_channels.len() && self.shapes(0).eq(other.shapes(0))
    }

    /// Batch slots that an evaluation at the time step t takes.
    pub(super) fn slots_at(&self, t: f64) -> usize {
        if self.unconditional.is_some() && self.limits.guides_at(t) { 2 } else { 1 }
    }

    /// Returns whether the batch holds samples whose tensors have the shapes of this slot's.
    pub(super) fn fits_into(&self, batch: &Batch, slot: usize) -> bool {
        batch.size() == 0 || batch.tensors.iter().map(|tensor| &tensor.shape).eq(self.shapes(slot))
    }

    /// The tensors of a slot.
    fn tensors(&self, slot: usize) -> &[Tensor] {
        match slot {
            1 if self.unconditional.is_some() => &self.tensors.unconditional,
            _ => &self.tensors.conditional,
        }
    }

    fn shapes(&self, slot: usize) -> impl Iterator<Item = &Vec<usize>> {
        self.tensors(slot).iter().map(|tensor| &tensor.shape)
    }

    /// Appends the conditional (`slot` 0) or the unconditional (`slot` 1) evaluation to the batch.
    /// `append_sample` appends the network's input.
    pub(super) fn append_to_batch(
        &self,
        slot: usize,
        batch: &mut Batch,
        append_sample: impl FnOnce(&mut Vec<f32>),
        moment: Moment,
        manifest: &Manifest,
        inputs: &[TensorInput],
    ) {
        let unconditional = self.unconditional.filter(|_| slot == 1);
        let class = unconditional.map_or(self.class, |(null, _)| null);
        let append_input = |x: &mut Vec<f32>| {
            append_sample(x);
            x.extend_from_slice(&self.extra_channels);
        };
        batch.push(append_input, moment.time, class, manifest);
        batch.set_conditions(&self.conditions);
        batch.set_adaptation(self.adaptation.as_ref());
        batch.set_controls(self.controls.as_ref().map(|(job, evaluations)| SampleControls {
            job: Arc::clone(job),
            evaluation: moment.evaluation,
            evaluations: *evaluations,
            is_unconditional: unconditional.is_some(),
        }));
        batch.set_tensors(inputs, self.tensors(slot));
    }

    /// Combines the outputs of all slots, `len` values each, into the first slot:
    /// ε̃ = ε(∅) + w · (ε(c) − ε(∅)), or ε(c) + w · (ε(c) − ε(∅)).
    ///
    /// Only the first `guided` values are combined; learned variances remain the conditional ones.
    pub(super) fn combine(&self, outputs: &mut [f32], len: usize, guided: usize) {
        let Some((_, weight)) = self.unconditional.filter(|_| outputs.len() > len) else { return };
        let (conditional, unconditional) = outputs.split_at_mut(len);
        let conditional = &mut conditional[..guided];
        let largest_norm = self.limits.normalization.map(|limit| limit * norm(conditional));
        let deviation = if self.rescale > 0.0 { standard_deviation(conditional) } else { 0.0 };
        match self.rule {
            GuidanceRule::FromUnconditional => {
                update(conditional, [unconditional], move |c, [u]| u + weight * (c - u));
            }
            GuidanceRule::FromConditional => {
                update(conditional, [unconditional], move |c, [u]| c + weight * (c - u));
            }
        }
        if let Some(largest) = largest_norm {
            bound_norm(conditional, largest);
        }
        if self.rescale > 0.0 {
            rescale(conditional, deviation, self.rescale);
        }
    }
}

/// Scales values whose norm is larger than a bound to the bound.
fn bound_norm(values: &mut [f32], largest: f64) {
    let own = norm(values);
    if own > largest {
        let factor = (largest / own) as f32;
        values.iter_mut().for_each(|x| *x *= factor);
    }
}

/// The Euclidean norm.
fn norm(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
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
    fn a_norm_is_bounded_and_guidance_ends_after_its_share() {
        let mut values = [3.0, 4.0];
        bound_norm(&mut values, 10.0);
        assert_eq!(values, [3.0, 4.0]);
        bound_norm(&mut values, 2.5);
        assert_eq!(values, [1.5, 2.0]);
        let limits = GuidanceLimits { normalization: None, truncation: Some(0.25) };
        assert_eq!([751.0, 750.0, 749.0].map(|t| limits.guides_at(t)), [true, true, false]);
        assert!(GuidanceLimits::default().guides_at(0.0));
    }

    #[test]
    fn a_full_rescale_restores_the_deviation_of_the_conditional_prediction() {
        let conditional = [1.0, 2.0, 4.0, -3.0];
        let mut guided = [5.0, 1.0, -8.0, 2.0];
        rescale(&mut guided, standard_deviation(&conditional), 1.0);
        assert!((standard_deviation(&guided) - standard_deviation(&conditional)).abs() < 1e-6);
    }
}
