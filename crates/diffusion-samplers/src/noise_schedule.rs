//! Noise schedules: β_t and ᾱ_t of the forward process.
//!
//! The notation is that of DDPM (Ho et al. 2020, section 2): α_t = 1 − β_t and ᾱ_t = ∏ α_s. Values are stored as f64,
//! but β_t and ᾱ_t are first rounded to f32, because the models were trained with the rounded values. At small t the
//! difference is larger than the error of a solver.

use super::scheduler_settings::{Settings, SettingsError, Value};

/// The largest `num_train_timesteps`.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

/// The curve of β_t: `beta_schedule` of diffusers' schedulers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BetaSchedule {
    /// β_t is linear in t (Ho et al. 2020, section 4).
    Linear,
    /// √β_t is linear in t (Rombach et al. 2022, latent diffusion).
    ScaledLinear,
    /// ᾱ_t = cos²(π/2 · (t/T + 0.008)/1.008), β_t at most 0.999 (Nichol & Dhariwal 2021, eq. 17).
    SquaredCosCapV2,
    /// ᾱ_t = e^{−12 t/T}, β_t at most 0.999 (`exp` of diffusers).
    Exp,
    /// β_t is a logistic curve over −6 … 6 (`sigmoid` of diffusers).
    Sigmoid,
    /// The values β_t themselves (`trained_betas` of diffusers).
    Trained(Vec<f64>),
}

/// β_t and ᾱ_t for t = 0 … T−1.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
}

/// The scales of signal and noise in a state x_t = α·x₀ + σ·ε (Ho et al. 2020, eq. 4).
///
/// They are (√ᾱ, √(1−ᾱ)) for a variance-preserving process, (1, σ) for a variance-exploding one, and (1−σ, σ) for
/// flow matching.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    /// The scale of the signal x₀.
    pub alpha: f64,
    /// The scale of the noise, a standard deviation.
    pub sigma: f64,
}

impl NoiseLevel {
    /// The variance-preserving level (√ᾱ, √(1−ᾱ)), for ᾱ between 0 and 1.
    pub fn from_alpha_bar(alpha_bar: f64) -> Self {
        Self { alpha: alpha_bar.sqrt(), sigma: (1.0 - alpha_bar).sqrt() }
    }

    /// The variance-preserving level, α² + σ² = 1, with this ratio σ/α (the σ of Karras et al. 2022).
    pub fn from_sigma(sigma: f64) -> Self {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { alpha, sigma: sigma * alpha }
    }

    /// λ = log(α/σ), half the logarithm of the signal-to-noise ratio (Lu et al. 2022, section 3.1).
    ///
    /// It is rounded to f32 as in diffusers: a step of a solver is a small difference of two of these values.
    pub fn lambda(self) -> f64 {
        round(round(self.alpha.ln()) - round(self.sigma.ln()))
    }
}

/// The defaults that a scheduler class has for the keys of its noise schedule.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleDefaults {
    /// `beta_start`.
    pub beta_start: f64,
    /// `beta_end`.
    pub beta_end: f64,
    /// `beta_schedule`.
    pub beta_schedule: &'static str,
    /// The support for `rescale_betas_zero_snr`.
    pub zero_snr: ZeroSnr,
}

/// How a scheduler class supports a schedule that ends in pure noise, ᾱ_T = 0 (Lin et al. 2024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroSnr {
    /// It is an error.
    Unsupported,
    /// ᾱ_T = 0.
    Exact,
    /// ᾱ_T = 2⁻²⁴, so that σ_T = 4096 is finite.
    Approximate,
}

impl ScheduleDefaults {
    /// The schedule of DDPM (Ho et al. 2020, section 4).
    pub const DDPM: Self =
        Self { beta_start: 1e-4, beta_end: 0.02, beta_schedule: "linear", zero_snr: ZeroSnr::Unsupported };
    /// The schedule of latent diffusion (Rombach et al. 2022).
    pub const LATENT: Self = Self { beta_start: 0.00085, beta_end: 0.012, ..Self::DDPM };

    /// The same defaults with this support for `rescale_betas_zero_snr`.
    pub const fn with_zero_snr(self, zero_snr: ZeroSnr) -> Self {
        Self { zero_snr, ..self }
    }
}

/// An error in the numbers of a noise schedule.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// T is not between 1 and 100,000.
    #[error("num_train_timesteps is {0}, but must be a whole number from 1 to 100000")]
    Length(usize),
    /// A β_t is not in 0 < β_t < 1.
    #[error("beta at time step {t} is {beta}, but must be greater than 0 and less than 1")]
    Beta {
        /// The time step.
        t: usize,
        /// β_t.
        beta: f64,
    },
    /// `trained_betas` does not have `num_train_timesteps` values.
    #[error("trained_betas has {given} values, but num_train_timesteps is {expected}")]
    TrainedLength {
        /// The number of values.
        given: usize,
        /// `num_train_timesteps`.
        expected: usize,
    },
}

