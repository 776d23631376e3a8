//! Multistep DPM-Solver and DPM-Solver++ of order 1 to 3 (Lu et al. 2022b, algorithm 2), forward through λ, backward
//! (inversion), and with EDM's preconditioning.

use std::sync::Arc;

use super::weights::{Algorithm, Solver, Weights};
use crate::noise_schedule::{NoiseLevel, ZeroSnr, linspace};
use crate::sampler::multistep::{History, MultistepStep, MultistepUpdate, weighted_sum};
use crate::sampler::node::Node;
use crate::sampler::options::{AddedNoise, Options};
use crate::sampler::plan::Plan;
use crate::sampler::steps::edm::{self, EdmSteps};
use crate::sampler::steps::lambda::{FinalSigma, LambdaClass, LambdaSettings, LambdaSteps};
use crate::sampler::thresholding::Thresholding;
use crate::sampler::{Family, Preset, PresetValue, Sampler, SamplerError, TimeConditioning};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::SigmaSchedule;
use crate::simd::update;
use crate::timestep_spacing::TimestepSpacing;

pub(crate) const MULTISTEP: Family = Family {
    name: "dpm_multi",
    class: "DPMSolverMultistepScheduler",
    time: TimeConditioning::Step,
    inpaints: false,
    presets: &[
        Preset {
            name: "dpmpp_2m",
            keys: &[
                ("algorithm_type", PresetValue::Text("dpmsolver++")),
                ("solver_order", PresetValue::Number(2.0)),
            ],
        },
        Preset {
            name: "dpmpp_3m",
            keys: &[
                ("algorithm_type", PresetValue::Text("dpmsolver++")),
                ("solver_order", PresetValue::Number(3.0)),
            ],
        },
        Preset {
            name: "dpmpp_2m_sde",
            keys: &[
                ("algorithm_type", PresetValue::Text("sde-dpmsolver++")),
                ("solver_order", PresetValue::Number(2.0)),
            ],
        },
    ],
    build: multistep,
};
pub(crate) const INVERSE: Family =
    Family::new("dpm_multi_inverse", "DPMSolverMultistepInverseScheduler", inverse);
pub(crate) const EDM: Family =
    Family::new("edm_dpm_multi", "EDMDPMSolverMultistepScheduler", edm).with_time(TimeConditioning::LogSigma);

/// x_t = `x`·x_s + `d0`·D_0 + `d1`·D_1 + `d2`·D_2, where D_0 = m_0 is the newest prediction. For DPM-Solver++ that is
/// x_t = (σ_t/σ_s)·x_s − α_t(e^{−h} − 1)·D_0 − ½α_t(e^{−h} − 1)·D_1 (2M, algorithm 2); [`Weights`] has the
/// coefficients of all solvers.
#[derive(Debug)]
enum DpmUpdate {
    First {
        x: f32,
        d0: f32,
    },
    /// D_1 = (m_0 − m_1)/r.
    Second {
        x: f32,
        d0: f32,
        d1: f32,
        r: f32,
    },
    /// D_1 and D_2 from the divided differences (m_0 − m_1)/r_0 and (m_1 − m_2)/r_1.
    Third {
        x: f32,
        d0: f32,
        d1: f32,
        d2: f32,
        r0: f32,
        r1: f32,
    },
}

impl DpmUpdate {
    /// The step from level `i` to `i + 1`.
    fn new(solver: &Solver, levels: &[NoiseLevel], i: usize, order: usize) -> Self {
        let w @ Weights { x, d0, d2, .. } = solver.algorithm.weights(levels[i], levels[i + 1]);
        let lambda = |k: usize| levels[k].lambda() as f32;
        let h = lambda(i + 1) - lambda(i);
        // r_k = (λ_{i−k} − λ_{i−k−1})/h
        let r = |k: usize| (lambda(i - k) - lambda(i - k - 1)) / h;
        match order {
            1 => Self::First { x, d0 },
            2 => Self::Second { x, d0, d1: w.d1(solver.solver_type), r: r(0) },
            _ => Self::Third { x, d0, d1: w.heun, d2, r0: r(0), r1: r(1) },
        }
    }
}

impl MultistepUpdate for DpmUpdate {
    fn apply(&self, x: &mut [f32], m: &History, noise: Option<(f64, &[f32])>) {
        match *self {
            Self::First { x: a, d0 } => update(x, [&m[0]], move |x, [m0]| a * x + d0 * m0),
            Self::Second { x: a, d0, d1, r } => {
                let inverse_r = 1.0 / r;
                update(x, [&m[0], &m[1]], move |x, [m0, m1]| a * x + d0 * m0 + d1 * (inverse_r * (m0 - m1)));
            }
            Self::Third { x: a, d0: w0, d1: w1, d2: w2, r0, r1 } => {
                let (inverse_r0, inverse_r1) = (1.0 / r0, 1.0 / r1);
                let (inverse_sum, share) = (1.0 / (r0 + r1), r0 / (r0 + r1));
                update(x, [&m[0], &m[1], &m[2]], move |x, [m0, m1, m2]| {
                    let (d1_0, d1_1) = (inverse_r0 * (m0 - m1), inverse_r1 * (m1 - m2));
                    let d1 = d1_0 + share * (d1_0 - d1_1);
                    let d2 = inverse_sum * (d1_0 - d1_1);
                    a * x + w0 * m0 + w1 * d1 + w2 * d2
                });
            }
        }
        weighted_sum(x, 1.0, noise);
    }

