//! UniPC: a unified predictor-corrector in λ (Zhao et al. 2023).

use std::sync::Arc;

use super::dpm::order;
use super::family::{Family, Options, Sampler, SamplerError};
use super::steps::lambda::{Base, Class, End, LambdaSteps};
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::history::DEPTH;
use super::walk::predictor_corrector::{Difference, PredictorCorrector, Step, Sum};
use crate::noise_schedule::{NoiseLevel, ZeroSnr, linspace};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{SigmaSchedule, karras, shift_sigma};

pub(super) const FAMILY: Family = Family::new("unipc", "UniPCMultistepScheduler", build);

const CLASS: Class = Class {
    name: FAMILY.name,
    zero_snr: ZeroSnr::Approximate,
    spreads: &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta],
    spacing_keys: true,
    clips_lambda: false,
    fractional_on_cosine: false,
    end_keys: true,
    end: End::ConfiguredOrVisited,
};

/// The function B(h) of the paper's section 3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Norm {
    /// B₁(h) = h.
    H,
    /// B₂(h) = e^h − 1.
    Exp,
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let most = order(settings, "solver_order", 3)?;
    let keeps_x0 = settings.flag("predict_x0", true)?;
    let types = ["bh1", "bh2", "midpoint", "heun", "logrho"];
    let norm = if settings.choice("solver_type", "bh2", &types)? == "bh1" { Norm::H } else { Norm::Exp };
    let short = settings.flag("lower_order_final", true)?;
    let disabled = settings.numbers("disable_corrector")?.unwrap_or_default();
    settings.reject_if_set("solver_p", "another predictor inside of UniPC is not served; leave it null")?;
    let bound = Bound::thresholding(settings)?;
    let grid = grid(settings, options)?;
    let to_zero = grid.levels[grid.levels.len() - 1].sigma == 0.0;
    if to_zero && (norm == Norm::H || !keeps_x0) {
        let (key, value) = if keeps_x0 { ("solver_type", "bh1") } else { ("predict_x0", "false") };
        let reason =
            "its last step, to a noise level of 0, is not finite; set final_sigmas_type to sigma_min";
        return Err(SettingsError::refused(key, value, reason).into());
    }
    let n = grid.points.len();
    let order_of = |i: usize| most.min(i + 1).min(if short { n - i } else { n });
    let rule = Rule { levels: &grid.levels, norm, keeps_x0 };
    let steps = grid.points.iter().enumerate().map(|(i, at)| Step {
        at: *at,
        corrector: (i > 0 && !disabled.contains(&(i as f64 - 1.0)))
            .then(|| rule.corrector(i, order_of(i - 1))),
        predictor: rule.predictor(i, order_of(i)),
    });
    let (kept, bound) = if keeps_x0 { (Kept::X0, bound) } else { (Kept::Epsilon, Bound::None) };
    Ok(Arc::new(PredictorCorrector {
        steps: steps.collect(),
        kept,
        bound,
        stochastic: false,
        outputs_per_value: 1,
    }))
}

/// The class's own levels: its relatives', or those of a straight path, spread evenly or as
/// Karras' are.
fn grid(settings: &mut Settings, options: &Options) -> Result<LambdaSteps, SamplerError> {
    let terminal = settings.optional_number("shift_terminal")?;
    let flow = settings.flag("use_flow_sigmas", false)?;
    if !flow {
        let reason = "it needs use_flow_sigmas";
        return match terminal {
            Some(terminal) => Err(SettingsError::refused("shift_terminal", terminal, reason).into()),
            None => LambdaSteps::read(settings, options, &CLASS),
        };
    }
    let spread = SigmaSchedule::from_settings(settings, CLASS.spreads)?;
    let base = Base::read(settings, &CLASS, SigmaSchedule::Flow)?;
    let n = options.steps_up_to(base.schedule.num_train_timesteps(), FAMILY.name)?;
    let mut sigmas = match spread {
        SigmaSchedule::Timesteps => straight(&base, n, terminal),
        SigmaSchedule::Karras => {
            karras(base.max, base.min, 7.0, n).into_iter().map(|s| s / (s + 1.0)).collect()
        }
        _ => {
            let reason = "only use_karras_sigmas goes with it";
            return Err(SettingsError::refused("use_flow_sigmas", true, reason).into());
        }
    };
    let times: Vec<f64> =
        sigmas.iter().map(|sigma| sigma * base.schedule.num_train_timesteps() as f64).collect();
    let zero = settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])? == "zero";
    sigmas.push(if zero { 0.0 } else { sigmas[n - 1] });
    Ok(base.grid(&options.rest(sigmas), &options.rest(times)))
}

