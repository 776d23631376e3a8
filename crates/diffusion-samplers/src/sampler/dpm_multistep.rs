//! Multistep DPM-Solver and DPM-Solver++ of order 1 to 3 (Lu et al. 2022, DPM-Solver++,
//! algorithm 2), forward through λ, backward (inversion), and in EDM's coordinates.

use std::sync::Arc;

use super::dpm::{Solver, SolverType};
use super::family::{Family, Options, Preset, PresetValue, Sampler, SamplerError, TimeConditioning};
use super::node::Node;
use super::steps::edm::{EdmSteps, Least};
use super::steps::lambda::{Base, Class, End, LambdaSteps};
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::taylor::{Differences, From, Step, Taylor};
use crate::noise_schedule::{NoiseLevel, ZeroSnr, linspace};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::SigmaSchedule;
use crate::timestep_spacing::TimestepSpacing;

pub(super) const MULTISTEP: Family = Family {
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
pub(super) const INVERSE: Family =
    Family::new("dpm_multi_inverse", "DPMSolverMultistepInverseScheduler", inverse);
pub(super) const EDM: Family =
    Family::new("edm_dpm_multi", "EDMDPMSolverMultistepScheduler", edm).told(TimeConditioning::LogSigma);

const ALGORITHMS: &[&str] = &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"];
const CLASS: Class = Class {
    name: MULTISTEP.name,
    zero_snr: ZeroSnr::Nearly,
    spreads: &[
        SigmaSchedule::Karras,
        SigmaSchedule::Exponential,
        SigmaSchedule::Beta,
        SigmaSchedule::Lu,
        SigmaSchedule::Flow,
    ],
    spacing_keys: true,
    clips_lambda: true,
    fractional_on_cosine: true,
    end_keys: false,
    end: End::Configured,
};

fn multistep(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let plan = Plan::read(settings, options, ALGORITHMS)?;
    plan.solver.check_end(settings)?;
    let to_zero = settings.text("final_sigmas_type", "zero")? == "zero";
    let grid = LambdaSteps::read(settings, options, &CLASS)?;
    Ok(Arc::new(plan.sampler(&grid.points, &grid.levels, to_zero)))
}

fn edm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let plan =
        Plan { outputs_per_value: 1, ..Plan::read(settings, options, &["dpmsolver++", "sde-dpmsolver++"])? };
    if plan.solver.order == 3 && plan.solver.algorithm.is_stochastic() {
        return Err(no_third_order());
    }
    let grid = EdmSteps::read(settings, options, EDM.name, Least::Configured)?;
    let to_zero = grid.sigmas.ends_with(&[0.0]);
    let levels: Vec<NoiseLevel> =
        grid.sigmas.iter().map(|sigma| NoiseLevel { alpha: 1.0, sigma: *sigma }).collect();
    let sampler = plan.sampler(&grid.points, &levels, to_zero);
    Ok(Arc::new(Taylor { initial_sigma: grid.initial_sigma, ..sampler }))
}

/// From a sample back to its noise: the same steps through rising levels.
fn inverse(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let plan = Plan::read(settings, options, ALGORITHMS)?;
    if plan.solver.algorithm.is_stochastic() {
        let reason = "noise can't be taken back, and diffusers returns NaN; use dpmsolver or dpmsolver++";
        return Err(SettingsError::refused("algorithm_type", "sde", reason).into());
    }
    let spreads =
        &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta, SigmaSchedule::Flow];
    let class = Class {
        name: INVERSE.name,
        zero_snr: ZeroSnr::Refused,
        spreads,
        fractional_on_cosine: false,
        ..CLASS
    };
    let spread = SigmaSchedule::from_settings(settings, class.spreads)?;
    let base = Base::read(settings, &class, spread)?;
    let base = Base { min: base.max, max: base.min, ..base };
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "linspace")?;
    let n = options.steps_up_to(base.schedule.len(), INVERSE.name)?;
    let (mut sigmas, mut times) = match base.spread_levels(n, false) {
        Some((mut levels, times)) => {
            levels.push(levels[levels.len() - 1]);
            (levels, times)
        }
        None => {
            let train = base.schedule.len();
            let noisiest = train - 1 - base.clipped;
            let times = rising(spacing, train, noisiest, n, offset)?;
            (times.iter().map(|t| base.table.at(*t)).chain([base.table.at(noisiest as f64)]).collect(), times)
        }
    };
    // Where time steps repeat, the reference visits each but once.
    times.dedup();
    sigmas.truncate(times.len() + 1);
    let grid = base.grid(&sigmas, &times);
    Ok(Arc::new(Taylor { begins_anywhere: false, ..plan.sampler(&grid.points, &grid.levels, false) }))
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
            let mut times = spacing.one_more(train, train - 1 - noisiest, n, 0)?;
            times.reverse();
            times
        }
    };
    let last = times[times.len() - 1];
    if last < train as f64 {
        return Ok(times);
    }
    Err(SettingsError::refused(
        "steps_offset",
        offset,
        format!("the last time step would be {last}, but the schedule has {train}"),
    ))
}