    fn depth(&self) -> usize {
        match self {
            Self::First { .. } => 1,
            Self::Second { .. } => 2,
            Self::Third { .. } => 3,
        }
    }

    fn is_finite(&self) -> bool {
        let finite = |coefficients: &[f32]| coefficients.iter().all(|c| c.is_finite());
        match *self {
            Self::First { x, d0 } => finite(&[x, d0]),
            Self::Second { x, d0, d1, r } => finite(&[x, d0, d1, 1.0 / r]),
            Self::Third { x, d0, d1, d2, r0, r1 } => {
                finite(&[x, d0, d1, d2, 1.0 / r0, 1.0 / r1, 1.0 / (r0 + r1)])
            }
        }
    }
}

const ALGORITHMS: &[&str] = &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"];
const CLASS: LambdaClass = LambdaClass {
    name: MULTISTEP.name,
    zero_snr: ZeroSnr::Approximate,
    sigma_schedules: &[
        SigmaSchedule::Karras,
        SigmaSchedule::Exponential,
        SigmaSchedule::Beta,
        SigmaSchedule::Lu,
        SigmaSchedule::Flow,
    ],
    spacing_keys: true,
    clips_lambda: true,
    fractional_on_cosine: true,
    sigma_range_keys: false,
    final_sigma: FinalSigma::Configured,
};

fn multistep(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let keys = Keys::from_settings(settings, options, ALGORITHMS)?;
    keys.solver.check_final_sigma(settings)?;
    let to_zero = settings.text("final_sigmas_type", "zero")? == "zero";
    let run = LambdaSteps::from_settings(settings, options, &CLASS)?;
    Ok(Arc::new(keys.plan(&run.nodes, &run.levels, to_zero)))
}

fn edm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let keys = Keys::from_settings(settings, options, &["dpmsolver++", "sde-dpmsolver++"])?;
    if keys.solver.order == 3 && keys.solver.algorithm.is_stochastic() {
        return Err(no_third_order());
    }
    let run = EdmSteps::from_settings(settings, options, EDM.name, edm::EdmFinalSigma::SigmaMin)?;
    let to_zero = run.sigmas.ends_with(&[0.0]);
    let levels: Vec<NoiseLevel> =
        run.sigmas.iter().map(|sigma| NoiseLevel { alpha: 1.0, sigma: *sigma }).collect();
    let plan = keys.plan(&run.nodes, &levels, to_zero);
    Ok(Arc::new(Plan { outputs_per_value: 1, initial_sigma: run.initial_sigma, ..plan }))
}

/// From a sample to its noise: the same steps through rising noise levels.
fn inverse(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let keys = Keys::from_settings(settings, options, ALGORITHMS)?;
    if keys.solver.algorithm.is_stochastic() {
        let reason = "noise can't be inverted, and diffusers returns NaN; use dpmsolver or dpmsolver++";
        return Err(SettingsError::refused("algorithm_type", "sde", reason).into());
    }
    let class = LambdaClass {
        name: INVERSE.name,
        zero_snr: ZeroSnr::Unsupported,
        sigma_schedules: &[
            SigmaSchedule::Karras,
            SigmaSchedule::Exponential,
            SigmaSchedule::Beta,
            SigmaSchedule::Flow,
        ],
        fractional_on_cosine: false,
        ..CLASS
    };
    let sigma_schedule = SigmaSchedule::from_settings(settings, class.sigma_schedules)?;
    let lambda = LambdaSettings::from_settings(settings, &class, sigma_schedule)?;
    let lambda = LambdaSettings { min: lambda.max, max: lambda.min, ..lambda };
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "linspace")?;
    let n = options.steps_up_to(lambda.schedule.num_train_timesteps(), INVERSE.name)?;
    let (mut sigmas, mut times) = match lambda.scheduled_sigmas(n, false) {
        Some((mut sigmas, times)) => {
            sigmas.push(sigmas[sigmas.len() - 1]);
            (sigmas, times)
        }
        None => {
            let train = lambda.schedule.num_train_timesteps();
            let noisiest = train - 1 - lambda.clipped;
            let times = rising(spacing, train, noisiest, n, offset)?;
            let sigmas = times.iter().copied().chain([noisiest as f64]).map(|t| lambda.table.sigma_at(t));
            (sigmas.collect(), times)
        }
    };
    // The reference visits repeated time steps once.
    times.dedup();
    sigmas.truncate(times.len() + 1);
    let run = lambda.steps(&sigmas, &times);
    Ok(Arc::new(Plan { start: None, ..keys.plan(&run.nodes, &run.levels, false) }))
}

