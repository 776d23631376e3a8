//! The linear multistep method of Adams and Bashforth in σ, with coefficients for uneven steps
//! (Crowson, k-diffusion; Karras et al. 2022, eq. 3 for the slope).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError};
use super::steps::sigma::{Class, SigmaSteps};
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::history::DEPTH;
use super::walk::multistep::{Multistep, Step};
use crate::noise_schedule::ScheduleDefaults;
use crate::scheduler_settings::Settings;

pub(super) const FAMILY: Family = Family::new("lms", "LMSDiscreteScheduler", build);

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let class = Class { schedule: ScheduleDefaults::DDPM, ..Class::latent(FAMILY.name, Class::PREDICTIONS) };
    let grid = SigmaSteps::read(settings, options, &class)?;
    let steps = grid.points.iter().enumerate().map(|(i, at)| Step::of(*at, 1.0, weights(&grid.sigmas, i)));
    let sampler = Multistep::of_x0(steps.collect(), Bound::None).keeping(Kept::Slope);
    Ok(Arc::new(sampler.starting_at(grid.initial_sigma)))
}

/// The weights of the last slopes, newest first, in the step from `sigmas[i]`: each the integral
/// over the step of the Lagrange polynomial that is 1 where its slope was taken.
fn weights(sigmas: &[f64], i: usize) -> [f64; DEPTH] {
    let order = DEPTH.min(i + 1);
    let node = |k: usize| sigmas[i - k];
    let mut weights = [0.0; DEPTH];
    for (j, weight) in weights.iter_mut().enumerate().take(order) {
        let basis = |x: f64| -> f64 {
            (0..order).filter(|k| *k != j).map(|k| (x - node(k)) / (node(j) - node(k))).product()
        };
        *weight = integral(basis, sigmas[i], sigmas[i + 1]);
    }
    weights
}

/// The integral of a polynomial of degree up to three, by Gauss's rule of two points.
fn integral(f: impl Fn(f64) -> f64, from: f64, to: f64) -> f64 {
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let offset = half / 3.0_f64.sqrt();
    half * (f(middle - offset) + f(middle + offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_steps_have_the_textbooks_weights() {
        let sigmas = [5.0, 4.0, 3.0, 2.0, 1.0];
        // Adams–Bashforth of order 4: 55, −59, 37, −9 over 24, for a step of −1.
        let expected = [55.0, -59.0, 37.0, -9.0].map(|w| -w / 24.0);
        for (found, expected) in weights(&sigmas, 3).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12);
        }
        assert_eq!(weights(&sigmas, 0), [-1.0, 0.0, 0.0, 0.0]);
    }
}
