//! Runs one benchmark N times, so that `tests/instructions` can count its instructions: NAME N.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;
mod sampler_loop;

use std::rc::Rc;

use denoised::job::parse;
use diffusion_samplers::rng::Generator;
use sampler_loop::{LIMITS, build_sampler, card, sample};

const REQUEST: &str = r#"{"id": "three", "class": 3, "seed": 7, "steps": 6, "sampler": "ddim", "count": 2}"#;
/// Steps of each sampler.
const STEPS: usize = 10;

fn main() {
    let [name, times] =
        <[String; 2]>::try_from(std::env::args().skip(1).take(2).collect::<Vec<_>>()).unwrap();
    let times: usize = times.parse().unwrap();
    match name.as_str() {
        "request" => {
            let card = card();
            (0..times).for_each(|_| {
                let request = parse(REQUEST.as_bytes()).unwrap();
                std::hint::black_box(request.check(std::slice::from_ref(&card), LIMITS, || 1).unwrap());
            });
        }
        "torch" | "philox" => {
            let mut source = Generator::from_name(&name).unwrap().seeded(1);
            let mut z = vec![0.0; 784];
            (0..times).for_each(|_| source.fill(std::hint::black_box(&mut z)));
        }
        name => {
            let (sampler, output) = (build_sampler(name, STEPS), Rc::new(vec![0.5; 784]));
            (0..times).for_each(|_| sample(&sampler, Generator::Torch.seeded(1), &output));
        }
    }
}