/// The time steps of an inversion, the smallest first.
fn rising(
    spacing: TimestepSpacing,
    train: usize,
    noisiest: usize,
    n: usize,
    offset: usize,
) -> Result<Vec<f64>, SettingsError> {
    let times: Vec<f64> = match spacing {
        TimestepSpacing::Linspace => {
            linspace(0.0, noisiest as f64, n + 1).take(n).map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = (noisiest + 1) / (n + 1);
            (0..n).map(|i| (i * ratio + offset) as f64).collect()
        }
        TimestepSpacing::Trailing => {
            let mut times = spacing.dpm_solver_timesteps(train, train - 1 - noisiest, n, 0)?;
            times.reverse();
            times
        }
    };
    let last = times[times.len() - 1];
    if last < train as f64 {
        return Ok(times);
    }
    Err(SettingsError::steps_offset(offset, n, last as usize, train))
}

fn no_third_order() -> SamplerError {
    let reason = "the reference has no stochastic step of order 3 here; use order 2";
    SettingsError::refused("solver_order", 3, reason).into()
}

/// The keys that are independent of the noise levels.
struct Keys {
    solver: Solver,
    thresholding: Thresholding,
    euler_at_final: bool,
    /// Whether the last steps of the whole schedule have lower orders: `lower_order_final`, for fewer than 15 steps.
    lower_order_final: bool,
    outputs_per_value: usize,
}

impl Keys {
    fn from_settings(
        settings: &mut Settings,
        options: &Options,
        algorithms: &[&str],
    ) -> Result<Self, SamplerError> {
        let solver = Solver::from_settings(settings, algorithms)?;
        options.reject_eta(AddedNoise::fixed_if(solver.algorithm.is_stochastic()))?;
        if solver.order == 3 && solver.algorithm == Algorithm::SdeDpmSolver {
            return Err(no_third_order());
        }
        Ok(Self {
            solver,
            thresholding: Thresholding::dynamic_from_settings(settings)?,
            lower_order_final: settings.flag("lower_order_final", true)? && options.steps < 15,
            euler_at_final: settings.flag("euler_at_final", false)?,
            outputs_per_value: Solver::outputs_per_value(settings)?,
        })
    }

    fn plan(&self, nodes: &[Node], levels: &[NoiseLevel], to_zero: bool) -> Plan<MultistepStep<DpmUpdate>> {
        let algorithm = self.solver.algorithm;
        let steps = nodes.iter().enumerate().map(|(i, node)| {
            let order = self.order(i, nodes.len(), to_zero);
            let noise = f64::from(algorithm.weights(levels[i], levels[i + 1]).noise);
            MultistepStep {
                node: *node,
                update: DpmUpdate::new(&self.solver, levels, i, order),
                noise: algorithm.is_stochastic().then_some(noise),
            }
        });
        Plan {
            form: algorithm.form(),
            thresholding: self.thresholding,
            outputs_per_value: self.outputs_per_value,
            ..Plan::new(steps)
        }
    }

    /// The order of step `i` of `n`: at most the number of predictions, lower at the end of a short schedule, and 1
    /// in a step to a noise level of 0.
    fn order(&self, i: usize, n: usize, to_zero: bool) -> usize {
        let max = match n - 1 - i {
            0 if self.euler_at_final || self.lower_order_final || to_zero => 1,
            1 if self.lower_order_final => 2,
            _ => 3,
        };
        self.solver.order.min(i + 1).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_the_derivatives_of_a_quadratic_prediction() {
        // m(r) = 1 + 2r + 3r² has D_1 = 2 and half its second derivative, D_2 = 3, at r = 0.
        let at = |r: f32| 1.0 + 2.0 * r + 3.0 * r * r;
        let (r0, r1) = (0.5, 1.5);
        let mut m = History::new(3, 1);
        for r in [-r0 - r1, -r0, 0.0] {
            m.rotate()[0] = at(r);
        }
        let mut x = [0.0];
        let third = DpmUpdate::Third { x: 1.0, d0: 100.0, d1: 10.0, d2: 1.0, r0, r1 };
        third.apply(&mut x, &m, None);
        assert!((x[0] - (100.0 + 20.0 + 3.0)).abs() < 1e-4, "{}", x[0]);
        let mut x = [2.0];
        DpmUpdate::Second { x: 3.0, d0: 1.0, d1: 1.0, r: r0 }.apply(&mut x, &m, Some((2.0, &[5.0])));
        assert_eq!(x, [6.0 + at(0.0) + (at(0.0) - at(-r0)) / r0 + 10.0]);
    }

    #[test]
    fn coinciding_levels_are_not_finite() {
        assert!(!DpmUpdate::Second { x: 1.0, d0: 1.0, d1: 1.0, r: 0.0 }.is_finite());
        assert!(!DpmUpdate::First { x: f32::NAN, d0: 1.0 }.is_finite());
    }
}
