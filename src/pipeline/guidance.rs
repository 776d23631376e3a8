//! Classifier-free guidance (Ho & Salimans 2022): two evaluations pulled apart.

use std::sync::Arc;

use crate::bundle::{Manifest, TensorInput};
use crate::job::Job;
use crate::model::{Batch, Conditions};
use diffusion_samplers::simd::update;

/// What the network is told besides the sample, and how its answers are combined.
#[derive(Debug, Clone)]
pub struct Guidance {
    class: i64,
    /// The label for no class and the weight, where there is guidance.
    away: Option<(i64, f32)>,
    conditions: Vec<f32>,
    /// How much of the prediction's spread is brought back to that with the prompt.
    rescale: f32,
    /// The tensors of a text-to-image network.
    tensors: Arc<Conditions>,
    /// Channels beside the sample's own: a mask, and what is seen of a picture.
    beside: Vec<f32>,
}

/// How many places of a batch one evaluation of a job's image takes.
pub fn places_of(job: &Job) -> usize {
    let guided = match &job.wish {
        Some(wish) => wish.guided,
        None => job.guidance != 1.0 && job.model.bundle.manifest.classes.null.is_some(),
    };
    if guided { 2 } else { 1 }
}

impl Guidance {
    /// What a job says.
    pub fn of(job: &Job, manifest: &Manifest, tensors: Arc<Conditions>, beside: Vec<f32>) -> Self {
        let null = manifest.classes.null;
        let away = (places_of(job) == 2).then_some((null.unwrap_or(0), job.guidance as f32));
        Self {
            class: job.class.or(null).unwrap_or(0),
            away,
            conditions: job.conditions.clone(),
            rescale: job.guidance_rescale,
            tensors,
            beside,
        }
    }

    /// Whether one batch may hold both: the same tensors' shapes, and as many further channels.
    pub fn goes_with(&self, other: &Self) -> bool {
        let shapes = self.tensors.conditional.iter().map(|tensor| &tensor.shape);
        self.beside.len() == other.beside.len()
            && shapes.eq(other.tensors.conditional.iter().map(|tensor| &tensor.shape))
    }

    /// How many places of a batch one evaluation takes.
    pub fn places(&self) -> usize {
        if self.away.is_some() { 2 } else { 1 }
    }

    /// Take the `place`-th place, with the class, then without; `sample` appends the network's input.
    pub fn push(
        &self,
        place: usize,
        batch: &mut Batch,
        sample: impl FnOnce(&mut Vec<f32>),
        time: f64,
        manifest: &Manifest,
        inputs: &[TensorInput],
    ) {
        let class = match self.away {
            Some((null, _)) if place == 1 => null,
            _ => self.class,
        };
        let both = |x: &mut Vec<f32>| {
            sample(x);
            x.extend_from_slice(&self.beside);
        };
        batch.push(both, time, class, manifest);
        batch.set_conditions(&self.conditions);
        let without = self.away.is_some() && place == 1;
        batch.set_tensors(
            inputs,
            if without { &self.tensors.unconditional } else { &self.tensors.conditional },
        );
    }

    /// Combine the outputs of all places, each of `len` values, in the first one's place:
    /// ε̃ = ε(∅) + w · (ε(c) − ε(∅)).
    ///
    /// Only the first `guided` values are guided; learned variances stay those of the class.
    pub fn combine(&self, outputs: &mut [f32], len: usize, guided: usize) {
        let Some((_, weight)) = self.away else { return };
        let (with, without) = outputs.split_at_mut(len);
        let with = &mut with[..guided];
        let spread = if self.rescale > 0.0 { deviation(with) } else { 0.0 };
        update(with, [without], move |with, [without]| without + weight * (with - without));
        if self.rescale > 0.0 {
            rescale(with, spread, self.rescale);
        }
    }
}

/// Bring the spread of a guided prediction back to that of the one with the prompt, by this share
/// (Lin et al. 2024, eq. 14 to 16).
fn rescale(guided: &mut [f32], spread: f64, share: f32) {
    let factor = (spread / deviation(guided)) as f32;
    for x in guided {
        *x = share * (*x * factor) + (1.0 - share) * *x;
    }
}

fn deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_rescale_has_the_spread_of_the_prediction_with_the_prompt() {
        let with = [1.0, 2.0, 4.0, -3.0];
        let mut guided = [5.0, 1.0, -8.0, 2.0];
        rescale(&mut guided, deviation(&with), 1.0);
        assert!((deviation(&guided) - deviation(&with)).abs() < 1e-6);
    }
}
