//! DDPM: ancestral sampling (Ho et al. 2020, algorithm 2), with the variances of Nichol & Dhariwal 2021.

use std::sync::Arc;

use super::model_output::Evaluation;
use super::node::Node;
use super::options::{AddedNoise, Options, prediction_type};
use super::plan::{self, Plan};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError};
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr, round};
use crate::prediction_type::PredictionType::{Epsilon, Sample, VPrediction};
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::timestep_spacing::TimestepSpacing;
use crate::trajectory::ModelHandle;

pub(super) const FAMILY: Family = Family::new("ddpm", "DDPMScheduler", build);

/// The key `variance_type`: the variance of x_{t−1} given x_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VarianceType {
    /// β̃_t, the lower bound (Ho et al. 2020, section 3.2).
    FixedSmall,
    /// β_t, the upper bound.
    FixedLarge,
    /// Interpolated by the network between both, in log space (Nichol & Dhariwal 2021, eq. 15).
    LearnedRange,
}

impl VarianceType {
    fn from_settings(settings: &mut Settings) -> Result<Self, SettingsError> {
        let name = settings.text_or_null("variance_type", "fixed_small")?;
        let reason = match name.as_str() {
            "fixed_small" | "fixed_small_log" => return Ok(Self::FixedSmall),
            "fixed_large" => return Ok(Self::FixedLarge),
            "learned_range" => return Ok(Self::LearnedRange),
            "fixed_large_log" => {
                "diffusers takes the root of a negative logarithm for this value; use fixed_large"
            }
            _ => "it must be fixed_small, fixed_small_log, fixed_large or learned_range",
        };
        Err(SettingsError::refused("variance_type", name, reason))
    }
}

/// The standard deviation σ_t of a step's noise.
#[derive(Debug)]
enum Sigma {
    Fixed(f64),
    /// exp(½·(v·log β + (1 − v)·log β̃)), where the network predicts v (Nichol & Dhariwal 2021, eq. 15).
    Learned {
        log_small: f32,
        log_large: f32,
    },
}

/// A step from t to t − 1, or to an earlier time step.
#[derive(Debug)]
struct DdpmStep {
    node: Node,
    /// The coefficients of eq. 7.
    posterior: Posterior,
    /// `None` at t = 0.
    sigma: Option<Sigma>,
}

impl plan::Step for DdpmStep {
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
            let Evaluation { x0, variances, .. } = evaluator.evaluate(&mut x, &step.node).await; // eq. 15
            let noise = step.sigma.as_ref().map(|sigma| {
                noise.fill(&mut z);
                match *sigma {
                    Sigma::Fixed(sigma) => (sigma, &z[..]),
                    Sigma::Learned { log_small, log_large } => {
                        for (z, v) in z.iter_mut().zip(variances) {
                            let v = (v + 1.0) / 2.0;
                            *z *= (0.5 * (v * log_large + (1.0 - v) * log_small)).exp();
                        }
                        (1.0, &z[..])
                    }
                }
            });
            // Eq. 7: x_{t−1} = √ᾱ_{t−1}·β_t/(1 − ᾱ_t)·x̂_0 + √α_t·(1 − ᾱ_{t−1})/(1 − ᾱ_t)·x_t + σ_t·z
            let (a, b) = (step.posterior.x_t as f32, step.posterior.x0 as f32);
            x0.step(&mut x, noise, move |x, x0| a * x + b * x0);
        }
        x
    }
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let schedule =
        NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Exact))?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let thresholding = Thresholding::from_settings(settings, true)?;
    let variance_type = VarianceType::from_settings(settings)?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), FAMILY.name)?;
    let times = options.without_skipped(spacing.timesteps(schedule.num_train_timesteps(), count, offset)?);
    let bars = schedule.alphas_cumprod();
    let next_bars = times.iter().skip(1).map(|&t| bars[t]).chain([1.0]);
    let steps = times.iter().zip(next_bars).map(|(&t, next_bar)| {
        let posterior = posterior(bars[t], next_bar);
        DdpmStep {
            node: Node::new(t as f64, NoiseLevel::from_alpha_bar(bars[t]), kind),
            sigma: (t > 0).then(|| sigma(variance_type, &posterior)),
            posterior,
        }
    });
    let outputs_per_value = if variance_type == VarianceType::LearnedRange { 2 } else { 1 };
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { thresholding, outputs_per_value, ..plan }))
}

fn sigma(variance_type: VarianceType, posterior: &Posterior) -> Sigma {
    // The reference limits β̃ so that its logarithm exists.
    let (small, large) = (posterior.variance.max(1e-20), posterior.beta);
    match variance_type {
        VarianceType::FixedSmall => Sigma::Fixed(small.sqrt()),
        VarianceType::FixedLarge => Sigma::Fixed(large.sqrt()),
        VarianceType::LearnedRange => {
            Sigma::Learned { log_small: small.ln() as f32, log_large: large.ln() as f32 }
        }
    }
}

/// The posterior with β_t = 1 − ᾱ_t/ᾱ_s rounded to f32 as in the reference, because 1,000 such roundings add up.
fn posterior(bar_t: f64, bar_s: f64) -> Posterior {
    let alpha = round(bar_t / bar_s);
    let beta = round(1.0 - alpha);
    let (noise_t, noise_s) = (round(1.0 - bar_t), round(1.0 - bar_s));
    Posterior {
        x0: round(bar_s.sqrt()) * beta / noise_t,
        x_t: round(alpha.sqrt()) * noise_s / noise_t,
        variance: noise_s / noise_t * beta,
        beta,
    }
}
