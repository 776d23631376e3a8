//! The walk of every method whose step is a weighted sum of the state, the last few estimates and
//! fresh noise: x ← a·x + Σ_k w_k·m_{i−k} + s·z.
//!
//! A family computes the weights from its paper's formula; what remains is this loop.

use std::sync::Arc;

use super::bound::Bound;
use super::denoiser::{Denoiser, Kept};
use super::history::{DEPTH, History};
use super::mix::mix;
use crate::diffusion::noise::Noise;
use crate::diffusion::sampler::family::Sampler;
use crate::diffusion::sampler::grid::point::Point;
use crate::diffusion::schedule::Level;
use crate::diffusion::trajectory::{Net, Walk};

/// One step: x ← `x`·x + Σ `kept[k]`·m_{i−k} + `noise`·z.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: Point,
    /// The signal's share before and after, where the step is made on the unscaled state x/α.
    pub(crate) frame: Option<(f64, f64)>,
    pub(crate) x: f64,
    pub(crate) kept: [f64; DEPTH],
    /// Noise is drawn even where its weight is 0, since the references draw it.
    pub(crate) noise: Option<f64>,
}

impl Step {
    /// A deterministic step of one term: x ← `x`·x + `newest`·m.
    pub(crate) fn single(at: Point, x: f64, newest: f64) -> Self {
        Self { at, frame: None, x, kept: [newest, 0.0, 0.0, 0.0], noise: None }
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

    fn start(&self) -> Option<Level> {
        self.steps.first().map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        self.steps.iter().filter(|step| step.noise.is_some()).count()
    }

    fn is_finite(&self) -> bool {
        let finite = |step: &Step| step.kept.iter().chain(&step.noise).all(|w| w.is_finite());
        self.steps.iter().all(|step| step.x.is_finite() && finite(step))
    }

    fn walk(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: Net) -> Walk {
        Box::pin(async move {
            let depth =
                1 + self.steps.iter().flat_map(|s| s.kept.iter().rposition(|w| *w != 0.0)).max().unwrap_or(0);
            let mut denoiser = Denoiser::new(net, self.bound, x.len());
            let mut history =
                History::new(depth, if self.kept == Kept::Output { denoiser.output.len() } else { x.len() });
            let mut z = vec![0.0; x.len()];
            for step in &self.steps {
                history.push(denoiser.evaluate(self.kept, &mut x, &step.at).await);
                if step.noise.is_some() {
                    noise.fill(&mut z);
                }
                let (terms, count) = history.terms(&step.kept, step.noise.map(|s| (s, z.as_slice())));
                let (before, after) = step.frame.map_or((1.0, 1.0), |(a, b)| (a as f32, b as f32));
                if step.frame.is_some() {
                    x.iter_mut().for_each(|x| *x /= before);
                }
                mix(&mut x, step.x, &terms[..count]);
                if step.frame.is_some() {
                    x.iter_mut().for_each(|x| *x *= after);
                }
            }
            x
        })
    }
}
