//! Schedules of noise levels σ, and the conversion between σ and the time steps of a noise schedule.
//!
//! σ is the standard deviation of the noise relative to the signal (Karras et al. 2022).

use statrs::distribution::{Beta, ContinuousCDF};

use super::noise_schedule::{NoiseSchedule, linspace, round};
use super::scheduler_settings::{Settings, SettingsError};

/// How the noise levels of a sampler are distributed between the largest and the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigmaSchedule {
    /// The noise schedule's own levels at the sampler's time steps.
    Timesteps,
    /// Uniform in σ^(1/ρ), with ρ = 7 by default (Karras et al. 2022, eq. 5).
    Karras,
    /// Uniform in log σ.
    Exponential,
    /// log σ is a power of the uniform position (`get_sigmas_polyexponential` of k-diffusion).
    Polyexponential,
    /// The quantiles of the Beta(0.6, 0.6) distribution (Lee et al. 2024).
    Beta,
    /// Uniform in log σ, with λ rounded to f32 (Lu et al. 2022, DPM-Solver, section 3.4).
    Lu,
    /// The straight path of flow matching (Lipman et al. 2023).
    Flow,
}

impl SigmaSchedule {
    /// Every schedule that a key selects: the schedule, its key in scheduler_config.json, and the suffix of a sampler's
    /// name that selects it.
    pub(crate) const KEYS: [(Self, &'static str, &'static str); 6] = [
        (Self::Karras, "use_karras_sigmas", "karras"),
        (Self::Exponential, "use_exponential_sigmas", "exponential"),
        (Self::Polyexponential, "use_polyexponential_sigmas", "polyexponential"),
        (Self::Beta, "use_beta_sigmas", "beta"),
        (Self::Lu, "use_lu_lambdas", "lu"),
        (Self::Flow, "use_flow_sigmas", "flow"),
    ];

    /// The schedule that the configuration selects, for a class that supports these.
    ///
    /// # Errors
    ///
    /// If the keys of two schedules are set.
    pub(crate) fn from_settings(settings: &mut Settings, supported: &[Self]) -> Result<Self, SettingsError> {
        let mut found: Option<(Self, &str)> = None;
        for (schedule, key, _) in Self::KEYS.into_iter().filter(|(schedule, ..)| supported.contains(schedule))
        {
            if !settings.flag(key, false)? {
                continue;
            }
            if let Some((_, other)) = found {
                return Err(SettingsError::refused(key, true, format!("{other} is set as well")));
            }
            found = Some((schedule, key));
        }
        Ok(found.map_or(Self::Timesteps, |(schedule, _)| schedule))
    }
}

/// `n` noise levels from `max` to `min`, uniform in σ^(1/ρ) (Karras et al. 2022, eq. 5; the paper has ρ = 7).
pub fn karras(max: f64, min: f64, rho: f64, n: usize) -> Vec<f64> {
    karras_at(max, min, rho, linspace(0.0, 1.0, n))
}

/// The noise levels of [`karras`] at these positions, from 0 for `max` to 1 for `min`.
pub(crate) fn karras_at(max: f64, min: f64, rho: f64, positions: impl Iterator<Item = f64>) -> Vec<f64> {
    let (high, low) = (max.powf(1.0 / rho), min.powf(1.0 / rho));
    positions.map(|at| (high + at * (low - high)).powf(rho)).collect()
}

/// `n` noise levels from `max` to `min`, uniform in log σ.
pub fn exponential(max: f64, min: f64, n: usize) -> Vec<f64> {
    linspace(max.ln(), min.ln(), n).map(f64::exp).collect()
}

/// `n` noise levels from `max` to `min`: log σ falls as the power `rho` of a uniform position
/// (`get_sigmas_polyexponential` of k-diffusion).
pub fn polyexponential(max: f64, min: f64, rho: f64, n: usize) -> Vec<f64> {
    let width = max.ln() - min.ln();
    linspace(1.0, 0.0, n).map(|at| (at.powf(rho) * width + min.ln()).exp()).collect()
}

/// `n` noise levels from `max` to `min` at the quantiles of Beta(0.6, 0.6) (Lee et al. 2024).
pub fn beta(max: f64, min: f64, n: usize) -> Vec<f64> {
    // Beta::new fails only for a shape that is not positive.
    let quantile = |p: f64| Beta::new(0.6, 0.6).map_or(p, |beta| beta.inverse_cdf(p));
    linspace(0.0, 1.0, n).map(|at| min + quantile(1.0 - at) * (max - min)).collect()
}

/// A noise level 0 ≤ σ ≤ 1 of flow matching after the time shift for large images (Esser et al. 2024, eq. 23).
pub fn shift_sigma(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The noise levels of a noise schedule, interpolated between its time steps.
#[derive(Debug, Clone)]
pub struct SigmaTable {
    sigmas: Vec<f64>,
    logs: Vec<f64>,
}

impl SigmaTable {
    /// The table of a schedule.
    pub fn new(schedule: &NoiseSchedule) -> Self {
        let sigmas: Vec<f64> = schedule.sigmas().collect();
        let logs = sigmas.iter().map(|sigma| round(sigma.ln())).collect();
        Self { sigmas, logs }
    }

    /// The smallest noise level, that of time step 0.
    pub fn min(&self) -> f64 {
        self.sigmas[0]
    }

    /// The largest noise level, that of time step T−1.
    pub fn max(&self) -> f64 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// σ at a fractional time step; σ is interpolated linearly, as in diffusers.
    pub fn sigma_at(&self, t: f64) -> f64 {
        interpolate(&self.sigmas, t)
    }

    /// σ at a fractional time step; log σ is interpolated linearly (`t_to_sigma` of k-diffusion).
    pub fn t_to_sigma(&self, t: f64) -> f64 {
        interpolate(&self.logs, t).exp()
    }

    /// The fractional time step with this σ; log σ is interpolated linearly (`sigma_to_t` of k-diffusion).
    pub fn sigma_to_t(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        let above = self.logs.partition_point(|known| *known <= log);
        let low = above.saturating_sub(1).min(self.logs.len() - 2);
        let (below, beyond) = (self.logs[low], self.logs[low + 1]);
        let share = ((below - log) / round(below - beyond)).clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * (low + 1) as f64
    }
}

/// Linear interpolation between whole indices; constant beyond the ends.
fn interpolate(values: &[f64], at: f64) -> f64 {
    let at = at.clamp(0.0, (values.len() - 1) as f64);
    let below = values[at as usize];
    let above = values[(at as usize + 1).min(values.len() - 1)];
    // The sum would be NaN next to an infinite value.
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
        fn every_schedule_decreases_from_max_to_min(
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
        fn sigma_to_t_inverts_t_to_sigma(t in 0.0..999.0_f64) {
            let schedule = NoiseSchedule::new(&BetaSchedule::Linear, 1e-4, 0.02, 1000).unwrap();
            let table = SigmaTable::new(&schedule);
            prop_assert!((table.sigma_to_t(table.t_to_sigma(t)) - t).abs() < 1e-3);
        }
    }
}
