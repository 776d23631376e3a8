//! The walk of methods that correct each state by the evaluation made there before they go on:
//! x_i anew from x_{i−1} with m_i, then x_{i+1} from x_i.

use std::sync::Arc;

use super::bound::Bound;
use super::denoiser::{Denoiser, Kept};
use super::history::{DEPTH, History};
use crate::noise_schedule::NoiseLevel;
use crate::rng::Noise;
use crate::sampler::family::Sampler;
use crate::sampler::node::Node;
use crate::simd::{chunks, update};
use crate::trajectory::{ModelHandle, SampleFuture};

/// How a state follows from another and from the estimates m_0 (the newest), m_1, …
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sum {
    /// x ← `x`·x + (Σ `kept[k]`·m_k) + `noise`·z.
    Weighted { x: f32, kept: [f32; DEPTH], noise: f32 },
    /// x ← `x`·x + `base`·m_b + `scale`·Σ_k ρ_k·(m_k − m_b)/r_k, with b the index `at`.
    Differences { x: f32, at: usize, base: f32, scale: f32, differences: [Difference; DEPTH] },
}

/// The difference of one estimate from the base.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Difference {
    /// ρ; 0 where there is none.
    pub(crate) weight: f32,
    /// r.
    pub(crate) over: f32,
}

impl Sum {
    fn is_finite(&self) -> bool {
        match self {
            Self::Weighted { x, kept, noise } => kept.iter().chain([x, noise]).all(|w| w.is_finite()),
            Self::Differences { x, base, scale, differences, .. } => {
                let sound = |d: &Difference| d.weight == 0.0 || (d.weight / d.over).is_finite();
                [x, base, scale].iter().all(|w| w.is_finite()) && differences.iter().all(sound)
            }
        }
    }

    fn apply(&self, x: &mut [f32], m: [&[f32]; DEPTH], z: &[f32]) {
        match self {
            Self::Weighted { x: a, kept, noise } => weighted(x, *a, kept, m, (*noise, z)),
            Self::Differences { x: a, at, base, scale, differences } => {
                let (a, base, b) = (*a, *base, m[*at]);
                let mut known = differences.iter().enumerate().filter(|(_, d)| d.weight != 0.0);
                // Whatever is the same for all values is taken together beforehand.
                let weight = |d: &Difference| f64::from(*scale) * f64::from(d.weight) / f64::from(d.over);
                let mut next = || known.next().map(|(k, d)| (weight(d) as f32, m[k]));
                match (next(), next(), next()) {
                    (None, ..) => update(x, [b], move |x, [b]| a * x + base * b),
                    (Some((u, k)), None, _) => {
                        update(x, [b, k], move |x, [b, k]| a * x + base * b + u * (k - b));
                    }
                    (Some((u, k)), Some((v, l)), None) => update(x, [b, k, l], move |x, [b, k, l]| {
                        a * x + base * b + (u * (k - b) + v * (l - b))
                    }),
                    (Some((u, k)), Some((v, l)), Some((w, m))) => {
                        update(x, [b, k, l, m], move |x, [b, k, l, m]| {
                            a * x + base * b + (u * (k - b) + v * (l - b) + w * (m - b))
                        });
                    }
                }
            }
        }
    }
}

/// x ← a·x + (Σ w·m) + s·z, where the sum of the estimates is made first.
fn weighted(x: &mut [f32], a: f32, kept: &[f32; DEPTH], m: [&[f32]; DEPTH], (s, z): (f32, &[f32])) {
    match *kept {
        [t, 0.0, 0.0, 0.0] => update(x, [m[0], z], move |x, [j, z]| a * x + t * j + s * z),
        [t, u, 0.0, 0.0] => {
            update(x, [m[0], m[1], z], move |x, [j, k, z]| a * x + (t * j + u * k) + s * z);
        }
        [t, u, v, 0.0] => {
            update(x, [m[0], m[1], m[2], z], move |x, [j, k, l, z]| a * x + (t * j + u * k + v * l) + s * z)
        }
        [t, u, v, w] => update(x, [m[0], m[1], m[2], m[3], z], move |x, [j, k, l, m, z]| {
            a * x + (t * j + u * k + v * l + w * m) + s * z
        }),
    }
}

/// One step: correct, then predict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: Node,
    /// From the last corrected state, with the noise that was drawn there.
    pub(crate) corrector: Option<Sum>,
    pub(crate) predictor: Sum,
}

/// A sampler that is a list of such steps.
#[derive(Debug)]
pub(crate) struct PredictorCorrector {
    pub(crate) steps: Vec<Step>,
    pub(crate) kept: Kept,
    pub(crate) bound: Bound,
    /// Noise is drawn at every step, even where its weight is 0, since the reference draws it.
    pub(crate) stochastic: bool,
    pub(crate) outputs_per_value: usize,
}

impl Sampler for PredictorCorrector {
    fn evaluations(&self) -> usize {
        self.steps.len()
    }

    fn start(&self) -> Option<NoiseLevel> {
        self.steps.first().map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        if self.stochastic { self.steps.len() } else { 0 }
    }

    fn is_finite(&self) -> bool {
        let finite = |sum: &Sum| sum.is_finite();
        self.steps.iter().all(|step| finite(&step.predictor) && step.corrector.as_ref().is_none_or(finite))
    }

    fn outputs_per_value(&self) -> usize {
        self.outputs_per_value
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut history = History::new(DEPTH, x.len());
            let mut last = vec![0.0; x.len()];
            let (mut z, mut z_before) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            for step in &self.steps {
                denoiser.evaluate(self.kept, &mut x, &step.at, history.push()).await;
                if self.stochastic {
                    std::mem::swap(&mut z, &mut z_before);
                    noise.fill(&mut z);
                }
                for part in chunks(x.len()) {
                    let (x, last) = (&mut x[part.clone()], &mut last[part.clone()]);
                    let m = std::array::from_fn(|age| &history.estimate(age)[part.clone()]);
                    if let Some(corrector) = &step.corrector {
                        corrector.apply(last, m, &z_before[part.clone()]);
                        x.copy_from_slice(last);
                    } else {
                        last.copy_from_slice(x);
                    }
                    step.predictor.apply(x, m, &z[part]);
                }
            }
            x
        })
    }
}
