//! The walk of every method that evaluates twice a step: once where it stands, and once where a
//! first guess leads.

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

/// The guess x₂ = `x`·x + `d1`·D(x) + `noise`·z, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guess {
    pub(crate) at: Node,
    pub(crate) x: f64,
    pub(crate) d1: f64,
    pub(crate) noise: Option<f64>,
}

/// One step: x ← `x`·x + `d1`·D(x) + `d2`·D(x₂) + `noise`·z, where D is x̂_0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: Node,
    /// Without a guess the step is one of a single evaluation.
    pub(crate) guess: Option<Guess>,
    pub(crate) x: f64,
    pub(crate) d1: f64,
    pub(crate) d2: f64,
    pub(crate) noise: Option<f64>,
    /// The correlation of the step's noise with the guess's, where both come from one Brownian
    /// motion.
    pub(crate) shared: f64,
}

impl Step {
    /// The step of a single evaluation to σ = 0, which leaves x̂_0 alone.
    pub(crate) fn last(at: Node) -> Self {
        Self { at, guess: None, x: 0.0, d1: 1.0, d2: 0.0, noise: None, shared: 0.0 }
    }
}

/// A sampler that is a list of such steps.
#[derive(Debug)]
pub(crate) struct TwoStage {
    pub(crate) steps: Vec<Step>,
    pub(crate) bound: Bound,
    pub(crate) initial_sigma: f64,
}

impl Sampler for TwoStage {
    fn evaluations(&self) -> usize {
        self.steps.iter().map(|step| 1 + usize::from(step.guess.is_some())).sum()
    }

    fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    fn start(&self) -> Option<NoiseLevel> {
        self.steps.first().map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        let drawn = |noise: Option<f64>| usize::from(noise.is_some());
        self.steps.iter().map(|s| drawn(s.noise) + s.guess.map_or(0, |g| drawn(g.noise))).sum()
    }

    fn is_finite(&self) -> bool {
        let guessed = |guess: Guess| guess.x.is_finite() && guess.d1.is_finite();
        self.steps.iter().all(|step| {
            let own = [step.x, step.d1, step.d2, step.noise.unwrap_or(0.0), step.shared];
            own.iter().all(|w| w.is_finite()) && step.guess.is_none_or(guessed)
        })
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let buffer = || vec![0.0; x.len()];
            let (mut first, mut second, mut guessed) = (buffer(), buffer(), buffer());
            let (mut z, mut z_guess) = (buffer(), buffer());
            for step in &self.steps {
                denoiser.evaluate(Kept::X0, &mut x, &step.at, &mut first).await;
                if let Some(guess) = &step.guess {
                    let (a, w) = (guess.x as f32, guess.d1 as f32);
                    update(&mut guessed, [&x, &first], move |_, [x, d1]| a * x + w * d1);
                    if let Some(s) = guess.noise {
                        noise.fill(&mut z_guess);
                        mix(&mut guessed, 1.0, [(s, &z_guess[..])]);
                    }
                    denoiser.evaluate(Kept::X0, &mut guessed, &guess.at, &mut second).await;
                }
                if step.noise.is_some() {
                    noise.fill_correlated(step.shared, &z_guess, &mut z);
                }
                let noise = step.noise.map(|s| (s, &z[..]));
                let estimates = [(step.d1, &first[..]), (step.d2, &second[..])];
                mix(&mut x, step.x, estimates.into_iter().chain(noise));
            }
            x
        })
    }
}
