//! The loops of multistep methods, which use the predictions of earlier steps, and of those that correct a state
//! once it is evaluated.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::Index;
use std::sync::Arc;

use super::node::Node;
use super::plan::{self, Plan};
use crate::noise_schedule::NoiseLevel;
use crate::rng::Noise;
use crate::simd::{chunks, update};
use crate::trajectory::ModelHandle;

/// The largest number of predictions that a method uses.
pub(crate) const MAX_HISTORY: usize = 4;

/// The last predictions m_0 (the newest), m_1, …
pub(crate) struct History {
    predictions: VecDeque<Vec<f32>>,
}

impl History {
    /// Allocates `depth` predictions of `len` values, all 0.
    pub(crate) fn new(depth: usize, len: usize) -> Self {
        Self { predictions: (0..depth).map(|_| vec![0.0; len]).collect() }
    }

    /// Makes every prediction one step older and returns the newest one's buffer, which was the oldest one's.
    pub(crate) fn rotate(&mut self) -> &mut [f32] {
        self.predictions.rotate_right(1);
        &mut self.predictions[0]
    }

    /// The predictions with these weights, newest first, as terms of a weighted sum.
    pub(crate) fn weighted(&self, weights: &[f64; MAX_HISTORY]) -> impl Iterator<Item = (f64, &[f32])> {
        weights.iter().zip(&self.predictions).map(|(weight, m)| (*weight, m.as_slice()))
    }
}

impl Index<usize> for History {
    type Output = [f32];

    fn index(&self, age: usize) -> &[f32] {
        &self.predictions[age]
    }
}

/// The formula of a multistep method.
pub(crate) trait MultistepUpdate: Debug + Send + Sync + 'static {
    /// The state after the step; `noise` is (s, z), whose product the formula adds.
    fn apply(&self, x: &mut [f32], m: &History, noise: Option<(f64, &[f32])>);

    /// The number of predictions that the formula reads.
    fn depth(&self) -> usize;

    /// Whether every coefficient is finite.
    fn is_finite(&self) -> bool;
}

/// A step of a multistep method.
#[derive(Debug)]
pub(crate) struct MultistepStep<U> {
    pub(crate) node: Node,
    pub(crate) update: U,
    /// The standard deviation of the added noise. It is drawn even if this is 0, because the references do so.
    pub(crate) noise: Option<f64>,
}

impl<U: MultistepUpdate> plan::Step for MultistepStep<U> {
    fn level(&self) -> Option<NoiseLevel> {
        Some(self.node.level)
    }

    fn draws(&self) -> usize {
        usize::from(self.noise.is_some())
    }

    fn is_finite(&self) -> bool {
        self.update.is_finite() && self.noise.is_none_or(f64::is_finite)
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let depth = plan.steps.iter().map(|step| step.update.depth()).max().unwrap_or(1);
        let mut m = History::new(depth, x.len());
        let mut z = plan.noise_buffer(x.len());
        for step in &plan.steps {
            evaluator.predict(plan.form, &mut x, &step.node).await.write(&x, m.rotate());
            let noise = step.noise.map(|s| {
                noise.fill(&mut z);
                (s, &z[..])
            });
            step.update.apply(&mut x, &m, noise);
        }
        x
    }
}

/// The update x ← `x`·x + Σ_k `weights[k]`·m_k + s·z.
#[derive(Debug)]
pub(crate) struct WeightedSum {
    pub(crate) x: f64,
    pub(crate) weights: [f64; MAX_HISTORY],
}

impl MultistepUpdate for WeightedSum {
    fn apply(&self, x: &mut [f32], m: &History, noise: Option<(f64, &[f32])>) {
        weighted_sum(x, self.x, m.weighted(&self.weights).chain(noise));
    }

    fn depth(&self) -> usize {
        self.weights.iter().rposition(|w| *w != 0.0).map_or(1, |last| last + 1)
    }

    fn is_finite(&self) -> bool {
        self.x.is_finite() && self.weights.iter().all(|w| w.is_finite())
    }
}

/// The formula by which a predictor or a corrector computes a state from an earlier one.
pub(crate) trait Formula: Debug + Send + Sync + 'static {
    /// The new state. All slices have the length of `x`.
    fn apply(&self, x: &mut [f32], m: [&[f32]; MAX_HISTORY], z: &[f32]);

    /// Whether every coefficient is finite.
    fn is_finite(&self) -> bool;
}

/// A step of a predictor-corrector method: x_i is corrected by the prediction made there, then x_{i+1} is predicted.
#[derive(Debug)]
pub(crate) struct PredictorCorrector<F> {
    pub(crate) node: Node,
    /// From x_{i−1} to x_i, with the noise drawn at x_{i−1}.
    pub(crate) corrector: Option<F>,
    /// From x_i to x_{i+1}.
    pub(crate) predictor: F,
    /// Whether noise is drawn, if only for a coefficient of 0.
    pub(crate) draws_noise: bool,
}

impl<F: Formula> plan::Step for PredictorCorrector<F> {
    fn level(&self) -> Option<NoiseLevel> {
        Some(self.node.level)
    }

