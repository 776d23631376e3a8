//! Samplers: the rules by which a sample leaves noise, one file a family.
//!
//! A family is known by its class in scheduler_config.json and by the names that people type. Its
//! `build` reads a scheduler's settings into a plan: the places to visit (`grid`) and the weights
//! of each step, from its paper. A `walk` then goes along the plan.

mod dpm;
mod family;
mod grid;
mod name;
mod walk;

use std::sync::Arc;

use super::noise::Noise;
use super::trajectory::Trajectory;

pub use family::{Build, Family, Implied, Known, Options, Preset, Sampler, SamplerError, Time};
pub use name::{Choice, by_class, by_name, names, suffixes};

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

/// Begin a walk at `initial`: standard normal noise, scaled here by the sampler's initial sigma.
///
/// `output_len` is the length of the network's output for one sample.
pub fn begin(
    sampler: Arc<dyn Sampler>,
    mut initial: Vec<f32>,
    noise: Noise,
    output_len: usize,
) -> Trajectory {
    let sigma = sampler.initial_sigma() as f32;
    for x in &mut initial {
        *x *= sigma;
    }
    Trajectory::begin(output_len, |net| sampler.walk(initial, noise, net))
}
