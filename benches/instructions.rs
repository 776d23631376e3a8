//! What `tests/instructions` counts the instructions of: so many times what is named.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;
mod walks;

use std::rc::Rc;

use denoised::job::parse;
use diffusion_samplers::rng::Generator;
use walks::{LIMITS, card, plan, walk};

const REQUEST: &str = r#"{"id": "three", "class": 3, "seed": 7, "steps": 6, "sampler": "ddim", "count": 2}"#;
/// Steps of each walk.
const STEPS: usize = 10;

fn main() {
    let [what, times] =
        <[String; 2]>::try_from(std::env::args().skip(1).take(2).collect::<Vec<_>>()).unwrap();
    let times: usize = times.parse().unwrap();
    match what.as_str() {
        "request" => {
            let card = card();
            (0..times).for_each(|_| {
                let request = parse(REQUEST.as_bytes()).unwrap();
                std::hint::black_box(request.check(std::slice::from_ref(&card), LIMITS, || 1).unwrap());
            });
        }
        "torch" | "philox" => {
            let mut source = Generator::from_name(&what).unwrap().seeded(1);
            let mut z = vec![0.0; 784];
            (0..times).for_each(|_| source.fill(std::hint::black_box(&mut z)));
        }
        name => {
            let (sampler, output) = (plan(name, STEPS), Rc::new(vec![0.5; 784]));
            (0..times).for_each(|_| walk(&sampler, Generator::Torch.seeded(1), &output));
        }
    }
}