/// `n` levels along the straight path, stretched so that the last is the terminal one.
fn straight(base: &Base, n: usize, terminal: Option<f64>) -> Vec<f64> {
    let ends = linspace(1.0, 1.0 / base.schedule.num_train_timesteps() as f64, n + 1).take(n);
    let mut sigmas: Vec<f64> = ends.map(|sigma| shift_sigma(sigma, base.flow_shift)).collect();
    if let Some(terminal) = terminal {
        let factor = (1.0 - sigmas[n - 1]) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / factor);
    }
    // At 1 there is no signal left, and λ is not finite.
    if (sigmas[0] - 1.0).abs() < 1e-6 {
        sigmas[0] -= 1e-6;
    }
    sigmas
}

/// Algorithms 5 to 8 of the paper as weights.
struct Rule<'a> {
    levels: &'a [NoiseLevel],
    norm: Norm,
    keeps_x0: bool,
}

impl Rule<'_> {
    /// From level `i` to `i + 1` by the estimates at `i`, `i − 1`, … (UniP).
    fn predictor(&self, i: usize, order: usize) -> Sum {
        let step = self.step(i, order);
        // Order 2 has the closed form 1/2 whatever B is.
        let rho = if order == 2 { vec![0.5] } else { solve(&step.ratios[..order - 1], &step.b) };
        let mut differences = [Difference::default(); DEPTH];
        for (k, (weight, over)) in rho.into_iter().zip(step.ratios).enumerate() {
            differences[k + 1] = Difference { weight, over };
        }
        Sum::Differences { x: step.x, at: 0, base: step.base, scale: step.scale, differences }
    }

    /// To level `i` from `i − 1`, with the estimate that was made at `i` as the newest (UniC).
    fn corrector(&self, i: usize, order: usize) -> Sum {
        let mut step = self.step(i - 1, order);
        step.ratios.push(1.0);
        let rho = if order == 1 { vec![0.5] } else { solve(&step.ratios, &step.b) };
        let mut differences = [Difference::default(); DEPTH];
        for (k, (weight, over)) in rho.into_iter().zip(step.ratios).enumerate() {
            // The last one is the estimate at `i` itself.
            differences[if k + 1 == order { 0 } else { k + 2 }] = Difference { weight, over };
        }
        Sum::Differences { x: step.x, at: 1, base: step.base, scale: step.scale, differences }
    }

    /// In f32 as the reference computes it: see [`super::dpm`].
    fn step(&self, i: usize, order: usize) -> Unified {
        let lambda = |k: usize| self.levels[k].lambda() as f32;
        let h = lambda(i + 1) - lambda(i);
        let ratios = (1..order).map(|k| (lambda(i - k) - lambda(i)) / h).collect();
        let hh = if self.keeps_x0 { -h } else { h };
        let phi_1 = hh.exp_m1();
        let norm = match self.norm {
            Norm::H => hh,
            Norm::Exp => hh.exp_m1(),
        };
        let mut phi = phi_1 / hh - 1.0;
        let mut factorial = 1.0;
        let mut b = Vec::with_capacity(order);
        for k in 1..=order {
            b.push(phi * factorial / norm);
            factorial *= (k + 1) as f32;
            phi = phi / hh - 1.0 / factorial;
        }
        let part = |of: fn(NoiseLevel) -> f64| (of(self.levels[i]) as f32, of(self.levels[i + 1]) as f32);
        let (alpha, sigma) = (part(|level| level.alpha), part(|level| level.sigma));
        let (x, share) =
            if self.keeps_x0 { (sigma.1 / sigma.0, alpha.1) } else { (alpha.1 / alpha.0, sigma.1) };
        Unified { ratios, b, x, base: -(share * phi_1), scale: -(share * norm) }
    }
}

/// What predictor and corrector share.
struct Unified {
    /// r_k, the places of the older estimates in units of the step.
    ratios: Vec<f32>,
    /// The right side of eq. 10.
    b: Vec<f32>,
    x: f32,
    /// The weight of the first-order estimate.
    base: f32,
    /// −α·B or −σ·B.
    scale: f32,
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

const _: () = assert!(DEPTH >= 4, "a corrector of order 3 looks back over four estimates");

#[cfg(test)]
mod tests {
    use super::solve;

    #[test]
    fn elimination_meets_its_equations() {
        let (ratios, b) = ([-2.0, -1.0, 1.0], [0.3, 0.7, -0.2]);
        let rho = solve(&ratios, &b);
        for (j, b) in b.iter().enumerate() {
            let sum: f32 = ratios.iter().zip(&rho).map(|(r, rho): (&f32, _)| r.powi(j as i32) * rho).sum();
            assert!((sum - b).abs() < 1e-6);
        }
    }
}
