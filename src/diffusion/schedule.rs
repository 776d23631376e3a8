//! Noise schedules: β_t of the forward process and what follows from it.
//!
//! Notation of DDPM (Ho et al. 2020, section 2): α_t = 1 − β_t and ᾱ_t = ∏ α_s. Values are kept
//! in f64, but β_t and ᾱ_t are first rounded to f32, because the networks were trained with the
//! rounded ones: at small t the difference is larger than a solver's own error.

use super::settings::{Settings, SettingsError};

/// The family of curves from which β_t is taken.
#[derive(Debug, Clone, PartialEq)]
pub enum BetaSchedule {
    /// β_t linear in t (Ho et al. 2020, section 4).
    Linear,
    /// √β_t linear in t (Rombach et al. 2022, latent diffusion).
    ScaledLinear,
    /// ᾱ_t = cos²(π/2 · (t/T + 0.008)/1.008), β_t at most 0.999 (Nichol & Dhariwal 2021, eq. 17).
    SquaredCosCapV2,
    /// β_t a logistic curve over −6..6.
    Sigmoid,
    /// β_t given one by one.
    Trained(Vec<f64>),
}

/// β_t and ᾱ_t for t = 0 … T−1.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
}

/// ᾱ at one point of a schedule as the pair (√ᾱ, √(1−ᾱ)): how much of x_t is signal, how much
/// noise (Ho et al. 2020, eq. 4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// √ᾱ, the signal's share.
    pub alpha: f64,
    /// √(1−ᾱ), the noise's share.
    pub sigma: f64,
}

impl Level {
    /// The level at which ᾱ has this value, 0 ≤ ᾱ ≤ 1.
    pub fn from_alpha_bar(alpha_bar: f64) -> Self {
        Self { alpha: alpha_bar.sqrt(), sigma: (1.0 - alpha_bar).sqrt() }
    }
}

/// A schedule that can't be made of the given numbers.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ScheduleError {
    /// T is 0, or so large that it can only be a mistake.
    #[error("num_train_timesteps is {0}, but must be between 1 and 100,000")]
    Length(usize),
    /// Some β_t lies outside 0 < β_t < 1.
    #[error("beta at time step {t} is {beta}, but must lie between 0 and 1")]
    Beta {
        /// The time step.
        t: usize,
        /// Its β.
        beta: f64,
    },
    /// `trained_betas` and `num_train_timesteps` disagree.
    #[error("trained_betas has {given} values, but num_train_timesteps is {expected}")]
    TrainedLength {
        /// How many there are.
        given: usize,
        /// How many there should be.
        expected: usize,
    },
}

impl NoiseSchedule {
    /// The schedule of `steps` time steps between `start` and `end` (used by the linear,
    /// scaled-linear and sigmoid curves).
    pub fn new(kind: &BetaSchedule, start: f64, end: f64, steps: usize) -> Result<Self, ScheduleError> {
        if !(1..=100_000).contains(&steps) {
            return Err(ScheduleError::Length(steps));
        }
        let betas: Vec<f64> = match kind {
            BetaSchedule::Linear => linspace(start, end, steps).collect(),
            BetaSchedule::ScaledLinear => {
                linspace(start.sqrt(), end.sqrt(), steps).map(|root| round(root) * round(root)).collect()
            }
            BetaSchedule::SquaredCosCapV2 => cosine(steps).collect(),
            BetaSchedule::Sigmoid => {
                linspace(-6.0, 6.0, steps).map(|x| (end - start) / (1.0 + (-x).exp()) + start).collect()
            }
            BetaSchedule::Trained(betas) if betas.len() == steps => betas.clone(),
            BetaSchedule::Trained(betas) => {
                return Err(ScheduleError::TrainedLength { given: betas.len(), expected: steps });
            }
        };
        Self::from_betas(betas)
    }

    /// The schedule with these β_t, each between 0 and 1.
    pub fn from_betas(betas: Vec<f64>) -> Result<Self, ScheduleError> {
        let betas: Vec<f64> = betas.into_iter().map(round).collect();
        if let Some((t, &beta)) = betas.iter().enumerate().find(|(_, beta)| !(0.0 < **beta && **beta < 1.0)) {
            return Err(ScheduleError::Beta { t, beta });
        }
        let alphas_cumprod = betas
            .iter()
            .scan(1.0, |product, beta| {
                *product *= round(1.0 - beta);
                Some(round(*product))
            })
            .collect();
        Ok(Self { betas, alphas_cumprod })
    }

