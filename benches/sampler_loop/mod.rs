//! The sampling loop without a network, for benchmarks that time it or count its instructions.

use std::rc::Rc;
use std::sync::Arc;

use denoised::bundle::TimestepShape;
use denoised::job::{JobLimits, ModelCard, Request};
use diffusion_samplers::rng::Noise;
use diffusion_samplers::sampler::{self, InitialState, Sampler};
use diffusion_samplers::trajectory::Output;
use serde_json::json;

use crate::common::gaussian_model::Exact;

/// The limits for all requests of the benchmarks.
pub const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

/// Returns the model that requests are checked against.
pub fn card() -> Arc<ModelCard> {
    ModelCard::new(&Exact::model(&[1, 28, 28], 8, TimestepShape::PerSample).0)
}

/// Builds a sampler with this number of steps.
pub fn build_sampler(name: &str, steps: usize) -> Arc<dyn Sampler> {
    let request = json!({"sampler": name, "steps": steps, "seed": 1, "class": 1});
    let request: Request = serde_json::from_value(request).unwrap();
    request.check(&[card()], LIMITS, || 1).unwrap().sampler
}

/// Samples once with a model that always returns `output`.
pub fn sample(sampler: &Arc<dyn Sampler>, noise: Noise, output: &Rc<Vec<f32>>) {
    let initial = InitialState::from_noise(output.to_vec());
    let trajectory = sampler::start(Arc::clone(sampler), initial, noise);
    trajectory.run_to_end(|_, _| Output::from_batch(Rc::clone(output), 0..output.len()));
}