impl NoiseSchedule {
    /// A schedule of `steps` time steps along a curve. `start` is β_0 and `end` is β_{T−1} for the linear, scaled
    /// linear and sigmoid curves; the others ignore both.
    ///
    /// # Errors
    ///
    /// If `steps` is not between 1 and 100,000, if a β_t is not between 0 and 1, or if the number of trained values is
    /// not `steps`.
    pub fn new(curve: &BetaSchedule, start: f64, end: f64, steps: usize) -> Result<Self, ScheduleError> {
        if !(1..=MAX_TRAIN_TIMESTEPS).contains(&steps) {
            return Err(ScheduleError::Length(steps));
        }
        let betas: Vec<f64> = match curve {
            BetaSchedule::Linear => linspace32(start as f32, end as f32, steps).map(f64::from).collect(),
            BetaSchedule::ScaledLinear => linspace32(start.sqrt() as f32, end.sqrt() as f32, steps)
                .map(|root| f64::from(root * root))
                .collect(),
            BetaSchedule::SquaredCosCapV2 => {
                capped(steps, |t| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2))
            }
            BetaSchedule::Exp => capped(steps, |t| (-12.0 * t).exp()),
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

    /// The schedule with these β_t.
    ///
    /// # Errors
    ///
    /// If a β_t is not between 0 and 1.
    pub fn from_betas(betas: Vec<f64>) -> Result<Self, ScheduleError> {
        let betas: Vec<f64> = betas.into_iter().map(round).collect();
        if let Some((t, &beta)) = betas.iter().enumerate().find(|(_, beta)| !is_beta(**beta)) {
            return Err(ScheduleError::Beta { t, beta });
        }
        Ok(Self { alphas_cumprod: cumulative_products(&betas), betas })
    }

    /// The schedule of a scheduler configuration, with the defaults of its class. Reads `num_train_timesteps`,
    /// `trained_betas`, `beta_start`, `beta_end`, `beta_schedule` and `rescale_betas_zero_snr`.
    ///
    /// # Errors
    ///
    /// If a key has a value of the wrong type, or one that gives no schedule.
    pub fn from_settings(settings: &mut Settings, defaults: ScheduleDefaults) -> Result<Self, SettingsError> {
        let steps = num_train_timesteps(settings, 1000)?;
        let trained = settings.numbers("trained_betas")?;
        let is_trained = trained.is_some();
        let start = settings.number_if(!is_trained, "beta_start", defaults.beta_start)?;
        let end = settings.number_if(!is_trained, "beta_end", defaults.beta_end)?;
        let curve = match settings.text("beta_schedule", defaults.beta_schedule)?.as_str() {
            _ if trained.is_some() => BetaSchedule::Trained(trained.unwrap_or_default()),
            "linear" => BetaSchedule::Linear,
            "scaled_linear" => BetaSchedule::ScaledLinear,
            "squaredcos_cap_v2" => BetaSchedule::SquaredCosCapV2,
            "exp" => BetaSchedule::Exp,
            "sigmoid" => BetaSchedule::Sigmoid,
            other => {
                return Err(SettingsError::refused(
                    "beta_schedule",
                    other,
                    "it is none of linear, scaled_linear, squaredcos_cap_v2, exp, sigmoid",
                ));
            }
        };
        match curve {
            BetaSchedule::Trained(_) => {
                let keys = ["beta_start", "beta_end", "beta_schedule"];
                settings.switch_off(&keys, "trained_betas has the values");
            }
            BetaSchedule::SquaredCosCapV2 | BetaSchedule::Exp => {
                settings.switch_off(&["beta_start", "beta_end"], "the curve of this beta_schedule has none");
            }
            BetaSchedule::Linear | BetaSchedule::ScaledLinear | BetaSchedule::Sigmoid => {}
        }
        let schedule =
            Self::new(&curve, start, end, steps).map_err(|error| with_key(error, &curve, start, end))?;
        if !settings.flag("rescale_betas_zero_snr", false)? {
            return Ok(schedule);
        }
        let mut rescaled = schedule.rescaled_to_zero_snr();
        match defaults.zero_snr {
            ZeroSnr::Exact => {}
            ZeroSnr::Approximate => rescaled.alphas_cumprod[steps - 1] = 2.0_f64.powi(-24),
            ZeroSnr::Unsupported => {
                let reason = "this sampler has no step from pure noise; set it to false";
                return Err(SettingsError::refused("rescale_betas_zero_snr", true, reason));
            }
        }
        Ok(rescaled)
    }

    /// The same curve, shifted and scaled so that ᾱ is 0 at the last time step and unchanged at the first
    /// (Lin et al. 2024, algorithm 1).
    ///
    /// The computation is in f32, as it was for training: β_t near 1 differ otherwise.
    pub fn rescaled_to_zero_snr(&self) -> Self {
        let roots: Vec<f32> = self.alphas_cumprod.iter().map(|a| (*a as f32).sqrt()).collect();
        let (first, last) = (roots[0], roots[roots.len() - 1]);
        let factor = first / (first - last);
        let bars: Vec<f32> = roots.iter().map(|root| ((root - last) * factor).powi(2)).collect();
        let ratios = std::iter::once(bars[0]).chain(bars.windows(2).map(|pair| pair[1] / pair[0]));
        let betas: Vec<f64> = ratios.map(|alpha| f64::from(1.0 - alpha)).collect();
        Self { alphas_cumprod: cumulative_products(&betas), betas }
    }

    /// T, the number of time steps of the forward process: at least 1.
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.len()
    }

