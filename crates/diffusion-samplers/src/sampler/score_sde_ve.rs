//! The reverse SDE with exploding variance, with a Langevin corrector before each predictor step
//! (Song et al. 2021, score SDE, algorithm 2 with the steps of algorithms 3 and 5).

use std::sync::Arc;

use super::multistep::weighted_sum;
use super::options::{AddedNoise, Options, positive};
use super::plan::{self, Plan};
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::noise_schedule::{NoiseLevel, linspace32, num_train_timesteps, round};
use crate::rng::Noise;
use crate::scheduler_settings::Settings;
use crate::trajectory::{InputScaling, ModelHandle};

pub(super) const FAMILY: Family =
    Family::new("score_sde_ve", "ScoreSdeVeScheduler", build).with_time(TimeConditioning::Sigma);

#[derive(Debug)]
struct VeStep {
    /// σ(t), which the network receives instead of a time step.
    sigma: f64,
    /// σ_i² − σ_{i−1}² (algorithm 3).
    variance: f64,
    /// The number of corrector steps, M.
    corrections: usize,
    /// The signal-to-noise ratio r of the corrector.
    snr: f32,
}

impl plan::Step for VeStep {
    fn level(&self) -> Option<NoiseLevel> {
        None
    }

    fn evaluations(&self) -> usize {
        self.corrections + 1
    }

    fn draws(&self) -> usize {
        self.corrections + 1
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut z = plan.noise_buffer(x.len());
        let mut mean = x.clone();
        for step in &plan.steps {
            for _ in 0..step.corrections {
                // Algorithm 5: x ← x + ε·s + √(2ε)·z with ε = 2·(r·‖z‖/‖s‖)²
                let output = model.predict(&mut x, InputScaling::State, step.sigma).await;
                let score = &output[..x.len()];
                noise.fill(&mut z);
                let ratio = step.snr * norm(&z) / norm(score);
                let epsilon = f64::from(2.0 * ratio * ratio);
                weighted_sum(&mut x, 1.0, [(epsilon, score), ((2.0 * epsilon).sqrt(), &z[..])]);
            }
            // Algorithm 3: x ← x + (σ_i² − σ_{i−1}²)·s + √(σ_i² − σ_{i−1}²)·z
            let output = model.predict(&mut x, InputScaling::State, step.sigma).await;
            let score = &output[..x.len()];
            noise.fill(&mut z);
            weighted_sum(&mut x, 1.0, [(step.variance, score)]);
            mean.copy_from_slice(&x);
            model.preview(&mean);
            weighted_sum(&mut x, 1.0, [(step.variance.sqrt(), &z[..])]);
        }
        // Without the last step's noise.
        mean
    }
}

/// The largest number of corrector steps.
const MAX_CORRECT_STEPS: usize = 10_000;

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    let train = num_train_timesteps(settings, 2000)?;
    let snr = positive(settings, "snr", 0.15)? as f32;
    let min = positive(settings, "sigma_min", 0.01)?;
    let max = positive(settings, "sigma_max", 1348.0)?;
    let final_time = positive(settings, "sampling_eps", 1e-5)?;
    let corrections = settings.count_within("correct_steps", 1, 0..=MAX_CORRECT_STEPS)?;
    let n = options.steps_up_to(train, FAMILY.name)?;
    let sigmas: Vec<f32> = linspace32(min.ln() as f32, max.ln() as f32, n).map(f32::exp).collect();
    let steps = linspace32(1.0, final_time as f32, n).map(|t| {
        let index = ((t * (n - 1) as f32) as usize).min(n - 1);
        let below = if index == 0 { 0.0 } else { sigmas[index - 1] };
        let variance = f64::from(sigmas[index] * sigmas[index] - below * below);
        VeStep { sigma: round(min * (max / min).powf(f64::from(t))), variance, corrections, snr }
    });
    Ok(Arc::new(Plan { initial_sigma: max, ..Plan::new(steps) }))
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| v * v).sum::<f32>().sqrt()
}
