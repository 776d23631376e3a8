//! Samplers: the rules by which a sample leaves noise, one file a family.
//!
//! A family is known by its class in scheduler_config.json and by the names that people type. Its
//! `build` reads a scheduler's settings into a plan: the places to visit ([`grid`]) and the weights
//! of each step, from its paper. A [`walk`] then goes along the plan.

mod consistency;
mod ddim;
mod ddpm;
mod deis;
mod dpm;
mod dpm_multistep;
mod dpm_singlestep;
mod dpmpp_stochastic;
mod euler;
mod family;
mod flow;
mod grid;
mod heun;
mod ipndm;
mod kdpm2;
mod langevin;
mod lms;
mod name;
mod pndm;
mod repaint;
mod reverse_process;
mod sa;
mod score_sde;
mod unipc;
mod walk;

use std::sync::Arc;

use super::noise::Noise;
use super::trajectory::Trajectory;

pub use family::{Build, Family, Implied, Known, Options, Preset, Sampler, SamplerError, Time};
pub use name::{Choice, by_class, by_name, names, suffixes};

/// Every family that `denoised` knows.
pub const FAMILIES: &[Family] = &[
    ddpm::FAMILY,
    ddim::DDIM,
    ddim::INVERSE,
    pndm::FAMILY,
    ipndm::FAMILY,
    euler::EULER,
    euler::ANCESTRAL,
    euler::EDM,
    heun::FAMILY,
    lms::FAMILY,
    kdpm2::KDPM2,
    kdpm2::ANCESTRAL,
    kdpm2::K,
    kdpm2::K_ANCESTRAL,
    dpm_multistep::MULTISTEP,
    dpm_multistep::INVERSE,
    dpm_multistep::EDM,
    dpm_singlestep::FAMILY,
    dpmpp_stochastic::SDE,
    dpmpp_stochastic::K_SDE,
    dpmpp_stochastic::TWO_S,
    dpmpp_stochastic::K_TWO_M,
    dpmpp_stochastic::THREE_M,
    deis::FAMILY,
    unipc::FAMILY,
    sa::FAMILY,
    consistency::LCM,
    consistency::TCD,
    consistency::CONSISTENCY,
    flow::EULER,
    flow::HEUN,
    score_sde::FAMILY,
    repaint::FAMILY,
    langevin::NCSN,
    langevin::SGLD,
    reverse_process::FAMILY,
];

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
