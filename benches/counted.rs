//! What `tests/instructions` counts the instructions of: so many times what is named.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::rc::Rc;

use common::exact::Exact;
use denoised::diffusion::noise::Generator;
use denoised::diffusion::sampler::{self, Beginning};
use denoised::diffusion::trajectory::{Output, Turn};
use denoised::job::{JobLimits, ModelCard, Request, parse};
use denoised::model::TimeShape;
use serde_json::json;

const REQUEST: &str = r#"{"id": "three", "class": 3, "seed": 7, "steps": 6, "sampler": "ddim", "count": 2}"#;
const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
/// Steps of each walk.
const STEPS: usize = 10;

fn main() {
    let [what, times] =
        <[String; 2]>::try_from(std::env::args().skip(1).take(2).collect::<Vec<_>>()).unwrap();
    let times: usize = times.parse().unwrap();
    let card = ModelCard::of(&Exact::model(&[1, 28, 28], 8, TimeShape::Each).0);
    match what.as_str() {
        "request" => (0..times).for_each(|_| {
            let request = parse(REQUEST.as_bytes()).unwrap();
            std::hint::black_box(request.check(std::slice::from_ref(&card), LIMITS, || 1).unwrap());
        }),
        "torch" | "philox" => {
            let mut source = Generator::from_name(&what).unwrap().seeded(1);
            let mut z = vec![0.0; 784];
            (0..times).for_each(|_| source.fill(std::hint::black_box(&mut z)));
        }
        sampler => walk(&card, sampler, times),
    }
}

/// So many walks of ten steps over 28×28 values.
fn walk(card: &ModelCard, name: &str, times: usize) {
    let request = json!({"sampler": name, "steps": STEPS, "seed": 1, "class": 1});
    let request: Request = serde_json::from_value(request).unwrap();
    let sampler = request.check(std::slice::from_ref(card), LIMITS, || 1).unwrap().sampler;
    let (noise, mut input) = (Rc::new(vec![0.5; 784]), Vec::new());
    for _ in 0..times {
        let at = Beginning::at_noise(noise.to_vec());
        let mut trajectory = sampler::begin(std::sync::Arc::clone(&sampler), at, Generator::Torch.seeded(1));
        while trajectory.poll() == Turn::Waiting {
            input.clear();
            trajectory.append_input(&mut input);
            trajectory.answer(Output::of(Rc::clone(&noise), 0..noise.len()));
        }
    }
}
