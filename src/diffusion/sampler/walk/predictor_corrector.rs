//! The walk of methods that correct each state by the evaluation made there before they go on:
//! x_i anew from x_{i−1} with m_i, then x_{i+1} from x_i.

use std::sync::Arc;

use super::bound::Bound;
use super::denoiser::{Denoiser, Kept};
use super::history::{DEPTH, History};
use crate::diffusion::lanes::wide;
use crate::diffusion::noise::Noise;
use crate::diffusion::sampler::family::Sampler;
use crate::diffusion::sampler::grid::point::Point;
use crate::diffusion::schedule::Level;
use crate::diffusion::trajectory::{Net, Walk};

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

    fn apply(&self, x: &mut [f32], history: &History, z: &[f32]) {
        let m: [&[f32]; DEPTH] = std::array::from_fn(|k| history.estimate(k));
        match self {
            &Self::Weighted { x: a, kept, noise } => {
                wide(
                    #[inline(always)]
                    move || {
                        let (m, z) = (m.map(|m| &m[..x.len()]), &z[..x.len()]);
                        for (i, x) in x.iter_mut().enumerate() {
                            let mut gradient = 0.0;
                            for (w, m) in kept.iter().zip(&m) {
                                gradient += w * m[i];
                            }
                            *x = a * *x + gradient + noise * z[i];
                        }
                    },
                );
            }
            Self::Differences { x: a, at, base, scale, differences } => {
                let mut known = differences.iter().zip(m).filter(|(d, _)| d.weight != 0.0);
                let sum = By { x: *a, base: *base, scale: *scale, m_b: m[*at] };
                match (known.next(), known.next(), known.next(), known.next()) {
                    (None, ..) => sum.apply(x, []),
                    (Some(a), None, ..) => sum.apply(x, [a]),
                    (Some(a), Some(b), None, _) => sum.apply(x, [a, b]),
                    (Some(a), Some(b), Some(c), None) => sum.apply(x, [a, b, c]),
                    (Some(a), Some(b), Some(c), Some(d)) => sum.apply(x, [a, b, c, d]),
                }
            }
        }
    }
}

/// [`Sum::Differences`] with its base at hand.
struct By<'a> {
    x: f32,
    base: f32,
    scale: f32,
    m_b: &'a [f32],
}

impl By<'_> {
    fn apply<const N: usize>(&self, x: &mut [f32], known: [(&Difference, &[f32]); N]) {
        let Self { x: a, base, scale, m_b } = *self;
        // Apart from one another: the compiler keeps arrays of numbers in registers, and none of pairs.
        let (weights, overs) = (known.map(|(d, _)| d.weight), known.map(|(d, _)| d.over));
        let values = known.map(|(_, m)| m);
        wide(
            #[inline(always)]
            move || {
                let m_b = &m_b[..x.len()];
                let values = values.map(|m| &m[..x.len()]);
                for (i, x) in x.iter_mut().enumerate() {
                    let mut slope = 0.0;
                    for ((w, over), m) in weights.iter().zip(&overs).zip(&values) {
                        slope += w * ((m[i] - m_b[i]) / over);
                    }
                    *x = a * *x + base * m_b[i] + scale * slope;
                }
            },
        );
    }
}

/// One step: correct, then predict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: Point,
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

    fn start(&self) -> Option<Level> {
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

    fn walk(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: Net) -> Walk {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound, x.len());
            let mut history = History::new(DEPTH, x.len());
            let mut last = vec![0.0; x.len()];
            let mut z = vec![0.0; x.len()];
            for step in &self.steps {
                history.push(denoiser.evaluate(self.kept, &mut x, &step.at).await);
                if let Some(corrector) = &step.corrector {
                    std::mem::swap(&mut x, &mut last);
                    corrector.apply(&mut x, &history, &z);
                }
                if self.stochastic {
                    noise.fill(&mut z);
                }
                last.copy_from_slice(&x);
                step.predictor.apply(&mut x, &history, &z);
            }
            x
        })
    }
}
