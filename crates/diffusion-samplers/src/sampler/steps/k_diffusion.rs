//! Noise levels as k-diffusion lays them out for a network with discrete time steps.

use crate::noise_schedule::{NoiseSchedule, ScheduleDefaults, ZeroSnr, linspace, round};
use crate::prediction_type::PredictionType::{self, Epsilon, VPrediction};
use crate::sampler::SamplerError;
use crate::sampler::node::Node;
use crate::sampler::options::{Options, prediction_type};
use crate::scheduler_settings::Settings;
use crate::sigma_schedule::{self, SigmaSchedule, SigmaTable};

/// The noise levels of a run, the largest first. The last one is 0, where the network is not evaluated.
#[derive(Debug)]
pub(crate) struct KDiffusionSteps {
    sigmas: Vec<f64>,
    initial_sigma: f64,
    kind: PredictionType,
    table: SigmaTable,
}

impl KDiffusionSteps {
    /// The noise levels of k-diffusion's `get_sigmas` on the bundle's schedule, or of one of its variants.
    pub(crate) fn from_settings(
        settings: &mut Settings,
        options: &Options,
        name: &'static str,
    ) -> Result<Self, SamplerError> {
        let schedule = NoiseSchedule::from_settings(
            settings,
            ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Approximate),
        )?;
        let kind = prediction_type(settings, &[Epsilon, VPrediction])?;
        let sigma_schedule = SigmaSchedule::from_settings(
            settings,
            &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Polyexponential],
        )?;
        let n = options.steps_up_to(schedule.num_train_timesteps(), name)?;
        let table = SigmaTable::new(&schedule);
        let (max, min) = (table.max(), table.min());
        let levels = match sigma_schedule {
            SigmaSchedule::Karras => sigma_schedule::karras(max, min, settings.number("rho", 7.0)?, n),
            SigmaSchedule::Exponential => sigma_schedule::exponential(max, min, n),
            SigmaSchedule::Polyexponential => {
                sigma_schedule::polyexponential(max, min, settings.number("rho", 1.0)?, n)
            }
            _ => linspace((schedule.num_train_timesteps() - 1) as f64, 0.0, n)
                .map(|t| table.t_to_sigma(round(t)))
                .collect(),
        };
        let sigmas: Vec<f64> = levels.into_iter().map(round).chain([0.0]).collect();
        let initial_sigma = sigmas[0];
        Ok(Self { sigmas: options.without_skipped(sigmas), initial_sigma, kind, table })
    }

    /// The standard deviation of the initial state.
    pub(crate) fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    /// Every step: its σ and the next σ.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.sigmas.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// The node at a σ.
    pub(crate) fn node(&self, sigma: f64) -> Node {
        Node::with_unscaled_signal(round(self.table.sigma_to_t(sigma)), sigma, self.kind)
    }
}
