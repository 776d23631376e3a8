//! The network asked at a place, and what its answer says there.

use super::bound::Bound;
use super::estimate::{Estimate, Seen};
use crate::noise_schedule::NoiseLevel;
use crate::sampler::node::Node;
use crate::trajectory::{ModelHandle, Output};

/// Which form of the network's answer a sampler keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// x̂_0.
    X0,
    /// ε̂.
    Epsilon,
    /// (x − x̂_0)/σ, the slope of the probability-flow ODE where the signal is unscaled (Karras et al. 2022,
    /// eq. 3).
    Slope,
    /// The output as it is.
    Output,
}

/// One walk's view of the network.
pub(crate) struct Denoiser {
    net: ModelHandle,
    bound: Bound,
    /// The network's last answer, until the next one is asked for.
    answer: Option<Output>,
    /// x̂_0 where somebody watches, and magnitudes of which a quantile is taken; it grows when it is needed.
    aside: Vec<f32>,
}

impl Denoiser {
    pub(crate) fn new(net: ModelHandle, bound: Bound) -> Self {
        Self { net, bound, answer: None, aside: Vec::new() }
    }

    /// The network's last answer.
    pub(crate) fn answer(&self) -> &[f32] {
        self.answer.as_deref().unwrap_or_default()
    }

    /// Evaluate the network at a state; tells what the answer says there.
    pub(crate) async fn ask(&mut self, x: &mut Vec<f32>, at: &Node) -> Seen {
        self.net.blend_known(x, at.level);
        self.answer = None;
        let answer = self.answer.insert(self.net.predict(x, at.input, at.t).await);
        // Channels beyond the sample's own are variances.
        let answer = &answer[..x.len()];
        let x0 = self.bound.applied(at.x0, x, answer, &mut self.aside);
        if self.net.preview_enabled() {
            self.aside.resize(x.len(), 0.0);
            x0.write(x, answer, &mut self.aside);
            self.net.preview(&self.aside);
        }
        Seen { x0, epsilon: at.epsilon }
    }

    /// Evaluate the network at a state; tells what is kept of the answer.
    pub(crate) async fn estimate(&mut self, kept: Kept, x: &mut Vec<f32>, at: &Node) -> Estimate {
        let Seen { x0, epsilon } = self.ask(x, at).await;
        match kept {
            Kept::X0 => x0,
            Kept::Output => Estimate::answer(),
            Kept::Epsilon if self.bound == Bound::None => Estimate::of(epsilon),
            // It belongs to the bounded x̂_0.
            Kept::Epsilon => x0.rest(at.level),
            Kept::Slope => x0.rest(NoiseLevel { alpha: 1.0, ..at.level }),
        }
    }

    /// Evaluate the network at a state, and compute what is kept.
    pub(crate) async fn evaluate(&mut self, kept: Kept, x: &mut Vec<f32>, at: &Node, values: &mut [f32]) {
        self.estimate(kept, x, at).await.write(x, self.answer(), values);
    }
}
