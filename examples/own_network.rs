//! Sample with a closure as the network: `cargo run --example own_network [SAMPLER]`.
//!
//! The network is the exact noise prediction for eight points on a circle, so that every sample is close to one of them.

use std::f64::consts::TAU;

use anyhow::Context;
use diffusion_samplers::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::{self, InitialState, Options};
use diffusion_samplers::scheduler_settings::{Settings, Value};
use diffusion_samplers::sigma_schedule::SigmaTable;

const POINTS: usize = 8;

fn data(point: usize) -> [f64; 2] {
    let (sin, cos) = (TAU * point as f64 / POINTS as f64).sin_cos();
    [cos, sin]
}

/// E[ε | x] for x = α·x₀ + σ·ε, where x₀ is one of the points.
fn predict_noise(x: [f64; 2], NoiseLevel { alpha, sigma }: NoiseLevel) -> [f64; 2] {
    let noise = |point| {
        let x0 = data(point);
        [(x[0] - alpha * x0[0]) / sigma, (x[1] - alpha * x0[1]) / sigma]
    };
    // The probability of each point, up to a common factor.
    let log_weight = |point| -0.5 * noise(point).iter().map(|e| e * e).sum::<f64>();
    let largest = (0..POINTS).map(log_weight).fold(f64::NEG_INFINITY, f64::max);
    let (mut sum, mut epsilon) = (0.0, [0.0; 2]);
    for point in 0..POINTS {
        let weight = (log_weight(point) - largest).exp();
        sum += weight;
        epsilon = [epsilon[0] + weight * noise(point)[0], epsilon[1] + weight * noise(point)[1]];
    }
    epsilon.map(|e| e / sum)
}

fn main() -> anyhow::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "dpmpp_2m_karras".to_owned());
    let keys =
        [("beta_start", 1e-4), ("beta_end", 0.02)].map(|(key, beta)| (key.to_owned(), Value::Number(beta)));
    let mut settings = Settings::new(keys.into());
    let sampler = sampler::by_name(&name)?.build(&mut settings, &Options::new(25))?;
    let table = SigmaTable::new(&NoiseSchedule::from_settings(&mut settings, ScheduleDefaults::DDPM)?);

    for seed in 0..POINTS as u64 {
        let mut noise = Generator::Torch.seeded(seed);
        let mut initial = vec![0.0; 2];
        noise.fill(&mut initial);
        let trajectory = sampler::start(sampler.clone(), InitialState::from_noise(initial), noise);
        let sample = trajectory.run_to_end(|x, t| {
            let level = NoiseLevel::from_sigma(table.sigma_at(t));
            predict_noise([f64::from(x[0]), f64::from(x[1])], level).map(|e| e as f32).to_vec()
        });
        let distance = |point: usize| {
            (data(point)[0] - f64::from(sample[0])).hypot(data(point)[1] - f64::from(sample[1]))
        };
        let nearest =
            (0..POINTS).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).context("no points")?;
        println!(
            "seed {seed}: ({:+.3}, {:+.3}), {:.3} from point {nearest}",
            sample[0],
            sample[1],
            distance(nearest)
        );
    }
    Ok(())
}
