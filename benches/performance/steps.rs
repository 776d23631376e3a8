//! The samplers alone: a step of each, beside a copy of the bytes that it needs.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use denoised::bundle::TimestepShape;
use denoised::job::{JobLimits, ModelCard, Request};
use diffusion_samplers::rng::{Generator, NoiseSource};
use diffusion_samplers::sampler::{self, InitialState, Sampler};
use diffusion_samplers::trajectory::Output;
use serde_json::json;

use crate::clock::{in_turns, median};
use crate::common::gaussian_model::Exact;
use crate::mqtt_peer::Peer;
use crate::table::Row;

const STEPS: usize = 200;
const ROUNDS: usize = 9;

/// Noise that costs nothing.
struct Silence;

impl NoiseSource for Silence {
    fn fill(&mut self, _: &mut [f32]) {}
}

/// Every sampler's plan that serves a network that is told time steps.
fn samplers(steps: usize) -> Vec<(&'static str, Arc<dyn Sampler>)> {
    let (model, _) = Exact::model(&[1, 28, 28], 8, TimestepShape::PerSample);
    let card = ModelCard::new(&model);
    let limits = JobLimits { steps: 1000, count: 1, pixels: 1 << 22, memory: None };
    let plan = |name: &'static str| {
        let request = json!({"sampler": name, "steps": steps, "seed": 1, "class": 1});
        let request: Request = serde_json::from_value(request).ok()?;
        Some((name, request.check(std::slice::from_ref(&card), limits, || 0).ok()?.sampler))
    };
    diffusion_samplers::sampler::names().into_iter().filter_map(plan).collect()
}

/// Walks of a sampler over samples of `len` values: each call gives the seconds for one evaluation's share, with its
/// input written to a batch and its answer read from one, the network and the walk's first tenth aside, in which its
/// buffers grow.
fn walks(sampler: &Arc<dyn Sampler>, len: usize) -> impl FnMut() -> f64 + use<> {
    let sampler = Arc::clone(sampler);
    let answers = Rc::new((0..len).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>());
    move || {
        let at = InitialState::from_noise(answers.to_vec());
        let trajectory = sampler::start(Arc::clone(&sampler), at, Box::new(Silence));
        let first = sampler.evaluations() / 10;
        let (mut evaluations, mut start) = (0, Instant::now());
        trajectory.run_to_end(|input, _| {
            if evaluations == first {
                start = Instant::now();
            }
            evaluations += 1;
            std::hint::black_box(input);
            Output::from_batch(Rc::clone(&answers), 0..len)
        });
        start.elapsed().as_secs_f64() / (evaluations - first) as f64
    }
}

/// The median seconds of a step.
fn step(sampler: &Arc<dyn Sampler>, len: usize) -> f64 {
    let mut walk = walks(sampler, len);
    median((0..ROUNDS).map(|_| walk()).collect())
}

/// Copies of `len` values, of which each is read and written once: each call gives the seconds for one.
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

/// A step beside a copy of the bytes that it needs, in turns.
fn traffic(name: &str, sampler: &Arc<dyn Sampler>, shape: &str, len: usize) -> Row {
    let mut walk = walks(sampler, len);
    // A copy reads and writes, so that it moves two of its values for each.
    let mut copy = copies(len * needed(name) / 2);
    // Each of RePaint's steps back up to noise, of which there are many to an evaluation, needs the state, twice,
    // and noise.
    let mut copy_back = copies(len * 3 / 2);
    let back = if name == "repaint" { sampler.draws() - sampler.evaluations() } else { 0 };
    let back = back as f64 / sampler.evaluations() as f64;
    let (mut took, mut same_bytes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        took.push(walk());
        same_bytes.push(copy() + if back > 0.0 { back * copy_back() } else { 0.0 });
        ratios.push(took[took.len() - 1] / same_bytes[same_bytes.len() - 1]);
    }
    let [took, same_bytes] = [took, same_bytes].map(|times| median(times) * 1e6);
    Row::new(format!("a step of {name}, {shape}"), median(ratios), "×")
        .at_most(2.0)
        .remark(format!("{took:.1} µs beside {same_bytes:.1} µs"))
}

/// Nanoseconds for a number of each generator.
fn noise() -> Vec<Row> {
    let mut z = vec![0.0; 28 * 28];
    let row = |name: &str| {
        let mut source = Generator::from_name(name).map(|generator| generator.seeded(1));
        let mut draw = || (0..1000).for_each(|_| source.iter_mut().for_each(|source| source.fill(&mut z)));
        let seconds = in_turns(ROUNDS, &mut [&mut draw])[0] / 1000.0 / (28.0 * 28.0);
        Row::new(format!("a number of noise, {name}"), seconds * 1e9, "ns").at_most(15.0)
    };
    Generator::NAMES.map(row).into()
}

/// How many samples' values a step must read or write once each: the state, twice, the network's answer and its
/// next input; each older estimate and the newest one, where any is kept; and the noise.
fn needed(name: &str) -> usize {
    let kept = match name {
        "lms" | "pndm" | "ipndm" | "unipc" | "sa" => 4,
        "dpmpp_3m" | "dpmpp_3m_sde" => 3,
        "ddpm" | "ddim" | "ddim_inverse" | "euler" | "euler_a" | "lcm" | "tcd" | "repaint" | "sgld"
        | "sohl_dickstein" => 0,
        _ => 2,
    };
    let draws = ["_a", "_sde", "ddpm", "lcm", "sa", "repaint", "sgld", "sohl_dickstein"];
    4 + kept + usize::from(draws.iter().any(|end| name.ends_with(end)))
}

/// diffusers' schedulers beside ours, where a Python has them.
fn diffusers() -> Vec<Row> {
    let Some(mut peer) = Peer::start() else { return Vec::new() };
    let known = ["ddim", "ddpm", "euler_a", "dpmpp_2m", "unipc"];
    let ours = samplers(STEPS).into_iter().filter(|(name, _)| known.contains(name));
    ours.map(|(name, sampler)| {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            own.push(step(&sampler, 784));
            other.push(peer.seconds(&format!("{name} {STEPS}")) / STEPS as f64);
        }
        let (own, other) = (median(own), median(other));
        Row::new(format!("a step of diffusers' beside ours, {name}, 28×28×1"), other / own, "×")
            .remark(format!("{:.0} µs beside {:.2} µs", other * 1e6, own * 1e6))
    })
    .collect()
}

/// The section about steps.
pub fn rows() -> Vec<Row> {
    let mut rows = noise();
    for (name, sampler) in samplers(STEPS) {
        rows.push(
            Row::new(format!("a step of {name}, 28×28×1"), step(&sampler, 784) * 1e6, "µs").at_most(3.0),
        );
    }
    for (shape, len) in [("4×64×64", 4 * 64 * 64), ("3×512×512", 3 * 512 * 512)] {
        rows.extend(samplers(20).iter().map(|(name, sampler)| traffic(name, sampler, shape, len)));
    }
    rows.extend(diffusers());
    rows
}
