//! The exponential integrators of DPM-Solver (Lu et al. 2022) and DPM-Solver++ (Lu et al. 2022),
//! of their ODE and their SDE, as weights of a step in λ.

use super::family::SamplerError;
use crate::noise_schedule::NoiseLevel;
use crate::scheduler_settings::{Settings, SettingsError};

/// Which equation is integrated, in which estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// The ODE in ε̂ (DPM-Solver, eq. 3.4).
    Dpm,
    /// The ODE in x̂_0 (DPM-Solver++, eq. 8).
    DpmPlus,
    /// The SDE in ε̂ (DPM-Solver++, appendix).
    SdeDpm,
    /// The SDE in x̂_0 (DPM-Solver++, section 5, eq. 18).
    SdeDpmPlus,
}

/// How the second derivative enters a step of order 2 or 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SolverType {
    /// As the midpoint rule.
    Midpoint,
    /// As Heun's rule: the integral of the linear interpolation.
    Heun,
}

/// The keys that all classes of this kind have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Solver {
    pub(super) order: usize,
    pub(super) algorithm: Algorithm,
    pub(super) solver_type: SolverType,
}

impl Algorithm {
    /// The key `algorithm_type`; a class that lacks the SDE in ε̂ says so.
    fn from_settings(settings: &mut Settings, known: &[&str]) -> Result<Self, SettingsError> {
        // Configurations of DEIS are served as those of DPM-Solver++, as diffusers does.
        let known = [known, &["deis"]].concat();
        Ok(match settings.choice("algorithm_type", "dpmsolver++", &known)?.as_str() {
            "dpmsolver" => Self::Dpm,
            "sde-dpmsolver" => Self::SdeDpm,
            "sde-dpmsolver++" => Self::SdeDpmPlus,
            _ => Self::DpmPlus,
        })
    }

    /// Whether it works with x̂_0.
    pub(super) fn keeps_x0(self) -> bool {
        matches!(self, Self::DpmPlus | Self::SdeDpmPlus)
    }

    /// Whether it draws noise.
    pub(super) fn is_stochastic(self) -> bool {
        matches!(self, Self::SdeDpm | Self::SdeDpmPlus)
    }

    /// The weights of a step between two levels.
    ///
    /// In f32, as the references compute them: where ε̂ is integrated over a long step, a state is
    /// multiplied many times over, and every last digit of a weight with it.
    pub(super) fn weights(self, from: NoiseLevel, to: NoiseLevel) -> Weights {
        let h = (to.lambda() - from.lambda()) as f32;
        let (alpha, sigma) = (to.alpha as f32, to.sigma as f32);
        let (from_alpha, from_sigma) = (from.alpha as f32, from.sigma as f32);
        match self {
            Self::DpmPlus => {
                let phi = (-h).exp() - 1.0;
                Weights {
                    x: sigma / from_sigma,
                    d0: -(alpha * phi),
                    midpoint: -(0.5 * (alpha * phi)),
                    heun: alpha * (phi / h + 1.0),
                    d2: -(alpha * ((phi + h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Self::Dpm => {
                let phi = h.exp() - 1.0;
                Weights {
                    x: alpha / from_alpha,
                    d0: -(sigma * phi),
                    midpoint: -(0.5 * (sigma * phi)),
                    heun: -(sigma * (phi / h - 1.0)),
                    d2: -(sigma * ((phi - h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Self::SdeDpmPlus => {
                let phi = 1.0 - (-2.0 * h).exp();
                Weights {
                    x: sigma / from_sigma * (-h).exp(),
                    d0: alpha * phi,
                    midpoint: 0.5 * (alpha * phi),
                    heun: alpha * (phi / (-2.0 * h) + 1.0),
                    d2: alpha * ((phi - 2.0 * h) / (2.0 * h).powi(2) - 0.5),
                    noise: sigma * phi.sqrt(),
                }
            }
            Self::SdeDpm => {
                let phi = h.exp() - 1.0;
                Weights {
                    x: alpha / from_alpha,
                    d0: -(2.0 * (sigma * phi)),
                    midpoint: -(sigma * phi),
                    heun: -(2.0 * (sigma * (phi / h - 1.0))),
                    d2: 0.0,
                    noise: sigma * ((2.0 * h).exp() - 1.0).sqrt(),
                }
            }
        }
    }
}

/// A step x_t = `x`·x_s + `d0`·D_0 + (`midpoint` or `heun`)·D_1 + `d2`·D_2 + `noise`·z, where D_k
/// is the k-th derivative of the estimate along λ, scaled by h^k.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    pub(super) x: f32,
    pub(super) d0: f32,
    pub(super) midpoint: f32,
    pub(super) heun: f32,
    pub(super) d2: f32,
    pub(super) noise: f32,
}

impl Solver {
    /// Read the keys; `known` are the algorithms of the class.
    pub(super) fn from_settings(settings: &mut Settings, known: &[&str]) -> Result<Self, SamplerError> {
        let algorithm = Algorithm::from_settings(settings, known)?;
        let solver_type = match settings
            .choice("solver_type", "midpoint", &["midpoint", "heun", "logrho", "bh1", "bh2"])?
            .as_str()
        {
            "heun" => SolverType::Heun,
            // Those of DEIS and UniPC are served as midpoint, as diffusers does.
            _ => SolverType::Midpoint,
        };
        let order = order(settings, "solver_order", 3)?;
        Ok(Self { order, algorithm, solver_type })
    }

    /// Refuse `sigma_min`'s absence where the algorithm can't step to σ = 0.
    pub(super) fn check_end(&self, settings: &mut Settings) -> Result<(), SettingsError> {
        if !self.algorithm.keeps_x0() && settings.text("final_sigmas_type", "zero")? == "zero" {
            let reason = "dpmsolver and sde-dpmsolver can't step to a noise level of 0; set sigma_min";
            return Err(SettingsError::refused("final_sigmas_type", "zero", reason));
        }
        Ok(())
    }

    /// The key `variance_type`: how many values the network gives for each of the sample's.
    pub(super) fn outputs_per_value(settings: &mut Settings) -> Result<usize, SettingsError> {
        Ok(match settings.text("variance_type", "")?.as_str() {
            "learned" | "learned_range" => 2,
            _ => 1,
        })
    }
}

/// A key from 1 to the most that the class knows, 2 by default.
pub(super) fn order(settings: &mut Settings, key: &str, most: usize) -> Result<usize, SettingsError> {
    let order = settings.count(key, 2)?;
    if (1..=most).contains(&order) {
        return Ok(order);
    }
    Err(SettingsError::refused(key, order, format!("it must lie between 1 and {most}")))
}
