//! How a sampler goes from noise to sample: the loops around the network, whose weights each
//! family takes from its paper.

pub(crate) mod bound;
pub(crate) mod denoiser;
pub(crate) mod estimate;
pub(crate) mod history;
pub(crate) mod mix;
pub(crate) mod multistep;
pub(crate) mod predictor_corrector;
pub(crate) mod taylor;
pub(crate) mod two_slopes;
pub(crate) mod two_stage;
