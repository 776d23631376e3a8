//! One step of each sampler without a network, compared with a copy of the bytes that it reads and writes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use denoised::bundle::TimestepShape;
use denoised::job::{JobLimits, ModelCard, Request};
use diffusion_samplers::rng::{Generator, NoiseSource};
use diffusion_samplers::sampler::{self, InitialState, Sampler};
use diffusion_samplers::trajectory::Output;
use serde_json::json;

use crate::clock::{median, median_seconds};
use crate::common::gaussian_model::Exact;
use crate::table::Row;
use crate::timed_process::TimedProcess;

const STEPS: usize = 200;
const ROUNDS: usize = 9;

/// A noise source that takes no time.
struct NoNoise;

impl NoiseSource for NoNoise {
    fn fill(&mut self, _: &mut [f32]) {}
}

/// Builds every sampler for networks that take time steps.
fn samplers(steps: usize) -> Vec<(&'static str, Arc<dyn Sampler>)> {
    let (model, _) = Exact::model(&[1, 28, 28], 8, TimestepShape::PerSample);
    let card = ModelCard::new(&model);
    let limits = JobLimits { steps: 1000, count: 1, pixels: 1 << 22, memory: None };
    let build = |name: &'static str| {
        let request = json!({"sampler": name, "steps": steps, "seed": 1, "class": 1});
        let request: Request = serde_json::from_value(request).ok()?;
        Some((name, request.check(std::slice::from_ref(&card), limits, || 0).ok()?.sampler))
    };
    diffusion_samplers::sampler::names().into_iter().filter_map(build).collect()
}

/// Returns a function that draws a sample of `len` values without a network, and returns the seconds per evaluation. They
/// include copying the input to a batch and the output from one, but not the first tenth of the sampling loop, in which
/// buffers grow.
fn sampling_loop(sampler: &Arc<dyn Sampler>, len: usize) -> impl FnMut() -> f64 + use<> {
    let sampler = Arc::clone(sampler);
    let output = Rc::new((0..len).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>());
    move || {
        let initial = InitialState::from_noise(output.to_vec());
        let trajectory = sampler::start(Arc::clone(&sampler), initial, Box::new(NoNoise));
        let skipped = sampler.evaluations() / 10;
        let (mut evaluations, mut start) = (0, Instant::now());
        trajectory.run_to_end(|input, _| {
            if evaluations == skipped {
                start = Instant::now();
            }
            evaluations += 1;
            std::hint::black_box(input);
            Output::from_batch(Rc::clone(&output), 0..len)
        });
        start.elapsed().as_secs_f64() / (evaluations - skipped) as f64
    }
}

/// Returns the median seconds of a step.
fn step(sampler: &Arc<dyn Sampler>, len: usize) -> f64 {
    let mut sample = sampling_loop(sampler, len);
    median((0..ROUNDS).map(|_| sample()).collect())
}

/// Returns a function that copies `len` values, and returns the seconds per copy.
fn copies(len: usize) -> impl FnMut() -> f64 {
    let (from, mut to) = (vec![1.0_f32; len], vec![0.0_f32; len]);
    let rounds = ((1 << 23) / len).max(1);
    move || {
        let start = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
        }
        start.elapsed().as_secs_f64() / rounds as f64
    }
}

/// Compares a step with a copy of the bytes that it reads and writes, in turns.
fn step_beside_copy(name: &str, sampler: &Arc<dyn Sampler>, shape: &str, len: usize) -> Row {
    let mut sample = sampling_loop(sampler, len);
    // Copying a value reads it and writes it, which counts as two values of a step.
    let mut copy = copies(len * arrays_per_step(name) / 2);
    // RePaint steps back to more noise several times per evaluation. Each time it reads the state and noise, and writes
    // the state.
    let mut copy_back = copies(len * 3 / 2);
    let back = if name == "repaint" { sampler.draws() - sampler.evaluations() } else { 0 };
    let back = back as f64 / sampler.evaluations() as f64;
    let (mut took, mut same_bytes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        took.push(sample());
        same_bytes.push(copy() + if back > 0.0 { back * copy_back() } else { 0.0 });
        ratios.push(took[took.len() - 1] / same_bytes[same_bytes.len() - 1]);
    }
    let [took, same_bytes] = [took, same_bytes].map(|times| median(times) * 1e6);
    Row::new(format!("a step of {name}, {shape}"), median(ratios), "×")
        .at_most(2.0)
        .remark(format!("{took:.1} µs beside {same_bytes:.1} µs"))
}

/// Measures the nanoseconds per random number of each generator.
fn noise() -> Vec<Row> {
    let mut z = vec![0.0; 28 * 28];
    let row = |name: &str| {
        let mut source = Generator::from_name(name).map(|generator| generator.seeded(1));
        let mut draw = || (0..1000).for_each(|_| source.iter_mut().for_each(|source| source.fill(&mut z)));
        let seconds = median_seconds(ROUNDS, &mut [&mut draw])[0] / 1000.0 / (28.0 * 28.0);
        Row::new(format!("a Gaussian random number, {name}"), seconds * 1e9, "ns").at_most(15.0)
    };
    Generator::NAMES.map(row).into()
}

/// Returns how many arrays a step reads or writes: the state (twice), the network's output and its next input; each
/// earlier prediction of the history and the new one; and the noise.
fn arrays_per_step(name: &str) -> usize {
    let history = match name {
        "lms" | "pndm" | "ipndm" | "unipc" | "sa" => 4,
        "dpmpp_3m" | "dpmpp_3m_sde" => 3,
        "ddpm" | "ddim" | "ddim_inverse" | "euler" | "euler_a" | "lcm" | "flow_lcm" | "scm" | "tcd"
        | "repaint" | "sgld" | "sohl_dickstein" => 0,
        _ => 2,
    };
    let draws = ["_a", "_sde", "ddpm", "lcm", "scm", "sa", "repaint", "sgld", "sohl_dickstein"];
    4 + history + usize::from(draws.iter().any(|end| name.ends_with(end)))
}

/// Compares with the schedulers of diffusers, if a Python has them.
fn diffusers() -> Vec<Row> {
    let Some(mut process) = TimedProcess::diffusers_schedulers() else { return Vec::new() };
    let known = ["ddim", "ddpm", "euler_a", "dpmpp_2m", "unipc"];
    let ours = samplers(STEPS).into_iter().filter(|(name, _)| known.contains(name));
    ours.map(|(name, sampler)| {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            own.push(step(&sampler, 784));
            other.push(process.run(&format!("{name} {STEPS}")) / STEPS as f64);
        }
        let (own, other) = (median(own), median(other));
        Row::new(format!("a step of diffusers beside a step of ours, {name}, 28×28×1"), other / own, "×")
            .remark(format!("{:.0} µs beside {:.2} µs", other * 1e6, own * 1e6))
    })
    .collect()
}

/// Measures the section about steps.
pub fn rows() -> Vec<Row> {
    let mut rows = noise();
    for (name, sampler) in samplers(STEPS) {
        rows.push(
            Row::new(format!("a step of {name}, 28×28×1"), step(&sampler, 784) * 1e6, "µs").at_most(3.0),
        );
    }
    for (shape, len) in [("4×64×64", 4 * 64 * 64), ("3×512×512", 3 * 512 * 512)] {
        rows.extend(samplers(20).iter().map(|(name, sampler)| step_beside_copy(name, sampler, shape, len)));
    }
    rows.extend(diffusers());
    rows
}