fn no_third_order() -> SamplerError {
    let reason = "the reference has no stochastic step of order 3 here; use order 2";
    SettingsError::refused("solver_order", 3, reason).into()
}

/// What the settings say beside the grid.
struct Plan {
    solver: Solver,
    bound: Bound,
    lower_order_final: bool,
    euler_at_final: bool,
    /// Whether the whole way is short, even where but a part of it is gone.
    short: bool,
    outputs_per_value: usize,
}

impl Plan {
    fn read(settings: &mut Settings, options: &Options, known: &[&str]) -> Result<Self, SamplerError> {
        let solver = Solver::from_settings(settings, known)?;
        if solver.algorithm.is_stochastic() {
            options.without_eta()?
        } else {
            options.deterministic()?
        }
        if solver.order == 3 && solver.algorithm == super::dpm::Algorithm::SdeDpm {
            return Err(no_third_order());
        }
        Ok(Self {
            solver,
            bound: Bound::thresholding(settings)?,
            lower_order_final: settings.flag("lower_order_final", true)?,
            euler_at_final: settings.flag("euler_at_final", false)?,
            short: options.steps < 15,
            outputs_per_value: Solver::outputs_per_value(settings)?,
        })
    }

    fn sampler(&self, points: &[Node], levels: &[NoiseLevel], to_zero: bool) -> Taylor {
        let order = |i: usize| self.order_of(i, points.len(), to_zero);
        let steps = points.iter().enumerate().map(|(i, at)| self.step(*at, levels, i, order(i)));
        Taylor {
            steps: steps.collect(),
            kept: if self.solver.algorithm.keeps_x0() { Kept::X0 } else { Kept::Epsilon },
            bound: self.bound,
            initial_sigma: 1.0,
            outputs_per_value: self.outputs_per_value,
            begins_anywhere: true,
        }
    }

    /// The order of step `i` of `n`: as many estimates as there are, fewer towards the end of a
    /// short walk, and 1 where the walk ends at a noise level of 0.
    fn order_of(&self, i: usize, n: usize, to_zero: bool) -> usize {
        let short = self.lower_order_final && self.short;
        let most = match n - 1 - i {
            0 if self.euler_at_final || short || to_zero => 1,
            1 if short => 2,
            _ => 3,
        };
        self.solver.order.min(i + 1).min(most)
    }

    fn step(&self, at: Node, levels: &[NoiseLevel], i: usize, order: usize) -> Step {
        let w = self.solver.algorithm.weights(levels[i], levels[i + 1]);
        let lambda = |k: usize| levels[k].lambda() as f32;
        let h = lambda(i + 1) - lambda(i);
        let ratio = |k: usize| (lambda(i - k) - lambda(i - k - 1)) / h;
        let (d, differences) = match order {
            1 => ([w.d0, 0.0, 0.0], Differences::First),
            2 => {
                let heun = self.solver.solver_type == SolverType::Heun;
                let d1 = if heun { w.heun } else { w.midpoint };
                ([w.d0, d1, 0.0], Differences::Second { r: ratio(0) })
            }
            _ => ([w.d0, w.heun, w.d2], Differences::Third { r0: ratio(0), r1: ratio(1) }),
        };
        let noise = self.solver.algorithm.is_stochastic().then_some(w.noise);
        Step { at, from: From::Here, x: w.x, d, noise, differences }
    }
}
