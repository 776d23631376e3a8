//! Samplers of distilled models: latent consistency (Luo et al. 2023), trajectory consistency
//! (Zheng et al. 2024) and consistency models (Song et al. 2023).

use std::sync::Arc;

use super::model_output::Prediction;
use super::node::Node;
use super::options::{AddedNoise, Options, Strength, positive, prediction_type};
use super::plan::{OneStep, Plan, Update};
use super::steps::edm::{consistency_levels, denoiser, preconditions};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::noise_schedule::{
    NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr, num_train_timesteps, round,
};
use crate::prediction_type::AffinePrediction;
use crate::prediction_type::PredictionType::{self, Epsilon, Sample, VPrediction};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::trajectory::InputScaling;

pub(super) const LCM: Family = Family::new("lcm", "LCMScheduler", lcm);
pub(super) const TCD: Family = Family::new("tcd", "TCDScheduler", tcd);
pub(super) const CONSISTENCY: Family =
    Family::new("cm", "CMStochasticIterativeScheduler", consistency).with_time(TimeConditioning::Consistency);

/// The time steps of LCM and TCD.
struct DistilledSteps {
    levels: Vec<NoiseLevel>,
    times: Vec<usize>,
    kind: PredictionType,
}

impl DistilledSteps {
    fn from_settings(
        settings: &mut Settings,
        options: &Options,
        name: &'static str,
    ) -> Result<Self, SamplerError> {
        let defaults = ScheduleDefaults { beta_schedule: "scaled_linear", ..ScheduleDefaults::LATENT };
        let schedule = NoiseSchedule::from_settings(settings, defaults.with_zero_snr(ZeroSnr::Exact))?;
        let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
        let original = settings.count("original_inference_steps", 50)?;
        if !(1..=schedule.num_train_timesteps()).contains(&original) {
            let range = format!("from 1 to num_train_timesteps, which is {}", schedule.num_train_timesteps());
            return Err(SettingsError::out_of_range("original_inference_steps", original, range).into());
        }
        // The time steps of the distillation, thinned evenly from the noisy end.
        let every = schedule.num_train_timesteps() / original;
        let original = match options.strength {
            // At least one time step is left.
            Strength::Rescaled(strength) => ((original as f64 * strength) as usize).max(1),
            _ => original,
        };
        let steps = options.steps_up_to(original, name)?;
        let thinned = |i: usize| (i as f64 * (original as f64 / steps as f64)) as usize;
        let times = (0..steps).map(|i| (original - thinned(i)) * every - 1).collect();
        let times = options.without_skipped(times);
        let levels = schedule.alphas_cumprod().iter().map(|bar| NoiseLevel::from_alpha_bar(*bar)).collect();
        Ok(Self { levels, times, kind })
    }

    /// The time step of every step and the next one's.
    fn pairs(&self) -> impl Iterator<Item = (usize, Option<usize>)> + '_ {
        let next = self.times.iter().skip(1).copied().map(Some).chain([None]);
        self.times.iter().copied().zip(next)
    }
}

/// x' = a·x + b·x̂_0 + s·z.
#[derive(Debug)]
struct Linear {
    x: f64,
    x0: f64,
}

impl Update for Linear {
    fn apply(&self, x: &mut [f32], x0: Prediction<'_>, noise: Option<(f64, &[f32])>) {
        let (a, b) = (self.x as f32, self.x0 as f32);
        x0.step(x, noise, move |x, x0| a * x + b * x0);
    }

    fn is_finite(&self) -> bool {
        self.x.is_finite() && self.x0.is_finite()
    }
}

/// Multistep latent consistency sampling (Luo et al. 2023, algorithm 3): x' = α'·f(x, t) + σ'·z with the consistency
/// function f(x, t) = c_skip(t)·x + c_out(t)·x̂_0.
fn lcm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let thresholding = Thresholding::from_settings(settings, false)?;
    let scaling = settings.number("timestep_scaling", 10.0)?;
    settings.ignore_keys(&["set_alpha_to_one", "steps_offset", "timestep_spacing"]);
    let run = DistilledSteps::from_settings(settings, options, LCM.name)?;
    let steps = run.pairs().map(|(t, next)| {
        let node = Node::new(t as f64, run.levels[t], run.kind);
        let scaled = t as f64 * scaling;
        let norm = scaled * scaled + 0.25;
        let (skip, out) = (0.25 / norm, scaled / norm.sqrt());
        match next.map(|s| run.levels[s]) {
            Some(to) => OneStep {
                node,
                update: Linear { x: to.alpha * skip, x0: to.alpha * out },
                noise: Some(to.sigma),
            },
            None => OneStep { node, update: Linear { x: skip, x0: out }, noise: None },
        }
    });
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { thresholding, ..plan }))
}

