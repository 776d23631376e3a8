//! PNDM: pseudo numerical methods for diffusion models on manifolds (Liu et al. 2022): three pseudo Runge–Kutta steps
//! (PRK), then the pseudo linear multistep method of Adams and Bashforth (PLMS).

mod planner;

use std::sync::Arc;

use super::multistep::{History, MAX_HISTORY, weighted_sum};
use super::options::{AddedNoise, Options, prediction_type};
use super::plan::{self, Plan};
use super::{Family, Sampler, SamplerError, Strength};
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::AffinePrediction;
use crate::prediction_type::PredictionType::{self, Epsilon, Sample, VPrediction};
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::simd::{Divisor, update};
use crate::timestep_spacing::TimestepSpacing;
use crate::trajectory::{InputScaling, ModelHandle, Output};
use planner::Planner;

pub(super) const FAMILY: Family = Family::new("pndm", "PNDMScheduler", build);

#[derive(Debug)]
enum PndmStep {
    /// A pseudo Runge–Kutta step from t to s by four evaluations e_1 … e_4 (eq. 13).
    RungeKutta {
        t: PndmNode,
        middle: PndmNode,
        s: PndmNode,
        /// x_1 = φ(x_t, e_1, t, t − width/2).
        to_before_middle: Transfer,
        /// x_2 = φ(x_t, e_2, t, (t + s)/2).
        to_middle: Transfer,
        /// x_3 = φ(x_t, e_3, t, s) and x_s = φ(x_t, ē, t, s).
        to_s: Transfer,
    },
    /// The first step without Runge–Kutta: by e_1 to s, then again from x_t by the mean of e_1 and e_2.
    Trapezoid { t: PndmNode, s: PndmNode, first: Transfer, second: Transfer },
    /// A pseudo linear multistep step (eq. 12).
    Multistep { t: PndmNode, weights: [f64; MAX_HISTORY], transfer: Transfer },
}

/// A point of evaluation.
#[derive(Debug, Clone, Copy)]
struct PndmNode {
    t: f64,
    level: NoiseLevel,
}

/// The transfer part φ(x, ε, t, s) (eq. 11), which is DDIM's step:
/// √(ᾱ_s/ᾱ_t)·x − (ᾱ_s − ᾱ_t)·ε / (ᾱ_t·√(1 − ᾱ_s) + √(ᾱ_t·(1 − ᾱ_t)·ᾱ_s)).
#[derive(Debug)]
struct Transfer {
    /// √(ᾱ_s/ᾱ_t).
    ratio: f32,
    /// ᾱ_s − ᾱ_t.
    difference: f32,
    divisor: Divisor,
    /// α and σ at t, if the network predicts v: ε = α·v + σ·x.
    v_level: Option<(f32, f32)>,
    /// x̂_0 at t, for previews.
    x0: AffinePrediction,
}

impl Transfer {
    fn new(from: NoiseLevel, to: NoiseLevel, kind: PredictionType) -> Self {
        let (bar_t, bar_s) = ((from.alpha * from.alpha) as f32, (to.alpha * to.alpha) as f32);
        let (beta_t, beta_s) = (1.0 - bar_t, 1.0 - bar_s);
        let divisor = bar_t * beta_s.sqrt() + (bar_t * beta_t * bar_s).sqrt();
        Self {
            ratio: (bar_s / bar_t).sqrt(),
            difference: bar_s - bar_t,
            divisor: Divisor::new(f64::from(divisor)),
            v_level: (kind == VPrediction).then(|| (bar_t.sqrt(), beta_t.sqrt())),
            x0: kind.convert(Sample, from),
        }
    }

    /// x ← φ(x, e, t, s), where e is the network's output, ε or v.
    fn apply(&self, x: &mut [f32], e: &[f32]) {
        let Self { ratio, difference, divisor, .. } = *self;
        match self.v_level {
            None => update(x, [e], move |x, [e]| ratio * x - divisor.divide(difference * e)),
            Some((alpha, sigma)) => {
                update(x, [e], move |x, [v]| {
                    ratio * x - divisor.divide(difference * (alpha * v + sigma * x))
                });
            }
        }
    }
}

