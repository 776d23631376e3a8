//! Whole trajectories against diffusers', number for number, on an exact network.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::exact::Gaussian;
use common::{golden, largest_difference, read_json};
use denoised::diffusion::noise::{Generator, Noise, Recorded};
use denoised::diffusion::prediction::PredictionType;
use denoised::diffusion::sampler::{self, Options};
use denoised::diffusion::schedule::NoiseSchedule;
use denoised::diffusion::settings::{Settings, Value};
use denoised::diffusion::trajectory::Turn;
use denoised::npy;

fn settings(scheduler: &serde_json::Value) -> Settings {
    let values: BTreeMap<_, _> = scheduler
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, _)| !key.starts_with('_'))
        .map(|(key, value)| {
            let value = match value {
                serde_json::Value::Null => Value::Null,
                serde_json::Value::Bool(flag) => Value::Flag(*flag),
                serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap()),
                serde_json::Value::String(text) => Value::Text(text.clone()),
                other => panic!("{other}"),
            };
            (key.clone(), value)
        })
        .collect();
    Settings::new(values)
}

/// The states after each step: what the network was asked at, shifted by one, and the sample.
///
/// A sampler that scales its input shows the state only at its end; there the inputs themselves
/// are compared with the reference's states scaled likewise.
struct Run {
    inputs: Vec<Vec<f32>>,
    times: Vec<f64>,
    sample: Vec<f32>,
    missing: usize,
}

fn run(case: &serde_json::Value) -> Run {
    let scheduler = &case["scheduler"];
    let class = scheduler["_class_name"].as_str().unwrap();
    let options = Options { steps: case["steps"].as_u64().unwrap() as usize, eta: case["eta"].as_f64() };
    let family = sampler::by_class(class).unwrap();
    let options = if class == "DDIMScheduler" { options } else { Options { eta: None, ..options } };
    let built = (family.build)(&mut settings(scheduler), &options).unwrap();
    let schedule = NoiseSchedule::from_settings(&mut settings(scheduler), 1e-4, 0.02).unwrap();
    let kind = PredictionType::from_name(scheduler["prediction_type"].as_str().unwrap()).unwrap();
    let learned = scheduler["variance_type"] == "learned_range";
    let net = Gaussian::new(&schedule, kind, learned);
    let name = case["name"].as_str().unwrap();
    let draws = if case["noisy"] == true {
        let recorded = npy::read(&golden(&format!("samplers/{name}.noise.npy"))).unwrap();
        recorded.outer_iter().map(|draw| draw.iter().copied().collect()).collect()
    } else {
        Vec::new()
    };
    assert_eq!(draws.len(), built.draws(), "{name}: draws");
    let (noise, missing) = Recorded::new(draws);
    let initial: Vec<f32> = npy::read(&golden("samplers/initial.npy")).unwrap().iter().copied().collect();
    let output_len = initial.len() * built.outputs_per_value();
    let mut trajectory = sampler::begin(built.clone(), initial, Box::new(noise) as Noise, output_len);
    let (mut inputs, mut times) = (Vec::new(), Vec::new());
    loop {
        match trajectory.poll() {
            Turn::Done(sample) => {
                assert_eq!(inputs.len(), built.evaluations(), "{name}: evaluations");
                return Run { inputs, times, sample, missing: missing.get() };
            }
            Turn::Waiting => {
                let t = trajectory.time();
                let input = trajectory.input(<[f32]>::to_vec);
                trajectory.answer(|output| net.evaluate(&input, t, output));
                inputs.push(input);
                times.push(t);
            }
        }
    }
}

#[test]
fn whole_trajectories_agree_with_diffusers() {
    let cases = read_json(&golden("samplers/cases.json"));
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 17);
    let mut worst = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let result = run(case);
        assert_eq!(result.missing, 0, "{name}: noise ran out");
        let states = npy::read(&golden(&format!("samplers/{name}.npy"))).unwrap();
        let states: Vec<Vec<f32>> = states.outer_iter().map(|s| s.iter().copied().collect()).collect();
        let scaled = case["scheduler"]["_class_name"] == "HeunDiscreteScheduler";
        let mut found: Vec<Vec<f32>> = result.inputs[1..].to_vec();
        found.push(result.sample);
        let skipped = found.len() - states.len();
        let mut difference = 0.0_f32;
        for (i, (found, state)) in found[skipped..].iter().zip(&states).enumerate() {
            let factor =
                if scaled && i + 1 < states.len() { scale_at(case, result.times[i + 1]) } else { 1.0 };
            let state: Vec<f32> = state.iter().map(|x| (f64::from(*x) * factor) as f32).collect();
            difference = difference.max(largest_difference(found, &state));
        }
        let long = case["steps"].as_u64().unwrap() >= 1000;
        let cosine = case["scheduler"]["beta_schedule"] == "squaredcos_cap_v2";
        let bound = if long || cosine { 1e-4 } else { 1e-5 };
        println!("{name}: {difference:.1e}");
        worst.push((name, difference, bound));
    }
    let late: Vec<_> = worst.into_iter().filter(|(_, difference, bound)| difference > bound).collect();
    assert!(late.is_empty(), "beyond their bounds: {late:?}");
}

/// 1/√(σ²+1) at a time step.
fn scale_at(case: &serde_json::Value, t: f64) -> f64 {
    let schedule = NoiseSchedule::from_settings(&mut settings(&case["scheduler"]), 1e-4, 0.02).unwrap();
    let sigmas: Vec<f64> = schedule.sigmas().collect();
    let (low, high) = (sigmas[t as usize], sigmas[(t as usize + 1).min(sigmas.len() - 1)]);
    let sigma = low + (high - low) * t.fract();
    1.0 / (sigma * sigma + 1.0).sqrt()
}

#[test]
fn noise_is_torchs_bit_for_bit() {
    let cases = read_json(&golden("noise/cases.json"));
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let seed = case["seed"].as_u64().unwrap();
        let expected: Vec<f32> =
            npy::read(&golden(&format!("noise/{seed}.npy"))).unwrap().iter().copied().collect();
        let mut generator = Generator::Torch.seeded(seed);
        let mut found = Vec::new();
        for size in case["sizes"].as_array().unwrap() {
            let mut z = vec![0.0; size.as_u64().unwrap() as usize];
            generator.fill(&mut z);
            found.extend(z);
        }
        let bits = |z: &[f32]| z.iter().map(|z| z.to_bits()).collect::<Vec<_>>();
        let wrong = bits(&found).iter().zip(bits(&expected)).filter(|(a, b)| *a != b).count();
        assert_eq!(
            wrong,
            0,
            "seed {seed}: {wrong} of {} numbers differ; {}",
            found.len(),
            largest_difference(&found, &expected)
        );
    }
}
