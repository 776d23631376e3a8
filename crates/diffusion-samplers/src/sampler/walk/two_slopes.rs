//! The walk of second-order methods on the probability-flow ODE: a slope where the state is, a second
//! one where the first leads, and a step by both.

use std::sync::Arc;

use super::bound::Bound;
use super::denoiser::{Denoiser, Kept};
use super::mix::mix;
use crate::noise_schedule::NoiseLevel;
use crate::rng::Noise;
use crate::sampler::family::Sampler;
use crate::sampler::node::Node;
use crate::simd::update;
use crate::trajectory::{ModelHandle, SampleFuture};

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
    pub(crate) at: Node,
    /// Without a second place the step is Euler's.
    pub(crate) second: Option<Node>,
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

    fn start(&self) -> Option<NoiseLevel> {
        self.steps.first().map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        self.steps.iter().filter(|step| step.noise.is_some()).count()
    }

    fn is_finite(&self) -> bool {
        self.steps.iter().all(|step| step.step.is_finite() && step.noise.unwrap_or(0.0).is_finite())
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut z = vec![0.0; if self.draws() > 0 { x.len() } else { 0 }];
            let buffer = || vec![0.0; x.len()];
            let (mut first, mut second, mut ahead) = (buffer(), buffer(), buffer());
            for step in &self.steps {
                denoiser.evaluate(Kept::Slope, &mut x, &step.at, &mut first).await;
                let size = step.step as f32;
                match &step.second {
                    None => update(&mut x, [&first], move |x, [d]| x + size * d),
                    Some(place) => {
                        let length = (place.level.sigma - step.at.level.sigma) as f32;
                        update(&mut ahead, [&x, &first], move |_, [x, d]| x + length * d);
                        denoiser.evaluate(Kept::Slope, &mut ahead, place, &mut second).await;
                        match self.rule {
                            Rule::Midpoint => update(&mut x, [&second], move |x, [e]| x + size * e),
                            Rule::Heun => {
                                update(&mut x, [&first, &second], move |x, [d, e]| {
                                    x + size * ((d + e) / 2.0)
                                });
                            }
                        }
                    }
                }
                if let Some(sigma) = step.noise {
                    noise.fill(&mut z);
                    mix(&mut x, 1.0, [(sigma, &z[..])]);
                }
            }
            x
        })
    }
}
