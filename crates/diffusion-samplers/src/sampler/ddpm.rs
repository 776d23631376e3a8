//! DDPM: ancestral sampling (Ho et al. 2020, algorithm 2), with the variances of
//! Nichol & Dhariwal 2021.

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, prediction_type};
use super::node::Node;
use super::walk::bound::Bound;
use super::walk::denoiser::Denoiser;
use super::walk::estimate::{Estimate, add, with};
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr, round};
use crate::prediction_type::PredictionType::{Epsilon, Sample, VPrediction};
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::timestep_spacing::TimestepSpacing;
use crate::trajectory::{ModelHandle, SampleFuture};

pub(super) const FAMILY: Family = Family::new("ddpm", "DDPMScheduler", Ddpm::build);

/// The variance of x_{t−1} given x_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variance {
    /// β̃_t, the lower bound (Ho et al. 2020, section 3.2).
    FixedSmall,
    /// β_t, the upper bound.
    FixedLarge,
    /// Between both in log space, where the network says (Nichol & Dhariwal 2021, eq. 15).
    LearnedRange,
}

#[derive(Debug)]
struct Step {
    at: Node,
    posterior: Posterior,
    draws_noise: bool,
}

#[derive(Debug)]
struct Ddpm {
    steps: Vec<Step>,
    bound: Bound,
    variance: Variance,
}

impl Ddpm {
    fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
        options.without_eta()?;
        let schedule =
            NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Exact))?;
        let prediction = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
        let bound = Bound::either(settings, true)?;
        let variance = match settings.text("variance_type", "fixed_small")?.as_str() {
            "fixed_small" | "fixed_small_log" => Variance::FixedSmall,
            "fixed_large" => Variance::FixedLarge,
            "learned_range" => Variance::LearnedRange,
            "fixed_large_log" => {
                return Err(refused(
                    "fixed_large_log",
                    "diffusers takes the root of a negative logarithm there; fixed_large is what was meant",
                ));
            }
            other => {
                return Err(refused(
                    other,
                    "it is none of fixed_small, fixed_small_log, fixed_large, learned_range",
                ));
            }
        };
        let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
        let count = options.steps_up_to(schedule.num_train_timesteps(), FAMILY.name)?;
        let times = options.rest(spacing.timesteps(schedule.num_train_timesteps(), count, offset)?);
        let bars = schedule.alphas_cumprod();
        let after = times.iter().skip(1).map(|&t| bars[t]).chain([1.0]);
        let steps = times
            .iter()
            .zip(after)
            .map(|(&t, bar_next)| Step {
                at: Node::plain(t as f64, NoiseLevel::from_alpha_bar(bars[t]), prediction),
                posterior: posterior(bars[t], bar_next),
                draws_noise: t > 0,
            })
            .collect();
        Ok(Arc::new(Self { steps, bound, variance }))
    }
}

fn refused(value: &str, reason: &str) -> SamplerError {
    SettingsError::refused("variance_type", value, reason).into()
}

impl Sampler for Ddpm {
    fn evaluations(&self) -> usize {
        self.steps.len()
    }

    fn start(&self) -> Option<NoiseLevel> {
        self.steps.first().map(|step| step.at.level)
    }

    fn draws(&self) -> usize {
        self.steps.iter().filter(|step| step.draws_noise).count()
    }

    fn outputs_per_value(&self) -> usize {
        match self.variance {
            Variance::LearnedRange => 2,
            _ => 1,
        }
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut z = vec![0.0; x.len()];
            for step in &self.steps {
                let x0 = denoiser.ask(&mut x, &step.at).await.x0; // eq. 15
                let (answer, between) = denoiser.answer().split_at(x.len());
                let (a, b) = (step.posterior.x_t as f32, step.posterior.x0 as f32); // eq. 7
                if !step.draws_noise {
                    with!(x0, x0 => add(&mut x, answer, None, move |x, o| a * x + b * x0(x, o)));
                    continue;
                }
                noise.fill(&mut z);
                // Never quite 0: the reference's logarithm must exist (and it draws even so).
                let small = step.posterior.variance.max(1e-20);
                let large = step.posterior.beta;
                let sigma = match self.variance {
                    Variance::FixedSmall => small.sqrt(),
                    Variance::FixedLarge => large.sqrt(),
                    Variance::LearnedRange => {
                        let (low, high) = (small.ln() as f32, large.ln() as f32);
                        for (z, v) in z.iter_mut().zip(between) {
                            let share = (v + 1.0) / 2.0;
                            *z *= (0.5 * (share * high + (1.0 - share) * low)).exp();
                        }
                        1.0
                    }
                };
                let noise = Some((sigma, &z[..]));
                with!(x0, x0 => add(&mut x, answer, noise, move |x, o| a * x + b * x0(x, o)));
            }
            x
        })
    }
}

/// The posterior with β_t = 1 − ᾱ_t/ᾱ_s rounded to f32 where it is taken: 1,000 such roundings
/// add up, and the reference has them.
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
