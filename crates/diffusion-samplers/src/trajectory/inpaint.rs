//! Inpainting with any sampler.

use std::sync::Arc;

use crate::noise_schedule::NoiseLevel;

/// A sample of which a part is known, for inpainting (Lugmayr et al. 2022).
#[derive(Debug, Clone, PartialEq)]
pub struct KnownRegion {
    /// The sample x₀, in the model's range.
    pub sample: Vec<f32>,
    /// One value for each value of `sample`: 1 where it is known, 0 where it is generated.
    pub mask: Vec<f32>,
}

impl KnownRegion {
    /// The part of `sample` where `mask` is 1. Both have the sample's length.
    pub fn new(sample: Vec<f32>, mask: Vec<f32>) -> Self {
        Self { sample, mask }
    }
}

/// Inpainting with any sampler: at every noise level that is reached, the known part of the state is replaced by the
/// forward process of the known sample, always with the same noise (Song et al. 2021, appendix I.2; the latent
/// diffusion pipelines of diffusers do the same).
#[derive(Debug, Clone)]
pub struct InpaintMask {
    /// The known sample and its mask.
    pub known: Arc<KnownRegion>,
    /// Standard normal noise, with the sample's length.
    pub noise: Vec<f32>,
}

impl InpaintMask {
    /// Inpainting of `known` with `noise`, which has the sample's length.
    pub fn new(known: Arc<KnownRegion>, noise: Vec<f32>) -> Self {
        Self { known, noise }
    }

    /// Replaces the known part of the state `x` by q(x_t | x₀) at `level`.
    pub fn blend_known(&self, x: &mut [f32], level: NoiseLevel) {
        let (alpha, sigma) = (level.alpha as f32, level.sigma as f32);
        let known = self.known.sample.iter().zip(&self.known.mask).zip(&self.noise);
        for (x, ((x0, mask), z)) in x.iter_mut().zip(known) {
            *x = (1.0 - mask) * *x + mask * (alpha * x0 + sigma * z);
        }
    }
}
