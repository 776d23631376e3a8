//! EDM's noise levels and preconditioning (Karras et al. 2022, table 1, column "ours").

use crate::noise_schedule::{linspace, round};
use crate::prediction_type::{AffinePrediction, PredictionType};
use crate::sampler::family::{Options, SamplerError, prediction_type};
use crate::sampler::node::Node;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule;
use crate::trajectory::Input;

/// The levels to visit, the largest first.
#[derive(Debug)]
pub(crate) struct EdmSteps {
    /// The places of evaluation.
    pub(crate) points: Vec<Node>,
    /// σ at those places, then that of the end.
    pub(crate) sigmas: Vec<f64>,
    /// The standard deviation of the state at the start.
    pub(crate) initial_sigma: f64,
}

/// Which smallest level a configuration's `final_sigmas_type` of `sigma_min` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Least {
    /// The last one visited.
    Visited,
    /// The key `sigma_min`.
    Configured,
}

impl EdmSteps {
    /// Read the keys that EDM's classes share.
    pub(crate) fn read(
        settings: &mut Settings,
        options: &Options,
        name: &'static str,
        least: Least,
    ) -> Result<Self, SamplerError> {
        let min = positive(settings, "sigma_min", 0.002)?;
        let max = positive(settings, "sigma_max", 80.0)?;
        let data = positive(settings, "sigma_data", 0.5)?;
        let rho = positive(settings, "rho", 7.0)?;
        let kind = prediction_type(settings, &[PredictionType::Epsilon, PredictionType::VPrediction])?;
        let own = !preconditions(settings)?;
        let steps = options.steps_up_to(settings.count("num_train_timesteps", 1000)?, name)?;
        let levels = match settings.choice("sigma_schedule", "karras", &["karras", "exponential"])?.as_str() {
            "karras" => sigma_schedule::karras(max, min, rho, steps),
            _ => sigma_schedule::exponential(max, min, steps),
        };
        let mut sigmas: Vec<f64> = levels.into_iter().map(round).collect();
        let points: Vec<Node> = sigmas
            .iter()
            .map(|sigma| if own { denoised(*sigma) } else { preconditioned(*sigma, data, kind) })
            .collect();
        sigmas.push(
            match (settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])?.as_str(), least) {
                ("zero", _) => 0.0,
                (_, Least::Visited) => sigmas[steps - 1],
                (_, Least::Configured) => round(min),
            },
        );
        let (points, sigmas) = (options.rest(points), options.rest(sigmas));
        Ok(Self { points, sigmas, initial_sigma: if own { max } else { (max * max + 1.0).sqrt() } })
    }
}

/// Whether a network is fed c_in·x and c_noise, or is told x and σ and gives x̂_0 by itself: the key
/// `preconditioning`, which is this program's own.
pub(crate) fn preconditions(settings: &mut Settings) -> Result<bool, SettingsError> {
    Ok(settings.choice("preconditioning", "edm", &["edm", "none"])? == "edm")
}

/// A place of a network D(x; σ) that gives x̂_0.
pub(crate) fn denoised(sigma: f64) -> Node {
    Node::preconditioned(sigma, sigma, Input::State, AffinePrediction::new(0.0, 1.0))
}

/// A place with EDM's c_in, c_noise, c_skip and c_out; v turns c_out's sign.
fn preconditioned(sigma: f64, data: f64, kind: PredictionType) -> Node {
    let norm = (sigma * sigma + data * data).sqrt();
    let out = sigma * data / norm;
    let output = if kind == PredictionType::VPrediction { -out } else { out };
    let x0 = AffinePrediction::new(data * data / (norm * norm), output);
    Node::preconditioned(round(0.25 * sigma.ln()), sigma, Input::Scaled(1.0 / norm), x0)
}

/// A key that must be more than 0.
pub(crate) fn positive(settings: &mut Settings, key: &str, default: f64) -> Result<f64, SettingsError> {
    let value = settings.number(key, default)?;
    if value > 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(SettingsError::refused(key, value, "it must be more than 0"))
}

/// The levels of consistency models: EDM's, at whole steps of the training's own number.
pub(crate) fn consistency_levels(max: f64, min: f64, rho: f64, train: usize, steps: usize) -> Vec<f64> {
    let every = train / steps;
    let most = (train - 1).max(1) as f64;
    let ramp = linspace(0.0, (steps - 1) as f64, steps).map(|i| i * every as f64 / most);
    sigma_schedule::karras_at(max, min, rho, ramp)
}
