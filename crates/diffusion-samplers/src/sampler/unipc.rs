//! UniPC: a unified predictor-corrector in λ (Zhao et al. 2023).

use std::sync::Arc;

use super::dpm_solver::weights::order;
use super::model_output::OutputForm;
use super::multistep::{Formula, MAX_HISTORY, PredictorCorrector};
use super::options::{AddedNoise, Options};
use super::plan::Plan;
use super::steps::lambda::{FinalSigma, LambdaClass, LambdaSettings, LambdaSteps};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError};
use crate::noise_schedule::{NoiseLevel, ZeroSnr, linspace};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{SigmaSchedule, karras, shift_sigma};
use crate::simd::update;

pub(super) const FAMILY: Family = Family::new("unipc", "UniPCMultistepScheduler", build);

const CLASS: LambdaClass = LambdaClass {
    name: FAMILY.name,
    zero_snr: ZeroSnr::Approximate,
    sigma_schedules: &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta],
    spacing_keys: true,
    clips_lambda: false,
    fractional_on_cosine: false,
    sigma_range_keys: true,
    final_sigma: FinalSigma::ConfiguredOrLastEvaluated,
};

/// The key `solver_type`: the function B(h) of the paper's section 3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepFunction {
    /// B₁(h) = h.
    Bh1,
    /// B₂(h) = e^h − 1.
    Bh2,
}

/// x_t = `x`·x_s + `base`·m_b + Σ_k `weight`·(m_k − m_b), for UniP and UniC (algorithms 5 to 8), where m_b is the
/// prediction at s. With x̂_0, x = σ_t/σ_s, base = −α_t(e^{−h} − 1) and weight = −α_t·B(h)·ρ_k/r_k.
#[derive(Debug)]
struct Unified {
    x: f32,
    /// b: 0 in the predictor, 1 in the corrector, whose newest prediction is made at t.
    base_index: usize,
    base: f32,
    /// The other predictions' indices and weights; `None` beyond the order.
    differences: [Option<(usize, f32)>; 3],
}

impl Formula for Unified {
    fn apply(&self, x: &mut [f32], m: [&[f32]; MAX_HISTORY], _: &[f32]) {
        let (a, base, b) = (self.x, self.base, m[self.base_index]);
        match self.differences.map(|difference| difference.map(|(k, weight)| (weight, m[k]))) {
            [None, ..] => update(x, [b], move |x, [b]| a * x + base * b),
            [Some((u, k)), None, _] => {
                update(x, [b, k], move |x, [b, k]| a * x + base * b + u * (k - b));
            }
            [Some((u, k)), Some((v, l)), None] => {
                update(x, [b, k, l], move |x, [b, k, l]| a * x + base * b + (u * (k - b) + v * (l - b)))
            }
            [Some((u, k)), Some((v, l)), Some((w, m))] => update(x, [b, k, l, m], move |x, [b, k, l, m]| {
                a * x + base * b + (u * (k - b) + v * (l - b) + w * (m - b))
            }),
        }
    }

