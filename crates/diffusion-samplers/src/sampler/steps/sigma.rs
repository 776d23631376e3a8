//! Time steps and noise levels of diffusers' σ-space classes: Euler, Heun, KDPM2, LMS, DPM-Solver-SDE.

use crate::noise_schedule::{NoiseSchedule, ScheduleDefaults, round};
use crate::prediction_type::PredictionType::{self, Epsilon, Sample, VPrediction};
use crate::sampler::SamplerError;
use crate::sampler::node::Node;
use crate::sampler::options::{Options, prediction_type};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{self, SigmaSchedule, SigmaTable};
use crate::timestep_spacing::TimestepSpacing;

/// The differences between the classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SigmaClass {
    pub(crate) name: &'static str,
    pub(crate) schedule: ScheduleDefaults,
    pub(crate) sigma_schedules: &'static [SigmaSchedule],
    pub(crate) predictions: &'static [PredictionType],
    /// Whether the time steps of Karras' noise levels are rounded to whole ones.
    pub(crate) whole_karras_timesteps: bool,
    /// Whether the class has the keys of `EulerKeys`.
    pub(crate) euler_keys: bool,
}

impl SigmaClass {
    /// The sigma schedules of most classes.
    pub(crate) const SIGMA_SCHEDULES: &'static [SigmaSchedule] =
        &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta];
    /// Every prediction type of these classes.
    pub(crate) const PREDICTIONS: &'static [PredictionType] = &[Epsilon, Sample, VPrediction];
    /// The prediction types of the classes whose reference does not implement `sample`.
    pub(crate) const NO_SAMPLE: &'static [PredictionType] = &[Epsilon, VPrediction];

    /// A class with the defaults of latent diffusion.
    pub(crate) const fn new(name: &'static str, predictions: &'static [PredictionType]) -> Self {
        let (sigma_schedules, schedule) = (Self::SIGMA_SCHEDULES, ScheduleDefaults::LATENT);
        Self {
            name,
            schedule,
            sigma_schedules,
            predictions,
            whole_karras_timesteps: false,
            euler_keys: false,
        }
    }
}

/// The noise levels of a run, the largest first.
#[derive(Debug)]
pub(crate) struct SigmaSteps {
    /// The points of evaluation.
    pub(crate) nodes: Vec<Node>,
    /// σ at these points, then the final σ.
    pub(crate) sigmas: Vec<f64>,
    /// The standard deviation of the initial state.
    pub(crate) initial_sigma: f64,
    pub(crate) kind: PredictionType,
    table: SigmaTable,
}

impl SigmaSteps {
    /// Reads the keys that these classes share.
    pub(crate) fn from_settings(
        settings: &mut Settings,
        options: &Options,
        class: &SigmaClass,
    ) -> Result<Self, SamplerError> {
        let schedule = NoiseSchedule::from_settings(settings, class.schedule)?;
        let kind = prediction_type(settings, class.predictions)?;
        let sigma_schedule = SigmaSchedule::from_settings(settings, class.sigma_schedules)?;
        let (spacing, offset) = TimestepSpacing::from_settings(settings, "linspace")?;
        let steps = options.steps_up_to(schedule.num_train_timesteps(), class.name)?;
        let table = SigmaTable::new(&schedule);
        let mut times: Vec<f64> = spacing
            .fractional_timesteps(schedule.num_train_timesteps(), steps, offset)
            .into_iter()
            .map(round)
            .collect();
        let euler = if class.euler_keys { Some(EulerKeys::from_settings(settings)?) } else { None };
        if euler.is_some() && sigma_schedule == SigmaSchedule::Timesteps {
            settings.switch_off(
                &["sigma_min", "sigma_max"],
                "no sigma schedule is set, such as use_karras_sigmas",
            );
        }
        if euler.is_some() && kind != VPrediction {
            settings.switch_off(&["timestep_type"], "prediction_type is not v_prediction");
        }
        let mut levels: Vec<f64> = match &euler {
            Some(keys) if keys.log_linear => {
                sigma_schedule::exponential(table.max(), table.min(), times.len() + 1)
                    .into_iter()
                    .map(round)
                    .collect()
            }
            _ => times.iter().map(|t| table.sigma_at(*t)).collect(),
        };
        if sigma_schedule != SigmaSchedule::Timesteps {
            let (largest, smallest) = (levels[0], levels[levels.len() - 1]);
            let max = euler.as_ref().and_then(|keys| keys.max).unwrap_or(largest);
            let min = euler.as_ref().and_then(|keys| keys.min).unwrap_or(smallest);
            levels = match sigma_schedule {
                SigmaSchedule::Exponential => sigma_schedule::exponential(max, min, steps),
                SigmaSchedule::Beta => sigma_schedule::beta(max, min, steps),
                _ => sigma_schedule::karras(max, min, 7.0, steps),
            };
            times = levels.iter().map(|sigma| table.sigma_to_t(*sigma)).collect();
            if sigma_schedule == SigmaSchedule::Karras && class.whole_karras_timesteps {
                times = times.into_iter().map(f64::round_ties_even).collect();
            }
        }
        let final_sigma = euler.as_ref().filter(|keys| keys.ends_at_sigma_min).map_or(0.0, |_| table.min());
        let sigmas: Vec<f64> = levels.into_iter().map(round).chain([final_sigma]).collect();
        if euler.as_ref().is_some_and(|keys| keys.continuous) && kind == VPrediction {
            times = sigmas[..times.len()].iter().map(|sigma| 0.25 * sigma.ln()).collect();
        }
        let node = |(t, sigma): (&f64, &f64)| Node::with_unscaled_signal(round(*t), *sigma, kind);
        let nodes: Vec<Node> = times.iter().zip(&sigmas).map(node).collect();
        let largest = sigmas.iter().fold(0.0, |largest: f64, sigma| largest.max(*sigma));
        let initial_sigma = match spacing {
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
        };
        let (nodes, sigmas) = (options.without_skipped(nodes), options.without_skipped(sigmas));
        Ok(Self { nodes, sigmas, initial_sigma, kind, table })
    }

    /// Every step: its node, its σ and the next σ.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (Node, f64, f64)> + '_ {
        self.nodes.iter().zip(self.sigmas.windows(2)).map(|(node, pair)| (*node, pair[0], pair[1]))
    }

    /// A node at a σ between those of the run.
    pub(crate) fn node_between(&self, sigma: f64) -> Node {
        let sigma = round(sigma);
        Node::with_unscaled_signal(round(self.table.sigma_to_t(sigma)), sigma, self.kind)
    }
}

/// The keys that only EulerDiscreteScheduler has.
struct EulerKeys {
    log_linear: bool,
    ends_at_sigma_min: bool,
    continuous: bool,
    min: Option<f64>,
    max: Option<f64>,
}

impl EulerKeys {
    fn from_settings(settings: &mut Settings) -> Result<Self, SettingsError> {
        let log_linear =
            settings.choice("interpolation_type", "linear", &["linear", "log_linear"])? == "log_linear";
        let ends_at_sigma_min =
            settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])? == "sigma_min";
        let continuous =
            settings.choice("timestep_type", "discrete", &["discrete", "continuous"])? == "continuous";
        let min = settings.optional_number("sigma_min")?;
        let max = settings.optional_number("sigma_max")?;
        Ok(Self { log_linear, ends_at_sigma_min, continuous, min, max })
    }
}
