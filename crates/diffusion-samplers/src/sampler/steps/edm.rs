//! Noise levels and preconditioning of EDM (Karras et al. 2022, table 1, column "ours").

use crate::noise_schedule::{linspace, num_train_timesteps, round};
use crate::prediction_type::{AffinePrediction, PredictionType};
use crate::sampler::SamplerError;
use crate::sampler::node::Node;
use crate::sampler::options::{Options, positive, prediction_type};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule;
use crate::trajectory::InputScaling;

/// The noise levels of a run, the largest first.
#[derive(Debug)]
pub(crate) struct EdmSteps {
    /// The points of evaluation.
    pub(crate) nodes: Vec<Node>,
    /// σ at these points, then the final σ.
    pub(crate) sigmas: Vec<f64>,
    /// The standard deviation of the initial state.
    pub(crate) initial_sigma: f64,
}

/// The final σ where `final_sigmas_type` is `sigma_min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdmFinalSigma {
    /// σ at the last point of evaluation.
    LastEvaluated,
    /// The key `sigma_min`.
    SigmaMin,
}

impl EdmSteps {
    /// Reads the keys that EDM's classes share.
    pub(crate) fn from_settings(
        settings: &mut Settings,
        options: &Options,
        name: &'static str,
        final_sigma: EdmFinalSigma,
    ) -> Result<Self, SamplerError> {
        let min = positive(settings, "sigma_min", 0.002)?;
        let max = positive(settings, "sigma_max", 80.0)?;
        let data = positive(settings, "sigma_data", 0.5)?;
        let rho = positive(settings, "rho", 7.0)?;
        let kind = prediction_type(settings, &[PredictionType::Epsilon, PredictionType::VPrediction])?;
        let preconditions = preconditions(settings)?;
        if !preconditions {
            settings.switch_off(&["prediction_type"], "preconditioning is none");
        }
        let steps = options.steps_up_to(num_train_timesteps(settings, 1000)?, name)?;
        let levels = match settings.choice("sigma_schedule", "karras", &["karras", "exponential"])?.as_str() {
            "karras" => sigma_schedule::karras(max, min, rho, steps),
            _ => {
                settings.switch_off(&["rho"], "only sigma_schedule karras has an exponent");
                sigma_schedule::exponential(max, min, steps)
            }
        };
        let mut sigmas: Vec<f64> = levels.into_iter().map(round).collect();
        let nodes: Vec<Node> = sigmas
            .iter()
            .map(|sigma| if preconditions { preconditioned(*sigma, data, kind) } else { denoiser(*sigma) })
            .collect();
        sigmas.push(
            match (
                settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])?.as_str(),
                final_sigma,
            ) {
                ("zero", _) => 0.0,
                (_, EdmFinalSigma::LastEvaluated) => sigmas[steps - 1],
                (_, EdmFinalSigma::SigmaMin) => round(min),
            },
        );
        let (nodes, sigmas) = (options.without_skipped(nodes), options.without_skipped(sigmas));
        let initial_sigma = if preconditions { (max * max + 1.0).sqrt() } else { max };
        Ok(Self { nodes, sigmas, initial_sigma })
    }
}

/// Reads `preconditioning`, a key of this project: whether the network takes c_in·x and c_noise (`edm`), or takes x
/// and σ and returns x̂_0 (`none`).
pub(crate) fn preconditions(settings: &mut Settings) -> Result<bool, SettingsError> {
    let preconditions = settings.choice("preconditioning", "edm", &["edm", "none"])? == "edm";
    if !preconditions {
        settings.switch_off(&["sigma_data"], "preconditioning is none");
    }
    Ok(preconditions)
}

/// A node of a network D(x; σ), which returns x̂_0.
pub(crate) fn denoiser(sigma: f64) -> Node {
    Node::with_preconditioning(sigma, sigma, InputScaling::State, AffinePrediction::new(0.0, 1.0))
}

/// A node with EDM's c_in, c_noise, c_skip and c_out. A v prediction has the opposite sign of c_out.
fn preconditioned(sigma: f64, data: f64, kind: PredictionType) -> Node {
    let norm = (sigma * sigma + data * data).sqrt();
    let out = sigma * data / norm;
    let output = if kind == PredictionType::VPrediction { -out } else { out };
    let x0 = AffinePrediction::new(data * data / (norm * norm), output);
    Node::with_preconditioning(round(0.25 * sigma.ln()), sigma, InputScaling::Scaled(1.0 / norm), x0)
}

/// The noise levels of consistency models: those of EDM, at whole steps of the training's discretisation.
pub(crate) fn consistency_levels(max: f64, min: f64, rho: f64, train: usize, steps: usize) -> Vec<f64> {
    let every = train / steps;
    let last = (train - 1).max(1) as f64;
    let ramp = linspace(0.0, (steps - 1) as f64, steps).map(|i| i * every as f64 / last);
    sigma_schedule::karras_at(max, min, rho, ramp)
}
