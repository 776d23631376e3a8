//! DEIS: diffusion exponential integrator sampler in log ρ (Zhang & Chen 2023, tAB-DEIS).

use std::sync::Arc;

use super::dpm_solver::weights::{Algorithm, order};
use super::model_output::OutputForm;
use super::multistep::{MAX_HISTORY, MultistepStep, WeightedSum};
use super::options::{AddedNoise, Options};
use super::plan::Plan;
use super::steps::lambda::{FinalSigma, LambdaClass, LambdaSteps};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError};
use crate::noise_schedule::{NoiseLevel, ZeroSnr};
use crate::scheduler_settings::Settings;
use crate::sigma_schedule::SigmaSchedule;

pub(super) const FAMILY: Family = Family::new("deis", "DEISMultistepScheduler", build);

const CLASS: LambdaClass = LambdaClass {
    name: FAMILY.name,
    zero_snr: ZeroSnr::Unsupported,
    sigma_schedules: &[
        SigmaSchedule::Karras,
        SigmaSchedule::Exponential,
        SigmaSchedule::Beta,
        SigmaSchedule::Flow,
    ],
    spacing_keys: true,
    clips_lambda: false,
    fractional_on_cosine: false,
    sigma_range_keys: false,
    final_sigma: FinalSigma::LastEvaluated,
};

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    // diffusers accepts the values of related classes and runs DEIS in log ρ.
    settings.choice("algorithm_type", "deis", &["deis", "dpmsolver", "dpmsolver++"])?;
    settings.choice("solver_type", "logrho", &["logrho", "midpoint", "heun", "bh1", "bh2"])?;
    settings
        .switch_off(&["algorithm_type", "solver_type"], "DEISMultistepScheduler has only one, in log rho");
    let max_order = order(settings, "solver_order", 3)?;
    let thresholding = Thresholding::dynamic_from_settings(settings)?;
    let lower_order_final = settings.flag("lower_order_final", true)? && options.steps < 15;
    let run = LambdaSteps::from_settings(settings, options, &CLASS)?;
    let n = run.nodes.len();
    let steps = run.steps().map(|(i, node, from, to)| {
        let remaining = if lower_order_final { n - i } else { MAX_HISTORY };
        let update = match max_order.min(i + 1).min(remaining) {
            1 => first_order(from, to),
            order => higher_order(&run.levels, i, order),
        };
        MultistepStep { node, update, noise: None }
    });
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { form: OutputForm::Epsilon, thresholding, ..plan }))
}

/// x_{i+1} = (α'/α)·x_i − σ'(e^h − 1)·ε̂_i, which is DPM-Solver-1 and DDIM.
fn first_order(from: NoiseLevel, to: NoiseLevel) -> WeightedSum {
    let w = Algorithm::DpmSolver.weights(from, to);
    WeightedSum { x: f64::from(w.x), weights: [f64::from(w.d0), 0.0, 0.0, 0.0] }
}

/// x_{i+1} = (α'/α)·x_i + α'·Σ_j C_j·ε̂_{i−j} (eq. 14, multiplied by α').
fn higher_order(levels: &[NoiseLevel], i: usize, order: usize) -> WeightedSum {
    let (from, to) = (levels[i], levels[i + 1]);
    WeightedSum { x: to.alpha / from.alpha, weights: weights(levels, i, order).map(|c| to.alpha * c) }
}

/// C_j = ∫ ℓ_j(ρ) dρ over the step, where ℓ_j is the Lagrange polynomial in log ρ, ρ = σ/α, that is 1 at the j-th
/// newest prediction (eq. 15).
///
/// In f32 and in the reference's order of operations: each weight is a small difference of large terms, so that its
/// rounding is visible in the trajectory.
fn weights(levels: &[NoiseLevel], i: usize, order: usize) -> [f64; MAX_HISTORY] {
    let rho = |k: usize| levels[k].sigma as f32 / levels[k].alpha as f32;
    let mut weights = [0.0; MAX_HISTORY];
    for (j, weight) in weights.iter_mut().enumerate().take(order) {
        // The other predictions, counted from this one.
        let other = |offset: usize| rho(i - (j + offset) % order);
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
