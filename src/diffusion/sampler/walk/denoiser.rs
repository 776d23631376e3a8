//! x̂_0 and ε̂ at a place: the network asked, its answer converted and bounded.

use super::bound::Bound;
use crate::diffusion::prediction::Linear;
use crate::diffusion::sampler::grid::point::{Input, Point};
use crate::diffusion::trajectory::Net;

/// Which form of the network's answer a sampler works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// x̂_0.
    X0,
    /// ε̂.
    Epsilon,
    /// (x − x̂_0)/σ, the slope of the probability-flow ODE where the signal is unscaled.
    Slope,
    /// The output as it is.
    Output,
}

/// One walk's view of the network, with buffers that are used again at every evaluation.
pub(crate) struct Denoiser {
    net: Net,
    bound: Bound,
    input: Vec<f32>,
    /// The network's last output.
    pub(crate) output: Vec<f32>,
    /// x̂_0 of the last evaluation that asked for it.
    pub(crate) x0: Vec<f32>,
    /// ε̂ of the last evaluation that asked for it.
    pub(crate) epsilon: Vec<f32>,
    magnitudes: Vec<f32>,
}

impl Denoiser {
    /// For samples of `len` values.
    pub(crate) fn new(net: Net, bound: Bound, len: usize) -> Self {
        let buffer = || vec![0.0; len];
        let (input, x0, epsilon, magnitudes) = (buffer(), buffer(), buffer(), buffer());
        Self { output: net.output_buffer(), net, bound, input, x0, epsilon, magnitudes }
    }

    /// Evaluate the network at a state, and compute x̂_0.
    pub(crate) async fn x0(&mut self, x: &mut [f32], at: &Point) {
        self.net.keep(x, at.level);
        self.predict(x, at).await;
        self.update_x0(x, at);
        self.net.observe(&self.x0);
    }

    /// Evaluate the network at a state, and compute x̂_0, and ε̂ as it belongs to x̂_0 before that
    /// was bounded.
    pub(crate) async fn x0_and_epsilon(&mut self, x: &mut [f32], at: &Point) {
        self.x0(x, at).await;
        at.epsilon.apply(x, &self.output[..x.len()], &mut self.epsilon);
    }

    /// Evaluate the network at a state, and compute what is kept; ε̂ belongs to the bounded x̂_0.
    pub(crate) async fn evaluate(&mut self, kept: Kept, x: &mut [f32], at: &Point) -> &mut Vec<f32> {
        self.net.keep(x, at.level);
        self.predict(x, at).await;
        if matches!(kept, Kept::X0 | Kept::Slope) || self.bound != Bound::None || self.net.is_observed() {
            self.update_x0(x, at);
            self.net.observe(&self.x0);
        }
        match kept {
            Kept::X0 => &mut self.x0,
            Kept::Output => &mut self.output,
            Kept::Slope => {
                slope(x, &self.x0, at.level.sigma, &mut self.epsilon);
                &mut self.epsilon
            }
            Kept::Epsilon => {
                if self.bound == Bound::None {
                    at.epsilon.apply(x, &self.output[..x.len()], &mut self.epsilon);
                } else {
                    let (alpha, sigma) = (at.level.alpha, at.level.sigma);
                    Linear::of(1.0, -alpha).over(sigma).apply(x, &self.x0, &mut self.epsilon);
                }
                &mut self.epsilon
            }
        }
    }

    async fn predict(&mut self, x: &[f32], at: &Point) {
        let values = self.input.iter_mut().zip(x);
        match at.input {
            Input::State => return self.net.predict(x, at.t, &mut self.output).await,
            Input::Over(norm) => values.for_each(|(input, x)| *input = x / norm as f32),
            Input::Times(factor) => values.for_each(|(input, x)| *input = x * factor as f32),
        }
        self.net.predict(&self.input, at.t, &mut self.output).await;
    }

    fn update_x0(&mut self, x: &[f32], at: &Point) {
        // Channels beyond the sample's own are variances.
        at.x0.apply(x, &self.output[..x.len()], &mut self.x0);
        self.bound.apply(&mut self.x0, &mut self.magnitudes);
    }
}

/// (x − x̂_0)/σ, eq. 3 of Karras et al. 2022 where the signal is unscaled.
pub(crate) fn slope(x: &[f32], x0: &[f32], sigma: f64, slope: &mut [f32]) {
    let sigma = sigma as f32;
    for ((slope, x), x0) in slope.iter_mut().zip(x).zip(x0) {
        *slope = (x - x0) / sigma;
    }
}
