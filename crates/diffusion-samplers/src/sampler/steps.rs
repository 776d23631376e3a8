//! Time steps and noise levels, as diffusers, k-diffusion and EDM lay them out.

pub(crate) mod edm;
pub(crate) mod k_diffusion;
pub(crate) mod lambda;
pub(crate) mod sigma;
