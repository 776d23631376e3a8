//! Noise levels between two ends, and the time step at which a schedule has a level.
//!
//! σ is the noise's standard deviation beside an unscaled signal (Karras et al. 2022).

use statrs::distribution::{Beta, ContinuousCDF};

use super::noise_schedule::{NoiseSchedule, linspace, round};
use super::scheduler_settings::{Settings, SettingsError};

/// How noise levels are spread between the largest and the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigmaSchedule {
    /// Those that the schedule has at evenly spaced time steps.
    Schedule,
    /// Evenly in σ^(1/ρ), ρ = 7 unless told (Karras et al. 2022, eq. 5).
    Karras,
    /// Evenly in log σ.
    Exponential,
    /// Evenly in a power of the way through log σ (Crowson, k-diffusion).
    Polyexponential,
    /// By the quantiles of the Beta(0.6, 0.6) distribution (Lee et al. 2024).
    Beta,
    /// Evenly in log σ with the schedule's own ends (Lu et al. 2022, DPM-Solver, section 3.4).
    Lu,
    /// Along the straight path of flow matching (Lipman et al. 2023).
    Flow,
}

impl SigmaSchedule {
    /// Every spread that has a key of its own, with that key and the suffix by which a sampler's
    /// name asks for it.
    pub const KEYS: [(Self, &'static str, &'static str); 6] = [
        (Self::Karras, "use_karras_sigmas", "karras"),
        (Self::Exponential, "use_exponential_sigmas", "exponential"),
        (Self::Polyexponential, "use_polyexponential_sigmas", "polyexponential"),
        (Self::Beta, "use_beta_sigmas", "beta"),
        (Self::Lu, "use_lu_lambdas", "lu"),
        (Self::Flow, "use_flow_sigmas", "flow"),
    ];

    /// The spread whose key is set, for a class that has these.
    pub fn from_settings(settings: &mut Settings, served: &[Self]) -> Result<Self, SettingsError> {
        let mut found: Option<(Self, &str)> = None;
        for (spread, key, _) in Self::KEYS.into_iter().filter(|(spread, ..)| served.contains(spread)) {
            if !settings.flag(key, false)? {
                continue;
            }
            if let Some((_, other)) = found {
                return Err(SettingsError::refused(key, true, format!("{other} is set as well")));
            }
            found = Some((spread, key));
        }
        Ok(found.map_or(Self::Schedule, |(spread, _)| spread))
    }
}

/// `n` levels by σ^(1/ρ), the largest first (Karras et al. 2022, eq. 5).
pub fn karras(max: f64, min: f64, rho: f64, n: usize) -> Vec<f64> {
    karras_along(max, min, rho, linspace(0.0, 1.0, n))
}

/// The levels of [`karras`] at these places between 0 (the largest) and 1.
pub fn karras_along(max: f64, min: f64, rho: f64, ramp: impl Iterator<Item = f64>) -> Vec<f64> {
    let (high, low) = (max.powf(1.0 / rho), min.powf(1.0 / rho));
    ramp.map(|at| (high + at * (low - high)).powf(rho)).collect()
}

/// `n` levels evenly in log σ, the largest first.
pub fn exponential(max: f64, min: f64, n: usize) -> Vec<f64> {
    linspace(max.ln(), min.ln(), n).map(f64::exp).collect()
}

/// `n` levels with log σ a power ρ of the way through, the largest first.
pub fn polyexponential(max: f64, min: f64, rho: f64, n: usize) -> Vec<f64> {
    let width = max.ln() - min.ln();
    linspace(1.0, 0.0, n).map(|at| (at.powf(rho) * width + min.ln()).exp()).collect()
}

/// `n` levels by the quantiles of Beta(0.6, 0.6), the largest first.
pub fn beta(max: f64, min: f64, n: usize) -> Vec<f64> {
    // A constant shape of more than 0 is always a distribution.
    let quantile = |p: f64| Beta::new(0.6, 0.6).map_or(p, |beta| beta.inverse_cdf(p));
    linspace(0.0, 1.0, n).map(|at| min + quantile(1.0 - at) * (max - min)).collect()
}

