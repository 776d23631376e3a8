//! Times single functions with criterion: `cargo bench --bench parts`. Text after `--` selects benchmarks by name.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;
mod sampler_loop;

use std::hint::black_box;
use std::rc::Rc;

use common::gaussian_model::Exact;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use denoised::bundle::TimestepShape;
use denoised::job::{Request, parse};
use denoised::pipeline::Pipeline;
use diffusion_samplers::rng::Generator;
use sampler_loop::{LIMITS, build_sampler, card, sample};
use serde_json::json;

const STEPS: usize = 10;

/// Ten steps of one sampler of each kind, with torch's noise.
fn samplers(criterion: &mut Criterion) {
    let names =
        ["ddim", "ddpm", "euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_sde", "unipc", "pndm", "repaint"];
    for (shape, len) in [("28x28", 28 * 28), ("4x64x64", 4 * 64 * 64)] {
        let mut group = criterion.benchmark_group(format!("sampler/{shape}"));
        let output = Rc::new(vec![0.5; len]);
        for name in names {
            let sampler = build_sampler(name, STEPS);
            group.throughput(Throughput::Elements(sampler.evaluations() as u64));
            group.bench_function(name, |bencher| {
                bencher.iter(|| sample(&sampler, Generator::Torch.seeded(1), &output));
            });
        }
    }
}

fn noise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("noise");
    for name in Generator::NAMES {
        for len in [28 * 28, 3 * 512 * 512] {
            let (mut source, mut z) = (Generator::from_name(name).unwrap().seeded(1), vec![0.0; len]);
            group.throughput(Throughput::Elements(len as u64));
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| source.fill(black_box(&mut z)));
            });
        }
    }
}

fn requests(criterion: &mut Criterion) {
    let (card, text) =
        (card(), r#"{"id": "three", "class": 3, "seed": 7, "steps": 20, "sampler": "dpmpp_2m", "count": 2}"#);
    criterion.bench_function("request/parse and check", |bencher| {
        bencher.iter(|| {
            let request: Request = parse(text.as_bytes()).unwrap();
            request.check(std::slice::from_ref(&card), LIMITS, || 1).unwrap()
        });
    });
}

/// A job of one step, with the closed-form network: admission, batching, guidance, events.
fn pipeline(criterion: &mut Criterion) {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let request = json!({"sampler": "ddim", "steps": 1, "seed": 1, "class": 1, "guidance": 2.0, "count": 4});
    let request: Request = serde_json::from_value(request).unwrap();
    let job = request.check(&[denoised::job::ModelCard::new(pipeline.model())], LIMITS, || 1).unwrap();
    criterion.bench_function("pipeline/four images of one step", |bencher| {
        bencher.iter(|| {
            pipeline.accept(job.clone());
            while !pipeline.is_idle() {
                pipeline.step(&mut |_, _| {});
            }
        });
    });
}

fn pictures(criterion: &mut Criterion) {
    let manifest = Exact::model(&[1, 28, 28], 8, TimestepShape::PerSample).0.bundle.manifest;
    let mut group = criterion.benchmark_group("png");
    for (name, shape) in [("28x28", [1, 28, 28]), ("512x512", [3, 512, 512])] {
        let sample: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.37).sin()).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let picture = denoised::image::to_image(&sample, &shape, &manifest.sample).unwrap();
                denoised::image::png(&picture).unwrap()
            });
        });
    }
}

criterion_group!(parts, samplers, noise, requests, pipeline, pictures);
criterion_main!(parts);
