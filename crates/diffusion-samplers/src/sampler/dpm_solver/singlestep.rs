//! Singlestep DPM-Solver and DPM-Solver++ (Lu et al. 2022a, algorithms 1 and 2; Lu et al. 2022b, algorithm 1): blocks
//! of up to three stages, each of which starts from the block's first state.

use std::sync::Arc;

use super::weights::{Solver, SolverType, Weights};
use crate::noise_schedule::{NoiseLevel, ZeroSnr};
use crate::rng::Noise;
use crate::sampler::model_output::OutputForm;
use crate::sampler::multistep::{History, weighted_sum};
use crate::sampler::node::Node;
use crate::sampler::options::{AddedNoise, Options};
use crate::sampler::plan::{self, Plan};
use crate::sampler::steps::lambda::{FinalSigma, LambdaClass, LambdaSteps};
use crate::sampler::thresholding::Thresholding;
use crate::sampler::{Family, Sampler, SamplerError};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::SigmaSchedule;
use crate::simd::{Divisor, update};
use crate::trajectory::ModelHandle;

pub(crate) const FAMILY: Family = Family::new("dpm_single", "DPMSolverSinglestepScheduler", build);

const CLASS: LambdaClass = LambdaClass {
    name: FAMILY.name,
    zero_snr: ZeroSnr::Unsupported,
    sigma_schedules: &[
        SigmaSchedule::Karras,
        SigmaSchedule::Exponential,
        SigmaSchedule::Beta,
        SigmaSchedule::Flow,
    ],
    spacing_keys: false,
    clips_lambda: true,
    fractional_on_cosine: false,
    sigma_range_keys: false,
    final_sigma: FinalSigma::Configured,
};

/// The largest order, which is the largest number of stages of a block.
const MAX_ORDER: usize = 3;

/// A block: its first stage evaluates the state x_s, stage k evaluates the result of stage k − 1.
#[derive(Debug)]
struct Block {
    stages: Vec<Stage>,
}

/// One evaluation, and the state that follows from x_s and from the block's predictions.
#[derive(Debug)]
struct Stage {
    node: Node,
    update: BlockUpdate,
    noise: Option<f32>,
}

/// x_t = `x`·x_s + `d0`·D_0 + `d1`·D_1 + `d2`·D_2. The newest prediction is m_0; D_0 is the block's first prediction.
#[derive(Debug)]
enum BlockUpdate {
    /// D_0 = m_0.
    First { x: f32, d0: f32 },
    /// D_0 = m_1, D_1 = (m_0 − m_1)/r.
    Second { x: f32, d0: f32, d1: f32, r: f32 },
    /// D_0 = m_2, D_1 = (m_0 − m_2)/r_0.
    ThirdMidpoint { x: f32, d0: f32, d1: f32, r0: f32 },
    /// D_0 = m_2; D_1 and D_2 from the divided differences (m_0 − m_2)/r_0 and (m_1 − m_2)/r_1.
    ThirdHeun { x: f32, d0: f32, d1: f32, d2: f32, r0: f32, r1: f32 },
}

impl BlockUpdate {
    /// Writes x_t.
    fn apply(&self, x_t: &mut [f32], x_s: &[f32], [m0, m1, m2]: [&[f32]; MAX_ORDER]) {
        match *self {
            Self::First { x: a, d0 } => update(x_t, [x_s, m0], move |_, [x, m0]| a * x + d0 * m0),
            Self::Second { x: a, d0, d1, r } => {
                let inverse_r = 1.0 / r;
                update(x_t, [x_s, m0, m1], move |_, [x, m0, m1]| {
                    a * x + d0 * m1 + d1 * (inverse_r * (m0 - m1))
                });
            }
            Self::ThirdMidpoint { x: a, d0, d1, r0 } => {
                let inverse_r = 1.0 / r0;
                update(x_t, [x_s, m0, m2], move |_, [x, m0, m2]| {
                    a * x + d0 * m2 + d1 * (inverse_r * (m0 - m2))
                });
            }
            Self::ThirdHeun { x: a, d0: w0, d1: w1, d2: w2, r0, r1 } => {
                let (inverse_r0, inverse_r1) = (1.0 / r0, 1.0 / r1);
                let divisor = Divisor::new(f64::from(r0 - r1));
                update(x_t, [x_s, m0, m1, m2], move |_, [x, m0, m1, m2]| {
                    let (d1_0, d1_1) = (inverse_r1 * (m1 - m2), inverse_r0 * (m0 - m2));
                    let d1 = divisor.divide(r0 * d1_0 - r1 * d1_1);
                    let d2 = divisor.divide(2.0 * (d1_1 - d1_0));
                    a * x + w0 * m2 + w1 * d1 + w2 * d2
                });
            }
        }
    }

    /// Whether every coefficient is finite, found by applying the formula to fixed, distinct predictions.
    fn is_finite(&self) -> bool {
        let mut x_t = [0.0];
        self.apply(&mut x_t, &[1.0], [&[1.0], &[2.0], &[4.0]]);
        x_t[0].is_finite()
    }
}

impl plan::Step for Block {
    fn level(&self) -> Option<NoiseLevel> {
        None
    }

    fn evaluations(&self) -> usize {
        self.stages.len()
    }

    fn draws(&self) -> usize {
        self.stages.iter().filter(|stage| stage.noise.is_some()).count()
    }

