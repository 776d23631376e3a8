//! Flow matching along straight paths (Lipman et al. 2023; Liu et al. 2023; Esser et al. 2024): the methods of Euler
//! and Heun on dx/dσ = u.

use std::sync::Arc;

use super::flow_lcm;
use super::heun;
use super::model_output::{OutputForm, Prediction};
use super::node::Node;
use super::options::{AddedNoise, Options, positive};
use super::plan::{OneStep, Plan, Update};
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::noise_schedule::{NoiseLevel, linspace, num_train_timesteps, round};
use crate::prediction_type::PredictionType;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{self, SigmaSchedule, shift_sigma};

pub(super) const EULER: Family =
    Family::new("flow_euler", "FlowMatchEulerDiscreteScheduler", euler).with_time(TimeConditioning::Path);
pub(super) const HEUN: Family =
    Family::new("flow_heun", "FlowMatchHeunDiscreteScheduler", heun).with_time(TimeConditioning::Path);

/// How the noise levels are shifted towards the noisy end (Esser et al. 2024, section 5.3.2).
#[derive(Debug, Clone, Copy)]
enum Shift {
    /// A fixed factor.
    Fixed(f64),
    /// The factor e^μ, or μ if `linear`. μ grows with the number of the image's patches.
    BySize { mu: f64, linear: bool },
}

