//! The places that samplers visit, as the classes of scheduler configurations lay them out.

pub(crate) mod edm;
pub(crate) mod k_diffusion;
pub(crate) mod lambda;
pub(crate) mod sigma;
