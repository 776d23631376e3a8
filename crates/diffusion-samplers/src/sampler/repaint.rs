//! RePaint: inpainting by a reverse process that takes the known region from the forward process and jumps back to
//! more noise, to harmonise both (Lugmayr et al. 2022, algorithm 1).

use std::sync::Arc;

use super::multistep::weighted_sum;
use super::node::Node;
use super::options::Options;
use super::plan::{self, Plan};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError};
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::PredictionType;
use crate::rng::Noise;
use crate::scheduler_settings::Settings;
use crate::simd::update;
use crate::trajectory::{KnownRegion, ModelHandle};

pub(super) const FAMILY: Family = Family::new("repaint", "RePaintScheduler", build).with_inpainting();

#[derive(Debug)]
enum RePaintStep {
    /// A step of the reverse process to a lower noise level.
    Reverse {
        node: Node,
        to: NoiseLevel,
        /// √(1 − ᾱ_s − σ²), the length of the direction pointing to x_t.
        direction: f64,
        /// The standard deviation of the added noise, 0 in the last step.
        sigma: f64,
        known: Option<Arc<KnownRegion>>,
    },
    /// A step of the forward process, x_{t+1} = √(1 − β)·x_t + √β·z (line 10).
    Forward { signal: f64, noise: f64 },
}

impl plan::Step for RePaintStep {
    fn level(&self) -> Option<NoiseLevel> {
        None
    }

    fn evaluations(&self) -> usize {
        usize::from(matches!(self, Self::Reverse { .. }))
    }

    fn draws(&self) -> usize {
        1
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let mut z = plan.noise_buffer(x.len());
        for step in &plan.steps {
            match step {
                RePaintStep::Forward { signal, noise: sigma } => {
                    noise.fill(&mut z);
                    weighted_sum(&mut x, *signal, [(*sigma, &z[..])]);
                }
                RePaintStep::Reverse { node, to, direction, sigma, known } => {
                    let evaluation = evaluator.evaluate(&mut x, node).await;
                    noise.fill(&mut z);
                    // The unknown region: DDIM's eq. 12, as in the reference.
                    let (alpha, direction) = (to.alpha as f32, *direction as f32);
                    let noise = Some((*sigma, &z[..]));
                    evaluation.step(&mut x, noise, move |x0, epsilon| alpha * x0 + direction * epsilon);
                    if let Some(known) = known {
                        insert_known(known, *to, &z, &mut x);
                    }
                }
            }
        }
        x
    }
}

/// Eq. 8c: x = m·x_known + (1 − m)·x_unknown, where x_known is the known sample noised to the level (eq. 8a).
fn insert_known(known: &KnownRegion, to: NoiseLevel, z: &[f32], x: &mut [f32]) {
    let (alpha, sigma) = (to.alpha as f32, to.sigma as f32);
    update(x, [&known.sample, &known.mask, z], move |x, [x0, m, z]| {
        m * (alpha * x0 + sigma * z) + (1.0 - m) * x
    });
}

/// The longest jump, and the largest number of resamplings.
const MAX_JUMP: usize = 10_000;

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let configured = settings.number("eta", 0.0)?;
    let eta = options.eta_or(configured)?;
    let clip = settings.flag("clip_sample", true)?;
    let length = settings.count_within("jump_length", 10, 1..=MAX_JUMP)?;
    let repeats = settings.count_within("jump_n_sample", 10, 1..=MAX_JUMP)?;
    let count = options.steps_up_to(schedule.num_train_timesteps(), FAMILY.name)?;
    let width = schedule.num_train_timesteps() / count;
    let bars = schedule.alphas_cumprod();
    let mut steps = Vec::new();
    let mut previous = usize::MAX;
    for t in jump_schedule(count, length, repeats).into_iter().map(|t| t * width) {
        if t < previous {
            let bar_s = t.checked_sub(width).map_or(1.0, |s| bars[s]);
            let to = NoiseLevel::from_alpha_bar(bar_s);
            let sigma = eta * Posterior::new(bars[t], bar_s).variance.max(0.0).sqrt();
            steps.push(RePaintStep::Reverse {
                node: Node::new(t as f64, NoiseLevel::from_alpha_bar(bars[t]), PredictionType::Epsilon),
                to,
                direction: (to.sigma * to.sigma - sigma * sigma).max(0.0).sqrt(),
                sigma: if t > 0 { sigma } else { 0.0 },
                known: options.known.clone(),
            });
        } else {
            let betas = &schedule.betas()[previous..previous + width];
            steps.extend(
                betas.iter().map(|b| RePaintStep::Forward { signal: (1.0 - b).sqrt(), noise: b.sqrt() }),
            );
        }
        previous = t;
    }
    let thresholding = if clip { Thresholding::Clip(1.0) } else { Thresholding::None };
    Ok(Arc::new(Plan { thresholding, ..Plan::new(steps) }))
}

/// The indices of the time steps in the order in which they are reached, with jumps of `length` back to more noise,
/// `repeats − 1` times at each of them (section 4.2).
fn jump_schedule(steps: usize, length: usize, repeats: usize) -> Vec<usize> {
    let mut left: Vec<usize> =
        (0..steps).map(|t| if t % length == 0 && t + length < steps { repeats - 1 } else { 0 }).collect();
    let mut visited = Vec::new();
    let mut t = steps;
    while t >= 1 {
        t -= 1;
        visited.push(t);
        if left[t] > 0 {
            left[t] -= 1;
            visited.extend(t + 1..=t + length);
            t += length;
        }
    }
    visited
}

#[cfg(test)]
mod tests {
    use super::jump_schedule;

    #[test]
    fn jumps_return_to_more_noise_repeatedly() {
        assert_eq!(jump_schedule(3, 10, 10), [2, 1, 0]);
        assert_eq!(jump_schedule(4, 2, 2), [3, 2, 1, 0, 1, 2, 1, 0]);
    }
}
