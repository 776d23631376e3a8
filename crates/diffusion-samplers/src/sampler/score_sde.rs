//! The reverse SDE with exploding variance, predictor and Langevin corrector in turn
//! (Song et al. 2021, score SDE, algorithm 2 with the steps of algorithms 3 and 5).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, TimeConditioning};
use super::steps::edm::positive;
use super::walk::mix::mix;
use crate::noise_schedule::{linspace32, round};
use crate::rng::Noise;
use crate::scheduler_settings::Settings;
use crate::trajectory::{Input, ModelHandle, SampleFuture};

pub(super) const FAMILY: Family =
    Family::new("score_sde_ve", "ScoreSdeVeScheduler", build).told(TimeConditioning::Sigma);

#[derive(Debug)]
struct Step {
    /// σ(t), which the network takes in place of a time step.
    sigma: f64,
    /// σ_i² − σ_{i−1}² of the discretisation (algorithm 3).
    variance: f64,
}

#[derive(Debug)]
struct ScoreSde {
    steps: Vec<Step>,
    corrections: usize,
    /// The signal-to-noise ratio r of the corrector (algorithm 5).
    snr: f32,
    initial_sigma: f64,
}

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.without_eta()?;
    let most = settings.count("num_train_timesteps", 2000)?;
    let snr = positive(settings, "snr", 0.15)? as f32;
    let min = positive(settings, "sigma_min", 0.01)?;
    let max = positive(settings, "sigma_max", 1348.0)?;
    let least = positive(settings, "sampling_eps", 1e-5)?;
    let corrections = settings.count("correct_steps", 1)?;
    let n = options.steps_up_to(most, FAMILY.name)?;
    let levels: Vec<f32> = linspace32(min.ln() as f32, max.ln() as f32, n).map(f32::exp).collect();
    let steps = linspace32(1.0, least as f32, n).map(|t| {
        let index = ((t * (n - 1) as f32) as usize).min(n - 1);
        let below = if index == 0 { 0.0 } else { levels[index - 1] };
        let variance = f64::from(levels[index] * levels[index] - below * below);
        Step { sigma: round(min * (max / min).powf(f64::from(t))), variance }
    });
    Ok(Arc::new(ScoreSde { steps: steps.collect(), corrections, snr, initial_sigma: max }))
}

impl Sampler for ScoreSde {
    fn evaluations(&self) -> usize {
        self.steps.len() * (self.corrections + 1)
    }

    fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    fn draws(&self) -> usize {
        self.evaluations()
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, mut noise: Noise, net: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            let mut z = vec![0.0; x.len()];
            let mut mean = x.clone();
            for step in &self.steps {
                for _ in 0..self.corrections {
                    let answer = net.predict(&mut x, Input::State, step.sigma).await;
                    let score = &answer[..x.len()];
                    noise.fill(&mut z);
                    let ratio = self.snr * norm(&z) / norm(score);
                    let size = f64::from(2.0 * ratio * ratio);
                    mix(&mut x, 1.0, [(size, score), ((2.0 * size).sqrt(), &z[..])]);
                }
                let answer = net.predict(&mut x, Input::State, step.sigma).await;
                let score = &answer[..x.len()];
                noise.fill(&mut z);
                mix(&mut x, 1.0, [(step.variance, score)]);
                mean.copy_from_slice(&x);
                net.preview(&mean);
                mix(&mut x, 1.0, [(step.variance.sqrt(), &z[..])]);
            }
            // The last step's noise is left away.
            mean
        })
    }
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| v * v).sum::<f32>().sqrt()
}
