//! The walk of second-order methods on the probability-flow ODE: a slope where the state is, a second
//! one where the first leads, and a step by both.

use std::sync::Arc;

use super::bound::Bound;
use super::denoiser::{Denoiser, slope};
use super::mix::mix;
use crate::diffusion::noise::Noise;
use crate::diffusion::sampler::family::Sampler;
use crate::diffusion::sampler::grid::point::Point;
use crate::diffusion::schedule::Level;
use crate::diffusion::trajectory::{Net, Walk};

/// Which slope makes the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The second, taken midway.
    Midpoint,
    /// The mean of both, the second taken at the step's end.
    Heun,
}

/// One step from `at` by Δσ = `step`, with the second slope at `second`; then noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: Point,
    /// Without a second place the step is Euler's.
    pub(crate) second: Option<Point>,
    pub(crate) step: f64,
    pub(crate) noise: Option<f64>,
}

/// A sampler that is a list of such steps.
#[derive(Debug)]
pub(crate) struct TwoSlopes {
    pub(crate) steps: Vec<Step>,
    pub(crate) rule: Rule,
    pub(crate) bound: Bound,
    pub(crate) initial_sigma: f64,
}

impl Sampler for TwoSlopes {
    fn evaluations(&self) -> usize {
        self.steps.iter().map(|step| 1 + usize::from(step.second.is_some())).sum()
    }

    fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    fn start(&self) -> Option<Level> {
        self.steps.first().map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        self.steps.iter().filter(|step| step.noise.is_some()).count()
    }

    fn is_finite(&self) -> bool {
        self.steps.iter().all(|step| step.step.is_finite() && step.noise.unwrap_or(0.0).is_finite())
    }

    fn walk(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: Net) -> Walk {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound, x.len());
            let buffer = || vec![0.0; x.len()];
            let (mut first, mut second, mut ahead, mut z) = (buffer(), buffer(), buffer(), buffer());
            for step in &self.steps {
                denoiser.x0(&mut x, &step.at).await;
                let sigma = step.at.level.sigma;
                slope(&x, &denoiser.x0, sigma, &mut first);
                if let Some(place) = &step.second {
                    ahead.copy_from_slice(&x);
                    mix(&mut ahead, 1.0, &[(place.level.sigma - sigma, &first)]);
                    denoiser.x0(&mut ahead, place).await;
                    slope(&ahead, &denoiser.x0, place.level.sigma, &mut second);
                    match self.rule {
                        Rule::Midpoint => std::mem::swap(&mut first, &mut second),
                        Rule::Heun => first.iter_mut().zip(&second).for_each(|(d, e)| *d = (*d + e) / 2.0),
                    }
                }
                mix(&mut x, 1.0, &[(step.step, &first)]);
                if let Some(sigma) = step.noise {
                    noise.fill(&mut z);
                    mix(&mut x, 1.0, &[(sigma, &z)]);
                }
            }
            x
        })
    }
}