impl plan::Step for PndmStep {
    fn level(&self) -> Option<NoiseLevel> {
        let (Self::RungeKutta { t, .. } | Self::Trapezoid { t, .. } | Self::Multistep { t, .. }) = self;
        Some(t.level)
    }

    fn evaluations(&self) -> usize {
        match self {
            Self::RungeKutta { .. } => 4,
            Self::Trapezoid { .. } => 2,
            Self::Multistep { .. } => 1,
        }
    }

    async fn sample(plan: Arc<Plan<Self>>, mut x: Vec<f32>, _: Noise, model: ModelHandle) -> Vec<f32> {
        let len = x.len();
        let mut run =
            PndmRun { model, x_t: vec![0.0; len], history: History::new(MAX_HISTORY, len), x0: Vec::new() };
        let mut mean = vec![0.0; len];
        for step in &plan.steps {
            match step {
                Self::RungeKutta { t, middle, s, to_before_middle, to_middle, to_s } => {
                    let transfers = [to_before_middle, to_middle, to_s];
                    run.runge_kutta(&mut x, [*t, *middle, *s], transfers, &mut mean).await;
                }
                Self::Trapezoid { t, s, first, second } => {
                    run.trapezoid(&mut x, [*t, *s], [first, second], &mut mean).await;
                }
                Self::Multistep { t, weights, transfer } => {
                    run.multistep(&mut x, *t, weights, transfer, &mut mean).await;
                }
            }
        }
        x
    }
}

/// The buffers of a run. In its methods `mean` is a buffer for ē, the mean of a step's evaluations.
struct PndmRun {
    model: ModelHandle,
    /// The state at the start of a step.
    x_t: Vec<f32>,
    /// e_t of this step and the last ones, for the multistep formula.
    history: History,
    /// x̂_0 for previews; allocated when first used.
    x0: Vec<f32>,
}

impl PndmRun {
    /// PRK (eq. 13): ē = (e_1 + 2·e_2 + 2·e_3 + e_4)/6, where each e is evaluated at the transfer of the last one.
    async fn runge_kutta(
        &mut self,
        x: &mut Vec<f32>,
        [t, middle, s]: [PndmNode; 3],
        [to_before_middle, to_middle, to_s]: [&Transfer; 3],
        mean: &mut [f32],
    ) {
        let (len, sixth, third) = (x.len(), 1.0 / 6.0_f32, 1.0 / 3.0_f32);
        {
            let e_1 = &self.evaluate(x, t).await[..len];
            self.x_t.copy_from_slice(x);
            self.history.rotate().copy_from_slice(e_1);
            update(mean, [e_1], move |_, [e_1]| sixth * e_1);
            self.transfer(x, to_before_middle, e_1);
        }
        {
            let e_2 = &self.evaluate(x, middle).await[..len];
            update(mean, [e_2], move |sum, [e_2]| sum + third * e_2);
            self.transfer_again(x, to_middle, e_2);
        }
        {
            let e_3 = &self.evaluate(x, middle).await[..len];
            update(mean, [e_3], move |sum, [e_3]| sum + third * e_3);
            self.transfer_again(x, to_s, e_3);
        }
        let e_4 = &self.evaluate(x, s).await[..len];
        update(mean, [e_4], move |sum, [e_4]| sum + sixth * e_4);
        self.transfer_again(x, to_s, mean);
    }

    /// The reference's start without Runge–Kutta: ē = (e_1 + e_2)/2, where e_2 is evaluated at the transfer of e_1.
    async fn trapezoid(
        &mut self,
        x: &mut Vec<f32>,
        [t, s]: [PndmNode; 2],
        [first, second]: [&Transfer; 2],
        mean: &mut [f32],
    ) {
        let len = x.len();
        {
            let e_1 = &self.evaluate(x, t).await[..len];
            self.x_t.copy_from_slice(x);
            self.history.rotate().copy_from_slice(e_1);
            self.transfer(x, first, e_1);
        }
        let e_2 = &self.evaluate(x, s).await[..len];
        update(mean, [&self.history[0], e_2], move |_, [e_1, e_2]| 0.5 * e_1 + 0.5 * e_2);
        self.transfer_again(x, second, mean);
    }

