//! PNDM: pseudo numerical methods for diffusion models on manifolds (Liu et al. 2022): a start by
//! Runge–Kutta (PRK), then the linear multistep method of Adams and Bashforth (PLMS).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, Strength, prediction_type};
use super::walk::history::{DEPTH, History};
use super::walk::mix::mix;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::PredictionType::{self, Epsilon, Sample, VPrediction};
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::simd::{Divisor, update};
use crate::timestep_spacing::TimestepSpacing;
use crate::trajectory::{Input, ModelHandle, SampleFuture};

pub(super) const FAMILY: Family = Family::new("pndm", "PNDMScheduler", build);

/// How an evaluation's output enters the estimate that a transfer uses.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    /// Runge–Kutta's first stage, whose output is remembered and whose state is where its others
    /// start.
    Opening,
    /// A further stage.
    Inner,
    /// The last stage: the weighted sum of all four.
    Closing,
    /// The multistep formula over the outputs remembered.
    Multistep,
    /// The same at a start without Runge–Kutta, whose state is remembered.
    First,
    /// The second evaluation of such a start: the mean of both, from the first state.
    Again,
}

/// One evaluation and the transfer φ(x, e, t, s) that follows it (eq. 11).
#[derive(Debug)]
struct Step {
    t: f64,
    used: Use,
    /// The level of the time step that the network is told.
    told: NoiseLevel,
    from: NoiseLevel,
    to: NoiseLevel,
}

#[derive(Debug)]
struct Pndm {
    steps: Vec<Step>,
    kind: PredictionType,
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let kind = prediction_type(settings, &[Epsilon, VPrediction])?;
    let (spacing, offset) = TimestepSpacing::from_settings(settings, "leading")?;
    let skip = settings.flag("skip_prk_steps", false)?;
    let to_one = settings.flag("set_alpha_to_one", false)?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), FAMILY.name)?;
    if !skip && count < 4 {
        let reason = format!("Runge-Kutta's start needs 4 steps at least, and {count} are asked for");
        return Err(SettingsError::refused("skip_prk_steps", false, reason).into());
    }
    let visited = spacing.timesteps(schedule.num_train_timesteps(), count, offset)?;
    let times: Vec<i64> = visited.into_iter().map(|t| t as i64).collect();
    let width = (schedule.num_train_timesteps() / count) as i64;
    if !skip && options.strength != Strength::Full {
        return Err(SamplerError::Whole {
            name: "pndm with Runge-Kutta's start (skip_prk_steps false)".to_owned(),
        });
    }
    let plan = if skip {
        without_runge_kutta(&times, width, options.skipped())
    } else {
        with_runge_kutta(&times, width)
    };
    let bars = schedule.alphas_cumprod();
    let last = if to_one { 1.0 } else { bars[0] };
    // Before the first time step lies the end of the walk.
    let level = |t: i64| {
        let Ok(index) = usize::try_from(t) else { return Ok(NoiseLevel::from_alpha_bar(last)) };
        bars.get(index).copied().map(NoiseLevel::from_alpha_bar).ok_or_else(|| {
            let reason =
                format!("a step would leave from time step {t}, but the schedule has {}", bars.len());
            SettingsError::refused("steps_offset", offset, reason)
        })
    };
    let step = |(t, used, from, to): Planned| {
        Ok(Step { t: t as f64, used, told: level(t)?, from: level(from)?, to: level(to)? })
    };
    let steps: Result<_, SettingsError> = plan.into_iter().map(step).collect();
    Ok(Arc::new(Pndm { steps: steps?, kind }))
}

/// The time step told to the network, the use of its output, and the transfer's two ends.
type Planned = (i64, Use, i64, i64);

/// Three Runge–Kutta steps of four evaluations each (eq. 13), then PLMS.
fn with_runge_kutta(times: &[i64], width: i64) -> Vec<Planned> {
    let half = width / 2;
    let mut plan = Vec::new();
    for pair in times[..4].windows(2) {
        let (t, next) = (pair[0], pair[1]);
        plan.push((t, Use::Opening, t, t - half));
        plan.push((next + half, Use::Inner, t, next + half));
        plan.push((next + half, Use::Inner, t, next));
        plan.push((next, Use::Closing, t, next));
    }
    plan.extend(times[3..].iter().map(|&t| (t, Use::Multistep, t, t - width)));
    plan
}