    fn is_finite(&self) -> bool {
        let weights = self.differences.iter().flatten().map(|(_, weight)| *weight);
        weights.chain([self.x, self.base]).all(f32::is_finite)
    }
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let max_order = order(settings, "solver_order", 3)?;
    let predicts_x0 = settings.flag("predict_x0", true)?;
    // diffusers accepts the values of related classes and runs bh2.
    let types = ["bh1", "bh2", "midpoint", "heun", "logrho"];
    let solver_type = match settings.choice("solver_type", "bh2", &types)?.as_str() {
        "bh1" => StepFunction::Bh1,
        _ => StepFunction::Bh2,
    };
    let lower_order_final = settings.flag("lower_order_final", true)?;
    let disabled = settings.numbers("disable_corrector")?.unwrap_or_default();
    settings.reject_if_set("solver_p", "another predictor inside UniPC is not supported; remove it")?;
    let thresholding = Thresholding::dynamic_from_settings(settings)?;
    let run = lambda_steps(settings, options)?;
    let to_zero = run.levels[run.levels.len() - 1].sigma == 0.0;
    if to_zero && (solver_type == StepFunction::Bh1 || !predicts_x0) {
        let (key, value) = if predicts_x0 { ("solver_type", "bh1") } else { ("predict_x0", "false") };
        let reason =
            "its last step, to a noise level of 0, is not finite; set final_sigmas_type to sigma_min";
        return Err(SettingsError::refused(key, value, reason).into());
    }
    let n = run.nodes.len();
    let order = |i: usize| max_order.min(i + 1).min(if lower_order_final { n - i } else { n });
    let coefficients = UniPcCoefficients { levels: &run.levels, solver_type, predicts_x0 };
    let steps = run.nodes.iter().enumerate().map(|(i, node)| PredictorCorrector {
        node: *node,
        corrector: (i > 0 && !disabled.contains(&(i as f64 - 1.0)))
            .then(|| coefficients.corrector(i, order(i - 1))),
        predictor: coefficients.predictor(i, order(i)),
        draws_noise: false,
    });
    if !predicts_x0 {
        let keys = ["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
        settings.switch_off(&keys, "predict_x0 is false");
    }
    let plan = Plan::new(steps);
    // The reference applies no thresholding to ε̂.
    Ok(Arc::new(if predicts_x0 {
        Plan { form: OutputForm::X0, thresholding, ..plan }
    } else {
        Plan { form: OutputForm::Epsilon, ..plan }
    }))
}

/// The class's noise levels: those of the related classes, or those of a straight path, even or by Karras' formula.
fn lambda_steps(settings: &mut Settings, options: &Options) -> Result<LambdaSteps, SamplerError> {
    let terminal = settings.optional_number("shift_terminal")?;
    let flow = settings.flag("use_flow_sigmas", false)?;
    if !flow {
        let reason = "it needs use_flow_sigmas";
        return match terminal {
            Some(terminal) => Err(SettingsError::refused("shift_terminal", terminal, reason).into()),
            None => LambdaSteps::from_settings(settings, options, &CLASS),
        };
    }
    let sigma_schedule = SigmaSchedule::from_settings(settings, CLASS.sigma_schedules)?;
    let keys = LambdaSettings::from_settings(settings, &CLASS, SigmaSchedule::Flow)?;
    let n = options.steps_up_to(keys.schedule.num_train_timesteps(), FAMILY.name)?;
    let mut sigmas = match sigma_schedule {
        SigmaSchedule::Timesteps => {
            settings.switch_off(&["sigma_min", "sigma_max"], "use_karras_sigmas is false");
            straight(&keys, n, terminal)
        }
        SigmaSchedule::Karras => {
            settings.switch_off(&["flow_shift", "shift_terminal"], "use_karras_sigmas is true");
            karras(keys.max, keys.min, 7.0, n).into_iter().map(|s| s / (s + 1.0)).collect()
        }
        _ => {
            let reason = "only use_karras_sigmas can be combined with it";
            return Err(SettingsError::refused("use_flow_sigmas", true, reason).into());
        }
    };
    let times: Vec<f64> =
        sigmas.iter().map(|sigma| sigma * keys.schedule.num_train_timesteps() as f64).collect();
    let zero = settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])? == "zero";
    sigmas.push(if zero { 0.0 } else { sigmas[n - 1] });
    Ok(keys.steps(&options.without_skipped(sigmas), &options.without_skipped(times)))
}

/// `n` levels along the straight path, stretched so that the last one is the terminal one.
fn straight(keys: &LambdaSettings, n: usize, terminal: Option<f64>) -> Vec<f64> {
    let ends = linspace(1.0, 1.0 / keys.schedule.num_train_timesteps() as f64, n + 1).take(n);
    let mut sigmas: Vec<f64> = ends.map(|sigma| shift_sigma(sigma, keys.flow_shift)).collect();
    if let Some(terminal) = terminal {
        let factor = (1.0 - sigmas[n - 1]) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / factor);
    }
    // At σ = 1 there is no signal, and λ is not finite.
    if (sigmas[0] - 1.0).abs() < 1e-6 {
        sigmas[0] -= 1e-6;
    }
    sigmas
}

/// Computes the coefficients of a run's steps.
struct UniPcCoefficients<'a> {
    levels: &'a [NoiseLevel],
    solver_type: StepFunction,
    predicts_x0: bool,
}

/// The terms of a step that predictor and corrector share.
struct Terms {
    /// r_k, the older predictions' λ relative to s, in units of h.
    ratios: Vec<f32>,
    /// b, the right side of eq. 10.
    b: Vec<f32>,
    x: f32,
    base: f32,
    /// −α·B(h), or −σ·B(h) with ε̂.
    scale: f32,
}

impl Terms {
    /// The formula with ρ_k as the coefficients of the predictions with these indices.
    fn unified(&self, base_index: usize, rho: &[f32], index: impl Fn(usize) -> usize) -> Unified {
        let weight = |rho: f32, r: f32| (f64::from(self.scale) * f64::from(rho) / f64::from(r)) as f32;
        let terms = rho.iter().zip(&self.ratios).enumerate().filter(|(_, (rho, _))| **rho != 0.0);
        let mut terms: Vec<_> = terms.map(|(k, (rho, r))| (index(k), weight(*rho, *r))).collect();
        // Newest first.
        terms.sort_unstable_by_key(|(index, _)| *index);
        let mut differences = [None; 3];
        differences.iter_mut().zip(terms).for_each(|(slot, term)| *slot = Some(term));
        Unified { x: self.x, base_index, base: self.base, differences }
    }
}

