//! The linear multistep method of Adams and Bashforth in σ, with coefficients for uneven steps
//! (Crowson, k-diffusion; Karras et al. 2022, eq. 3 for the derivative).

use std::sync::Arc;

use super::model_output::OutputForm;
use super::multistep::{MAX_HISTORY, MultistepStep, WeightedSum};
use super::options::{AddedNoise, Options};
use super::plan::Plan;
use super::steps::sigma::{SigmaClass, SigmaSteps};
use super::{Family, Sampler, SamplerError};
use crate::noise_schedule::ScheduleDefaults;
use crate::scheduler_settings::Settings;

pub(super) const FAMILY: Family = Family::new("lms", "LMSDiscreteScheduler", build);

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let class = SigmaClass {
        schedule: ScheduleDefaults::DDPM,
        ..SigmaClass::new(FAMILY.name, SigmaClass::PREDICTIONS)
    };
    let run = SigmaSteps::from_settings(settings, options, &class)?;
    // x_{i+1} = x_i + Σ_k w_k·d_{i−k}
    let steps = run.nodes.iter().enumerate().map(|(i, node)| MultistepStep {
        node: *node,
        update: WeightedSum { x: 1.0, weights: weights(&run.sigmas, i) },
        noise: None,
    });
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { form: OutputForm::Derivative, initial_sigma: run.initial_sigma, ..plan }))
}

/// w_k = ∫ ℓ_k(σ) dσ over the step from `sigmas[i]`, where ℓ_k is the Lagrange polynomial that is 1 at
/// `sigmas[i − k]` and 0 at the other derivatives' levels.
fn weights(sigmas: &[f64], i: usize) -> [f64; MAX_HISTORY] {
    let order = MAX_HISTORY.min(i + 1);
    let level = |k: usize| sigmas[i - k];
    let mut weights = [0.0; MAX_HISTORY];
    for (j, weight) in weights.iter_mut().enumerate().take(order) {
        let basis = |x: f64| -> f64 {
            (0..order).filter(|k| *k != j).map(|k| (x - level(k)) / (level(j) - level(k))).product()
        };
        *weight = integral(basis, sigmas[i], sigmas[i + 1]);
    }
    weights
}

/// The integral of a polynomial of degree up to 3, by Gauss's rule of two points.
fn integral(f: impl Fn(f64) -> f64, from: f64, to: f64) -> f64 {
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let offset = half / 3.0_f64.sqrt();
    half * (f(middle - offset) + f(middle + offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_steps_have_the_textbook_weights() {
        let sigmas = [5.0, 4.0, 3.0, 2.0, 1.0];
        // Adams–Bashforth of order 4: 55, −59, 37, −9 over 24, for a step of −1.
        let expected = [55.0, -59.0, 37.0, -9.0].map(|w| -w / 24.0);
        for (found, expected) in weights(&sigmas, 3).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12);
        }
        assert_eq!(weights(&sigmas, 0), [-1.0, 0.0, 0.0, 0.0]);
    }
}
