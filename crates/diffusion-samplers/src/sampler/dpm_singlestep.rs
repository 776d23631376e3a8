//! Singlestep DPM-Solver and DPM-Solver++ (Lu et al. 2022): steps in blocks of the solver's
//! order, each block from its own start.

use std::sync::Arc;

use super::dpm::{Solver, SolverType};
use super::family::{Family, Options, Sampler, SamplerError};
use super::steps::lambda::{Class, End, LambdaSteps};
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::taylor::{Differences, From, Step, Taylor};
use crate::noise_schedule::ZeroSnr;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::SigmaSchedule;

pub(super) const FAMILY: Family = Family::new("dpm_single", "DPMSolverSinglestepScheduler", build);

const CLASS: Class = Class {
    name: FAMILY.name,
    zero_snr: ZeroSnr::Unsupported,
    spreads: &[SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta, SigmaSchedule::Flow],
    spacing_keys: false,
    clips_lambda: true,
    fractional_on_cosine: false,
    end_keys: false,
    end: End::Configured,
};

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let solver = Solver::from_settings(settings, &["dpmsolver", "dpmsolver++", "sde-dpmsolver++"])?;
    solver.check_end(settings)?;
    if solver.algorithm.is_stochastic() {
        options.without_eta()?
    } else {
        options.deterministic()?
    }
    let bound = Bound::thresholding(settings)?;
    if bound != Bound::None && !solver.algorithm.keeps_x0() {
        let reason = "dpmsolver has no thresholding in the singlestep reference; use dpmsolver++";
        return Err(SettingsError::refused("thresholding", true, reason).into());
    }
    let to_zero = settings.text("final_sigmas_type", "zero")? == "zero";
    let uneven = !options.steps.is_multiple_of(solver.order);
    // The reference sets this key itself where blocks don't fill the walk, or where it ends at 0.
    let lower_order_final = settings.flag("lower_order_final", false)? || uneven || to_zero;
    let outputs_per_value = Solver::outputs_per_value(settings)?;
    let grid = LambdaSteps::read(settings, options, &CLASS)?;
    let orders = orders(grid.points.len(), solver.order, lower_order_final, to_zero);
    let steps = orders.iter().enumerate().map(|(i, order)| step(&solver, &grid, i, *order));
    let kept = if solver.algorithm.keeps_x0() { Kept::X0 } else { Kept::Epsilon };
    Ok(Arc::new(Taylor {
        steps: steps.collect(),
        kept,
        bound,
        initial_sigma: 1.0,
        outputs_per_value,
        begins_anywhere: false,
    }))
}

/// The order of every step: blocks 1, 2, … up to the solver's order, shorter ones at the end.
fn orders(steps: usize, order: usize, lower_order_final: bool, to_zero: bool) -> Vec<usize> {
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if lower_order_final && order > 1 && steps.is_multiple_of(order) {
        // The last block would end in full order: part it into smaller ones.
        let end = if order == 3 { &[1, 2, 1][..] } else { &[1, 1] };
        orders.truncate(steps - order);
        orders.extend(end);
    }
    if let Some(last) = orders.last_mut().filter(|_| to_zero) {
        *last = 1;
    }
    orders
}

/// A step of order k goes from the state of k − 1 steps ago, by the estimates made since.
fn step(solver: &Solver, grid: &LambdaSteps, i: usize, order: usize) -> Step {
    let start = i + 1 - order;
    let w = solver.algorithm.weights(grid.levels[start], grid.levels[i + 1]);
    let lambda = |k: usize| grid.levels[k].lambda() as f32;
    let h = lambda(i + 1) - lambda(start);
    let ratio = |k: usize| (lambda(k) - lambda(start)) / h;
    let heun = solver.solver_type == SolverType::Heun;
    let (d, differences) = match order {
        1 => ([w.d0, 0.0, 0.0], Differences::First),
        2 if heun => ([w.d0, w.heun, 0.0], Differences::BlockSecond { r: ratio(i) }),
        2 => ([w.d0, w.midpoint, 0.0], Differences::BlockSecond { r: ratio(i) }),
        _ if heun => ([w.d0, w.heun, w.d2], Differences::BlockThird { r0: ratio(i), r1: ratio(i - 1) }),
        _ => ([w.d0, w.heun, 0.0], Differences::BlockThirdPlain { r0: ratio(i) }),
    };
    let from = match order {
        1 if solver.order > 1 => From::BlockStart,
        1 => From::Here,
        _ => From::Block,
    };
    Step {
        at: grid.points[i],
        from,
        x: w.x,
        d,
        noise: solver.algorithm.is_stochastic().then_some(w.noise),
        differences,
    }
}

#[cfg(test)]
mod tests {
    use super::orders;

    #[test]
    fn blocks_are_those_of_the_paper() {
        assert_eq!(orders(6, 3, false, false), [1, 2, 3, 1, 2, 3]);
        assert_eq!(orders(6, 3, true, false), [1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(7, 3, true, false), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(orders(8, 3, true, false), [1, 2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(orders(8, 3, true, true), [1, 2, 3, 1, 2, 3, 1, 1]);
        assert_eq!(orders(4, 2, true, true), [1, 2, 1, 1]);
        assert_eq!(orders(5, 2, true, false), [1, 2, 1, 2, 1]);
        assert_eq!(orders(1, 2, true, true), [1]);
    }
}
