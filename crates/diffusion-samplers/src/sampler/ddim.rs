//! DDIM (Song, Meng & Ermon 2021): deterministic for η = 0, DDPM's noise for η = 1; and its
//! inversion, from a sample back to its noise.

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, prediction_type};
use super::node::Node;
use super::walk::bound::Bound;
use super::walk::denoiser::Denoiser;
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr};
use crate::prediction_type::PredictionType::{Epsilon, Sample, VPrediction};
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::timestep_spacing::TimestepSpacing;
use crate::trajectory::{ModelHandle, SampleFuture};

pub(super) const DDIM: Family = Family::new("ddim", "DDIMScheduler", ddim);
pub(super) const INVERSE: Family = Family::new("ddim_inverse", "DDIMInverseScheduler", inverse);

const SCHEDULE: ScheduleDefaults = ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Exact);

#[derive(Debug)]
struct Step {
    at: Node,
    /// √ᾱ_s, what x̂_0 is multiplied by.
    x0: f64,
    /// √(1 − ᾱ_s − σ²), the length of the direction pointing to x_t.
    epsilon: f64,
    /// σ_t(η), eq. 16.
    sigma: f64,
}

#[derive(Debug)]
struct Ddim {
    steps: Vec<Step>,
    bound: Bound,
    noisy: bool,
    inverse: bool,
}

fn ddim(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(0.0)?;
    let schedule = NoiseSchedule::from_settings(settings, SCHEDULE)?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let bound = Bound::either(settings, true)?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    let to_one = settings.flag("set_alpha_to_one", true)?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), DDIM.name)?;
    let bars = schedule.alphas_cumprod();
    let last = if to_one { 1.0 } else { bars[0] };
    // The reference steps back by ⌊T/n⌋ whatever the spacing.
    let back = schedule.num_train_timesteps() / count;
    let times = options.rest(spacing.timesteps(schedule.num_train_timesteps(), count, offset)?);
    if bars[times[0]] == 0.0 {
        check_pure_noise(eta, kind == Epsilon)?;
    }
    let steps = times
        .into_iter()
        .map(|t| {
            let bar_s = t.checked_sub(back).map_or(last, |s| bars[s]);
            let variance = eta * eta * Posterior::new(bars[t], bar_s).variance;
            Step {
                at: Node::plain(t as f64, NoiseLevel::from_alpha_bar(bars[t]), kind),
                x0: bar_s.sqrt(),
                epsilon: (1.0 - bar_s - variance).max(0.0).sqrt(),
                sigma: variance.sqrt(),
            }
        })
        .collect();
    Ok(Arc::new(Ddim { steps, bound, noisy: eta > 0.0, inverse: false }))
}

/// Two things can't be done at a time step without any signal.
fn check_pure_noise(eta: f64, epsilon: bool) -> Result<(), SamplerError> {
    let refuse = |reason: &str| Err(SettingsError::refused("rescale_betas_zero_snr", true, reason).into());
    match (eta == 1.0, epsilon) {
        (true, _) => refuse(
            "the first step's noise takes all its variance with eta 1, where diffusers returns NaN; \
             use a smaller eta, or timestep_spacing leading",
        ),
        (_, true) => refuse(
            "a noise prediction says nothing of the sample where no signal is left, and diffusers divides 0 \
             by 0; such a model predicts v, or use timestep_spacing leading",
        ),
        (false, false) => Ok(()),
    }
}

/// The same steps the other way: each as if the network were asked where it leads.
fn inverse(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let schedule = NoiseSchedule::from_settings(settings, SCHEDULE)?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let bound = Bound::clipping(settings, true)?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    if spacing == TimestepSpacing::Linspace {
        let reason = "an inversion is spaced as leading or trailing";
        return Err(SettingsError::refused("timestep_spacing", "linspace", reason).into());
    }
    let to_one = settings.flag("set_alpha_to_one", true)?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), INVERSE.name)?;
    let bars = schedule.alphas_cumprod();
    let first = if to_one { 1.0 } else { bars[0] };
    let back = schedule.num_train_timesteps() / count;
    let times = spacing.timesteps(
        schedule.num_train_timesteps(),
        count,
        if spacing == TimestepSpacing::Leading { offset } else { 0 },
    )?;
    let steps = times
        .into_iter()
        .rev()
        .map(|t| {
            let level = NoiseLevel::from_alpha_bar(t.checked_sub(back).map_or(first, |s| bars[s]));
            let to = NoiseLevel::from_alpha_bar(bars[t]);
            // Without noise there is no ε̂ in a prediction of x_0: what is divided by σ is 0.
            let at = Node::plain(t as f64, level, kind).without_noise();
            Step { at, x0: to.alpha, epsilon: to.sigma, sigma: 0.0 }
        })
        .collect();
    Ok(Arc::new(Ddim { steps, bound, noisy: false, inverse: true }))
}

impl Sampler for Ddim {
    fn evaluations(&self) -> usize {
        self.steps.len()
    }

    fn start(&self) -> Option<NoiseLevel> {
        self.steps.first().filter(|_| !self.inverse).map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        if self.noisy { self.steps.len() } else { 0 }
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut z = vec![0.0; if self.noisy { x.len() } else { 0 }];
            for step in &self.steps {
                let seen = denoiser.ask(&mut x, &step.at).await;
                if self.noisy {
                    noise.fill(&mut z);
                }
                // Eq. 12: predicted x_0, direction pointing to x_t, random noise.
                let noise = self.noisy.then_some((step.sigma, &z[..]));
                seen.combine(&mut x, denoiser.answer(), [step.x0, step.epsilon], noise);
            }
            x
        })
    }
}