/// A level on the straight path after the shift that large images need
/// (Esser et al. 2024, eq. 23).
pub fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The noise levels of a schedule, to be asked between its time steps.
#[derive(Debug, Clone)]
pub struct SigmaTable {
    sigmas: Vec<f64>,
    logs: Vec<f64>,
}

impl SigmaTable {
    /// The levels of a schedule.
    pub fn of(schedule: &NoiseSchedule) -> Self {
        let sigmas: Vec<f64> = schedule.sigmas().collect();
        let logs = sigmas.iter().map(|sigma| round(sigma.ln())).collect();
        Self { sigmas, logs }
    }

    /// The smallest level, that of the first time step.
    pub fn min(&self) -> f64 {
        self.sigmas[0]
    }

    /// The largest level, that of the last time step.
    pub fn max(&self) -> f64 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// σ at a fractional time step, on straight lines between whole ones.
    pub fn at(&self, t: f64) -> f64 {
        interpolate(&self.sigmas, t)
    }

    /// σ at a fractional time step, log σ on straight lines between whole ones (k-diffusion).
    pub fn at_by_log(&self, t: f64) -> f64 {
        interpolate(&self.logs, t).exp()
    }

    /// The fractional time step at which the schedule has this σ, log σ on straight lines.
    pub fn time_of(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        let above = self.logs.partition_point(|known| *known <= log);
        let low = above.saturating_sub(1).min(self.logs.len() - 2);
        let (below, beyond) = (self.logs[low], self.logs[low + 1]);
        let share = ((below - log) / round(below - beyond)).clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * (low + 1) as f64
    }
}

/// The values between whole indices, by straight lines; constant beyond the ends.
fn interpolate(values: &[f64], at: f64) -> f64 {
    let at = at.clamp(0.0, (values.len() - 1) as f64);
    let below = values[at as usize];
    let above = values[(at as usize + 1).min(values.len() - 1)];
    // A whole index next to an infinite value is still its own.
    if at.fract() == 0.0 { below } else { below + (above - below) * at.fract() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise_schedule::BetaSchedule;
    use proptest::prelude::*;

    #[test]
    fn interpolation_is_linear_and_stops_at_the_ends() {
        let values = [0.0, 10.0, 40.0];
        assert_eq!(interpolate(&values, 0.25), 2.5);
        assert_eq!(interpolate(&values, 1.5), 25.0);
        assert_eq!(interpolate(&values, 2.0), 40.0);
        assert_eq!(interpolate(&values, 7.0), 40.0);
    }

    #[test]
    fn beta_levels_are_scipys() {
        // scipy.stats.beta.ppf(0.25, 0.6, 0.6) and of 0.5.
        let levels = beta(1.0, 0.0, 5);
        assert!((levels[3] - 0.175_680_378_652_695).abs() < 1e-12, "{levels:?}");
        assert!((levels[2] - 0.5).abs() < 1e-12);
        assert_eq!((levels[0], levels[4]), (1.0, 0.0));
    }

    proptest! {
        #[test]
        fn every_spread_falls_from_end_to_end(
            max in 1.0..200.0_f64,
            min in 0.001..0.5_f64,
            n in 2_usize..60,
            rho in 1.0..8.0_f64,
        ) {
            for levels in [
                karras(max, min, rho, n),
                exponential(max, min, n),
                polyexponential(max, min, rho, n),
                beta(max, min, n),
            ] {
                prop_assert_eq!(levels.len(), n);
                prop_assert!((levels[0] / max - 1.0).abs() < 1e-9);
                prop_assert!((levels[n - 1] / min - 1.0).abs() < 1e-9);
                prop_assert!(levels.windows(2).all(|pair| pair[0] > pair[1]));
            }
        }

        #[test]
        fn a_levels_time_step_leads_back_to_it(t in 0.0..999.0_f64) {
            let schedule = NoiseSchedule::new(&BetaSchedule::AffinePrediction, 1e-4, 0.02, 1000).unwrap();
            let table = SigmaTable::of(&schedule);
            prop_assert!((table.time_of(table.at_by_log(t)) - t).abs() < 1e-3);
        }
    }
}
