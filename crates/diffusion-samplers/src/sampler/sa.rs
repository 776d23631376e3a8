//! SA-Solver: stochastic Adams methods for the reverse SDE, as predictor and corrector
//! (Xue et al. 2023).

use std::sync::Arc;

use super::dpm::{Solver, order};
use super::family::{Family, Options, Sampler, SamplerError};
use super::steps::lambda::{Class, End, LambdaSteps};
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::history::DEPTH;
use super::walk::predictor_corrector::{PredictorCorrector, Step, Sum};
use crate::noise_schedule::{NoiseLevel, ZeroSnr};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::SigmaSchedule;

pub(super) const FAMILY: Family = Family::new("sa", "SASolverScheduler", build);

const CLASS: Class = Class {
    name: FAMILY.name,
    zero_snr: ZeroSnr::Unsupported,
    spreads: &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta, SigmaSchedule::Flow],
    spacing_keys: true,
    clips_lambda: true,
    fractional_on_cosine: false,
    end_keys: false,
    end: End::Visited,
};

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.without_eta()?;
    let predictor = order(settings, "predictor_order", DEPTH)?;
    let corrector = order(settings, "corrector_order", DEPTH)?;
    let algorithms = ["data_prediction", "noise_prediction"];
    let keeps_x0 = settings.choice("algorithm_type", "data_prediction", &algorithms)? == "data_prediction";
    settings.reject_if_set(
        "tau_func",
        "a function has no place in a file; τ is 1 for t from 200 to 800, else 0",
    )?;
    let short = settings.flag("lower_order_final", true)?;
    let bound = Bound::thresholding(settings)?;
    if bound != Bound::None && !keeps_x0 {
        let reason = "noise_prediction has no thresholding in the reference; use data_prediction";
        return Err(SettingsError::refused("thresholding", true, reason).into());
    }
    let outputs_per_value = Solver::outputs_per_value(settings)?;
    let grid = LambdaSteps::read(settings, options, &CLASS)?;
    let n = grid.points.len();
    let predictor_at = |i: usize| predictor.min(i + 1).min(if short { n - i } else { n });
    let corrector_at = |i: usize| corrector.min(i + 2).min(if short { n - i + 1 } else { n + 1 });
    let rule = Rule { levels: &grid.levels, keeps_x0 };
    let steps = grid.points.iter().enumerate().map(|(i, at)| Step {
        at: *at,
        corrector: (i > 0).then(|| rule.corrector(i, corrector_at(i - 1), tau(grid.points[i - 1].t))),
        predictor: rule.predictor(i, predictor_at(i), tau(at.t)),
    });
    let kept = if keeps_x0 { Kept::X0 } else { Kept::Epsilon };
    Ok(Arc::new(PredictorCorrector {
        steps: steps.collect(),
        kept,
        bound,
        stochastic: true,
        outputs_per_value,
    }))
}

/// How stochastic the SDE is at a time step, the authors' choice for 1,000 of them.
fn tau(t: f64) -> f32 {
    if (200.0..=800.0).contains(&t) { 1.0 } else { 0.0 }
}

struct Rule<'a> {
    levels: &'a [NoiseLevel],
    keeps_x0: bool,
}