    /// The schedule that a scheduler configuration describes; `start` and `end` are the class's
    /// own defaults for `beta_start` and `beta_end`.
    pub fn from_settings(settings: &mut Settings, start: f64, end: f64) -> Result<Self, SettingsError> {
        let steps = settings.count("num_train_timesteps", 1000)?;
        let trained = settings.numbers("trained_betas")?;
        let start = settings.number("beta_start", start)?;
        let end = settings.number("beta_end", end)?;
        let kind = match settings.text("beta_schedule", "linear")?.as_str() {
            _ if trained.is_some() => BetaSchedule::Trained(trained.unwrap_or_default()),
            "linear" => BetaSchedule::Linear,
            "scaled_linear" => BetaSchedule::ScaledLinear,
            "squaredcos_cap_v2" => BetaSchedule::SquaredCosCapV2,
            "sigmoid" => BetaSchedule::Sigmoid,
            other => {
                return Err(SettingsError::refused(
                    "beta_schedule",
                    other,
                    "it is none of linear, scaled_linear, squaredcos_cap_v2, sigmoid",
                ));
            }
        };
        let schedule = Self::new(&kind, start, end, steps)
            .map_err(|error| SettingsError::Schedule(error.to_string()))?;
        Ok(if settings.flag("rescale_betas_zero_snr", false)? {
            schedule.rescaled_to_zero_snr()
        } else {
            schedule
        })
    }

    /// The same curve shifted and scaled so that ᾱ at the last step is 0 and the first stays
    /// (Lin et al. 2024, algorithm 1).
    pub fn rescaled_to_zero_snr(&self) -> Self {
        let roots: Vec<f64> = self.alphas_cumprod.iter().map(|a| a.sqrt()).collect();
        let (first, last) = (roots[0], roots[roots.len() - 1]);
        let alphas_cumprod: Vec<f64> =
            roots.iter().map(|root| round(((root - last) * first / (first - last)).powi(2))).collect();
        let betas = alphas_cumprod
            .iter()
            .scan(1.0, |before, now| {
                let alpha = now / *before;
                *before = *now;
                Some(round(1.0 - alpha))
            })
            .collect();
        Self { betas, alphas_cumprod }
    }

    /// T, the number of time steps of the forward process.
    pub fn len(&self) -> usize {
        self.betas.len()
    }

    /// Never true: a schedule has at least one time step.
    pub fn is_empty(&self) -> bool {
        self.betas.is_empty()
    }

    /// β_t for t = 0 … T−1.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱ_t for t = 0 … T−1.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// σ_t = √((1−ᾱ_t)/ᾱ_t): the noise level where the signal is not scaled down
    /// (Karras et al. 2022, table 1).
    pub fn sigmas(&self) -> impl Iterator<Item = f64> + '_ {
        self.alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt())
    }
}

/// The value as the nearest f32.
pub(crate) fn round(x: f64) -> f64 {
    f64::from(x as f32)
}

/// `n` evenly spaced values from `start` to `end`, both included.
pub fn linspace(start: f64, end: f64, n: usize) -> impl DoubleEndedIterator<Item = f64> {
    let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
    (0..n).map(move |i| if i + 1 == n && n > 1 { end } else { start + step * i as f64 })
}

fn cosine(steps: usize) -> impl Iterator<Item = f64> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    (0..steps).map(move |t| {
        let (now, next) = (t as f64 / steps as f64, (t + 1) as f64 / steps as f64);
        (1.0 - alpha_bar(next) / alpha_bar(now)).min(0.999)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ddpm_schedule_has_the_published_ends() {
        let s = NoiseSchedule::new(&BetaSchedule::Linear, 1e-4, 0.02, 1000).unwrap();
        assert_eq!(s.betas()[0], f64::from(1e-4_f32));
        assert_eq!(s.betas()[999], f64::from(0.02_f32));
        assert!((s.alphas_cumprod()[999] - 4.035_83e-5).abs() < 1e-9);
    }

    #[test]
    fn cosine_betas_are_capped() {
        let s = NoiseSchedule::new(&BetaSchedule::SquaredCosCapV2, 0.0, 0.0, 1000).unwrap();
        assert_eq!(s.betas()[999], f64::from(0.999_f32));
        assert!((s.alphas_cumprod()[499] - 0.493_8).abs() < 1e-3);
    }

    #[test]
    fn zero_snr_ends_in_pure_noise_and_keeps_the_start() {
        let s = NoiseSchedule::new(&BetaSchedule::ScaledLinear, 0.00085, 0.012, 1000).unwrap();
        let z = s.rescaled_to_zero_snr();
        assert_eq!(z.alphas_cumprod()[999], 0.0);
        assert!((z.alphas_cumprod()[0] - s.alphas_cumprod()[0]).abs() < 1e-7);
    }

    #[test]
    fn impossible_schedules_are_refused() {
        let beta = NoiseSchedule::from_betas(vec![0.1, 1.5]).unwrap_err();
        assert_eq!(beta, ScheduleError::Beta { t: 1, beta: 1.5 });
        let length = NoiseSchedule::new(&BetaSchedule::Linear, 0.1, 0.2, 0).unwrap_err();
        assert_eq!(length, ScheduleError::Length(0));
        let trained = NoiseSchedule::new(&BetaSchedule::Trained(vec![0.1]), 0.0, 0.0, 2).unwrap_err();
        assert_eq!(trained, ScheduleError::TrainedLength { given: 1, expected: 2 });
    }
}
