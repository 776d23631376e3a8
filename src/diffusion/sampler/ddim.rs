//! DDIM (Song, Meng & Ermon 2021): deterministic for η = 0, DDPM's noise for η = 1.

use std::sync::Arc;

use super::estimate::Estimator;
use super::family::{Family, Options, Sampler, SamplerError, prediction_type};
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::PredictionType::{Epsilon, Sample, VPrediction};
use crate::diffusion::process::Posterior;
use crate::diffusion::schedule::{Level, NoiseSchedule};
use crate::diffusion::settings::Settings;
use crate::diffusion::spacing::Spacing;
use crate::diffusion::trajectory::{Net, Walk};

pub(super) const FAMILY: Family = Family { name: "ddim", class: "DDIMScheduler", build: Ddim::build };

#[derive(Debug)]
struct Step {
    t: f64,
    level: Level,
    /// √ᾱ_s, what x̂_0 is multiplied by.
    x0: f32,
    /// √(1 − ᾱ_s − σ²), the length of the direction pointing to x_t.
    epsilon: f32,
    /// σ_t(η), eq. 16.
    sigma: f32,
}

#[derive(Debug)]
struct Ddim {
    steps: Vec<Step>,
    estimator: Estimator,
    noisy: bool,
}

impl Ddim {
    fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
        let eta = options.eta.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&eta) {
            let reason = "it must lie between 0 and 1";
            return Err(SamplerError::Eta { eta, reason });
        }
        let schedule = NoiseSchedule::from_settings(settings, 1e-4, 0.02)?;
        let prediction = prediction_type(settings, &[Epsilon, Sample, VPrediction])?;
        let estimator = Estimator::thresholding(settings, prediction, true)?;
        let (spacing, offset) = Spacing::from_settings(settings, "leading")?;
        let to_one = settings.flag("set_alpha_to_one", true)?;
        let count = options.steps_up_to(schedule.len(), FAMILY.name)?;
        let bars = schedule.alphas_cumprod();
        let last = if to_one { 1.0 } else { bars[0] };
        // The reference steps back by ⌊T/n⌋ whatever the spacing.
        let back = schedule.len() / count;
        let times = spacing.visits(schedule.len(), count, offset)?;
        let steps = times
            .into_iter()
            .map(|t| Step::new(t, bars[t], t.checked_sub(back).map_or(last, |s| bars[s]), eta))
            .collect();
        Ok(Arc::new(Self { steps, estimator, noisy: eta > 0.0 }))
    }
}

impl Step {
    fn new(t: usize, bar_t: f64, bar_s: f64, eta: f64) -> Self {
        let variance = eta * eta * Posterior::between(bar_t, bar_s).variance;
        Self {
            t: t as f64,
            level: Level::from_alpha_bar(bar_t),
            x0: bar_s.sqrt() as f32,
            epsilon: (1.0 - bar_s - variance).max(0.0).sqrt() as f32,
            sigma: variance.sqrt() as f32,
        }
    }
}

impl Sampler for Ddim {
    fn evaluations(&self) -> usize {
        self.steps.len()
    }

    fn draws(&self) -> usize {
        if self.noisy { self.steps.len() } else { 0 }
    }

    fn walk(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: Net) -> Walk {
        Box::pin(async move {
            let mut output = net.output_buffer();
            let mut estimate = self.estimator.start(x.len());
            let mut z = vec![0.0; x.len()];
            for step in &self.steps {
                net.predict(&x, step.t, &mut output).await;
                estimate.update(step.level, &x, &output);
                net.observe(&estimate.x0);
                if self.noisy {
                    noise.fill(&mut z);
                }
                // Eq. 12: predicted x_0, direction pointing to x_t, random noise.
                for (i, x) in x.iter_mut().enumerate() {
                    *x = step.x0 * estimate.x0[i] + step.epsilon * estimate.epsilon[i] + step.sigma * z[i];
                }
            }
            x
        })
    }
}