impl Rule<'_> {
    /// SA-Predictor: from level `i` to `i + 1` by the estimates at `i`, `i − 1`, … (eq. 14).
    fn predictor(&self, i: usize, order: usize, tau: f32) -> Sum {
        let mut weights = self.integrals(i, i, order, tau);
        if order == 2 && self.keeps_x0 {
            let h = self.lambda(i + 1) - self.lambda(i);
            let c = 1.0 + tau * tau;
            let extra = (c * self.lambda(i + 1)).exp()
                * (h * h / 2.0 - (h * c - 1.0 + (c * -h).exp()) / (c * c))
                / (self.lambda(i) - self.lambda(i - 1));
            weights[0] += extra;
            weights[1] -= extra;
        }
        self.sum(i, weights, tau)
    }

    /// SA-Corrector: to level `i` from `i − 1`, the newest estimate being that made at `i`
    /// (eq. 17).
    fn corrector(&self, i: usize, order: usize, tau: f32) -> Sum {
        let mut weights = self.integrals(i - 1, i, order, tau);
        if order == 2 && self.keeps_x0 {
            let h = self.lambda(i) - self.lambda(i - 1);
            let c = 1.0 + tau * tau;
            let extra = (c * self.lambda(i)).exp() * (h / 2.0 - (h * c - 1.0 + (c * -h).exp()) / (c * c * h));
            weights[0] += extra;
            weights[1] -= extra;
        }
        self.sum(i - 1, weights, tau)
    }

    fn lambda(&self, i: usize) -> f32 {
        self.levels[i].lambda() as f32
    }

    /// ∫ ℓ_k(λ) e^{cλ} dλ over the step from `i`, where ℓ_k is the Lagrange polynomial that is 1 at
    /// the level `newest − k` (eqs. 15 and 18).
    fn integrals(&self, i: usize, newest: usize, order: usize, tau: f32) -> [f32; DEPTH] {
        let (start, end) = (self.lambda(i), self.lambda(i + 1));
        let integral = |power: usize| {
            if self.keeps_x0 {
                rising(power, start, end, 1.0 + tau * tau)
            } else {
                falling(power, start, end)
            }
        };
        let mut weights = [0.0; DEPTH];
        for (k, weight) in weights.iter_mut().enumerate().take(order) {
            let others: Vec<f32> = (0..order).filter(|j| *j != k).map(|j| self.lambda(newest - j)).collect();
            let norm: f32 = others.iter().map(|other| self.lambda(newest - k) - other).product();
            for (j, coefficient) in expand(&others).into_iter().enumerate() {
                *weight += coefficient / norm * integral(order - 1 - j);
            }
        }
        weights
    }

    fn sum(&self, i: usize, integrals: [f32; DEPTH], tau: f32) -> Sum {
        let (from, to) = (self.levels[i], self.levels[i + 1]);
        let (alpha, sigma) = (to.alpha as f32, to.sigma as f32);
        let (tau2, end) = (tau * tau, self.lambda(i + 1));
        let h = end - self.lambda(i);
        let (x, scale, noise) = if self.keeps_x0 {
            let x = (-tau2 * h).exp() * (sigma / from.sigma as f32);
            (x, (1.0 + tau2) * sigma * (-tau2 * end).exp(), sigma * (1.0 - (-2.0 * tau2 * h).exp()).sqrt())
        } else {
            (alpha / from.alpha as f32, -(1.0 + tau2) * alpha, tau * sigma * ((2.0 * h).exp() - 1.0).sqrt())
        };
        Sum::Weighted { x, kept: integrals.map(|w| scale * w), noise }
    }
}

/// The coefficients of ∏ (λ − root), the highest power first.
fn expand(roots: &[f32]) -> Vec<f32> {
    match *roots {
        [] => vec![1.0],
        [a] => vec![1.0, -a],
        [a, b] => vec![1.0, -a - b, a * b],
        [a, b, c, ..] => vec![1.0, -a - b - c, a * b + a * c + b * c, -a * b * c],
    }
}

/// ∫ λ^power e^{cλ} dλ over a step, in f32 and in the reference's order: a small difference of large
/// terms, whose rounding shows in the reference's trajectories.
fn rising(power: usize, start: f32, end: f32, c: f32) -> f32 {
    let (s, e) = (c * start, c * end);
    let decay = (-(e - s)).exp();
    match power {
        0 => e.exp() * (1.0 - decay) / c,
        1 => e.exp() * (e - 1.0 - (s - 1.0) * decay) / c.powi(2),
        2 => e.exp() * (e * e - 2.0 * e + 2.0 - (s * s - 2.0 * s + 2.0) * decay) / c.powi(3),
        _ => {
            let cubic = |u: f32| u.powi(3) - 3.0 * u.powi(2) + 6.0 * u - 6.0;
            e.exp() * (cubic(e) - cubic(s) * decay) / c.powi(4)
        }
    }
}

/// ∫ λ^power e^{−λ} dλ over a step, likewise.
fn falling(power: usize, s: f32, e: f32) -> f32 {
    let growth = (e - s).exp();
    match power {
        0 => (-e).exp() * (growth - 1.0),
        1 => (-e).exp() * ((s + 1.0) * growth - (e + 1.0)),
        2 => (-e).exp() * ((s * s + 2.0 * s + 2.0) * growth - (e * e + 2.0 * e + 2.0)),
        _ => {
            let cubic = |u: f32| u.powi(3) + 3.0 * u.powi(2) + 6.0 * u + 6.0;
            (-e).exp() * (cubic(s) * growth - cubic(e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrals_are_those_of_their_integrands() {
        let (start, end) = (-0.4_f64, 0.9_f64);
        let numeric = |f: &dyn Fn(f64) -> f64| {
            let width = (end - start) / 2000.0;
            (0..2000).map(|i| f(start + (f64::from(i) + 0.5) * width) * width).sum::<f64>()
        };
        for power in 0..4 {
            let exact = numeric(&|l| l.powi(power) * (2.0 * l).exp());
            let found = rising(power as usize, start as f32, end as f32, 2.0);
            assert!((f64::from(found) - exact).abs() < 1e-5, "{power}: {found} and {exact}");
            let exact = numeric(&|l| l.powi(power) * (-l).exp());
            let found = falling(power as usize, start as f32, end as f32);
            assert!((f64::from(found) - exact).abs() < 1e-5, "{power}: {found} and {exact}");
        }
    }
}
