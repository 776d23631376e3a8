//! The walk of every method whose step is a weighted sum of the state, the last few estimates and
//! fresh noise: x ← a·x + Σ_k w_k·m_{i−k} + s·z.
//!
//! A family computes the weights from its paper's formula; what remains is one of two loops.

use std::sync::Arc;

use super::bound::Bound;
use super::denoiser::{Denoiser, Kept};
use super::estimate::{Estimate, add, with};
use super::history::{DEPTH, History};
use super::mix::mix;
use crate::noise_schedule::NoiseLevel;
use crate::rng::Noise;
use crate::sampler::family::Sampler;
use crate::sampler::node::Node;
use crate::trajectory::{ModelHandle, SampleFuture};

/// One step: x ← `x`·x + Σ `kept[k]`·m_{i−k} + `noise`·z.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: Node,
    pub(crate) x: f64,
    pub(crate) kept: [f64; DEPTH],
    /// Noise is drawn even where its weight is 0, since the references draw it.
    pub(crate) noise: Option<f64>,
}

impl Step {
    /// A deterministic step x ← `x`·x + Σ `kept[k]`·m_{i−k}.
    pub(crate) fn of(at: Node, x: f64, kept: [f64; DEPTH]) -> Self {
        Self { at, x, kept, noise: None }
    }

    /// A deterministic step of one term: x ← `x`·x + `newest`·m.
    pub(crate) fn single(at: Node, x: f64, newest: f64) -> Self {
        Self::of(at, x, [newest, 0.0, 0.0, 0.0])
    }

    /// The same with noise of this length.
    pub(crate) fn noisy(self, noise: f64) -> Self {
        Self { noise: Some(noise), ..self }
    }
}

/// A sampler that is a list of such steps.
#[derive(Debug)]
pub(crate) struct Multistep {
    pub(crate) steps: Vec<Step>,
    pub(crate) kept: Kept,
    pub(crate) bound: Bound,
    pub(crate) initial_sigma: f64,
}

impl Multistep {
    /// Steps that keep x̂_0, from unit noise.
    pub(crate) fn of_x0(steps: Vec<Step>, bound: Bound) -> Self {
        Self { steps, kept: Kept::X0, bound, initial_sigma: 1.0 }
    }

    /// The same from noise of this standard deviation.
    pub(crate) fn starting_at(self, initial_sigma: f64) -> Self {
        Self { initial_sigma, ..self }
    }

    /// The same keeping another form of the network's answer.
    pub(crate) fn keeping(self, kept: Kept) -> Self {
        Self { kept, ..self }
    }
}

impl Sampler for Multistep {
    fn evaluations(&self) -> usize {
        self.steps.len()
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
        let finite = |step: &Step| step.kept.iter().chain(&step.noise).all(|w| w.is_finite());
        self.steps.iter().all(|step| step.x.is_finite() && finite(step))
    }

    fn sample(self: Arc<Self>, x: Vec<f32>, noise: Noise, net: ModelHandle) -> SampleFuture {
        let looks_back = |step: &Step| step.kept.iter().rposition(|w| *w != 0.0);
        match self.steps.iter().filter_map(looks_back).max() {
            Some(back @ 1..) => self.walk_with_history(1 + back, x, noise, net),
            _ => self.walk_without_history(x, noise, net),
        }
    }
}

impl Multistep {
    /// Steps of the newest estimate alone, which is nowhere but in the step's own pass.
    fn walk_without_history(
        self: Arc<Self>,
        mut x: Vec<f32>,
        mut noise: Noise,
        net: ModelHandle,
    ) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut z = vec![0.0; if self.draws() > 0 { x.len() } else { 0 }];
            for step in &self.steps {
                let estimate = denoiser.estimate(self.kept, &mut x, &step.at).await;
                let (a, w) = (step.x as f32, step.kept[0] as f32);
                let noise = step.noise.map(|s| {
                    noise.fill(&mut z);
                    (s, &z[..])
                });
                with!(estimate, m => add(&mut x, denoiser.answer(), noise, move |x, o| a * x + w * m(x, o)));
            }
            x
        })
    }

    fn walk_with_history(
        self: Arc<Self>,
        depth: usize,
        mut x: Vec<f32>,
        mut noise: Noise,
        net: ModelHandle,
    ) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut history = History::new(depth, x.len());
            let mut z = vec![0.0; if self.draws() > 0 { x.len() } else { 0 }];
            for step in &self.steps {
                denoiser.evaluate(self.kept, &mut x, &step.at, history.push()).await;
                if step.noise.is_some() {
                    noise.fill(&mut z);
                }
                let noise = step.noise.map(|s| (s, &z[..]));
                mix(&mut x, step.x, history.terms(&step.kept).chain(noise));
            }
            x
        })
    }
}
