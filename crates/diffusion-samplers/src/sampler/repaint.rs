//! RePaint: inpainting by a reverse process that takes the known part from the forward one and
//! jumps back to harmonise both (Lugmayr et al. 2022, algorithm 1).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError};
use super::node::Node;
use super::walk::bound::Bound;
use super::walk::denoiser::Denoiser;
use super::walk::mix::mix;
use crate::forward_process::Posterior;
use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use crate::prediction_type::PredictionType;
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::simd::update;
use crate::trajectory::{KnownRegion, ModelHandle, SampleFuture};

pub(super) const FAMILY: Family = Family::new("repaint", "RePaintScheduler", build).inpainting();

#[derive(Debug)]
enum Step {
    /// One step down.
    Reverse { at: Node, to: NoiseLevel, sigma: f64, draws_noise: bool },
    /// One step of the forward process, x_{t+1} from x_t.
    Forward { signal: f64, noise: f64 },
}

#[derive(Debug)]
struct RePaint {
    steps: Vec<Step>,
    bound: Bound,
    known: Option<Arc<KnownRegion>>,
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let schedule = NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM)?;
    let configured = settings.number("eta", 0.0)?;
    let eta = options.eta_or(configured)?;
    let bound = if settings.flag("clip_sample", true)? { Bound::Clip(1.0) } else { Bound::None };
    let length = at_least_one(settings, "jump_length")?;
    let repeats = at_least_one(settings, "jump_n_sample")?;
    let count = options.steps_up_to(schedule.len(), FAMILY.name)?;
    let width = schedule.len() / count;
    let bars = schedule.alphas_cumprod();
    let mut steps = Vec::new();
    let mut before = usize::MAX;
    for t in jump_schedule(count, length, repeats).into_iter().map(|t| t * width) {
        if t < before {
            let bar_s = t.checked_sub(width).map_or(1.0, |s| bars[s]);
            let at = Node::plain(t as f64, NoiseLevel::from_alpha_bar(bars[t]), PredictionType::Epsilon);
            let sigma = eta * Posterior::between(bars[t], bar_s).variance.max(0.0).sqrt();
            steps.push(Step::Reverse {
                at,
                to: NoiseLevel::from_alpha_bar(bar_s),
                sigma,
                draws_noise: t > 0,
            });
        } else {
            let betas = &schedule.betas()[before..before + width];
            steps.extend(betas.iter().map(|b| Step::Forward { signal: (1.0 - b).sqrt(), noise: b.sqrt() }));
        }
        before = t;
    }
    Ok(Arc::new(RePaint { steps, bound, known: options.known.clone() }))
}

fn at_least_one(settings: &mut Settings, key: &str) -> Result<usize, SettingsError> {
    match settings.count(key, 10)? {
        0 => Err(SettingsError::refused(key, 0, "it must be at least 1")),
        count => Ok(count),
    }
}

/// The indices visited, with jumps of `length` back up, `repeats − 1` times at each place
/// (section 4.2).
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

impl Sampler for RePaint {
    fn evaluations(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Reverse { .. })).count()
    }

    fn draws(&self) -> usize {
        self.steps.len()
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut denoiser = Denoiser::new(net, self.bound);
            let mut z = vec![0.0; x.len()];
            for step in &self.steps {
                match step {
                    Step::Forward { signal, noise: sigma } => {
                        noise.fill(&mut z);
                        mix(&mut x, *signal, [(*sigma, &z[..])]);
                    }
                    Step::Reverse { at, to, sigma, draws_noise } => {
                        let seen = denoiser.ask(&mut x, at).await;
                        noise.fill(&mut z);
                        let direction = (to.sigma * to.sigma - sigma * sigma).max(0.0).sqrt();
                        let drawn = if *draws_noise { *sigma } else { 0.0 };
                        seen.combine(&mut x, denoiser.answer(), [to.alpha, direction], Some((drawn, &z)));
                        if let Some(known) = &self.known {
                            keep(known, *to, &z, &mut x);
                        }
                    }
                }
            }
            x
        })
    }
}

/// Eq. 8: the known part noised to the level, the rest as drawn.
fn keep(known: &KnownRegion, to: NoiseLevel, z: &[f32], x: &mut [f32]) {
    let (alpha, sigma) = (to.alpha as f32, to.sigma as f32);
    update(x, [&known.sample, &known.mask, z], move |x, [x0, mask, z]| {
        mask * (alpha * x0 + sigma * z) + (1.0 - mask) * x
    });
}

#[cfg(test)]
mod tests {
    use super::jump_schedule;

    #[test]
    fn jumps_go_back_up_as_often_as_told() {
        assert_eq!(jump_schedule(3, 10, 10), [2, 1, 0]);
        assert_eq!(jump_schedule(4, 2, 2), [3, 2, 1, 0, 1, 2, 1, 0]);
    }
}
