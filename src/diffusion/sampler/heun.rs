//! Heun's second-order method on the probability-flow ODE (Karras et al. 2022, algorithm 1),
//! in the coordinates in which the signal is not scaled: x = x_0 + σ·ε.

use std::sync::Arc;

use super::estimate::Estimator;
use super::family::{Family, Options, Sampler, SamplerError, prediction_type};
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::PredictionType::{Epsilon, Sample, VPrediction};
use crate::diffusion::schedule::{Level, NoiseSchedule, round};
use crate::diffusion::settings::{Settings, SettingsError};
use crate::diffusion::spacing::Spacing;
use crate::diffusion::trajectory::{Net, Walk};

pub(super) const FAMILY: Family = Family { name: "heun", class: "HeunDiscreteScheduler", build: Heun::build };

/// A noise level to visit.
#[derive(Debug, Clone, Copy)]
struct Point {
    t: f64,
    sigma: f64,
}

#[derive(Debug)]
struct Heun {
    /// Largest σ first; the last is followed by σ = 0, where no evaluation is made.
    points: Vec<Point>,
    estimator: Estimator,
    initial_sigma: f64,
}

impl Heun {
    fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
        options.without_eta()?;
        let schedule = NoiseSchedule::from_settings(settings, 0.00085, 0.012)?;
        let prediction = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
        let estimator = Estimator::clipping(settings, prediction, false)?;
        for key in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
            if settings.flag(key, false)? {
                let reason = "this version visits the schedule's own noise levels only";
                return Err(SettingsError::refused(key, true, reason).into());
            }
        }
        let (spacing, offset) = Spacing::from_settings(settings, "linspace")?;
        let count = options.steps_up_to(schedule.len(), FAMILY.name)?;
        let sigmas: Vec<f64> = schedule.sigmas().collect();
        let points: Vec<Point> = spacing
            .fractional(schedule.len(), count, offset)
            .into_iter()
            .map(|t| Point { t: round(t), sigma: round(interpolate(&sigmas, round(t))) })
            .collect();
        let largest = points.iter().fold(0.0, |most: f64, p| most.max(p.sigma));
        let initial_sigma = match spacing {
            Spacing::Leading => (largest * largest + 1.0).sqrt(),
            Spacing::Linspace | Spacing::Trailing => largest,
        };
        Ok(Arc::new(Self { points, estimator, initial_sigma }))
    }
}

/// The values between whole indices, by straight lines; constant beyond the ends.
fn interpolate(values: &[f64], at: f64) -> f64 {
    let at = at.clamp(0.0, (values.len() - 1) as f64);
    let below = values[at as usize];
    let above = values[(at as usize + 1).min(values.len() - 1)];
    below + (above - below) * at.fract()
}

impl Point {
    /// The level whose √ᾱ and √(1−ᾱ) give this σ; x here is √(σ²+1) times the network's input.
    fn level(self) -> Level {
        Level::from_alpha_bar(1.0 / (self.sigma * self.sigma + 1.0))
    }
}

impl Sampler for Heun {
    fn evaluations(&self) -> usize {
        2 * self.points.len() - 1
    }

    fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    fn walk(self: Arc<Self>, mut x: Vec<f32>, _: Noise, net: Net) -> Walk {
        Box::pin(async move {
            let mut output = net.output_buffer();
            let mut estimate = self.estimator.start(x.len());
            let mut input = vec![0.0; x.len()];
            let mut slope = vec![0.0; x.len()];
            let mut euler = vec![0.0; x.len()];
            for (i, &here) in self.points.iter().enumerate() {
                let next = self.points.get(i + 1).copied();
                scale(&x, here, &mut input);
                net.predict(&input, here.t, &mut output).await;
                estimate.update_x0(here.level(), &input, &output);
                net.observe(&estimate.x0);
                let dt = (next.map_or(0.0, |n| n.sigma) - here.sigma) as f32;
                for j in 0..x.len() {
                    slope[j] = (x[j] - estimate.x0[j]) / here.sigma as f32; // line 4
                    euler[j] = x[j] + slope[j] * dt; // line 5
                }
                let Some(next) = next else {
                    // The last step, to σ = 0, is Euler's (line 6).
                    std::mem::swap(&mut x, &mut euler);
                    break;
                };
                scale(&euler, next, &mut input);
                net.predict(&input, next.t, &mut output).await;
                estimate.update_x0(next.level(), &input, &output);
                for j in 0..x.len() {
                    let there = (euler[j] - estimate.x0[j]) / next.sigma as f32; // line 7
                    x[j] += (slope[j] + there) / 2.0 * dt; // line 8
                }
            }
            x
        })
    }
}

/// What the network takes: x/√(σ²+1).
fn scale(x: &[f32], at: Point, input: &mut [f32]) {
    let factor = (1.0 / (at.sigma * at.sigma + 1.0).sqrt()) as f32;
    for (input, x) in input.iter_mut().zip(x) {
        *input = x * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::interpolate;

    #[test]
    fn interpolation_is_linear_and_stops_at_the_ends() {
        let values = [0.0, 10.0, 40.0];
        assert_eq!(interpolate(&values, 0.25), 2.5);
        assert_eq!(interpolate(&values, 1.5), 25.0);
        assert_eq!(interpolate(&values, 2.0), 40.0);
        assert_eq!(interpolate(&values, 7.0), 40.0);
    }
}