    fn draws(&self) -> usize {
        usize::from(self.draws_noise)
    }

    fn is_finite(&self) -> bool {
        self.predictor.is_finite() && self.corrector.as_ref().is_none_or(F::is_finite)
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let mut m = History::new(MAX_HISTORY, x.len());
        let mut corrected = vec![0.0; x.len()];
        let (mut z, mut z_before) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for step in &plan.steps {
            evaluator.predict(plan.form, &mut x, &step.node).await.write(&x, m.rotate());
            if step.draws_noise {
                std::mem::swap(&mut z, &mut z_before);
                noise.fill(&mut z);
            }
            // Both formulas work on a part of the sample while it is in the processor's cache.
            for chunk in chunks(x.len()) {
                let (x, corrected) = (&mut x[chunk.clone()], &mut corrected[chunk.clone()]);
                let m = std::array::from_fn(|age| &m[age][chunk.clone()]);
                if let Some(corrector) = &step.corrector {
                    corrector.apply(corrected, m, &z_before[chunk.clone()]);
                    x.copy_from_slice(corrected);
                } else {
                    corrected.copy_from_slice(x);
                }
                step.predictor.apply(x, m, &z[chunk]);
            }
        }
        x
    }
}

/// x ← a·x + Σ w·v, added in the order of the terms. Terms of weight 0 are not read; the other slices have at least
/// the length of `x`.
pub(crate) fn weighted_sum<'a>(x: &mut [f32], a: f64, terms: impl IntoIterator<Item = (f64, &'a [f32])>) {
    /// The largest number of terms in one pass over the sample.
    const MAX_TERMS: usize = 5;
    let mut terms = terms.into_iter().filter(|(weight, _)| *weight != 0.0);
    let mut a = a as f32;
    loop {
        let mut pass = [(0.0, &[][..]); MAX_TERMS];
        let mut count = 0;
        for (slot, (weight, values)) in pass.iter_mut().zip(terms.by_ref().take(MAX_TERMS)) {
            *slot = (weight as f32, values);
            count += 1;
        }
        add_terms(x, a, &pass[..count]);
        if count < MAX_TERMS {
            return;
        }
        a = 1.0;
    }
}

fn add_terms(x: &mut [f32], a: f32, terms: &[(f32, &[f32])]) {
    match *terms {
        [] if a == 1.0 => {}
        [] => update(x, [], move |x, []| a * x),
        [(u, k)] => update(x, [k], move |x, [k]| a * x + u * k),
        [(u, k), (v, l)] => update(x, [k, l], move |x, [k, l]| a * x + u * k + v * l),
        [(u, k), (v, l), (w, m)] => {
            update(x, [k, l, m], move |x, [k, l, m]| a * x + u * k + v * l + w * m);
        }
        [(t, j), (u, k), (v, l), (w, m)] => {
            update(x, [j, k, l, m], move |x, [j, k, l, m]| a * x + t * j + u * k + v * l + w * m);
        }
        [(s, i), (t, j), (u, k), (v, l), (w, m), ..] => {
            update(x, [i, j, k, l, m], move |x, [i, j, k, l, m]| {
                a * x + s * i + t * j + u * k + v * l + w * m
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_newest_prediction_takes_the_oldest_ones_buffer() {
        let mut m = History::new(2, 1);
        for value in [1.0, 2.0, 3.0] {
            m.rotate()[0] = value;
        }
        assert_eq!((m[0][0], m[1][0]), (3.0, 2.0));
        let mut x = [1.0];
        WeightedSum { x: 2.0, weights: [0.5, -1.0, 0.0, 0.0] }.apply(&mut x, &m, Some((3.0, &[10.0])));
        assert_eq!(x, [2.0 + 1.5 - 2.0 + 30.0]);
    }

    #[test]
    fn a_weighted_sum_reads_up_to_its_last_weight() {
        let depth = |weights| WeightedSum { x: 1.0, weights }.depth();
        assert_eq!(depth([1.0, 0.0, 0.0, 0.0]), 1);
        assert_eq!(depth([1.0, 0.0, -1.0, 0.0]), 3);
    }

    proptest! {
        #[test]
        fn any_number_of_terms_is_their_weighted_sum(
            x in -2.0..2.0_f32,
            a in -2.0..2.0_f64,
            terms in prop::collection::vec((-2.0..2.0_f64, -2.0..2.0_f32), 0..9),
        ) {
            let values: Vec<[f32; 3]> = terms.iter().map(|(_, v)| [*v; 3]).collect();
            let given: Vec<(f64, &[f32])> = terms.iter().zip(&values).map(|((w, _), v)| (*w, &v[..])).collect();
            let mut found = [x; 3];
            weighted_sum(&mut found, a, given);
            let expected = a * f64::from(x) + terms.iter().map(|(w, v)| w * f64::from(*v)).sum::<f64>();
            for found in found {
                prop_assert!((f64::from(found) - expected).abs() < 1e-5);
            }
        }
    }
}