    fn is_finite(&self) -> bool {
        self.stages.iter().all(|stage| stage.update.is_finite() && stage.noise.is_none_or(f32::is_finite))
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let mut m = History::new(MAX_ORDER, x.len());
        let mut z = plan.noise_buffer(x.len());
        let mut x_s = x.clone();
        for block in &plan.steps {
            for (i, stage) in block.stages.iter().enumerate() {
                evaluator.predict(plan.form, &mut x, &stage.node).await.write(&x, m.rotate());
                if i == 0 {
                    std::mem::swap(&mut x, &mut x_s);
                }
                stage.update.apply(&mut x, &x_s, std::array::from_fn(|age| &m[age]));
                if let Some(s) = stage.noise {
                    noise.fill(&mut z);
                    weighted_sum(&mut x, 1.0, [(f64::from(s), &z[..])]);
                }
            }
        }
        x
    }
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let solver = Solver::from_settings(settings, &["dpmsolver", "dpmsolver++", "sde-dpmsolver++"])?;
    solver.check_final_sigma(settings)?;
    options.reject_eta(AddedNoise::fixed_if(solver.algorithm.is_stochastic()))?;
    let form = solver.algorithm.form();
    let thresholding = Thresholding::dynamic_from_settings(settings)?;
    if thresholding != Thresholding::None && form == OutputForm::Epsilon {
        let reason = "the reference has no thresholding with dpmsolver; use dpmsolver++";
        return Err(SettingsError::refused("thresholding", true, reason).into());
    }
    let to_zero = settings.text("final_sigmas_type", "zero")? == "zero";
    let uneven = !options.steps.is_multiple_of(solver.order);
    // The reference sets this key itself if whole blocks don't fill the run, or if it ends at 0.
    let lower_order_final = settings.flag("lower_order_final", false)? || uneven || to_zero;
    let outputs_per_value = Solver::outputs_per_value(settings)?;
    let run = LambdaSteps::from_settings(settings, options, &CLASS)?;
    let orders = orders(run.nodes.len(), solver.order, lower_order_final, to_zero);
    let mut blocks: Vec<Block> = Vec::new();
    for (i, order) in orders.into_iter().enumerate() {
        let stage = stage(&solver, &run, i, order);
        match blocks.last_mut() {
            Some(block) if order > 1 => block.stages.push(stage),
            _ => blocks.push(Block { stages: vec![stage] }),
        }
    }
    Ok(Arc::new(Plan { form, thresholding, outputs_per_value, ..Plan::new(blocks) }))
}

/// The order of every evaluation's stage: 1, 2, … up to the solver's order in each block, with shorter blocks at the
/// end.
fn orders(steps: usize, order: usize, lower_order_final: bool, to_zero: bool) -> Vec<usize> {
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if lower_order_final && order > 1 && steps.is_multiple_of(order) {
        // Instead of a last block of full order.
        let end = if order == 3 { &[1, 2, 1][..] } else { &[1, 1] };
        orders.truncate(steps - order);
        orders.extend(end);
    }
    if let Some(last) = orders.last_mut().filter(|_| to_zero) {
        *last = 1;
    }
    orders
}

/// The stage of evaluation `i`, which goes from the block's first level to the level `i + 1`.
fn stage(solver: &Solver, run: &LambdaSteps, i: usize, order: usize) -> Stage {
    let start = i + 1 - order;
    let w @ Weights { x, d0, heun: d1, d2, .. } =
        solver.algorithm.weights(run.levels[start], run.levels[i + 1]);
    let lambda = |k: usize| run.levels[k].lambda() as f32;
    let h = lambda(i + 1) - lambda(start);
    // r_k = (λ_k − λ_s)/h
    let r = |k: usize| (lambda(k) - lambda(start)) / h;
    let update = match (order, solver.solver_type) {
        (1, _) => BlockUpdate::First { x, d0 },
        (2, solver_type) => BlockUpdate::Second { x, d0, d1: w.d1(solver_type), r: r(i) },
        (_, SolverType::Midpoint) => BlockUpdate::ThirdMidpoint { x, d0, d1, r0: r(i) },
        (_, SolverType::Heun) => BlockUpdate::ThirdHeun { x, d0, d1, d2, r0: r(i), r1: r(i - 1) },
    };
    Stage { node: run.nodes[i], update, noise: solver.algorithm.is_stochastic().then_some(w.noise) }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn differences_are_the_derivatives_of_a_quadratic_prediction() {
        // m(r) = 1 + 2r + 3r² at r = 0, r_1 = ⅓ and r_0 = ⅔ has the derivatives 1, 2 and 6 at 0.
        let m = |r: f32| 1.0 + 2.0 * r + 3.0 * r * r;
        let (r1, r0) = (1.0 / 3.0, 2.0 / 3.0);
        let mut x_t = [0.0];
        let third = BlockUpdate::ThirdHeun { x: 1.0, d0: 100.0, d1: 10.0, d2: 1.0, r0, r1 };
        third.apply(&mut x_t, &[0.0], [&[m(r0)], &[m(r1)], &[m(0.0)]]);
        assert!((x_t[0] - (100.0 + 20.0 + 6.0)).abs() < 1e-4, "{}", x_t[0]);
        assert!(third.is_finite());
        assert!(!BlockUpdate::Second { x: 1.0, d0: 1.0, d1: 1.0, r: 0.0 }.is_finite());
    }
}
