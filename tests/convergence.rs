//! Samplers against exact solutions: the order of convergence of each deterministic one, the
//! distribution of each stochastic one, on a Gaussian whose every score is known.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::exact::{DEVIATION, Gaussian, MEAN, predict};
use diffusion_samplers::noise_schedule::{NoiseSchedule, ScheduleDefaults};
use diffusion_samplers::prediction_type::PredictionType;
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::{self, InitialState, Options, Sampler};
use diffusion_samplers::scheduler_settings::{Settings, Value};
use std::task::Poll;

type Network = Box<dyn Fn(&[f32], f64, &mut [f32])>;

fn settings(keys: &[(&str, Value)]) -> Settings {
    Settings::new(keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn word(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn build(name: &str, keys: &[(&str, Value)], steps: usize) -> std::sync::Arc<dyn Sampler> {
    sampler::by_name(name).unwrap().build(&mut settings(keys), &Options::new(steps)).unwrap()
}

/// A schedule that is even in λ = log(α/σ), so that every sampler's steps are.
fn even() -> Vec<(&'static str, Value)> {
    let bar = |t: f64| 1.0 / (1.0 + (-2.0 * (3.5 - 7.5 * t / 999.0)).exp());
    let betas = (0..1000).map(|t| 1.0 - bar(f64::from(t)) / if t == 0 { 1.0 } else { bar(f64::from(t - 1)) });
    vec![("trained_betas", Value::Numbers(betas.collect()))]
}

fn schedule(keys: &[(&str, Value)]) -> NoiseSchedule {
    NoiseSchedule::from_settings(&mut settings(keys), ScheduleDefaults::DDPM).unwrap()
}

fn steps_network(keys: &[(&str, Value)]) -> Network {
    let gaussian = Gaussian::new(&schedule(keys), PredictionType::Epsilon, false);
    Box::new(move |x, t, output| gaussian.evaluate(x, t, output))
}

/// The first time that the network was told, and the sample.
fn walk(
    sampler: &std::sync::Arc<dyn Sampler>,
    initial: Vec<f32>,
    seed: u64,
    network: &Network,
) -> (f64, Vec<f32>) {
    let len = initial.len() * sampler.outputs_per_value();
    let mut walk =
        sampler::start(sampler.clone(), InitialState::from_noise(initial), Generator::Torch.seeded(seed));
    let mut first = None;
    loop {
        match walk.poll() {
            Poll::Ready(sample) => return (first.unwrap(), sample),
            Poll::Pending => {
                let t = walk.time();
                first.get_or_insert(t);
                let mut input = Vec::new();
                walk.append_input(&mut input);
                let mut output = vec![0.0; len];
                network(&input, t, &mut output);
                walk.answer(output.into());
            }
        }
    }
}

/// Where the probability-flow ODE leads a state at one noise level to another: all of it is a
/// shrinking towards the mean (Song et al. 2021, eq. 13, solved for a Gaussian). Both states have
/// their signal unscaled.
fn flow(x: f64, from: f64, to: f64) -> f64 {
    let spread = |sigma: f64| (DEVIATION * DEVIATION + sigma * sigma).sqrt();
    MEAN + (x - MEAN) * spread(to) / spread(from)
}

/// x̂_0 at a noise level, which is where a step to σ = 0 leads.
fn denoised(x: f64, sigma: f64) -> f64 {
    MEAN + (x - MEAN) * DEVIATION * DEVIATION / (DEVIATION * DEVIATION + sigma * sigma)
}

/// A deterministic sampler, its keys, the order that its authors claim, and where its walk ends.
struct Claim {
    name: &'static str,
    keys: Vec<(&'static str, Value)>,
    order: f64,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// At the schedule's least noise level.
    Least,
    /// At 0, by one step of first order from the least level.
    Zero,
    /// At 0, by a step of the method's own order.
    Origin,
}

/// The largest error at the walk's end, over states from −2 to 2.
fn error(claim: &Claim, steps: usize) -> f64 {
    let keys: Vec<_> = even().into_iter().chain(claim.keys.clone()).collect();
    let sampler = build(claim.name, &keys, steps);
    let initial: Vec<f32> = (-8..=8).map(|i| i as f32 / 4.0).collect();
    let (first, sample) = walk(&sampler, initial.clone(), 0, &steps_network(&even()));
    let sigmas: Vec<f64> = schedule(&even()).sigmas().collect();
    let (most, least) = (sigmas[first as usize], sigmas[0]);
    // A state at unit variance, or one scaled up by the sampler's first σ.
    let start = if sampler.initial_sigma() == 1.0 { most.hypot(1.0) } else { most };
    let exact = |z: f32| match claim.end {
        End::Least => flow(f64::from(z) * start, most, least) / least.hypot(1.0),
        End::Zero => denoised(flow(f64::from(z) * start, most, least), least),
        End::Origin => flow(f64::from(z) * start, most, 0.0),
    };
    initial.iter().zip(&sample).map(|(z, found)| (exact(*z) - f64::from(*found)).abs()).fold(0.0, f64::max)
}

fn claims() -> Vec<Claim> {
    let claim =
        |name, keys: &[(&'static str, Value)], order, end| Claim { name, keys: keys.to_vec(), order, end };
    let least = ("final_sigmas_type", word("sigma_min"));
    let order = |n: f64| ("solver_order", Value::Number(n));
    let dpm = ("algorithm_type", word("dpmsolver"));
    vec![
        claim("euler", &[], 1.0, End::Zero),
        claim("ddim", &[("clip_sample", Value::Flag(false))], 1.0, End::Zero),
        claim("heun", &[], 2.0, End::Zero),
        claim("dpm_2", &[], 2.0, End::Zero),
        claim("k_dpm_2", &[], 2.0, End::Zero),
        claim("lms", &[], 2.0, End::Origin),
        claim("dpm_multi", &[order(1.0), least.clone()], 1.0, End::Least),
        claim("dpmpp_2m", std::slice::from_ref(&least), 2.0, End::Least),
        claim("dpmpp_3m", std::slice::from_ref(&least), 2.0, End::Least),
        claim("dpm_multi", &[order(2.0), dpm.clone(), least.clone()], 2.0, End::Least),
        claim("dpm_single", &[order(2.0), least.clone()], 2.0, End::Least),
        claim("dpm_single", &[order(3.0), dpm, least.clone()], 3.0, End::Least),
        claim("deis", &[order(2.0)], 2.0, End::Least),
        claim("deis", &[order(3.0)], 3.0, End::Least),
        claim("unipc", &[order(1.0), least.clone()], 2.0, End::Least),
        claim("unipc", &[order(2.0), least.clone()], 3.0, End::Least),
        claim("unipc", &[order(3.0), least], 3.0, End::Least),
    ]
}

#[test]
fn deterministic_samplers_converge_as_fast_as_their_papers_say() {
    let counts = [10, 20, 40, 80, 160];
    for claim in claims() {
        let errors = counts.map(|steps| error(&claim, steps));
        // DEIS of order 3 has weights that are small differences of large terms; in f32, which the
        // reference has, their rounding outweighs the method's own error from here on.
        let counts = if claim.name == "deis" && claim.order == 3.0 { &counts[..3] } else { &counts[..] };
        // Below this f32 has nothing more to tell.
        let told: Vec<(f64, f64)> = counts
            .iter()
            .zip(errors)
            .filter(|(_, error)| *error > 2e-5)
            .map(|(steps, error)| (*steps as f64, error))
            .collect();
        // Up to 14 steps the references lower the order at the end of the walk.
        let last = told[told.len() - 1];
        let from = |first: (f64, f64)| (first.1 / last.1).ln() / (last.0 / first.0).ln();
        let order = from(told[0]).max(from(told[1]));
        println!("{} {:?}: order {order:.2}, errors {errors:?}", claim.name, claim.keys);
        assert!(told.len() >= 3, "{}: {errors:?}", claim.name);
        assert!(order > claim.order - 0.3, "{} {:?}: order {order:.2}, {errors:?}", claim.name, claim.keys);
    }
}

/// A sampler that draws noise, its keys, the network that it needs and the steps it takes.
type Stochastic = (&'static str, Vec<(&'static str, Value)>, Network, usize);

fn stochastic() -> Vec<Stochastic> {
    let linear = || vec![("beta_start", Value::Number(1e-4)), ("beta_end", Value::Number(0.02))];
    let free = || [linear(), vec![("clip_sample", Value::Flag(false))]].concat();
    let steps = || steps_network(&linear());
    let score = |sigma_of: fn(f64) -> f64| -> Network {
        Box::new(move |x, t, output| predict(PredictionType::Score, x, (1.0, sigma_of(t)), output))
    };
    // Ten levels from 1 to 0.05, enough for a deviation of one half.
    let levels = |index: f64| 0.05_f64.powf(index / 9.0);
    let ncsn = vec![("sigma_end", Value::Number(0.05)), ("step_size", Value::Number(5e-4))];
    let small = |name| (name, linear(), steps(), 100);
    vec![
        ("ddpm", free(), steps(), 500),
        ("ddpm", [free(), vec![("variance_type", word("fixed_large"))]].concat(), steps(), 1000),
        ("sohl_dickstein", linear(), steps(), 500),
        ("repaint", free(), steps(), 100),
        ("sgld", linear(), steps(), 1000),
        ("euler_a", linear(), steps(), 400),
        small("dpm_2_a"),
        small("k_dpm_2_a"),
        small("dpmpp_sde"),
        small("k_dpmpp_sde"),
        small("dpmpp_2s_a"),
        small("dpmpp_2m_sde"),
        ("k_dpmpp_2m_sde", linear(), steps(), 400),
        ("dpmpp_3m_sde", linear(), steps(), 400),
        small("dpmpp_2m_sde_karras"),
        small("sa"),
        ("score_sde_ve", vec![("sigma_max", Value::Number(50.0))], score(|sigma| sigma), 300),
        ("ncsn", ncsn, score(levels), 100),
    ]
}

#[test]
fn stochastic_samplers_draw_the_right_distribution() {
    for (name, keys, network, steps) in stochastic() {
        let sampler = build(name, &keys, steps);
        let mut initial = vec![0.0; 10_000];
        Generator::Torch.seeded(7).fill(&mut initial);
        let (_, sample) = walk(&sampler, initial, 8, &network);
        let count = sample.len() as f64;
        let mean = sample.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let variance = sample.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        println!("{name}, {steps} steps: mean {mean:.4}, deviation {:.4}", variance.sqrt());
        assert!(sampler.draws() > 0, "{name} draws no noise");
        assert!((mean - MEAN).abs() < 0.02, "{name}: mean {mean}");
        assert!((variance.sqrt() - DEVIATION).abs() < 0.02, "{name}: deviation {}", variance.sqrt());
    }
}
