//! Classifier-free guidance (Ho & Salimans 2022): two evaluations pulled apart.

use crate::job::Job;
use crate::model::{Batch, Manifest};

/// What the network is told besides the sample, and how its answers are combined.
#[derive(Debug, Clone)]
pub struct Guide {
    class: i64,
    /// The label for no class and the weight, where there is guidance.
    away: Option<(i64, f32)>,
    conditions: Vec<f32>,
}

impl Guide {
    /// What a job says.
    pub fn of(job: &Job, manifest: &Manifest) -> Self {
        let null = manifest.classes.null;
        Self {
            class: job.class.or(null).unwrap_or(0),
            away: null.filter(|_| job.guidance != 1.0).map(|null| (null, job.guidance as f32)),
            conditions: job.conditions.clone(),
        }
    }

    /// How many places of a batch one evaluation takes.
    pub fn places(&self) -> usize {
        if self.away.is_some() { 2 } else { 1 }
    }

    /// Take the `place`-th place: with the class, then without.
    pub fn push(&self, place: usize, batch: &mut Batch, sample: &[f32], time: f64, manifest: &Manifest) {
        let class = match self.away {
            Some((null, _)) if place == 1 => null,
            _ => self.class,
        };
        batch.push(|x| x.extend_from_slice(sample), time, class, manifest);
        batch.set_conditions(&self.conditions);
    }

    /// Combine the outputs of all places into one: ε̃ = ε(∅) + w · (ε(c) − ε(∅)).
    ///
    /// Only the first `guided` values are guided; learned variances stay those of the class.
    pub fn combine(&self, outputs: &[f32], guided: usize, combined: &mut [f32]) {
        let (with, without) = outputs.split_at(combined.len());
        combined.copy_from_slice(with);
        if let Some((_, weight)) = self.away {
            for ((x, with), without) in combined.iter_mut().zip(with).zip(without).take(guided) {
                *x = without + weight * (with - without);
            }
        }
    }
}