    /// PLMS (eq. 12): ē = Σ_k w_k·e_k over the last evaluations.
    async fn multistep(
        &mut self,
        x: &mut Vec<f32>,
        t: PndmNode,
        weights: &[f64; MAX_HISTORY],
        transfer: &Transfer,
        mean: &mut [f32],
    ) {
        let e_t = &self.evaluate(x, t).await[..x.len()];
        self.history.rotate().copy_from_slice(e_t);
        weighted_sum(mean, 0.0, self.history.weighted(weights));
        self.transfer(x, transfer, mean);
    }

    async fn evaluate(&self, x: &mut Vec<f32>, node: PndmNode) -> Output {
        self.model.blend_known(x, node.level);
        self.model.predict(x, InputScaling::State, node.t).await
    }

    /// x ← φ(x_t, e, t, s).
    fn transfer_again(&mut self, x: &mut [f32], transfer: &Transfer, e: &[f32]) {
        x.copy_from_slice(&self.x_t);
        self.transfer(x, transfer, e);
    }

    /// x ← φ(x, e, t, s).
    fn transfer(&mut self, x: &mut [f32], transfer: &Transfer, e: &[f32]) {
        if self.model.preview_enabled() {
            self.x0.resize(x.len(), 0.0);
            transfer.x0.apply(x, e, &mut self.x0);
            self.model.preview(&self.x0);
        }
        transfer.apply(x, e);
    }
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let kind = prediction_type(settings, &[Epsilon, VPrediction])?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    let skip_prk = settings.flag("skip_prk_steps", false)?;
    let to_one = settings.flag("set_alpha_to_one", false)?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), FAMILY.name)?;
    if !skip_prk && count < 4 {
        let reason =
            format!("the Runge-Kutta start needs at least 4 steps, but steps is {count}; set it to true");
        return Err(SettingsError::refused("skip_prk_steps", false, reason).into());
    }
    let visited = spacing.timesteps(schedule.num_train_timesteps(), count, offset)?;
    let times: Vec<i64> = visited.into_iter().map(|t| t as i64).collect();
    if !skip_prk && options.strength != Strength::Full {
        let name = "pndm with a Runge-Kutta start (skip_prk_steps false)".to_owned();
        return Err(SamplerError::NoImageStart { name });
    }
    let bars = schedule.alphas_cumprod();
    let final_bar = if to_one { 1.0 } else { bars[0] };
    let width = (schedule.num_train_timesteps() / count) as i64;
    let planner = Planner { bars, final_bar, kind, width, offset, steps: count };
    let steps = match skip_prk {
        true => planner.without_runge_kutta(&times, options.skipped()),
        false => planner.with_runge_kutta(&times),
    };
    Ok(Arc::new(Plan::new(steps?)))
}

/// The weights of the last evaluations, newest first: eq. 12, and lower orders while there are fewer evaluations.
pub(super) fn adams_bashforth(known: usize) -> [f64; MAX_HISTORY] {
    match known {
        1 => [1.0, 0.0, 0.0, 0.0],
        2 => [1.5, -0.5, 0.0, 0.0],
        3 => [23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0, 0.0],
        _ => [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_transfer_is_ddims_step(
            bar_t in 0.02..0.5_f64, bar_s in 0.55..0.99_f64, x in -2.0..2.0_f64, epsilon in -2.0..2.0_f64,
        ) {
            let (from, to) = (NoiseLevel::from_alpha_bar(bar_t), NoiseLevel::from_alpha_bar(bar_s));
            let x0 = (x - from.sigma * epsilon) / from.alpha;
            let expected = to.alpha * x0 + to.sigma * epsilon;
            let v = from.alpha * epsilon - from.sigma * x0;
            for (kind, output) in [(Epsilon, epsilon), (VPrediction, v)] {
                let mut found = [x as f32];
                Transfer::new(from, to, kind).apply(&mut found, &[output as f32]);
                prop_assert!((f64::from(found[0]) - expected).abs() < 1e-4, "{} and {expected}", found[0]);
            }
        }
    }

    #[test]
    fn the_weights_of_a_constant_add_up_to_1() {
        for known in 1..6 {
            assert!((adams_bashforth(known).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}
