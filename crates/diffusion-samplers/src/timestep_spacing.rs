//! Which of a schedule's time steps a sampler visits (Lin et al. 2024, table 2).

use super::scheduler_settings::{Settings, SettingsError};

/// How `n` time steps are chosen from 0 … T−1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Evenly from 0 to T−1, both included.
    Linspace,
    /// Multiples of ⌊T/n⌋ from 0, plus an offset: the last step is missed.
    Leading,
    /// Backwards from T−1 in steps of T/n: the first step is missed.
    Trailing,
}

impl TimestepSpacing {
    /// The keys `timestep_spacing` and `steps_offset`; the offset counts for `leading` alone.
    pub fn from_settings(settings: &mut Settings, default: &str) -> Result<(Self, usize), SettingsError> {
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
        Ok((spacing, settings.count("steps_offset", 0)?))
    }

    /// The time steps in the order in which they are visited, largest first, not yet rounded
    /// for `linspace` (solvers with fractional time steps use them so).
    pub fn fractional(self, train: usize, steps: usize, offset: usize) -> Vec<f64> {
        match self {
            Self::Linspace => super::noise_schedule::linspace(0.0, (train - 1) as f64, steps).rev().collect(),
            Self::Leading => {
                let ratio = train / steps;
                (0..steps).rev().map(|i| (i * ratio + offset) as f64).collect()
            }
            Self::Trailing => {
                let ratio = train as f64 / steps as f64;
                // As many as the reference's floating-point range has, which may be one more.
                let count = (train as f64 / ratio).ceil() as usize;
                let delta = (train as f64 - ratio) - train as f64;
                (0..count).map(|i| (train as f64 + i as f64 * delta).round_ties_even() - 1.0).collect()
            }
        }
    }

    /// As DPM-Solver's classes space them: one more step than asked for, the last one at the end
    /// of the walk, where nothing is evaluated; `clipped` time steps at the noisy end are left out.
    pub fn one_more(
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
        within(train, times, steps, offset)
    }

    /// The time steps, whole, largest first, each below `train`.
    pub fn visits(self, train: usize, steps: usize, offset: usize) -> Result<Vec<usize>, SettingsError> {
        let times =
            self.fractional(train, steps, offset).into_iter().map(|t| t.round_ties_even().max(0.0)).collect();
        Ok(within(train, times, steps, offset)?.into_iter().map(|t| t as usize).collect())
    }
}

/// The time steps, where the first lies within the schedule.
fn within(train: usize, times: Vec<f64>, steps: usize, offset: usize) -> Result<Vec<f64>, SettingsError> {
    if times[0] < train as f64 {
        return Ok(times);
    }
    let reason =
        format!("with {steps} steps the first time step would be {}, but the schedule has {train}", times[0]);
    Err(SettingsError::refused("steps_offset", offset, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(spacing: TimestepSpacing, steps: usize, offset: usize) -> Vec<usize> {
        spacing.visits(1000, steps, offset).unwrap()
    }

    #[test]
    fn an_offset_past_the_schedule_is_refused() {
        let error = TimestepSpacing::Leading.visits(1000, 1000, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "steps_offset = 1 is refused: with 1000 steps the first time step would be 1000, \
             but the schedule has 1000"
        );
    }

    #[test]
    fn spacings_are_those_of_the_reference() {
        assert_eq!(visits(TimestepSpacing::Linspace, 4, 0), [999, 666, 333, 0]);
        assert_eq!(visits(TimestepSpacing::Leading, 4, 1), [751, 501, 251, 1]);
        assert_eq!(visits(TimestepSpacing::Trailing, 4, 0), [999, 749, 499, 249]);
        // 62.5 and 187.5 go to the even neighbour.
        let trailing = visits(TimestepSpacing::Trailing, 16, 0);
        assert_eq!(trailing[..3], [999, 937, 874]);
        assert_eq!(trailing[15], 61);
    }

    #[test]
    fn one_step_is_the_last_time_step_only_when_trailing() {
        assert_eq!(visits(TimestepSpacing::Trailing, 1, 0), [999]);
        assert_eq!(visits(TimestepSpacing::Leading, 1, 0), [0]);
        assert_eq!(visits(TimestepSpacing::Linspace, 1, 0), [0]);
    }
}
