//! Noise levels as k-diffusion lays them out around a network of whole time steps.

use super::point::Point;
use crate::prediction::PredictionType::{self, Epsilon, VPrediction};
use crate::sampler::family::{Options, SamplerError, prediction_type};
use crate::schedule::{NoiseSchedule, ScheduleDefaults, ZeroSnr, linspace, round};
use crate::settings::Settings;
use crate::sigmas::{self, SigmaTable, Spread};

/// The levels to visit, the largest first; the last is 0 and no place of evaluation.
#[derive(Debug)]
pub(crate) struct KGrid {
    sigmas: Vec<f64>,
    initial_sigma: f64,
    kind: PredictionType,
    table: SigmaTable,
}

impl KGrid {
    /// The bundle's schedule, with levels by `get_sigmas` or one of its siblings.
    pub(crate) fn read(
        settings: &mut Settings,
        options: &Options,
        name: &'static str,
    ) -> Result<Self, SamplerError> {
        let schedule =
            NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM.zero_snr(ZeroSnr::Nearly))?;
        let kind = prediction_type(settings, &[Epsilon, VPrediction])?;
        let spread =
            Spread::from_settings(settings, &[Spread::Karras, Spread::Exponential, Spread::Polyexponential])?;
        let n = options.steps_up_to(schedule.len(), name)?;
        let table = SigmaTable::of(&schedule);
        let (max, min) = (table.max(), table.min());
        let levels = match spread {
            Spread::Karras => sigmas::karras(max, min, settings.number("rho", 7.0)?, n),
            Spread::Exponential => sigmas::exponential(max, min, n),
            Spread::Polyexponential => sigmas::polyexponential(max, min, settings.number("rho", 1.0)?, n),
            _ => linspace((schedule.len() - 1) as f64, 0.0, n).map(|t| table.at_by_log(round(t))).collect(),
        };
        let sigmas: Vec<f64> = levels.into_iter().map(round).chain([0.0]).collect();
        let initial_sigma = sigmas[0];
        Ok(Self { sigmas: options.rest(sigmas), initial_sigma, kind, table })
    }

    /// The standard deviation of the state at the start.
    pub(crate) fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    /// Every step: its σ, and the σ to which it goes.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.sigmas.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// The place of a level.
    pub(crate) fn at(&self, sigma: f64) -> Point {
        Point::unscaled(round(self.table.time_of(sigma)), sigma, self.kind)
    }
}
