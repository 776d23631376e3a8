//! The exact model of Gaussian data: the predictions for x₀ ~ N(`MEAN`, `DEVIATION`² I) in closed form.

use diffusion_samplers::noise_schedule::NoiseSchedule;
use diffusion_samplers::prediction_type::PredictionType;

pub const MEAN: f64 = 0.3;
pub const DEVIATION: f64 = 0.5;

/// The model of a noise schedule: `Gaussian` of `tests/golden/exact.py`.
#[derive(Debug, Clone)]
pub struct Gaussian {
    sigmas: Vec<f64>,
    prediction: PredictionType,
    /// Whether the output has a second half for variances.
    variance_channels: bool,
}

impl Gaussian {
    pub fn new(schedule: &NoiseSchedule, prediction: PredictionType, variance_channels: bool) -> Self {
        Self { sigmas: schedule.sigmas().collect(), prediction, variance_channels }
    }

    /// Writes the output for the state `x` at a time step, which may be fractional.
    pub fn evaluate(&self, x: &[f32], t: f64, output: &mut [f32]) {
        let t = t.clamp(0.0, (self.sigmas.len() - 1) as f64);
        let low = self.sigmas[t as usize];
        let high = self.sigmas[(t as usize + 1).min(self.sigmas.len() - 1)];
        let sigma = if t.fract() == 0.0 { low } else { low + (high - low) * t.fract() };
        let bar = 1.0 / (sigma * sigma + 1.0);
        predict(self.prediction, x, (bar.sqrt(), (1.0 - bar).sqrt()), output);
        if self.variance_channels {
            for (x, output) in x.iter().zip(&mut output[x.len()..]) {
                *output = (0.5 * f64::from(*x).sin()) as f32;
            }
        }
    }
}

/// E[x₀ | x] and E[ε | x] for x = α·x₀ + σ·ε.
pub fn posterior(x: f64, alpha: f64, sigma: f64) -> (f64, f64) {
    let variance = alpha * alpha * DEVIATION * DEVIATION + sigma * sigma;
    let centred = x - alpha * MEAN;
    (MEAN + alpha * DEVIATION * DEVIATION * centred / variance, sigma * centred / variance)
}

/// The exact prediction at a noise level (α, σ).
pub fn predict(prediction: PredictionType, x: &[f32], (alpha, sigma): (f64, f64), output: &mut [f32]) {
    for (x, output) in x.iter().zip(output) {
        let (x0, epsilon) = posterior(f64::from(*x), alpha, sigma);
        *output = match prediction {
            PredictionType::Epsilon => epsilon,
            PredictionType::Sample => x0,
            PredictionType::VPrediction => alpha * epsilon - sigma * x0,
            PredictionType::Flow => epsilon - x0,
            PredictionType::Score => -epsilon / sigma,
        } as f32;
    }
}
