//! The reverse diffusion process as first written down (Sohl-Dickstein et al. 2015): Gaussian
//! kernels with the forward process' own form, noise in every step and nothing clipped.

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, prediction_type};
use super::node::Node;
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::multistep::{Multistep, Step};
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::PredictionType::{Epsilon, Sample, VPrediction};
use crate::scheduler_settings::Settings;
use crate::timestep_spacing::TimestepSpacing;

pub(super) const FAMILY: Family = Family::new("sohl_dickstein", "ReverseDiffusionProcess", build);

/// Steps of p(x_{t−1} | x_t) = N(f_μ(x_t, t), f_Σ(t)) (eq. 11), where the mean comes from the
/// network's noise and the covariance lies at one end of its entropy's bounds (eqs. 23 and 24):
/// β_t (`fixed_large`), or the posterior's (`fixed_small`).
fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.without_eta()?;
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let small =
        settings.choice("variance_type", "fixed_small", &["fixed_small", "fixed_large"])? == "fixed_small";
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), FAMILY.name)?;
    let times = spacing.timesteps(schedule.num_train_timesteps(), count, offset)?;
    let bars = schedule.alphas_cumprod();
    let after = times.iter().skip(1).map(|t| bars[*t]).chain([1.0]);
    let steps = times.iter().zip(after).map(|(&t, bar_s)| {
        let level = NoiseLevel::from_alpha_bar(bars[t]);
        let Posterior { beta, variance, .. } = Posterior::new(bars[t], bar_s);
        let root = (bars[t] / bar_s).sqrt();
        let covariance = if small { variance } else { beta };
        let at = Node::plain(t as f64, level, kind);
        Step::single(at, 1.0 / root, -beta / (level.sigma * root)).noisy(covariance.sqrt())
    });
    Ok(Arc::new(Multistep::of_x0(steps.collect(), Bound::None).keeping(Kept::Epsilon)))
}