    /// β_t for t = 0 … T−1.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱ_t for t = 0 … T−1.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// σ_t = √((1−ᾱ_t)/ᾱ_t) for t = 0 … T−1: the standard deviation of the noise relative to the signal
    /// (Karras et al. 2022, table 1). It is rounded to f32 as in diffusers.
    pub fn sigmas(&self) -> impl DoubleEndedIterator<Item = f64> + '_ {
        self.alphas_cumprod.iter().map(|a| {
            let a = *a as f32;
            f64::from(((1.0 - a) / a).sqrt())
        })
    }
}

/// Reads `num_train_timesteps`, from 1 to 100,000.
pub(crate) fn num_train_timesteps(settings: &mut Settings, default: usize) -> Result<usize, SettingsError> {
    settings.count_within("num_train_timesteps", default, 1..=MAX_TRAIN_TIMESTEPS)
}

/// The error in a schedule, with the key at fault. A curve between two values leaves the range where one of them does.
fn with_key(error: ScheduleError, curve: &BetaSchedule, start: f64, end: f64) -> SettingsError {
    let range = "greater than 0 and less than 1";
    match (error, curve) {
        (ScheduleError::Beta { t, beta }, BetaSchedule::Trained(_)) => {
            SettingsError::out_of_range(&format!("trained_betas[{t}]"), beta, range)
        }
        (ScheduleError::Beta { .. }, _) if !is_beta(round(start)) => {
            SettingsError::out_of_range("beta_start", Value::Number(start), range)
        }
        (ScheduleError::Beta { .. }, _) if !is_beta(round(end)) => {
            SettingsError::out_of_range("beta_end", Value::Number(end), range)
        }
        (error, _) => SettingsError::Schedule(error.to_string()),
    }
}

fn is_beta(beta: f64) -> bool {
    0.0 < beta && beta < 1.0
}

/// Rounds to the nearest f32.
pub(crate) fn round(x: f64) -> f64 {
    f64::from(x as f32)
}

/// `n` evenly spaced values from `start` to `end`, both included.
pub(crate) fn linspace(start: f64, end: f64, n: usize) -> impl DoubleEndedIterator<Item = f64> {
    let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
    (0..n).map(move |i| if i + 1 == n && n > 1 { end } else { start + step * i as f64 })
}

/// `n` evenly spaced values in f32, computed from both ends towards the middle with a single rounding each, as
/// `torch.linspace` does.
pub(crate) fn linspace32(start: f32, end: f32, n: usize) -> impl Iterator<Item = f32> {
    let step = if n > 1 { (end - start) / (n - 1) as f32 } else { 0.0 };
    (0..n).map(move |i| {
        if i < n / 2 || n == 1 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((n - 1 - i) as f32, end)
        }
    })
}

/// ᾱ_t = ∏ (1 − β_s). The running product is in f64; each result is rounded to f32.
fn cumulative_products(betas: &[f64]) -> Vec<f64> {
    betas
        .iter()
        .scan(1.0, |product, beta| {
            *product *= round(1.0 - beta);
            Some(round(*product))
        })
        .collect()
}

/// β_t = 1 − ᾱ(t+1)/ᾱ(t), at most 0.999, for a curve ᾱ over 0 … 1.
fn capped(steps: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f64> {
    let at = |t: usize| alpha_bar(t as f64 / steps as f64);
    (0..steps).map(|t| (1.0 - at(t + 1) / at(t)).min(0.999)).collect()
}

#[cfg(test)]
mod tests;