/// PLMS from the start: the first step is made twice, the second time with the mean. Where steps are
/// left out, the first two evaluations of those that remain are these two, as in the reference, whose
/// list of time steps has the second one twice.
fn without_runge_kutta(times: &[i64], width: i64, left_out: usize) -> Vec<Planned> {
    let twice = times[..1].iter().chain(times.get(1)).chain(&times[1..]).copied();
    let evaluated: Vec<i64> = twice.skip(left_out).collect();
    let used = |(i, t): (usize, i64)| match i {
        0 => (t, Use::First, t, t - width),
        1 => (t, Use::Again, t + width, t),
        _ => (t, Use::Multistep, t, t - width),
    };
    evaluated.into_iter().enumerate().map(used).collect()
}

impl Sampler for Pndm {
    fn evaluations(&self) -> usize {
        self.steps.len()
    }

    fn start(&self) -> Option<NoiseLevel> {
        self.steps.first().map(|step| step.from)
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, _: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let buffer = || vec![0.0; x.len()];
            let (mut start, mut total, mut estimate, mut x0) = (buffer(), buffer(), buffer(), Vec::new());
            let mut outputs = History::new(DEPTH, x.len());
            let mut remembered = 0;
            for step in &self.steps {
                net.blend_known(&mut x, step.told);
                let answer = net.predict(&mut x, Input::State, step.t).await;
                // Channels beyond the sample's own are variances.
                let output = &answer[..x.len()];
                if matches!(step.used, Use::Opening | Use::First) {
                    start.copy_from_slice(&x);
                    total.fill(0.0);
                }
                match step.used {
                    Use::Opening | Use::Inner => {
                        let weight = if step.used == Use::Opening { 1.0 / 6.0 } else { 1.0 / 3.0 };
                        mix(&mut total, 1.0, [(weight, output)]);
                        estimate.copy_from_slice(output);
                    }
                    Use::Closing => {
                        mix(&mut total, 1.0, [(1.0 / 6.0, output)]);
                        estimate.copy_from_slice(&total);
                    }
                    Use::Again => {
                        mix(&mut estimate, 0.0, [(0.5, outputs.estimate(0)), (0.5, output)]);
                    }
                    Use::First | Use::Multistep => {}
                }
                if matches!(step.used, Use::Opening | Use::First | Use::Multistep) {
                    outputs.push().copy_from_slice(output);
                    remembered += 1;
                }
                if matches!(step.used, Use::First | Use::Multistep) {
                    mix(&mut estimate, 0.0, outputs.terms(&adams_bashforth(remembered)));
                }
                if matches!(step.used, Use::Inner | Use::Closing | Use::Again) {
                    x.copy_from_slice(&start);
                }
                if net.preview_enabled() {
                    x0.resize(x.len(), 0.0);
                    self.kind.convert(Sample, step.from).apply(&x, &estimate, &mut x0);
                    net.preview(&x0);
                }
                self.transfer(step, &mut x, &estimate);
            }
            x
        })
    }
}

impl Pndm {
    /// φ(x, ε, t, s) of eq. 11, which is DDIM's step.
    fn transfer(&self, step: &Step, x: &mut [f32], estimate: &[f32]) {
        let (from, to) = (step.from, step.to);
        let (bar_t, bar_s) = ((from.alpha * from.alpha) as f32, (to.alpha * to.alpha) as f32);
        let (beta_t, beta_s) = (1.0 - bar_t, 1.0 - bar_s);
        let ratio = (bar_s / bar_t).sqrt();
        let over = bar_t * beta_s.sqrt() + (bar_t * beta_t * bar_s).sqrt();
        let (alpha, sigma, share) = (bar_t.sqrt(), beta_t.sqrt(), bar_s - bar_t);
        let over = Divisor::new(f64::from(over));
        if self.kind == VPrediction {
            update(x, [estimate], move |x, [v]| ratio * x - over.divide(share * (alpha * v + sigma * x)));
        } else {
            update(x, [estimate], move |x, [epsilon]| ratio * x - over.divide(share * epsilon));
        }
    }
}

/// The weights of the last outputs, newest first (eq. 12, and its lower orders).
pub(super) fn adams_bashforth(known: usize) -> [f64; 4] {
    match known {
        1 => [1.0, 0.0, 0.0, 0.0],
        2 => [1.5, -0.5, 0.0, 0.0],
        3 => [23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0, 0.0],
        _ => [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    }
}
