//! The walk of DPM-Solver's family: an exponential integrator whose step takes the estimate D_0 and its
//! first two derivatives along λ, as divided differences of the last estimates.

use std::sync::Arc;

use super::bound::Bound;
use super::denoiser::{Denoiser, Kept};
use super::history::History;
use super::mix::mix;
use crate::noise_schedule::NoiseLevel;
use crate::rng::Noise;
use crate::sampler::family::Sampler;
use crate::sampler::node::Node;
use crate::simd::{Divisor, update};
use crate::trajectory::{ModelHandle, SampleFuture};

/// Where a step starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum From {
    /// At the present state.
    #[default]
    Here,
    /// At the present state, which is remembered for the steps of a block.
    BlockStart,
    /// Again at the state remembered last.
    Block,
}

/// How the derivatives come from the estimates m_0 (the newest), m_1 and m_2.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Differences {
    /// None: D_0 = m_0.
    First,
    /// D_0 = m_0, D_1 = (m_0 − m_1)/r.
    Second { r: f32 },
    /// D_0 = m_0, and D_1, D_2 from the slopes (m_0 − m_1)/r_0 and (m_1 − m_2)/r_1.
    Third { r0: f32, r1: f32 },
    /// Within a block from its start m_1: D_0 = m_1, D_1 = (m_0 − m_1)/r.
    BlockSecond { r: f32 },
    /// Within a block from its start m_2: D_0 = m_2, and D_1, D_2 from the slopes to m_0 and m_1.
    BlockThird { r0: f32, r1: f32 },
    /// The same with the slope to m_0 as D_1 alone.
    BlockThirdPlain { r0: f32 },
}

/// One step: x ← `x`·x + `d`·(D_0, D_1, D_2) + `noise`·z.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: Node,
    pub(crate) from: From,
    pub(crate) x: f32,
    pub(crate) d: [f32; 3],
    pub(crate) noise: Option<f32>,
    pub(crate) differences: Differences,
}

/// A sampler that is a list of such steps.
#[derive(Debug)]
pub(crate) struct Taylor {
    pub(crate) steps: Vec<Step>,
    pub(crate) kept: Kept,
    pub(crate) bound: Bound,
    pub(crate) initial_sigma: f64,
    pub(crate) outputs_per_value: usize,
    /// Whether its steps were laid over no more than the part of the way that was asked for.
    pub(crate) begins_anywhere: bool,
}

impl Step {
    /// Make the step; each kind of derivatives is a loop of its own.
    fn apply(&self, x: &mut [f32], [m0, m1, m2]: [&[f32]; 3], z: &[f32]) {
        let ([w0, w1, w2], w) = (self.d, self.x);
        match self.differences {
            Differences::First => update(x, [m0], move |x, [m0]| w * x + w0 * m0),
            Differences::Second { r } => {
                let per = 1.0 / r;
                update(x, [m0, m1], move |x, [m0, m1]| w * x + w0 * m0 + w1 * (per * (m0 - m1)));
            }
            Differences::Third { r0, r1 } => {
                let (per_0, per_1, per) = (1.0 / r0, 1.0 / r1, 1.0 / (r0 + r1));
                let share = r0 / (r0 + r1);
                update(x, [m0, m1, m2], move |x, [m0, m1, m2]| {
                    let (near, far) = (per_0 * (m0 - m1), per_1 * (m1 - m2));
                    let (d1, d2) = (near + share * (near - far), per * (near - far));
                    w * x + w0 * m0 + w1 * d1 + w2 * d2
                });
            }
            Differences::BlockSecond { r } => {
                let per = 1.0 / r;
                update(x, [m0, m1], move |x, [m0, m1]| w * x + w0 * m1 + w1 * (per * (m0 - m1)));
            }
            Differences::BlockThird { r0, r1 } => {
                let (per_0, per_1, over) = (1.0 / r0, 1.0 / r1, Divisor::new(f64::from(r0 - r1)));
                update(x, [m0, m1, m2], move |x, [m0, m1, m2]| {
                    let (near, far) = (per_1 * (m1 - m2), per_0 * (m0 - m2));
                    let (d1, d2) = (over.divide(r0 * near - r1 * far), over.divide(2.0 * (far - near)));
                    w * x + w0 * m2 + w1 * d1 + w2 * d2
                });
            }
            Differences::BlockThirdPlain { r0 } => {
                let per = 1.0 / r0;
                update(x, [m0, m2], move |x, [m0, m2]| w * x + w0 * m2 + w1 * (per * (m0 - m2)));
            }
        }
        if let Some(s) = self.noise {
            mix(x, 1.0, [(f64::from(s), z)]);
        }
    }

    /// Whether all its numbers are: what it makes of 1 and of estimates that differ is, then.
    fn is_finite(&self) -> bool {
        let mut x = [1.0];
        self.apply(&mut x, [&[1.0], &[2.0], &[4.0]], &[1.0]);
        x[0].is_finite()
    }
}

impl Sampler for Taylor {
    fn evaluations(&self) -> usize {
        self.steps.len()
    }

    fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    fn start(&self) -> Option<NoiseLevel> {
        self.begins_anywhere.then(|| self.steps.first()).flatten().map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        self.steps.iter().filter(|step| step.noise.is_some()).count()
    }

    fn is_finite(&self) -> bool {
        self.steps.iter().all(Step::is_finite)
    }

    fn outputs_per_value(&self) -> usize {
        self.outputs_per_value
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut history = History::new(3, x.len());
            let mut z = vec![0.0; if self.draws() > 0 { x.len() } else { 0 }];
            let mut start = Vec::new();
            for (i, step) in self.steps.iter().enumerate() {
                denoiser.evaluate(self.kept, &mut x, &step.at, history.push()).await;
                if step.noise.is_some() {
                    noise.fill(&mut z);
                }
                let again = self.steps.get(i + 1).is_some_and(|next| next.from == From::Block);
                match step.from {
                    From::Here => {}
                    From::BlockStart => start.clone_from(&x),
                    From::Block if again => x.copy_from_slice(&start),
                    From::Block => std::mem::swap(&mut x, &mut start),
                }
                step.apply(&mut x, std::array::from_fn(|age| history.estimate(age)), &z);
            }
            x
        })
    }
}
