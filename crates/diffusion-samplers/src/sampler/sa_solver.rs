//! SA-Solver: stochastic Adams methods for the reverse SDE, as predictor and corrector (Xue et al. 2023).

use std::sync::Arc;

use super::dpm_solver::weights::{Solver, order};
use super::model_output::OutputForm;
use super::multistep::{Formula, MAX_HISTORY, PredictorCorrector};
use super::options::{AddedNoise, Options};
use super::plan::Plan;
use super::steps::lambda::{FinalSigma, LambdaClass, LambdaSteps};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError};
use crate::noise_schedule::{NoiseLevel, ZeroSnr};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::SigmaSchedule;
use crate::simd::update;

pub(super) const FAMILY: Family = Family::new("sa", "SASolverScheduler", build);

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
    clips_lambda: true,
    fractional_on_cosine: false,
    sigma_range_keys: false,
    final_sigma: FinalSigma::LastEvaluated,
};

/// x_t = `x`·x_s + Σ_k `weights[k]`·m_k + `noise`·z, for the predictor (eq. 14) and the corrector (eq. 17).
#[derive(Debug)]
struct Sum {
    x: f32,
    weights: [f32; MAX_HISTORY],
    noise: f32,
}

impl Formula for Sum {
    fn apply(&self, x: &mut [f32], m: [&[f32]; MAX_HISTORY], z: &[f32]) {
        let (a, s) = (self.x, self.noise);
        match self.weights {
            [w0, 0.0, 0.0, 0.0] => update(x, [m[0], z], move |x, [m0, z]| a * x + w0 * m0 + s * z),
            [w0, w1, 0.0, 0.0] => {
                update(x, [m[0], m[1], z], move |x, [m0, m1, z]| a * x + (w0 * m0 + w1 * m1) + s * z)
            }
            [w0, w1, w2, 0.0] => update(x, [m[0], m[1], m[2], z], move |x, [m0, m1, m2, z]| {
                a * x + (w0 * m0 + w1 * m1 + w2 * m2) + s * z
            }),
            [w0, w1, w2, w3] => update(x, [m[0], m[1], m[2], m[3], z], move |x, [m0, m1, m2, m3, z]| {
                a * x + (w0 * m0 + w1 * m1 + w2 * m2 + w3 * m3) + s * z
            }),
        }
    }

    fn is_finite(&self) -> bool {
        self.weights.iter().chain([&self.x, &self.noise]).all(|c| c.is_finite())
    }
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let predictor_order = order(settings, "predictor_order", MAX_HISTORY)?;
    let corrector_order = order(settings, "corrector_order", MAX_HISTORY)?;
    let algorithms = ["data_prediction", "noise_prediction"];
    let form = match settings.choice("algorithm_type", "data_prediction", &algorithms)?.as_str() {
        "data_prediction" => OutputForm::X0,
        _ => OutputForm::Epsilon,
    };
    let reason = "a configuration can't contain a function; remove it, τ is 1 for t from 200 to 800, else 0";
    settings.reject_if_set("tau_func", reason)?;
    let lower_order_final = settings.flag("lower_order_final", true)?;
    let thresholding = Thresholding::dynamic_from_settings(settings)?;
    if thresholding != Thresholding::None && form == OutputForm::Epsilon {
        let reason = "the reference has no thresholding with noise_prediction; use data_prediction";
        return Err(SettingsError::refused("thresholding", true, reason).into());
    }
    let outputs_per_value = Solver::outputs_per_value(settings)?;
    let run = LambdaSteps::from_settings(settings, options, &CLASS)?;
    let n = run.nodes.len();
    let predictor_order =
        |i: usize| predictor_order.min(i + 1).min(if lower_order_final { n - i } else { n });
    let corrector_order =
        |i: usize| corrector_order.min(i + 2).min(if lower_order_final { n - i + 1 } else { n + 1 });
    let coefficients = SaCoefficients { levels: &run.levels, form };
    let steps = run.nodes.iter().enumerate().map(|(i, node)| PredictorCorrector {
        node: *node,
        corrector: (i > 0)
            .then(|| coefficients.corrector(i, corrector_order(i - 1), tau(run.nodes[i - 1].t))),
        predictor: coefficients.predictor(i, predictor_order(i), tau(node.t)),
        draws_noise: true,
    });
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { form, thresholding, outputs_per_value, ..plan }))
}

