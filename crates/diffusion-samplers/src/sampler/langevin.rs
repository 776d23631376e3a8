//! Langevin dynamics: annealed over the noise levels of a noise-conditional score network (Song & Ermon 2019), and
//! by the score that a noise predictor implies (Welling & Teh 2011).

use std::sync::Arc;

use super::model_output::{OutputForm, Prediction};
use super::node::Node;
use super::options::{AddedNoise, Options, positive, prediction_type};
use super::plan::{OneStep, Plan, Update};
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::PredictionType::{Epsilon, Sample, Score, VPrediction};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule;
use crate::timestep_spacing::TimestepSpacing;

pub(super) const NCSN: Family =
    Family::new("ncsn", "AnnealedLangevinDynamics", ncsn).with_time(TimeConditioning::Index);
pub(super) const SGLD: Family = Family::new("sgld", "StochasticGradientLangevinDynamics", sgld);

/// The largest number of noise levels and of updates per level.
const MAX_COUNT: usize = 10_000;

/// x' = x + (α/2)·∇log p(x) + √α·z (Song & Ermon 2019, algorithm 1, line 6), with the score −ε̂/σ.
#[derive(Debug)]
struct Langevin {
    /// −α/(2σ).
    epsilon: f64,
}

/// An update of step size α.
fn step(node: Node, alpha: f64) -> OneStep<Langevin> {
    let update = Langevin { epsilon: -alpha / (2.0 * node.level.sigma) };
    OneStep { node, update, noise: Some(alpha.sqrt()) }
}

impl Update for Langevin {
    fn apply(&self, x: &mut [f32], epsilon: Prediction<'_>, noise: Option<(f64, &[f32])>) {
        let weight = self.epsilon as f32;
        epsilon.step(x, noise, move |x, epsilon| x + weight * epsilon);
    }

    fn is_finite(&self) -> bool {
        self.epsilon.is_finite()
    }
}

/// Song & Ermon 2019, algorithm 1: `steps` updates at each noise level, from the largest to the smallest. The
/// network receives the level's index.
fn ncsn(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let count = settings.count_within("num_noise_levels", 10, 1..=MAX_COUNT)?;
    let begin = positive(settings, "sigma_begin", 1.0)?;
    let end = positive(settings, "sigma_end", 0.01)?;
    let size = positive(settings, "step_size", 2e-5)?;
    // The authors' image runner uses α where the paper has α/2, and √(2α) where the paper has √α.
    let authors = settings.choice("variant", "paper", &["paper", "authors"])? == "authors";
    let factor = if authors { 2.0 } else { 1.0 };
    let name = settings.text("prediction_type", Score.name())?;
    if name != Score.name() {
        return Err(SettingsError::refused("prediction_type", name, "this sampler supports score").into());
    }
    let repeats = options.steps_up_to(MAX_COUNT, NCSN.name)?;
    let sigmas = sigma_schedule::exponential(begin, end, count);
    let steps = sigmas.into_iter().enumerate().flat_map(|(i, sigma)| {
        let alpha = factor * size * (sigma * sigma) / (end * end); // line 3
        let node = Node::new(i as f64, NoiseLevel { alpha: 1.0, sigma }, Score);
        (0..repeats).map(move |_| step(node, alpha))
    });
    Ok(Arc::new(Plan { form: OutputForm::Epsilon, initial_sigma: begin, ..Plan::new(steps) }))
}

/// Langevin dynamics along the levels of a forward process. The step size is proportional to the level's variance
/// (Welling & Teh 2011, section 3, with the decay along the levels).
fn sgld(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "linspace")?;
    let size = positive(settings, "step_size", 0.3)?;
    let repeats = settings.count_within("steps_per_level", 5, 1..=MAX_COUNT)?;
    let n = options.steps_up_to(schedule.num_train_timesteps(), SGLD.name)?;
    let bars = schedule.alphas_cumprod();
    let steps = spacing.timesteps(schedule.num_train_timesteps(), n, offset)?.into_iter().flat_map(|t| {
        let level = NoiseLevel::from_alpha_bar(bars[t]);
        let node = Node::new(t as f64, level, kind);
        (0..repeats).map(move |_| step(node, size * level.sigma * level.sigma))
    });
    Ok(Arc::new(Plan { form: OutputForm::Epsilon, ..Plan::new(steps) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_follows_the_score_and_adds_noise() {
        let (sigma, alpha) = (2.0, 0.36);
        let step = step(Node::new(0.0, NoiseLevel { alpha: 1.0, sigma }, Score), alpha);
        let (mut x, score) = ([1.0], [-0.5]);
        let epsilon = Prediction::from_affine(step.node.epsilon, &score);
        step.update.apply(&mut x, epsilon, step.noise.map(|s| (s, &[3.0][..])));
        let expected = 1.0 + alpha / 2.0 * -0.5 + alpha.sqrt() * 3.0;
        assert!((f64::from(x[0]) - expected).abs() < 1e-6);
    }
}
