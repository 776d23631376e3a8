//! Noise levels as diffusers' σ-space classes lay them out: Euler, Heun, KDPM2, LMS, DPM-Solver-SDE.

use crate::noise_schedule::{NoiseSchedule, ScheduleDefaults, round};
use crate::prediction_type::PredictionType::{self, Epsilon, Sample, VPrediction};
use crate::sampler::family::{Options, SamplerError, prediction_type};
use crate::sampler::node::Node;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{self, SigmaSchedule, SigmaTable};
use crate::timestep_spacing::TimestepSpacing;

/// What distinguishes the classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) schedule: ScheduleDefaults,
    pub(crate) spreads: &'static [SigmaSchedule],
    pub(crate) predictions: &'static [PredictionType],
    /// Whether Karras' levels are told to the network at whole time steps.
    pub(crate) whole_karras_times: bool,
    /// Whether the class has Euler's further keys.
    pub(crate) euler_keys: bool,
}

impl Class {
    /// The spreads that most classes have.
    pub(crate) const SPREADS: &'static [SigmaSchedule] =
        &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta];
    /// Every kind of prediction that these classes know.
    pub(crate) const PREDICTIONS: &'static [PredictionType] = &[Epsilon, Sample, VPrediction];
    /// All but the clean sample, where the reference has none.
    pub(crate) const NO_SAMPLE: &'static [PredictionType] = &[Epsilon, VPrediction];

    /// A class of latent diffusion's defaults.
    pub(crate) const fn latent(name: &'static str, predictions: &'static [PredictionType]) -> Self {
        let (spreads, schedule) = (Self::SPREADS, ScheduleDefaults::LATENT);
        Self { name, schedule, spreads, predictions, whole_karras_times: false, euler_keys: false }
    }
}

/// The levels to visit, the largest first.
#[derive(Debug)]
pub(crate) struct SigmaSteps {
    /// The places of evaluation.
    pub(crate) points: Vec<Node>,
    /// σ at those places, then that of the end.
    pub(crate) sigmas: Vec<f64>,
    /// The standard deviation of the state at the start.
    pub(crate) initial_sigma: f64,
    pub(crate) kind: PredictionType,
    table: SigmaTable,
}

impl SigmaSteps {
    /// Read the keys that these classes share.
    pub(crate) fn read(
        settings: &mut Settings,
        options: &Options,
        class: &Class,
    ) -> Result<Self, SamplerError> {
        let schedule = NoiseSchedule::from_settings(settings, class.schedule)?;
        let kind = prediction_type(settings, class.predictions)?;
        let spread = SigmaSchedule::from_settings(settings, class.spreads)?;
        let (spacing, offset) = TimestepSpacing::from_settings(settings, "linspace")?;
        let steps = options.steps_up_to(schedule.num_train_timesteps(), class.name)?;
        let table = SigmaTable::new(&schedule);
        let mut times: Vec<f64> = spacing
            .fractional_timesteps(schedule.num_train_timesteps(), steps, offset)
            .into_iter()
            .map(round)
            .collect();
        let euler = if class.euler_keys { Some(EulerKeys::read(settings)?) } else { None };
        let mut levels: Vec<f64> = match &euler {
            Some(keys) if keys.by_log => {
                sigma_schedule::exponential(table.max(), table.min(), times.len() + 1)
                    .into_iter()
                    .map(round)
                    .collect()
            }
            _ => times.iter().map(|t| table.sigma_at(*t)).collect(),
        };
        if spread != SigmaSchedule::Timesteps {
            let (most, least) = (levels[0], levels[levels.len() - 1]);
            let max = euler.as_ref().and_then(|keys| keys.max).unwrap_or(most);
            let min = euler.as_ref().and_then(|keys| keys.min).unwrap_or(least);
            levels = match spread {
                SigmaSchedule::Exponential => sigma_schedule::exponential(max, min, steps),
                SigmaSchedule::Beta => sigma_schedule::beta(max, min, steps),
                _ => sigma_schedule::karras(max, min, 7.0, steps),
            };
            times = levels.iter().map(|sigma| table.sigma_to_t(*sigma)).collect();
            if spread == SigmaSchedule::Karras && class.whole_karras_times {
                times = times.into_iter().map(f64::round_ties_even).collect();
            }
        }
        let end = euler.as_ref().filter(|keys| keys.ends_at_least).map_or(0.0, |_| table.min());
        let sigmas: Vec<f64> = levels.into_iter().map(round).chain([end]).collect();
        if euler.as_ref().is_some_and(|keys| keys.continuous) && kind == VPrediction {
            times = sigmas[..times.len()].iter().map(|sigma| 0.25 * sigma.ln()).collect();
        }
        let points: Vec<Node> =
            times.iter().zip(&sigmas).map(|(t, sigma)| Node::unscaled(round(*t), *sigma, kind)).collect();
        let largest = sigmas.iter().fold(0.0, |most: f64, sigma| most.max(*sigma));
        let initial_sigma = match spacing {
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
        };
        let (points, sigmas) = (options.rest(points), options.rest(sigmas));
        Ok(Self { points, sigmas, initial_sigma, kind, table })
    }

    /// Every step: where it stands, its σ, and the σ to which it goes.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (Node, f64, f64)> + '_ {
        self.points.iter().zip(self.sigmas.windows(2)).map(|(point, pair)| (*point, pair[0], pair[1]))
    }

    /// A place between those of the grid.
    pub(crate) fn between(&self, sigma: f64) -> Node {
        let sigma = round(sigma);
        Node::unscaled(round(self.table.sigma_to_t(sigma)), sigma, self.kind)
    }
}

/// The keys that EulerDiscrete alone has.
struct EulerKeys {
    by_log: bool,
    ends_at_least: bool,
    continuous: bool,
    min: Option<f64>,
    max: Option<f64>,
}

impl EulerKeys {
    fn read(settings: &mut Settings) -> Result<Self, SettingsError> {
        let by_log =
            settings.choice("interpolation_type", "linear", &["linear", "log_linear"])? == "log_linear";
        let ends_at_least =
            settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])? == "sigma_min";
        let continuous =
            settings.choice("timestep_type", "discrete", &["discrete", "continuous"])? == "continuous";
        let min = settings.optional_number("sigma_min")?;
        let max = settings.optional_number("sigma_max")?;
        Ok(Self { by_log, ends_at_least, continuous, min, max })
    }
}
