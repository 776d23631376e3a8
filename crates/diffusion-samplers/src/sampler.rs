//! Samplers: the rules by which a sample leaves noise, one file a family.
//!
//! A family is known by its class in scheduler_config.json and by the names that people type. Its
//! `build` reads a scheduler's settings into a plan: the places to visit (`grid`) and the weights
//! of each step, from its paper. A `walk` then goes along the plan.

mod dpm;
mod family;
mod node;
mod spec;
mod steps;
mod walk;

use std::sync::Arc;

use super::noise_schedule::NoiseLevel;
use super::rng::Noise;
use super::trajectory::{InpaintMask, KnownRegion, Trajectory};

pub use family::{
    Build, Family, Options, Patches, Preset, PresetValue, Sampler, SamplerError, Strength, TimeConditioning,
};
pub use spec::{SamplerSpec, by_class, by_name, names, suffixes};

/// Declares each family's file and lists what it holds.
macro_rules! families {
    ($($file:ident: $($family:ident),+;)+) => {
        $(mod $file;)+

        /// Every family that `denoised` knows.
        pub const FAMILIES: &[Family] = &[$($($file::$family),+),+];
    };
}

families! {
    ddpm: FAMILY;
    ddim: DDIM, INVERSE;
    pndm: FAMILY;
    ipndm: FAMILY;
    euler: EULER, ANCESTRAL, EDM;
    heun: FAMILY;
    lms: FAMILY;
    kdpm2: KDPM2, ANCESTRAL, K, K_ANCESTRAL;
    dpm_multistep: MULTISTEP, INVERSE, EDM;
    dpm_singlestep: FAMILY;
    dpmpp_stochastic: SDE, K_SDE, TWO_S, K_TWO_M, THREE_M;
    deis: FAMILY;
    unipc: FAMILY;
    sa: FAMILY;
    consistency: LCM, TCD, CONSISTENCY;
    flow: EULER, HEUN;
    score_sde: FAMILY;
    repaint: FAMILY;
    langevin: NCSN, SGLD;
    reverse_process: FAMILY;
}

/// Where a walk begins.
#[derive(Debug, Clone, Default)]
pub struct InitialState {
    /// Standard normal noise.
    pub noise: Vec<f32>,
    /// The sample from which the walk begins, where it does not begin at noise alone.
    pub image: Option<Vec<f32>>,
    /// What is kept of a sample on the way.
    pub inpaint: Option<Arc<KnownRegion>>,
}

impl InitialState {
    /// At noise alone.
    pub fn from_noise(noise: Vec<f32>) -> Self {
        Self { noise, ..Self::default() }
    }
}

/// Begin a walk at noise, scaled here by the sampler's initial sigma, or at an image, brought here to
/// the level of its first step.
///
/// `noise` is what is drawn on the way.
pub fn start(sampler: Arc<dyn Sampler>, at: InitialState, noise: Noise) -> Trajectory {
    let keep = at.inpaint.map(|known| InpaintMask { known, noise: at.noise.clone() });
    let mut x = at.noise;
    match (at.image, sampler.start()) {
        (Some(image), Some(NoiseLevel { alpha, sigma })) => {
            let (alpha, sigma) = (alpha as f32, sigma as f32);
            x.iter_mut().zip(&image).for_each(|(x, x0)| *x = alpha * x0 + sigma * *x);
        }
        _ => {
            let sigma = sampler.initial_sigma() as f32;
            x.iter_mut().for_each(|x| *x *= sigma);
        }
    }
    Trajectory::new(keep, |net| sampler.sample(x, noise, net))
}
