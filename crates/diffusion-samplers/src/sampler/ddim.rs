//! DDIM (Song, Meng & Ermon 2021): deterministic for η = 0, with DDPM's noise for η = 1; and its inversion, from a
//! sample to its noise.

use std::sync::Arc;

use super::node::Node;
use super::options::{AddedNoise, Options, prediction_type};
use super::plan::{self, Plan};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError};
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr};
use crate::prediction_type::PredictionType::{Epsilon, Sample, VPrediction};
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::timestep_spacing::TimestepSpacing;
use crate::trajectory::ModelHandle;

pub(super) const DDIM: Family = Family::new("ddim", "DDIMScheduler", ddim);
pub(super) const INVERSE: Family = Family::new("ddim_inverse", "DDIMInverseScheduler", inverse);

const SCHEDULE: ScheduleDefaults = ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Exact);

/// A step from t to s (eq. 12).
#[derive(Debug)]
struct DdimStep {
    node: Node,
    /// √ᾱ_s.
    sqrt_alpha_bar: f64,
    /// √(1 − ᾱ_s − σ²), the length of the direction pointing to x_t.
    direction: f64,
    /// σ_t(η) (eq. 16); `None` for η = 0.
    sigma: Option<f64>,
}

impl plan::Step for DdimStep {
    fn level(&self) -> Option<NoiseLevel> {
        Some(self.node.level)
    }

    fn draws(&self) -> usize {
        usize::from(self.sigma.is_some())
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let mut z = plan.noise_buffer(x.len());
        for step in &plan.steps {
            let evaluation = evaluator.evaluate(&mut x, &step.node).await;
            let noise = step.sigma.map(|sigma| {
                noise.fill(&mut z);
                (sigma, &z[..])
            });
            // Eq. 12: x_s = √ᾱ_s·x̂_0 + √(1 − ᾱ_s − σ²)·ε̂ + σ·z
            let (sqrt_alpha_bar, direction) = (step.sqrt_alpha_bar as f32, step.direction as f32);
            evaluation.step(&mut x, noise, move |x0, epsilon| sqrt_alpha_bar * x0 + direction * epsilon);
        }
        x
    }
}

fn ddim(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(0.0)?;
    let schedule = NoiseSchedule::from_settings(settings, SCHEDULE)?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let thresholding = Thresholding::from_settings(settings, true)?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    let to_one = settings.flag("set_alpha_to_one", true)?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), DDIM.name)?;
    let bars = schedule.alphas_cumprod();
    let final_bar = if to_one { 1.0 } else { bars[0] };
    // The reference steps from t to t − ⌊T/n⌋ with every spacing.
    let width = schedule.num_train_timesteps() / count;
    let times = options.without_skipped(spacing.timesteps(schedule.num_train_timesteps(), count, offset)?);
    if bars[times[0]] == 0.0 && kind == Epsilon {
        let reason = "at pure noise an epsilon prediction does not determine x_0, and diffusers divides 0 by 0; \
                      use a v_prediction model or timestep_spacing leading";
        return Err(SettingsError::refused("rescale_betas_zero_snr", true, reason).into());
    }
    let steps = times.into_iter().map(|t| {
        let bar_s = t.checked_sub(width).map_or(final_bar, |s| bars[s]);
        let variance = eta * eta * Posterior::new(bars[t], bar_s).variance;
        DdimStep {
            node: Node::new(t as f64, NoiseLevel::from_alpha_bar(bars[t]), kind),
            sqrt_alpha_bar: bar_s.sqrt(),
            // From pure noise with η = 1, the noise has the whole variance. The reference leaves its rounding error
            // there, or NaN where that is negative.
            direction: (1.0 - bar_s - variance).max(0.0).sqrt(),
            sigma: (eta > 0.0).then(|| variance.sqrt()),
        }
    });
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { thresholding, ..plan }))
}

/// The same steps in reverse order. The network is evaluated at the time step to which the step goes.
fn inverse(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let schedule = NoiseSchedule::from_settings(settings, SCHEDULE)?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let thresholding = Thresholding::clip_from_settings(settings, true)?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    if spacing == TimestepSpacing::Linspace {
        let reason = "an inversion needs leading or trailing";
        return Err(SettingsError::refused("timestep_spacing", "linspace", reason).into());
    }
    let to_one = settings.flag("set_alpha_to_one", true)?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), INVERSE.name)?;
    let bars = schedule.alphas_cumprod();
    let first_bar = if to_one { 1.0 } else { bars[0] };
    let width = schedule.num_train_timesteps() / count;
    let offset = if spacing == TimestepSpacing::Leading { offset } else { 0 };
    let times = spacing.timesteps(schedule.num_train_timesteps(), count, offset)?;
    let steps = times.into_iter().rev().map(|t| {
        let level = NoiseLevel::from_alpha_bar(t.checked_sub(width).map_or(first_bar, |s| bars[s]));
        let to = NoiseLevel::from_alpha_bar(bars[t]);
        DdimStep {
            node: Node::new(t as f64, level, kind).with_finite_epsilon(),
            sqrt_alpha_bar: to.alpha,
            direction: to.sigma,
            sigma: None,
        }
    });
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { thresholding, start: None, ..plan }))
}