/// Strategic stochastic sampling (Zheng et al. 2024, algorithm 4): without noise to s' = (1 − γ)·s,
/// x' = α_s'·x̂_0 + σ_s'·ε̂, then with noise up to s, (α_s/α_s')·x' + √(1 − (α_s/α_s')²)·z. γ is `eta`, 0.3 by default.
fn tcd(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let gamma = options.eta_or(0.3)?;
    settings.ignore_keys(&["set_alpha_to_one", "steps_offset", "timestep_spacing", "timestep_scaling"]);
    settings.ignore_keys(&["clip_sample", "clip_sample_range", "thresholding"]);
    settings.ignore_keys(&["dynamic_thresholding_ratio", "sample_max_value"]);
    let run = DistilledSteps::from_settings(settings, options, TCD.name)?;
    let steps = run.pairs().map(|(t, next)| {
        let from = run.levels[t];
        let node = Node::new(t as f64, from, run.kind);
        let lower = round(round(1.0 - gamma) * next.unwrap_or(0) as f64).floor() as usize;
        let down = run.levels[lower];
        // With ε̂ = (x − α·x̂_0)/σ.
        let x = down.sigma / from.sigma;
        let x0 = down.alpha - down.sigma * from.alpha / from.sigma;
        match next.map(|s| run.levels[s]) {
            Some(to) if gamma > 0.0 => {
                let ratio = to.alpha / down.alpha;
                let noise = Some((1.0 - ratio * ratio).max(0.0).sqrt());
                OneStep { node, update: Linear { x: x * ratio, x0: x0 * ratio }, noise }
            }
            _ => OneStep { node, update: Linear { x, x0 }, noise: None },
        }
    });
    Ok(Arc::new(Plan::new(steps)))
}

/// x' = f(x, σ) + √(σ'² − σ_min²)·z, where f is x̂_0 (Song et al. 2023, algorithm 1).
#[derive(Debug)]
struct Consistency;

impl Update for Consistency {
    fn apply(&self, x: &mut [f32], x0: Prediction<'_>, noise: Option<(f64, &[f32])>) {
        x0.step(x, noise, |_, x0| x0);
    }

    fn is_finite(&self) -> bool {
        true
    }
}

fn consistency(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let min = positive(settings, "sigma_min", 0.002)?;
    let max = positive(settings, "sigma_max", 80.0)?;
    let data = positive(settings, "sigma_data", 0.5)?;
    let rho = positive(settings, "rho", 7.0)?;
    let noise_scale = settings.number("s_noise", 1.0)?;
    let clip = settings.flag("clip_denoised", true)?;
    let train = num_train_timesteps(settings, 40)?;
    let n = options.steps_up_to(train, CONSISTENCY.name)?;
    let preconditions = preconditions(settings)?;
    let levels = options.without_skipped(consistency_levels(max, min, rho, train, n));
    let steps = levels.iter().enumerate().map(|(i, exact)| {
        let sigma = round(*exact);
        // c_skip and c_out meet the boundary condition at sigma_min (Song et al. 2023, appendix C).
        let (above, norm) = (sigma - min, (sigma * sigma + data * data).sqrt());
        let x0 = AffinePrediction::new(data * data / (above * above + data * data), above * data / norm);
        let node = if preconditions {
            Node::with_preconditioning(250.0 * (exact + 1e-44).ln(), sigma, InputScaling::Divided(norm), x0)
        } else {
            denoiser(sigma)
        };
        let next = levels.get(i + 1).map_or(min, |next| round(*next)).clamp(min, max);
        let noise = (n > 1).then(|| noise_scale * (next * next - min * min).max(0.0).sqrt());
        OneStep { node, update: Consistency, noise }
    });
    let thresholding = if clip { Thresholding::Clip(1.0) } else { Thresholding::None };
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { thresholding, initial_sigma: max, ..plan }))
}