impl Shift {
    fn from_settings(settings: &mut Settings, options: &Options) -> Result<Self, SamplerError> {
        let shift = positive(settings, "shift", 1.0)?;
        let linear =
            settings.choice("time_shift_type", "exponential", &["exponential", "linear"])? == "linear";
        let is_dynamic = settings.flag("use_dynamic_shifting", false)?;
        let mut dynamic = |key: &str, default: f64| settings.number_if(is_dynamic, key, default);
        let (base, max) = (dynamic("base_shift", 0.5)?, dynamic("max_shift", 1.15)?);
        let base_patches = dynamic("base_image_seq_len", 256.0)?;
        let max_patches = dynamic("max_image_seq_len", 4096.0)?;
        if !is_dynamic {
            let keys =
                ["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"];
            settings.switch_off(&keys, "use_dynamic_shifting is false");
            return Ok(Self::Fixed(shift));
        }
        settings.switch_off(&["shift"], "use_dynamic_shifting is true");
        let Some(patches) = options.patches else {
            let reason = "this model's images have no patches; set shift instead";
            return Err(SettingsError::refused("use_dynamic_shifting", true, reason).into());
        };
        if patches.empirical_shift {
            let keys = ["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"];
            settings.switch_off(&keys, "the shift of FLUX.2 is computed from the steps and the size");
        }
        let slope = (max - base) / (max_patches - base_patches);
        let mu = match patches.empirical_shift {
            true => empirical_mu(patches.count, options.steps),
            false => base + slope * (patches.count as f64 - base_patches),
        };
        Ok(Self::BySize { mu, linear })
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

/// μ of FLUX.2 for a number of patches and of steps: a line through the values that were measured for 10 and 200 steps
/// (`compute_empirical_mu` of its pipelines).
fn empirical_mu(patches: usize, steps: usize) -> f64 {
    let (patches, steps) = (patches as f64, steps as f64);
    let of_200_steps = 0.000_169_27 * patches + 0.456_666_66;
    if patches > 4300.0 {
        return of_200_steps;
    }
    let of_10_steps = 8.738_095_24e-5 * patches + 1.898_333_33;
    let slope = (of_200_steps - of_10_steps) / 190.0;
    slope * steps + of_200_steps - 200.0 * slope
}

/// The first `n` noise levels, and the number of training time steps. The reference applies a fixed shift twice: to the
/// ends of the range, and along it.
fn shifted_sigmas(
    settings: &mut Settings,
    options: &Options,
    shift: Shift,
    name: &'static str,
) -> Result<(Vec<f64>, f64), SamplerError> {
    let train = num_train_timesteps(settings, 1000)?;
    let n = options.steps_up_to(train, name)?;
    let end = |t: usize| match shift {
        Shift::Fixed(shift) => round(shift_sigma(t as f64 / train as f64, shift)),
        Shift::BySize { .. } => t as f64 / train as f64,
    };
    let (first, last) = match options.patches.filter(|patches| patches.linear_sigmas) {
        Some(_) => (1.0, 1.0 / n as f64),
        None => (end(train), end(1)),
    };
    let train = train as f64;
    let sigmas = linspace(first * train, last * train, n).map(|t| shift.apply(t / train));
    Ok((sigmas.collect(), train))
}

/// The point of evaluation at a noise level of the straight path.
pub(super) fn node(sigma: f64, train: f64) -> Node {
    let level = NoiseLevel { alpha: 1.0 - sigma, sigma };
    Node::new(round(sigma * train), level, PredictionType::Flow)
}

/// x' = x + (σ' − σ)·u, where u is the network's output.
#[derive(Debug)]
struct FlowEuler {
    /// σ' − σ.
    dt: f64,
}

impl Update for FlowEuler {
    fn apply(&self, x: &mut [f32], u: Prediction<'_>, noise: Option<(f64, &[f32])>) {
        let dt = self.dt as f32;
        u.step(x, noise, move |x, u| x + dt * u);
    }

    fn is_finite(&self) -> bool {
        self.dt.is_finite()
    }
}

/// The noise levels of a run along the straight path, as the class and its keys give them.
pub(super) struct StraightPath {
    /// σ of every step, and the final σ.
    pub(super) sigmas: Vec<f64>,
    /// The number of training time steps.
    pub(super) train: f64,
}

impl StraightPath {
    /// Reads the keys that the classes of Euler and of LCM share.
    pub(super) fn from_settings(
        settings: &mut Settings,
        options: &Options,
        name: &'static str,
    ) -> Result<Self, SamplerError> {
        let shift = Shift::from_settings(settings, options)?;
        let (mut sigmas, train) = shifted_sigmas(settings, options, shift, name)?;
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
        let final_sigma = if inverted { 1.0 } else { 0.0 };
        let invert = |sigma: f64| round(if inverted { 1.0 - round(sigma) } else { sigma });
        let sigmas = options.without_skipped(sigmas).into_iter().map(invert).chain([final_sigma]);
        Ok(Self { sigmas: sigmas.collect(), train })
    }
}

fn euler(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let path = StraightPath::from_settings(settings, options, EULER.name)?;
    let stochastic = settings.flag("stochastic_sampling", false)?;
    options.reject_eta(AddedNoise::fixed_if(stochastic))?;
    if stochastic {
        return Ok(Arc::new(Plan::new(flow_lcm::renoised(&path))));
    }
    let steps = path.sigmas.windows(2).map(|pair| OneStep {
        node: node(pair[0], path.train),
        update: FlowEuler { dt: pair[1] - pair[0] },
        noise: None,
    });
    Ok(Arc::new(Plan { form: OutputForm::Raw, ..Plan::new(steps) }))
}

fn heun(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let shift = Shift::Fixed(positive(settings, "shift", 1.0)?);
    let (sigmas, train) = shifted_sigmas(settings, options, shift, HEUN.name)?;
    let sigmas: Vec<f64> = options.without_skipped(sigmas).into_iter().map(round).chain([0.0]).collect();
    let nodes: Vec<Node> = sigmas[..sigmas.len() - 1].iter().map(|sigma| node(*sigma, train)).collect();
    // On the straight path, too, the derivative is (x − x̂_0)/σ.
    Ok(Arc::new(Plan::new(heun::HeunStep::from_sigmas(&nodes, &sigmas))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empirical_shift_meets_its_measured_lines() {
        let line = |patches: f64| 0.000_169_27 * patches + 0.456_666_66;
        assert!((empirical_mu(1024, 200) - line(1024.0)).abs() < 1e-12);
        assert!((empirical_mu(1024, 10) - (8.738_095_24e-5 * 1024.0 + 1.898_333_33)).abs() < 1e-12);
        assert_eq!(empirical_mu(4301, 4), line(4301.0));
    }
}
