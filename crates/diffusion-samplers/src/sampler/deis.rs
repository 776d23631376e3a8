//! DEIS: diffusion exponential integrator sampler in log ρ (Zhang & Chen 2023, tAB-DEIS).

use std::sync::Arc;

use super::dpm::{Algorithm, order};
use super::family::{Family, Options, Sampler, SamplerError};
use super::steps::lambda::{Class, End, LambdaSteps};
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::history::DEPTH;
use super::walk::multistep::{Multistep, Step};
use crate::noise_schedule::{NoiseLevel, ZeroSnr};
use crate::scheduler_settings::Settings;
use crate::sigma_schedule::SigmaSchedule;

pub(super) const FAMILY: Family = Family::new("deis", "DEISMultistepScheduler", build);

const CLASS: Class = Class {
    name: FAMILY.name,
    zero_snr: ZeroSnr::Unsupported,
    spreads: &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta, SigmaSchedule::Flow],
    spacing_keys: true,
    clips_lambda: false,
    fractional_on_cosine: false,
    end_keys: false,
    end: End::Visited,
};

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    // Configurations of its relatives are served as DEIS in log ρ, as diffusers does.
    settings.choice("algorithm_type", "deis", &["deis", "dpmsolver", "dpmsolver++"])?;
    settings.choice("solver_type", "logrho", &["logrho", "midpoint", "heun", "bh1", "bh2"])?;
    let most = order(settings, "solver_order", 3)?;
    let bound = Bound::thresholding(settings)?;
    let short = settings.flag("lower_order_final", true)?;
    let grid = LambdaSteps::read(settings, options, &CLASS)?;
    let n = grid.points.len();
    let steps = grid.steps().map(|(i, at, from, to)| {
        let left = if short && options.steps < 15 { n - i } else { DEPTH };
        match most.min(i + 1).min(left) {
            1 => {
                let w = Algorithm::Dpm.weights(from, to);
                Step::single(at, f64::from(w.x), f64::from(w.d0))
            }
            order => {
                let kept = weights(&grid.levels, i, order);
                // The paper's step is one of the unscaled state x/α.
                let kept = kept.map(|w| to.alpha * w);
                Step::of(at, to.alpha / from.alpha, kept)
            }
        }
    });
    Ok(Arc::new(Multistep::of_x0(steps.collect(), bound).keeping(Kept::Epsilon)))
}

/// ∫ ℓ_j(ρ) dρ over the step, where ℓ_j is the Lagrange polynomial in log ρ, ρ = σ/α, that is 1 at
/// the j-th newest estimate (eq. 15).
///
/// In f32 and in the reference's order of operations: each weight is a small difference of large
/// terms, and what it loses there shows in the trajectory.
fn weights(levels: &[NoiseLevel], i: usize, order: usize) -> [f64; DEPTH] {
    let rho = |k: usize| levels[k].sigma as f32 / levels[k].alpha as f32;
    let mut weights = [0.0; DEPTH];
    for (j, weight) in weights.iter_mut().enumerate().take(order) {
        // The other estimates, counted on from this one.
        let other = |step: usize| rho(i - (j + step) % order);
        let primitive = |t: f32| match order {
            2 => linear(t, rho(i - j), other(1)),
            _ => quadratic(t, rho(i - j), other(1), other(2)),
        };
        *weight = f64::from(primitive(rho(i + 1)) - primitive(rho(i)));
    }
    weights
}

/// ∫ (log t − log c) / (log b − log c) dt.
fn linear(t: f32, b: f32, c: f32) -> f32 {
    t * (-c.ln() + t.ln() - 1.0) / (b.ln() - c.ln())
}

/// ∫ (log t − log c)(log t − log d) / ((log b − log c)(log b − log d)) dt.
fn quadratic(t: f32, b: f32, c: f32, d: f32) -> f32 {
    let (lt, lc, ld) = (t.ln(), c.ln(), d.ln());
    let numerator = t * (lc * (ld - lt + 1.0) - ld * lt + ld + lt * lt - 2.0 * lt + 2.0);
    numerator / ((b.ln() - lc) * (b.ln() - ld))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primitives_have_their_integrands_as_derivatives() {
        let (t, b, c, d) = (2.0_f32, 3.0_f32, 5.0, 8.0);
        let slope = |f: &dyn Fn(f32) -> f32| (f(t + 0.01) - f(t - 0.01)) / 0.02;
        let ratio = |c: f32| (t.ln() - c.ln()) / (b.ln() - c.ln());
        assert!((slope(&|t| linear(t, b, c)) - ratio(c)).abs() < 1e-3);
        assert!((slope(&|t| quadratic(t, b, c, d)) - ratio(c) * ratio(d)).abs() < 1e-3);
    }

    #[test]
    fn the_weights_of_a_constant_add_up_to_the_step() {
        let levels: Vec<NoiseLevel> = [10.0, 7.0, 4.0, 2.0].map(NoiseLevel::from_sigma).to_vec();
        for order in 2..=3 {
            assert!((weights(&levels, 2, order).iter().sum::<f64>() - (2.0 - 4.0)).abs() < 1e-4);
        }
    }
}
