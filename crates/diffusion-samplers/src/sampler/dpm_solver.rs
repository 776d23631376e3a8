//! The solvers of the DPM-Solver family (Lu et al. 2022a, DPM-Solver; Lu et al. 2022b, DPM-Solver++).
//!
//! | file | samplers |
//! |---|---|
//! | `multistep` | `dpm_multi`, `dpmpp_2m`, `dpmpp_3m`, `dpmpp_2m_sde` and their EDM and inverse forms |
//! | `singlestep` | `dpm_single` |
//! | `sde` | `dpmpp_sde`, `dpmpp_2s_a`, `k_dpmpp_2m_sde`, `dpmpp_3m_sde` |
//! | `weights` | the coefficients that they share |

pub(crate) mod multistep;
pub(crate) mod sde;
pub(crate) mod singlestep;
pub(crate) mod weights;
