//! Improved PNDM: Adams and Bashforth's method from its first order up, on a velocity along the
//! circle α² + σ² = 1 (Zhang & Chen 2023; Crowson, v-diffusion).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, TimeConditioning};
use super::node::Node;
use super::pndm::adams_bashforth;
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::multistep::{Multistep, Step};
use crate::noise_schedule::{NoiseLevel, linspace32, round};
use crate::prediction_type::PredictionType::VPrediction;
use crate::scheduler_settings::{Settings, SettingsError};

pub(super) const FAMILY: Family = Family::new("ipndm", "IPNDMScheduler", build).told(TimeConditioning::Angle);

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let most = settings.count("num_train_timesteps", 1000)?;
    let n = options.steps_up_to(most, FAMILY.name)?;
    let sigmas: Vec<f64> = match settings.numbers("trained_betas")? {
        Some(betas) if betas.len() == n + 1 => betas.into_iter().map(round).collect(),
        Some(betas) => {
            let reason = format!("with {n} steps it must have {} values, and it has {}", n + 1, betas.len());
            return Err(SettingsError::refused("trained_betas", "a list", reason).into());
        }
        None => {
            let angles = linspace32(1.0, 0.0, n + 1).map(|at| at * std::f32::consts::PI / 2.0);
            angles.map(|angle| f64::from(angle.sin().powi(2))).collect()
        }
    };
    let sigmas = options.rest(sigmas);
    let levels: Vec<NoiseLevel> = sigmas.iter().map(|sigma| level(*sigma as f32)).collect();
    let pairs = levels.windows(2).enumerate();
    let steps = pairs.map(|(i, pair)| step(pair[0], pair[1], adams_bashforth(i + 1)));
    Ok(Arc::new(Multistep::of_x0(steps.collect(), Bound::None).keeping(Kept::Epsilon)))
}

/// The signal's share in f32: near pure noise it is a difference of almost equal numbers, whose
/// rounding the reference has.
fn level(sigma: f32) -> NoiseLevel {
    NoiseLevel { alpha: f64::from((1.0 - sigma * sigma).max(0.0).sqrt()), sigma: f64::from(sigma) }
}

fn step(from: NoiseLevel, to: NoiseLevel, kept: [f64; 4]) -> Step {
    let t = round(from.sigma.atan2(from.alpha) / std::f64::consts::FRAC_PI_2);
    // x̂_0 = (x − σ·ε̂)/α; where nothing is left of the signal it is taken as 0.
    let ratio = if from.alpha < 1e-8 { 0.0 } else { to.alpha / from.alpha };
    let kept = kept.map(|w| w * (to.sigma - ratio * from.sigma));
    Step::of(Node::plain(t, from, VPrediction), ratio, kept)
}
