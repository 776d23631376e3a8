//! Samplers of distilled models: latent consistency (Luo et al. 2023), trajectory consistency
//! (Zheng et al. 2024) and consistency models (Song et al. 2023).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, Strength, TimeConditioning, prediction_type};
use super::node::Node;
use super::steps::edm::{consistency_levels, denoised, positive, preconditions};
use super::walk::bound::Bound;
use super::walk::multistep::{Multistep, Step};
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr, round};
use crate::prediction_type::AffinePrediction;
use crate::prediction_type::PredictionType::{self, Epsilon, Sample, VPrediction};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::trajectory::Input;

pub(super) const LCM: Family = Family::new("lcm", "LCMScheduler", lcm);
pub(super) const TCD: Family = Family::new("tcd", "TCDScheduler", tcd);
pub(super) const CONSISTENCY: Family =
    Family::new("cm", "CMStochasticIterativeScheduler", consistency).told(TimeConditioning::Consistency);

/// What LCM and TCD have in common.
struct Latent {
    levels: Vec<NoiseLevel>,
    times: Vec<usize>,
    kind: PredictionType,
}

impl Latent {
    fn read(settings: &mut Settings, options: &Options, name: &'static str) -> Result<Self, SamplerError> {
        let defaults = ScheduleDefaults { beta_schedule: "scaled_linear", ..ScheduleDefaults::LATENT };
        let schedule = NoiseSchedule::from_settings(settings, defaults.with_zero_snr(ZeroSnr::Exact))?;
        let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
        let original = settings.count("original_inference_steps", 50)?;
        if !(1..=schedule.num_train_timesteps()).contains(&original) {
            let reason =
                format!("it must lie between 1 and num_train_timesteps, {}", schedule.num_train_timesteps());
            return Err(SettingsError::refused("original_inference_steps", original, reason).into());
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
        let times = options.rest((0..steps).map(|i| (original - thinned(i)) * every - 1).collect());
        let levels = schedule.alphas_cumprod().iter().map(|bar| NoiseLevel::from_alpha_bar(*bar)).collect();
        Ok(Self { levels, times, kind })
    }

    /// Every step's time step and the next one's.
    fn pairs(&self) -> impl Iterator<Item = (usize, Option<usize>)> + '_ {
        let next = self.times.iter().skip(1).copied().map(Some).chain([None]);
        self.times.iter().copied().zip(next)
    }
}

/// Multistep consistency sampling (Luo et al. 2023, algorithm 3): x̂_0 through the boundary
/// condition, then noise of the next level.
fn lcm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.without_eta()?;
    let bound = Bound::either(settings, false)?;
    let scaling = settings.number("timestep_scaling", 10.0)?;
    settings.ignore_keys(&["set_alpha_to_one", "steps_offset", "timestep_spacing"]);
    let latent = Latent::read(settings, options, LCM.name)?;
    let steps = latent.pairs().map(|(t, next)| {
        let at = Node::plain(t as f64, latent.levels[t], latent.kind);
        let scaled = t as f64 * scaling;
        let norm = scaled * scaled + 0.25;
        let (skip, out) = (0.25 / norm, scaled / norm.sqrt());
        match next.map(|s| latent.levels[s]) {
            Some(to) => Step::single(at, to.alpha * skip, to.alpha * out).noisy(to.sigma),
            None => Step::single(at, skip, out),
        }
    });
    Ok(Arc::new(Multistep::of_x0(steps.collect(), bound)))
}

/// Strategic stochastic sampling (Zheng et al. 2024, algorithm 4): to (1 − γ)·s without noise,
/// then up to s with it; γ is `eta`, 0.3 unless told.
fn tcd(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let gamma = options.eta_or(0.3)?;
    settings.ignore_keys(&["set_alpha_to_one", "steps_offset", "timestep_spacing", "timestep_scaling"]);
    settings.ignore_keys(&["clip_sample", "clip_sample_range", "thresholding"]);
    settings.ignore_keys(&["dynamic_thresholding_ratio", "sample_max_value"]);
    let latent = Latent::read(settings, options, TCD.name)?;
    let steps = latent.pairs().map(|(t, next)| {
        let from = latent.levels[t];
        let at = Node::plain(t as f64, from, latent.kind);
        let lower = round(round(1.0 - gamma) * next.unwrap_or(0) as f64).floor() as usize;
        let down = latent.levels[lower];
        // down.α·x̂_0 + down.σ·ε̂ with ε̂ = (x − α·x̂_0)/σ
        let direct =
            Step::single(at, down.sigma / from.sigma, down.alpha - down.sigma * from.alpha / from.sigma);
        match next.map(|s| latent.levels[s]) {
            Some(to) if gamma > 0.0 => {
                let ratio = to.alpha / down.alpha;
                let kept = direct.kept.map(|w| w * ratio);
                Step { x: direct.x * ratio, kept, ..direct }.noisy((1.0 - ratio * ratio).max(0.0).sqrt())
            }
            _ => direct,
        }
    });
    Ok(Arc::new(Multistep::of_x0(steps.collect(), Bound::None)))
}

/// Multistep consistency sampling (Song et al. 2023, algorithm 1).
fn consistency(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.without_eta()?;
    let min = positive(settings, "sigma_min", 0.002)?;
    let max = positive(settings, "sigma_max", 80.0)?;
    let data = positive(settings, "sigma_data", 0.5)?;
    let rho = positive(settings, "rho", 7.0)?;
    let share = settings.number("s_noise", 1.0)?;
    let bound = if settings.flag("clip_denoised", true)? { Bound::Clip(1.0) } else { Bound::None };
    let train = settings.count("num_train_timesteps", 40)?;
    let n = options.steps_up_to(train, CONSISTENCY.name)?;
    let own = !preconditions(settings)?;
    let levels = options.rest(consistency_levels(max, min, rho, train, n));
    let steps = levels.iter().enumerate().map(|(i, exact)| {
        let sigma = round(*exact);
        // The boundary condition at sigma_min (Song et al. 2023, appendix C).
        let (above, norm) = (sigma - min, (sigma * sigma + data * data).sqrt());
        let x0 = AffinePrediction::new(data * data / (above * above + data * data), above * data / norm);
        let at = if own {
            denoised(sigma)
        } else {
            Node::preconditioned(250.0 * (exact + 1e-44).ln(), sigma, Input::Divided(norm), x0)
        };
        let next = levels.get(i + 1).map_or(min, |next| round(*next)).clamp(min, max);
        let step = Step::single(at, 0.0, 1.0);
        if n > 1 { step.noisy(share * (next * next - min * min).max(0.0).sqrt()) } else { step }
    });
    Ok(Arc::new(Multistep::of_x0(steps.collect(), bound).starting_at(max)))
}
