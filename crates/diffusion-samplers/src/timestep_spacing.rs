//! The selection of a sampler's time steps from those of training (Lin et al. 2024, table 2).

use super::scheduler_settings::{Settings, SettingsError};

/// How `n` time steps are selected from 0 … T−1: `timestep_spacing` of diffusers' schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Uniform from 0 to T−1, both included.
    Linspace,
    /// Multiples of ⌊T/n⌋ from 0, plus an offset. T−1 is not among them.
    Leading,
    /// From T−1 downwards in steps of T/n. 0 is not among them.
    Trailing,
}

impl TimestepSpacing {
    /// Reads `timestep_spacing` and `steps_offset`. The offset is used by [`Leading`](Self::Leading) only.
    pub(crate) fn from_settings(
        settings: &mut Settings,
        default: &str,
    ) -> Result<(Self, usize), SettingsError> {
        let spacing = match settings.text("timestep_spacing", default)?.as_str() {
            "linspace" => Self::Linspace,
            "leading" => Self::Leading,
            "trailing" => Self::Trailing,
            other => {
                return Err(SettingsError::refused(
                    "timestep_spacing",
                    other,
                    "it is none of linspace, leading, trailing",
                ));
            }
        };
        let offset = settings.count("steps_offset", 0)?;
        if spacing != Self::Leading {
            settings.switch_off(&["steps_offset"], "only timestep_spacing leading has an offset");
        }
        Ok((spacing, offset))
    }

    /// The time steps in decreasing order; those of `linspace` are not rounded, for solvers in fractional time.
    pub(crate) fn fractional_timesteps(self, train: usize, steps: usize, offset: usize) -> Vec<f64> {
        match self {
            Self::Linspace => super::noise_schedule::linspace(0.0, (train - 1) as f64, steps).rev().collect(),
            Self::Leading => {
                let ratio = train / steps;
                (0..steps).rev().map(|i| (i * ratio + offset) as f64).collect()
            }
            Self::Trailing => {
                let ratio = train as f64 / steps as f64;
                // `numpy.arange` can have one time step more than `steps`.
                let count = (train as f64 / ratio).ceil() as usize;
                let delta = (train as f64 - ratio) - train as f64;
                (0..count).map(|i| (train as f64 + i as f64 * delta).round_ties_even() - 1.0).collect()
            }
        }
    }

    /// The time steps of diffusers' DPM-Solver classes, in decreasing order: a selection of `steps + 1` time steps
    /// without the last one, at which the model is not evaluated. The `clipped` noisiest time steps are not used.
    pub(crate) fn dpm_solver_timesteps(
        self,
        train: usize,
        clipped: usize,
        steps: usize,
        offset: usize,
    ) -> Result<Vec<f64>, SettingsError> {
        let last = train - clipped;
        let times: Vec<f64> = match self {
            Self::Linspace => {
                let mut times: Vec<f64> = super::noise_schedule::linspace(0.0, (last - 1) as f64, steps + 1)
                    .skip(1)
                    .map(f64::round_ties_even)
                    .collect();
                times.reverse();
                times
            }
            Self::Leading => {
                let ratio = last / (steps + 1);
                (1..=steps).rev().map(|i| (i * ratio + offset) as f64).collect()
            }
            Self::Trailing => {
                let ratio = train as f64 / steps as f64;
                let delta = (last as f64 - ratio) - last as f64;
                let count = (last as f64 / ratio).ceil() as usize;
                (0..count).map(|i| (last as f64 + i as f64 * delta).round_ties_even() - 1.0).collect()
            }
        };
        check_first(train, times, steps, offset)
    }

    /// `steps` whole time steps below `train`, in decreasing order. `offset` is added with
    /// [`Leading`](Self::Leading).
    ///
    /// # Errors
    ///
    /// If the first time step is not below `train`.
    pub fn timesteps(self, train: usize, steps: usize, offset: usize) -> Result<Vec<usize>, SettingsError> {
        let times = self
            .fractional_timesteps(train, steps, offset)
            .into_iter()
            .map(|t| t.round_ties_even().max(0.0))
            .collect();
        Ok(check_first(train, times, steps, offset)?.into_iter().map(|t| t as usize).collect())
    }
}

/// Returns the time steps if the first one is below `train`.
fn check_first(
    train: usize,
    times: Vec<f64>,
    steps: usize,
    offset: usize,
) -> Result<Vec<f64>, SettingsError> {
    if times[0] < train as f64 {
        return Ok(times);
    }
    Err(SettingsError::steps_offset(offset, steps, times[0] as usize, train))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timesteps(spacing: TimestepSpacing, steps: usize, offset: usize) -> Vec<usize> {
        spacing.timesteps(1000, steps, offset).unwrap()
    }

    #[test]
    fn an_offset_beyond_the_schedule_was_blamed_on_the_number_of_steps() {
        let error =
            |steps, offset| TimestepSpacing::Leading.timesteps(1000, steps, offset).unwrap_err().to_string();
        let beyond = "steps_offset is 5000, but must be less than num_train_timesteps, which is 1000";
        assert_eq!(error(4, 5000), beyond);
        assert_eq!(
            error(1000, 1),
            "steps_offset is 1, which with 1000 steps leads to time step 1000, but num_train_timesteps is 1000; use \
             fewer steps or a smaller steps_offset"
        );
    }

    #[test]
    fn spacings_are_those_of_diffusers() {
        assert_eq!(timesteps(TimestepSpacing::Linspace, 4, 0), [999, 666, 333, 0]);
        assert_eq!(timesteps(TimestepSpacing::Leading, 4, 1), [751, 501, 251, 1]);
        assert_eq!(timesteps(TimestepSpacing::Trailing, 4, 0), [999, 749, 499, 249]);
        // 62.5 and 187.5 round to the even neighbour.
        let trailing = timesteps(TimestepSpacing::Trailing, 16, 0);
        assert_eq!(trailing[..3], [999, 937, 874]);
        assert_eq!(trailing[15], 61);
    }

    #[test]
    fn a_single_step_is_the_last_time_step_only_with_trailing() {
        assert_eq!(timesteps(TimestepSpacing::Trailing, 1, 0), [999]);
        assert_eq!(timesteps(TimestepSpacing::Leading, 1, 0), [0]);
        assert_eq!(timesteps(TimestepSpacing::Linspace, 1, 0), [0]);
    }
}
