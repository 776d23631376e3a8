//! Langevin dynamics: annealed over the noise levels of a noise-conditional score network
//! (Song & Ermon 2019), and by the score that a noise predictor implies (Welling & Teh 2011).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, TimeConditioning, prediction_type};
use super::node::Node;
use super::steps::edm::positive;
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::multistep::{Multistep, Step};
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::PredictionType::{self, Epsilon, Sample, Score, VPrediction};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule;
use crate::timestep_spacing::TimestepSpacing;

pub(super) const NCSN: Family =
    Family::new("ncsn", "AnnealedLangevinDynamics", ncsn).told(TimeConditioning::Index);
pub(super) const SGLD: Family = Family::new("sgld", "StochasticGradientLangevinDynamics", sgld);

/// x + (α/2)·s + √α·z, written with s = −ε̂/σ.
fn update(at: Node, alpha: f64) -> Step {
    Step::single(at, 1.0, -alpha / (2.0 * at.level.sigma)).noisy(alpha.sqrt())
}

/// Algorithm 1: `steps` updates at each noise level, from the largest to the smallest, where the
/// network takes the level's index.
fn ncsn(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.without_eta()?;
    let count = settings.count("num_noise_levels", 10)?;
    if !(1..=10_000).contains(&count) {
        return Err(
            SettingsError::refused("num_noise_levels", count, "it must lie between 1 and 10,000").into()
        );
    }
    let begin = positive(settings, "sigma_begin", 1.0)?;
    let end = positive(settings, "sigma_end", 0.01)?;
    let size = positive(settings, "step_size", 2e-5)?;
    // The authors' image runner takes α for α/2, and √(2α) for √α.
    let factor =
        if settings.choice("variant", "paper", &["paper", "authors"])? == "authors" { 2.0 } else { 1.0 };
    let name = settings.text("prediction_type", Score.name())?;
    if name != Score.name() {
        return Err(SettingsError::refused("prediction_type", name, "this sampler serves score").into());
    }
    let repeats = options.steps_up_to(10_000, NCSN.name)?;
    let steps =
        sigma_schedule::exponential(begin, end, count).into_iter().enumerate().flat_map(|(i, sigma)| {
            let alpha = factor * size * (sigma * sigma) / (end * end); // line 4
            let at = Node::plain(i as f64, NoiseLevel { alpha: 1.0, sigma }, Score);
            std::iter::repeat_n(update(at, alpha), repeats)
        });
    let sampler = Multistep::of_x0(steps.collect(), Bound::None).keeping(Kept::Epsilon);
    Ok(Arc::new(sampler.starting_at(begin)))
}

/// Langevin dynamics along the levels of a forward process, with step lengths that fall with the
/// level's variance (the polynomial decay of Welling & Teh's section 3 taken along the levels).
fn sgld(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.without_eta()?;
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let kind: PredictionType = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "linspace")?;
    let size = positive(settings, "step_size", 0.3)?;
    let repeats = settings.count("steps_per_level", 5)?;
    let n = options.steps_up_to(schedule.num_train_timesteps(), SGLD.name)?;
    let bars = schedule.alphas_cumprod();
    let steps = spacing.timesteps(schedule.num_train_timesteps(), n, offset)?.into_iter().flat_map(|t| {
        let level = NoiseLevel::from_alpha_bar(bars[t]);
        let at = Node::plain(t as f64, level, kind);
        std::iter::repeat_n(update(at, size * level.sigma * level.sigma), repeats)
    });
    Ok(Arc::new(Multistep::of_x0(steps.collect(), Bound::None).keeping(Kept::Epsilon)))
}
