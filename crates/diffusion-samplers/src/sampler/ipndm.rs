//! Improved PNDM: Adams–Bashforth's method from order 1 up on ε̂, along the circle α² + σ² = 1
//! (Zhang & Chen 2023; Crowson, v-diffusion).

use std::sync::Arc;

use super::model_output::OutputForm;
use super::multistep::{MultistepStep, WeightedSum};
use super::node::Node;
use super::options::{AddedNoise, Options};
use super::plan::Plan;
use super::pndm::adams_bashforth;
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::noise_schedule::{NoiseLevel, linspace32, num_train_timesteps, round};
use crate::prediction_type::PredictionType::VPrediction;
use crate::scheduler_settings::{Settings, SettingsError};

pub(super) const FAMILY: Family =
    Family::new("ipndm", "IPNDMScheduler", build).with_time(TimeConditioning::Angle);

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let train = num_train_timesteps(settings, 1000)?;
    let n = options.steps_up_to(train, FAMILY.name)?;
    let sigmas: Vec<f64> = match settings.numbers("trained_betas")? {
        Some(betas) if betas.len() == n + 1 => betas.into_iter().map(round).collect(),
        Some(betas) => {
            let reason = format!("{n} steps need {} values, but it has {}", n + 1, betas.len());
            return Err(SettingsError::refused("trained_betas", "a list", reason).into());
        }
        None => {
            let angles = linspace32(1.0, 0.0, n + 1).map(|at| at * std::f32::consts::PI / 2.0);
            angles.map(|angle| f64::from(angle.sin().powi(2))).collect()
        }
    };
    let sigmas = options.without_skipped(sigmas);
    let levels: Vec<NoiseLevel> = sigmas.iter().map(|sigma| level(*sigma as f32)).collect();
    let pairs = levels.windows(2).enumerate();
    let steps = pairs.map(|(i, pair)| step(pair[0], pair[1], adams_bashforth(i + 1)));
    Ok(Arc::new(Plan { form: OutputForm::Epsilon, ..Plan::new(steps) }))
}

/// α in f32: near pure noise it is a difference of almost equal numbers, and its rounding is the reference's.
fn level(sigma: f32) -> NoiseLevel {
    NoiseLevel { alpha: f64::from((1.0 - sigma * sigma).max(0.0).sqrt()), sigma: f64::from(sigma) }
}

/// x_{i+1} = α'·x̂_0 + σ'·ē with ē = Σ_k w_k·ε̂_{i−k} and x̂_0 = (x_i − σ·ē)/α, that is
/// x_{i+1} = (α'/α)·x_i + Σ_k w_k·(σ' − (α'/α)·σ)·ε̂_{i−k}.
fn step(from: NoiseLevel, to: NoiseLevel, weights: [f64; 4]) -> MultistepStep<WeightedSum> {
    let t = round(from.sigma.atan2(from.alpha) / std::f64::consts::FRAC_PI_2);
    // Without any signal x̂_0 counts as 0.
    let ratio = if from.alpha < 1e-8 { 0.0 } else { to.alpha / from.alpha };
    let weights = weights.map(|w| w * (to.sigma - ratio * from.sigma));
    MultistepStep {
        node: Node::new(t, from, VPrediction),
        update: WeightedSum { x: ratio, weights },
        noise: None,
    }
}