impl UniPcCoefficients<'_> {
    /// UniP: the step from level `i` to `i + 1`, from the predictions at `i`, `i − 1`, …
    fn predictor(&self, i: usize, order: usize) -> Unified {
        let terms = self.terms(i, order);
        // Order 2 has the closed form 1/2 for every B.
        let rho = if order == 2 { vec![0.5] } else { solve(&terms.ratios, &terms.b) };
        terms.unified(0, &rho, |k| k + 1)
    }

    /// UniC: the correction of the step from level `i − 1` to `i`, from the predictions at `i`, `i − 1`, …
    fn corrector(&self, i: usize, order: usize) -> Unified {
        let mut terms = self.terms(i - 1, order);
        terms.ratios.push(1.0);
        let rho = if order == 1 { vec![0.5] } else { solve(&terms.ratios, &terms.b) };
        // The last ratio, 1, is that of the prediction at `i`.
        terms.unified(1, &rho, |k| if k + 1 == order { 0 } else { k + 2 })
    }

    /// In f32, as in the reference; see [`super::dpm_solver::weights`].
    fn terms(&self, i: usize, order: usize) -> Terms {
        let lambda = |k: usize| self.levels[k].lambda() as f32;
        let h = lambda(i + 1) - lambda(i);
        let ratios = (1..order).map(|k| (lambda(i - k) - lambda(i)) / h).collect();
        let hh = if self.predicts_x0 { -h } else { h };
        let phi_1 = hh.exp_m1();
        let b_h = match self.solver_type {
            StepFunction::Bh1 => hh,
            StepFunction::Bh2 => hh.exp_m1(),
        };
        let mut phi = phi_1 / hh - 1.0;
        let mut factorial = 1.0;
        let mut b = Vec::with_capacity(order);
        for k in 1..=order {
            b.push(phi * factorial / b_h);
            factorial *= (k + 1) as f32;
            phi = phi / hh - 1.0 / factorial;
        }
        let (from, to) = (self.levels[i], self.levels[i + 1]);
        let (alpha, sigma) = (to.alpha as f32, to.sigma as f32);
        let (x, scale) = if self.predicts_x0 {
            (sigma / from.sigma as f32, alpha)
        } else {
            (alpha / from.alpha as f32, sigma)
        };
        Terms { ratios, b, x, base: -(scale * phi_1), scale: -(scale * b_h) }
    }
}

/// ρ with Σ_k r_k^j ρ_k = b_j for j = 0, 1, … (eq. 10), by elimination.
fn solve(ratios: &[f32], b: &[f32]) -> Vec<f32> {
    let n = ratios.len();
    let mut rows: Vec<Vec<f32>> =
        (0..n).map(|j| ratios.iter().map(|r| r.powi(j as i32)).chain([b[j]]).collect()).collect();
    for pivot in 0..n {
        let (above, below) = rows.split_at_mut(pivot + 1);
        for row in below {
            let factor = row[pivot] / above[pivot][pivot];
            row.iter_mut().zip(&above[pivot]).for_each(|(value, known)| *value -= factor * known);
        }
    }
    let mut rho = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f32 = (row + 1..n).map(|k| rows[row][k] * rho[k]).sum();
        rho[row] = (rows[row][n] - known) / rows[row][row];
    }
    rho
}

const _: () = assert!(MAX_HISTORY >= 4, "a corrector of order 3 reads four predictions");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elimination_solves_the_equations() {
        let (ratios, b) = ([-2.0, -1.0, 1.0], [0.3, 0.7, -0.2]);
        let rho = solve(&ratios, &b);
        for (j, b) in b.iter().enumerate() {
            let sum: f32 = ratios.iter().zip(&rho).map(|(r, rho): (&f32, _)| r.powi(j as i32) * rho).sum();
            assert!((sum - b).abs() < 1e-6);
        }
    }

    #[test]
    fn a_constant_prediction_takes_the_first_order_step() {
        let levels = [9.0, 6.0, 4.0, 2.5].map(NoiseLevel::from_sigma);
        let coefficients =
            UniPcCoefficients { levels: &levels, solver_type: StepFunction::Bh2, predicts_x0: true };
        for formula in [coefficients.predictor(2, 3), coefficients.corrector(3, 3)] {
            assert!(formula.is_finite() && formula.differences.iter().flatten().count() >= 2);
            let mut x = [5.0];
            formula.apply(&mut x, [&[0.7]; MAX_HISTORY], &[]);
            let (from, to) = (levels[2], levels[3]);
            let expected =
                to.sigma / from.sigma * 5.0 + (to.alpha - to.sigma * from.alpha / from.sigma) * 0.7;
            assert!((f64::from(x[0]) - expected).abs() < 1e-5, "{} and {expected}", x[0]);
        }
    }
}