/// τ(t), which scales the SDE's noise: the authors' choice for 1,000 time steps.
fn tau(t: f64) -> f32 {
    if (200.0..=800.0).contains(&t) { 1.0 } else { 0.0 }
}

/// Computes the coefficients of a run's steps.
struct SaCoefficients<'a> {
    levels: &'a [NoiseLevel],
    form: OutputForm,
}

impl SaCoefficients<'_> {
    /// SA-Predictor: from level `i` to `i + 1` by the predictions at `i`, `i − 1`, … (eq. 14).
    fn predictor(&self, i: usize, order: usize, tau: f32) -> Sum {
        let mut weights = self.integrals(i, i, order, tau);
        if order == 2 && self.form == OutputForm::X0 {
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

    /// SA-Corrector: from level `i − 1` to `i` by the predictions at `i`, `i − 1`, … (eq. 17).
    fn corrector(&self, i: usize, order: usize, tau: f32) -> Sum {
        let mut weights = self.integrals(i - 1, i, order, tau);
        if order == 2 && self.form == OutputForm::X0 {
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

    /// ∫ ℓ_k(λ) e^{cλ} dλ over the step from `i`, where ℓ_k is the Lagrange polynomial that is 1 at the level
    /// `newest − k` (eqs. 15 and 18). c is 1 + τ² for x̂_0 and −1 for ε̂.
    fn integrals(&self, i: usize, newest: usize, order: usize, tau: f32) -> [f32; MAX_HISTORY] {
        let (start, end) = (self.lambda(i), self.lambda(i + 1));
        let integral = |power: usize| {
            if self.form == OutputForm::X0 {
                exponential_integral(power, start, end, 1.0 + tau * tau)
            } else {
                decaying_integral(power, start, end)
            }
        };
        let mut weights = [0.0; MAX_HISTORY];
        for (k, weight) in weights.iter_mut().enumerate().take(order) {
            let others: Vec<f32> = (0..order).filter(|j| *j != k).map(|j| self.lambda(newest - j)).collect();
            let norm: f32 = others.iter().map(|other| self.lambda(newest - k) - other).product();
            for (j, coefficient) in expand(&others).into_iter().enumerate() {
                *weight += coefficient / norm * integral(order - 1 - j);
            }
        }
        weights
    }

    /// The sum with these integrals over the step from `i`.
    fn sum(&self, i: usize, integrals: [f32; MAX_HISTORY], tau: f32) -> Sum {
        let (from, to) = (self.levels[i], self.levels[i + 1]);
        let (alpha, sigma) = (to.alpha as f32, to.sigma as f32);
        let (tau2, end) = (tau * tau, self.lambda(i + 1));
        let h = end - self.lambda(i);
        let (x, scale, noise) = if self.form == OutputForm::X0 {
            let x = (-tau2 * h).exp() * (sigma / from.sigma as f32);
            (x, (1.0 + tau2) * sigma * (-tau2 * end).exp(), sigma * (1.0 - (-2.0 * tau2 * h).exp()).sqrt())
        } else {
            (alpha / from.alpha as f32, -(1.0 + tau2) * alpha, tau * sigma * ((2.0 * h).exp() - 1.0).sqrt())
        };
        Sum { x, weights: integrals.map(|w| scale * w), noise }
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

/// ∫ λ^power e^{cλ} dλ over a step. It is a small difference of large terms, and its rounding is visible in the
/// trajectory. Therefore it is computed in f32 and in the reference's order of operations.
fn exponential_integral(power: usize, start: f32, end: f32, c: f32) -> f32 {
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
fn decaying_integral(power: usize, s: f32, e: f32) -> f32 {
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
    fn integrals_agree_with_numerical_integration() {
        let (start, end) = (-0.4_f64, 0.9_f64);
        let numeric = |f: &dyn Fn(f64) -> f64| {
            let width = (end - start) / 2000.0;
            (0..2000).map(|i| f(start + (f64::from(i) + 0.5) * width) * width).sum::<f64>()
        };
        for power in 0..4 {
            let exact = numeric(&|l| l.powi(power) * (2.0 * l).exp());
            let found = exponential_integral(power as usize, start as f32, end as f32, 2.0);
            assert!((f64::from(found) - exact).abs() < 1e-5, "{power}: {found} and {exact}");
            let exact = numeric(&|l| l.powi(power) * (-l).exp());
            let found = decaying_integral(power as usize, start as f32, end as f32);
            assert!((f64::from(found) - exact).abs() < 1e-5, "{power}: {found} and {exact}");
        }
    }
}
