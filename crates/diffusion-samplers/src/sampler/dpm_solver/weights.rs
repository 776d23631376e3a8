//! The coefficients of DPM-Solver (Lu et al. 2022a) and DPM-Solver++ (Lu et al. 2022b), of the ODE and of the SDE, and
//! the keys of their classes.

use crate::noise_schedule::NoiseLevel;
use crate::sampler::SamplerError;
use crate::sampler::model_output::OutputForm;
use crate::scheduler_settings::{Settings, SettingsError};

/// The key `algorithm_type`: the equation to integrate, and the prediction in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// The ODE in ε̂ (DPM-Solver, eq. 3.4).
    DpmSolver,
    /// The ODE in x̂_0 (DPM-Solver++, eq. 8).
    DpmSolverPlusPlus,
    /// The SDE in ε̂ (DPM-Solver++, appendix).
    SdeDpmSolver,
    /// The SDE in x̂_0 (DPM-Solver++, section 5, eq. 18).
    SdeDpmSolverPlusPlus,
}

/// The key `solver_type`: how D_1 enters a step of order 2, and D_2 a step of order 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SolverType {
    /// The midpoint rule.
    Midpoint,
    /// Heun's rule, the integral of the linear interpolation.
    Heun,
}

/// The keys that the classes share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Solver {
    pub(crate) order: usize,
    pub(crate) algorithm: Algorithm,
    pub(crate) solver_type: SolverType,
}

/// The coefficients of a step x_t = `x`·x_s + `d0`·D_0 + (`midpoint` or `heun`)·D_1 + `d2`·D_2 + `noise`·z, where D_k
/// is the k-th derivative of the prediction along λ, scaled by h^k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    pub(crate) x: f32,
    pub(crate) d0: f32,
    pub(crate) midpoint: f32,
    pub(crate) heun: f32,
    pub(crate) d2: f32,
    pub(crate) noise: f32,
}

impl Algorithm {
    /// Reads `algorithm_type`, which must be one of those that the class supports.
    fn from_settings(settings: &mut Settings, supported: &[&str]) -> Result<Self, SettingsError> {
        // diffusers accepts the value of DEIS and runs DPM-Solver++.
        let supported = [supported, &["deis"]].concat();
        Ok(match settings.choice("algorithm_type", "dpmsolver++", &supported)?.as_str() {
            "dpmsolver" => Self::DpmSolver,
            "sde-dpmsolver" => Self::SdeDpmSolver,
            "sde-dpmsolver++" => Self::SdeDpmSolverPlusPlus,
            _ => Self::DpmSolverPlusPlus,
        })
    }

    /// The form of the prediction that the equation contains.
    pub(crate) fn form(self) -> OutputForm {
        match self {
            Self::DpmSolverPlusPlus | Self::SdeDpmSolverPlusPlus => OutputForm::X0,
            Self::DpmSolver | Self::SdeDpmSolver => OutputForm::Epsilon,
        }
    }

    /// Whether the equation is an SDE.
    pub(crate) fn is_stochastic(self) -> bool {
        matches!(self, Self::SdeDpmSolver | Self::SdeDpmSolverPlusPlus)
    }

    /// The coefficients of a step between two levels, with h = λ_t − λ_s.
    ///
    /// In f32, as in the references: a long step that integrates ε̂ multiplies the state a hundredfold, and with it the
    /// rounding of every coefficient.
    pub(crate) fn weights(self, from: NoiseLevel, to: NoiseLevel) -> Weights {
        let h = (to.lambda() - from.lambda()) as f32;
        let (alpha, sigma) = (to.alpha as f32, to.sigma as f32);
        let (from_alpha, from_sigma) = (from.alpha as f32, from.sigma as f32);
        match self {
            Self::DpmSolverPlusPlus => {
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
            Self::DpmSolver => {
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
            Self::SdeDpmSolverPlusPlus => {
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
            Self::SdeDpmSolver => {
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

impl Weights {
    /// The coefficient of D_1 in a step of order 2.
    pub(crate) fn d1(&self, solver_type: SolverType) -> f32 {
        match solver_type {
            SolverType::Midpoint => self.midpoint,
            SolverType::Heun => self.heun,
        }
    }
}

impl Solver {
    /// Reads the keys; `algorithms` are those that the class supports.
    pub(crate) fn from_settings(settings: &mut Settings, algorithms: &[&str]) -> Result<Self, SamplerError> {
        let algorithm = Algorithm::from_settings(settings, algorithms)?;
        let solver_types = ["midpoint", "heun", "logrho", "bh1", "bh2"];
        let solver_type = match settings.choice("solver_type", "midpoint", &solver_types)?.as_str() {
            "heun" => SolverType::Heun,
            // diffusers accepts the values of DEIS and UniPC and runs midpoint.
            _ => SolverType::Midpoint,
        };
        let order = order(settings, "solver_order", 3)?;
        Ok(Self { order, algorithm, solver_type })
    }

    /// Refuses a final noise level of 0 for the algorithms that can't step to it.
    pub(crate) fn check_final_sigma(&self, settings: &mut Settings) -> Result<(), SettingsError> {
        let to_zero = settings.text("final_sigmas_type", "zero")? == "zero";
        if self.algorithm.form() == OutputForm::Epsilon && to_zero {
            let reason = "dpmsolver and sde-dpmsolver can't step to a noise level of 0; use sigma_min";
            return Err(SettingsError::refused("final_sigmas_type", "zero", reason));
        }
        Ok(())
    }

    /// Reads `variance_type` and returns the number of network outputs per value of the sample.
    pub(crate) fn outputs_per_value(settings: &mut Settings) -> Result<usize, SettingsError> {
        Ok(match settings.text_or_null("variance_type", "")?.as_str() {
            "learned" | "learned_range" => 2,
            _ => 1,
        })
    }
}

/// Reads an order, 2 by default, up to the class's maximum.
pub(crate) fn order(settings: &mut Settings, key: &str, max: usize) -> Result<usize, SettingsError> {
    settings.count_within(key, 2, 1..=max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first-order step of every equation, applied to the exact prediction, keeps α·x_0 + σ·ε.
    #[test]
    fn first_order_steps_are_exact_for_a_constant_prediction() {
        let (from, to) = (NoiseLevel::from_sigma(5.0), NoiseLevel::from_sigma(2.0));
        let (x0, epsilon) = (0.7_f32, -1.3_f32);
        let state = |level: NoiseLevel| level.alpha as f32 * x0 + level.sigma as f32 * epsilon;
        for (algorithm, prediction) in [(Algorithm::DpmSolver, epsilon), (Algorithm::DpmSolverPlusPlus, x0)] {
            let w = algorithm.weights(from, to);
            assert!((w.x * state(from) + w.d0 * prediction - state(to)).abs() < 1e-5, "{algorithm:?}");
        }
        // The SDE's step keeps the signal, and its noise restores the variance σ².
        let w = Algorithm::SdeDpmSolverPlusPlus.weights(from, to);
        assert!((w.x * from.alpha as f32 + w.d0 - to.alpha as f32).abs() < 1e-5);
        let variance = (w.x * from.sigma as f32).powi(2) + w.noise.powi(2);
        assert!((variance - (to.sigma as f32).powi(2)).abs() < 1e-5);
    }
}
