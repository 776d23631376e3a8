//! The update of samplers that predict x_0 and add fresh noise: multistep sampling of consistency models
//! (Song et al. 2023, algorithm 1).

use super::model_output::Prediction;
use super::plan::Update;

/// x' = α'·x̂_0 + σ'·z, where (α', σ') is the next noise level.
#[derive(Debug)]
pub(super) struct Renoise {
    /// α'.
    pub(super) alpha: f64,
}

impl Update for Renoise {
    fn apply(&self, x: &mut [f32], x0: Prediction<'_>, noise: Option<(f64, &[f32])>) {
        let alpha = self.alpha as f32;
        x0.step(x, noise, move |_, x0| alpha * x0);
    }

    fn is_finite(&self) -> bool {
        self.alpha.is_finite()
    }
}
