//! Samplers: the rules by which a sample leaves noise, one file a family.
//!
//! A family is known by diffusers' class name and by the names that people type. Its `build`
//! reads a scheduler's settings into a plan of coefficients; the sampler then walks along it.

mod ddim;
mod ddpm;
mod estimate;
mod family;
mod heun;

use std::sync::Arc;

use super::noise::Noise;
use super::trajectory::Trajectory;

pub use family::{Build, Family, Options, Sampler, SamplerError};

/// Every family that `denoised` knows.
pub const FAMILIES: &[Family] = &[ddpm::FAMILY, ddim::FAMILY, heun::FAMILY];

/// The family that people call so.
pub fn by_name(name: &str) -> Result<&'static Family, SamplerError> {
    FAMILIES
        .iter()
        .find(|family| family.name == name)
        .ok_or_else(|| SamplerError::Unknown { name: name.to_owned(), known: names() })
}

/// The family of a class in scheduler_config.json.
pub fn by_class(class: &str) -> Result<&'static Family, SamplerError> {
    FAMILIES.iter().find(|family| family.class == class).ok_or_else(|| {
        let known = FAMILIES.iter().map(|family| family.class).collect();
        SamplerError::UnknownClass { class: class.to_owned(), known }
    })
}

/// The names of all families, as people type them.
pub fn names() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.name).collect()
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
