//! The reverse diffusion process in its first form (Sohl-Dickstein et al. 2015): Gaussian kernels of the forward
//! process' form, noise in every step, no clipping.

use std::sync::Arc;

use super::model_output::{OutputForm, Prediction};
use super::node::Node;
use super::options::{AddedNoise, Options, prediction_type};
use super::plan::{OneStep, Plan, Update};
use super::{Family, Sampler, SamplerError};
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::PredictionType::{Epsilon, Sample, VPrediction};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::timestep_spacing::TimestepSpacing;

pub(super) const FAMILY: Family = Family::new("sohl_dickstein", "ReverseDiffusionProcess", build);

/// p(x_s | x_t) = N(f_μ(x_t, t), f_Σ(t)) (eq. 11) with f_μ = (x_t − β/σ·ε̂)/√α, where α = ᾱ_t/ᾱ_s and β = 1 − α.
/// f_Σ is one of the bounds of its entropy (eqs. 23 and 24): β (`fixed_large`) or the posterior's variance
/// (`fixed_small`).
#[derive(Debug)]
struct Reverse {
    /// 1/√α.
    x: f64,
    /// −β/(σ·√α).
    epsilon: f64,
}

impl Update for Reverse {
    fn apply(&self, x: &mut [f32], epsilon: Prediction<'_>, noise: Option<(f64, &[f32])>) {
        let (a, b) = (self.x as f32, self.epsilon as f32);
        epsilon.step(x, noise, move |x, epsilon| a * x + b * epsilon);
    }

    fn is_finite(&self) -> bool {
        self.x.is_finite() && self.epsilon.is_finite()
    }
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let small = match settings.text_or_null("variance_type", "fixed_small")?.as_str() {
        "fixed_small" => true,
        "fixed_large" => false,
        other => {
            let reason = "it is none of fixed_small, fixed_large";
            return Err(SettingsError::refused("variance_type", other, reason).into());
        }
    };
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), FAMILY.name)?;
    let times = spacing.timesteps(schedule.num_train_timesteps(), count, offset)?;
    let bars = schedule.alphas_cumprod();
    let next_bars = times.iter().skip(1).map(|t| bars[*t]).chain([1.0]);
    let steps = times.iter().zip(next_bars).map(|(&t, bar_s)| {
        let level = NoiseLevel::from_alpha_bar(bars[t]);
        let Posterior { beta, variance, .. } = Posterior::new(bars[t], bar_s);
        let sqrt_alpha = (bars[t] / bar_s).sqrt();
        let covariance = if small { variance } else { beta };
        OneStep {
            node: Node::new(t as f64, level, kind),
            update: Reverse { x: 1.0 / sqrt_alpha, epsilon: -beta / (level.sigma * sqrt_alpha) },
            noise: Some(covariance.sqrt()),
        }
    });
    Ok(Arc::new(Plan { form: OutputForm::Epsilon, ..Plan::new(steps) }))
}
