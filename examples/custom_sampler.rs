//! Implement a sampler: `cargo run --example custom_sampler`.
//!
//! Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 1), for a network that takes an unscaled
//! state and the noise level σ, and predicts the noise. The error falls with the square of the number of steps.

use std::sync::Arc;

use diffusion_samplers::rng::{Generator, Noise};
use diffusion_samplers::sampler::{self, InitialState, Sampler};
use diffusion_samplers::sigma_schedule::karras;
use diffusion_samplers::simd::update;
use diffusion_samplers::trajectory::{InputScaling, ModelHandle, SampleFuture};

const SIGMA_MAX: f64 = 80.0;
const SIGMA_MIN: f64 = 0.01;

/// The standard deviation of the data; its mean is 0.
const DEVIATION: f64 = 0.5;

struct Heun {
    /// Noise levels, largest first.
    sigmas: Vec<f64>,
}

impl Sampler for Heun {
    fn evaluations(&self) -> usize {
        2 * (self.sigmas.len() - 1)
    }

    fn initial_sigma(&self) -> f64 {
        self.sigmas[0]
    }

    fn sample(self: Arc<Self>, mut x: Vec<f32>, _: Noise, model: ModelHandle) -> SampleFuture {
        Box::pin(async move {
            for pair in self.sigmas.windows(2) {
                let step = (pair[1] - pair[0]) as f32;
                let slope = model.predict(&mut x, InputScaling::State, pair[0]).await.to_vec(); // line 4
                let mut euler = x.clone();
                update(&mut euler, [&slope], move |x, [d]| x + step * d); // line 5
                let next_slope = model.predict(&mut euler, InputScaling::State, pair[1]).await; // line 7
                update(&mut x, [&slope, &next_slope], move |x, [d, e]| x + step * (d + e) / 2.0); // line 8
            }
            x
        })
    }
}

fn main() {
    let mut initial = vec![0.0; 1000];
    Generator::Torch.seeded(1).fill(&mut initial);
    // For Gaussian data the ODE scales every state by the ratio of the standard deviations.
    let exact = SIGMA_MAX * DEVIATION.hypot(SIGMA_MIN) / DEVIATION.hypot(SIGMA_MAX);

    for steps in [5, 10, 20, 40, 80] {
        let heun = Arc::new(Heun { sigmas: karras(SIGMA_MAX, SIGMA_MIN, 7.0, steps + 1) });
        let noise = Generator::Torch.seeded(2);
        let trajectory = sampler::start(heun.clone(), InitialState::from_noise(initial.clone()), noise);
        let sample = trajectory.run_to_end(|x, sigma| {
            let factor = (sigma / (DEVIATION * DEVIATION + sigma * sigma)) as f32;
            x.iter().map(|x| factor * x).collect::<Vec<_>>()
        });
        let errors = sample.iter().zip(&initial).map(|(x, z)| (f64::from(*x) - exact * f64::from(*z)).abs());
        println!(
            "{steps:>3} steps, {:>3} evaluations: largest error {:.5}",
            heun.evaluations(),
            errors.fold(0.0, f64::max)
        );
    }
}
