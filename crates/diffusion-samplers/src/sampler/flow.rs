//! Flow matching along straight paths (Lipman et al. 2023; Liu et al. 2023; Esser et al. 2024): Euler
//! and Heun.

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, TimeConditioning};
use super::heun;
use super::node::Node;
use super::steps::edm::positive;
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::multistep::{Multistep, Step};
use super::walk::two_slopes::{Rule, TwoSlopes};
use crate::noise_schedule::{NoiseLevel, linspace, round};
use crate::prediction_type::PredictionType;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{self, SigmaSchedule, shift_sigma};

pub(super) const EULER: Family =
    Family::new("flow_euler", "FlowMatchEulerDiscreteScheduler", euler).told(TimeConditioning::Path);
pub(super) const HEUN: Family =
    Family::new("flow_heun", "FlowMatchHeunDiscreteScheduler", heun).told(TimeConditioning::Path);

/// How the levels are moved towards the noisy end (Esser et al. 2024, section 5.3.2).
#[derive(Debug, Clone, Copy)]
enum Shift {
    /// By a factor.
    Fixed(f64),
    /// By e^μ, or by μ, which grows with the number of a picture's patches.
    BySize { mu: f64, linear: bool },
}

impl Shift {
    fn read(settings: &mut Settings, options: &Options) -> Result<Self, SamplerError> {
        let shift = positive(settings, "shift", 1.0)?;
        let linear =
            settings.choice("time_shift_type", "exponential", &["exponential", "linear"])? == "linear";
        let (base, most) = (settings.number("base_shift", 0.5)?, settings.number("max_shift", 1.15)?);
        let base_patches = settings.number("base_image_seq_len", 256.0)?;
        let most_patches = settings.number("max_image_seq_len", 4096.0)?;
        if !settings.flag("use_dynamic_shifting", false)? {
            return Ok(Self::Fixed(shift));
        }
        let Some(patches) = options.patches else {
            let reason = "the shift follows a picture's size, which a network without latents does not have; set shift";
            return Err(SettingsError::refused("use_dynamic_shifting", true, reason).into());
        };
        let slope = (most - base) / (most_patches - base_patches);
        Ok(Self::BySize { mu: base + slope * (patches.count as f64 - base_patches), linear })
    }

    fn apply(self, sigma: f64) -> f64 {
        match self {
            Self::Fixed(shift) => shift_sigma(sigma, shift),
            Self::BySize { mu, linear } => {
                let weight = if linear { mu } else { mu.exp() };
                weight / (weight + (1.0 / sigma - 1.0))
            }
        }
    }
}

/// `n` levels from the noisiest, which the reference shifts twice where the shift is fixed: once for
/// the ends of its range, once along it.
fn levels(
    settings: &mut Settings,
    options: &Options,
    shift: Shift,
    name: &'static str,
) -> Result<(Vec<f64>, f64), SamplerError> {
    let train = settings.count("num_train_timesteps", 1000)?;
    let n = options.steps_up_to(train, name)?;
    let end = |t: usize| match shift {
        Shift::Fixed(shift) => round(shift_sigma(t as f64 / train as f64, shift)),
        Shift::BySize { .. } => t as f64 / train as f64,
    };
    let (first, last) = match options.patches.filter(|patches| patches.even) {
        Some(_) => (1.0, 1.0 / n as f64),
        None => (end(train), end(1)),
    };
    let train = train as f64;
    let levels = linspace(first * train, last * train, n).map(|t| shift.apply(t / train));
    Ok((levels.collect(), train))
}

fn point(sigma: f64, train: f64) -> Node {
    let level = NoiseLevel { alpha: 1.0 - sigma, sigma };
    Node::plain(round(sigma * train), level, PredictionType::Flow)
}

fn euler(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let shift = Shift::read(settings, options)?;
    let (mut sigmas, train) = levels(settings, options, shift, EULER.name)?;
    if let Some(terminal) = settings.optional_number("shift_terminal")?.filter(|t| *t != 0.0) {
        let factor = (1.0 - sigmas[sigmas.len() - 1]) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / factor);
    }
    let (max, min, n) = (sigmas[0], sigmas[sigmas.len() - 1], sigmas.len());
    match SigmaSchedule::from_settings(
        settings,
        &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta],
    )? {
        SigmaSchedule::Karras => sigmas = sigma_schedule::karras(max, min, 7.0, n),
        SigmaSchedule::Exponential => sigmas = sigma_schedule::exponential(max, min, n),
        SigmaSchedule::Beta => sigmas = sigma_schedule::beta(max, min, n),
        _ => {}
    }
    let inverted = settings.flag("invert_sigmas", false)?;
    let end = if inverted { 1.0 } else { 0.0 };
    let turn = |sigma: f64| round(if inverted { 1.0 - round(sigma) } else { sigma });
    let sigmas: Vec<f64> = options.rest(sigmas).into_iter().map(turn).chain([end]).collect();
    let stochastic = settings.flag("stochastic_sampling", false)?;
    if stochastic {
        options.without_eta()?
    } else {
        options.deterministic()?
    }
    let steps = sigmas.windows(2).map(|pair| {
        let (at, next) = (point(pair[0], train), pair[1]);
        // x̂_0 noised again to the next level, or dx = u·dσ.
        if stochastic {
            Step::single(at, 0.0, 1.0 - next).noisy(next)
        } else {
            Step::single(at, 1.0, next - pair[0])
        }
    });
    let kept = if stochastic { Kept::X0 } else { Kept::Output };
    Ok(Arc::new(Multistep::of_x0(steps.collect(), Bound::None).keeping(kept)))
}

fn heun(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let shift = Shift::Fixed(positive(settings, "shift", 1.0)?);
    let (sigmas, train) = levels(settings, options, shift, HEUN.name)?;
    let sigmas: Vec<f64> = options.rest(sigmas).into_iter().map(round).chain([0.0]).collect();
    let points: Vec<Node> = sigmas[..sigmas.len() - 1].iter().map(|sigma| point(*sigma, train)).collect();
    // On the straight path, too, the slope is (x − x̂_0)/σ.
    let steps = heun::plan(&points, &sigmas);
    Ok(Arc::new(TwoSlopes { steps, rule: Rule::Heun, bound: Bound::None, initial_sigma: 1.0 }))
}
