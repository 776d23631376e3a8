//! Walks of samplers without a network, for benches that time them or count their instructions.

use std::rc::Rc;
use std::sync::Arc;

use denoised::bundle::TimestepShape;
use denoised::job::{JobLimits, ModelCard, Request};
use diffusion_samplers::rng::Noise;
use diffusion_samplers::sampler::{self, InitialState, Sampler};
use diffusion_samplers::trajectory::Output;
use serde_json::json;

use crate::common::gaussian_model::Exact;

/// The bounds of the requests here.
pub const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

/// What requests are checked against.
pub fn card() -> ModelCard {
    ModelCard::of(&Exact::model(&[1, 28, 28], 8, TimestepShape::PerSample).0)
}

/// A sampler's plan of so many steps.
pub fn plan(name: &str, steps: usize) -> Arc<dyn Sampler> {
    let request = json!({"sampler": name, "steps": steps, "seed": 1, "class": 1});
    let request: Request = serde_json::from_value(request).unwrap();
    request.check(&[card()], LIMITS, || 1).unwrap().sampler
}

/// One walk whose network always answers the same; its inputs are written to the buffer.
pub fn walk(sampler: &Arc<dyn Sampler>, noise: Noise, answer: &Rc<Vec<f32>>, input: &mut Vec<f32>) {
    let at = InitialState::from_noise(answer.to_vec());
    let mut trajectory = sampler::start(Arc::clone(sampler), at, noise);
    while trajectory.poll().is_pending() {
        input.clear();
        trajectory.append_input(input);
        trajectory.answer(Output::of(Rc::clone(answer), 0..answer.len()));
    }
}
