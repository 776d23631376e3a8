//! The solvers of the DPM-Solver family (Lu et al. 2022a, DPM-Solver; Lu et al. 2022b, DPM-Solver++).

pub(crate) mod multistep;
pub(crate) mod sde;
pub(crate) mod singlestep;
pub(crate) mod weights;
