//! The order of convergence of each deterministic sampler, and the distribution of each stochastic one, with the exact
//! model of Gaussian data.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gaussian::{DEVIATION, Gaussian, MEAN, predict};
use diffusion_samplers::noise_schedule::{NoiseSchedule, ScheduleDefaults};
use diffusion_samplers::prediction_type::PredictionType;
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::{self, InitialState, Options, Sampler};
use diffusion_samplers::scheduler_settings::{Settings, Value};

type ExactNetwork = Box<dyn Fn(&[f32], f64, &mut [f32])>;

fn settings(keys: &[(&str, Value)]) -> Settings {
    Settings::new(keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn word(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn build(name: &str, keys: &[(&str, Value)], steps: usize) -> std::sync::Arc<dyn Sampler> {
    sampler::by_name(name).unwrap().build(&mut settings(keys), &Options::new(steps)).unwrap()
}

/// A noise schedule that is uniform in λ = log(α/σ), and so are the steps of every sampler.
fn uniform_lambda() -> Vec<(&'static str, Value)> {
    let bar = |t: f64| 1.0 / (1.0 + (-2.0 * (3.5 - 7.5 * t / 999.0)).exp());
    let betas = (0..1000).map(|t| 1.0 - bar(f64::from(t)) / if t == 0 { 1.0 } else { bar(f64::from(t - 1)) });
    vec![("trained_betas", Value::Numbers(betas.collect()))]
}

fn schedule(keys: &[(&str, Value)]) -> NoiseSchedule {
    NoiseSchedule::from_settings(&mut settings(keys), ScheduleDefaults::DDPM).unwrap()
}

fn steps_network(keys: &[(&str, Value)]) -> ExactNetwork {
    let gaussian = Gaussian::new(&schedule(keys), PredictionType::Epsilon, false);
    Box::new(move |x, t, output| gaussian.evaluate(x, t, output))
}

/// Returns the time of the first evaluation, and the sample.
fn run(
    sampler: &std::sync::Arc<dyn Sampler>,
    initial: Vec<f32>,
    seed: u64,
    network: &ExactNetwork,
) -> (f64, Vec<f32>) {
    let len = initial.len() * sampler.outputs_per_value();
    let trajectory =
        sampler::start(sampler.clone(), InitialState::from_noise(initial), Generator::Torch.seeded(seed));
    let mut first = None;
    let sample = trajectory.run_to_end(|input, t| {
        first.get_or_insert(t);
        let mut output = vec![0.0; len];
        network(input, t, &mut output);
        output
    });
    (first.unwrap(), sample)
}

/// The solution of the probability-flow ODE from one noise level to another (Song et al. 2021, eq. 13, solved for
/// Gaussian data). Both states have an unscaled signal.
fn flow(x: f64, from: f64, to: f64) -> f64 {
    let spread = |sigma: f64| (DEVIATION * DEVIATION + sigma * sigma).sqrt();
    MEAN + (x - MEAN) * spread(to) / spread(from)
}

/// x̂₀ at a noise level: the result of a first-order step to σ = 0.
fn denoised(x: f64, sigma: f64) -> f64 {
    MEAN + (x - MEAN) * DEVIATION * DEVIATION / (DEVIATION * DEVIATION + sigma * sigma)
}

/// A deterministic sampler with its keys, the order that its authors claim, and its last noise level.
struct Claim {
    name: &'static str,
    keys: Vec<(&'static str, Value)>,
    order: f64,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// The smallest noise level of the schedule.
    SigmaMin,
    /// 0, by a step of first order from the smallest level.
    Zero,
    /// 0, by a step of the method's own order.
    ZeroFullOrder,
}

/// The largest error of the sample, over initial states from −2 to 2.
fn error(claim: &Claim, steps: usize) -> f64 {
    let keys: Vec<_> = uniform_lambda().into_iter().chain(claim.keys.clone()).collect();
    let sampler = build(claim.name, &keys, steps);
    let initial: Vec<f32> = (-8..=8).map(|i| i as f32 / 4.0).collect();
    let (first, sample) = run(&sampler, initial.clone(), 0, &steps_network(&uniform_lambda()));
    let sigmas: Vec<f64> = schedule(&uniform_lambda()).sigmas().collect();
    let (most, least) = (sigmas[first as usize], sigmas[0]);
    // The initial state has unit variance, or that of the sampler's first σ.
    let start = if sampler.initial_sigma() == 1.0 { most.hypot(1.0) } else { most };
    let exact = |z: f32| match claim.end {
        End::SigmaMin => flow(f64::from(z) * start, most, least) / least.hypot(1.0),
        End::Zero => denoised(flow(f64::from(z) * start, most, least), least),
        End::ZeroFullOrder => flow(f64::from(z) * start, most, 0.0),
    };
    initial.iter().zip(&sample).map(|(z, found)| (exact(*z) - f64::from(*found)).abs()).fold(0.0, f64::max)
}

fn claims() -> Vec<Claim> {
    let claim =
        |name, keys: &[(&'static str, Value)], order, end| Claim { name, keys: keys.to_vec(), order, end };
    let sigma_min = ("final_sigmas_type", word("sigma_min"));
    let order = |n: f64| ("solver_order", Value::Number(n));
    let dpm = ("algorithm_type", word("dpmsolver"));
    vec![
        claim("euler", &[], 1.0, End::Zero),
        claim("ddim", &[("clip_sample", Value::Flag(false))], 1.0, End::Zero),
        claim("heun", &[], 2.0, End::Zero),
        claim("dpm_2", &[], 2.0, End::Zero),
        claim("k_dpm_2", &[], 2.0, End::Zero),
        claim("lms", &[], 2.0, End::ZeroFullOrder),
        claim("dpm_multi", &[order(1.0), sigma_min.clone()], 1.0, End::SigmaMin),
        claim("dpmpp_2m", std::slice::from_ref(&sigma_min), 2.0, End::SigmaMin),
        claim("dpmpp_3m", std::slice::from_ref(&sigma_min), 2.0, End::SigmaMin),
        claim("dpm_multi", &[order(2.0), dpm.clone(), sigma_min.clone()], 2.0, End::SigmaMin),
        claim("dpm_single", &[order(2.0), sigma_min.clone()], 2.0, End::SigmaMin),
        claim("dpm_single", &[order(3.0), dpm, sigma_min.clone()], 3.0, End::SigmaMin),
        claim("deis", &[order(2.0)], 2.0, End::SigmaMin),
        claim("deis", &[order(3.0)], 3.0, End::SigmaMin),
        claim("unipc", &[order(1.0), sigma_min.clone()], 2.0, End::SigmaMin),
        claim("unipc", &[order(2.0), sigma_min.clone()], 3.0, End::SigmaMin),
        claim("unipc", &[order(3.0), sigma_min], 3.0, End::SigmaMin),
    ]
}

#[test]
fn deterministic_samplers_have_the_order_that_their_papers_claim() {
    let counts = [10, 20, 40, 80, 160];
    for claim in claims() {
        let errors = counts.map(|steps| error(&claim, steps));
        // The weights of third-order DEIS are small differences of large terms. In f32, as in diffusers, their
        // rounding exceeds the error of the method for more steps.
        let counts = if claim.name == "deis" && claim.order == 3.0 { &counts[..3] } else { &counts[..] };
        // Smaller errors are rounding errors of f32.
        let significant: Vec<(f64, f64)> = counts
            .iter()
            .zip(errors)
            .filter(|(_, error)| *error > 2e-5)
            .map(|(steps, error)| (*steps as f64, error))
            .collect();
        // With fewer than 15 steps, diffusers lowers the order of the last ones.
        let last = significant[significant.len() - 1];
        let from = |first: (f64, f64)| (first.1 / last.1).ln() / (last.0 / first.0).ln();
        let order = from(significant[0]).max(from(significant[1]));
        println!("{} {:?}: order {order:.2}, errors {errors:?}", claim.name, claim.keys);
        assert!(significant.len() >= 3, "{}: {errors:?}", claim.name);
        assert!(order > claim.order - 0.3, "{} {:?}: order {order:.2}, {errors:?}", claim.name, claim.keys);
    }
}

/// A stochastic sampler with its keys, its model and its number of steps.
type Stochastic = (&'static str, Vec<(&'static str, Value)>, ExactNetwork, usize);

fn stochastic() -> Vec<Stochastic> {
    let linear = || vec![("beta_start", Value::Number(1e-4)), ("beta_end", Value::Number(0.02))];
    let free = || [linear(), vec![("clip_sample", Value::Flag(false))]].concat();
    let steps = || steps_network(&linear());
    let score = |sigma_of: fn(f64) -> f64| -> ExactNetwork {
        Box::new(move |x, t, output| predict(PredictionType::Score, x, (1.0, sigma_of(t)), output))
    };
    // Ten noise levels from 1 to 0.05.
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
fn stochastic_samplers_sample_the_data_distribution() {
    for (name, keys, network, steps) in stochastic() {
        let sampler = build(name, &keys, steps);
        let mut initial = vec![0.0; 10_000];
        Generator::Torch.seeded(7).fill(&mut initial);
        let (_, sample) = run(&sampler, initial, 8, &network);
        let count = sample.len() as f64;
        let mean = sample.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let variance = sample.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        println!("{name}, {steps} steps: mean {mean:.4}, deviation {:.4}", variance.sqrt());
        assert!(sampler.draws() > 0, "{name} draws no noise");
        assert!((mean - MEAN).abs() < 0.02, "{name}: mean {mean}");
        assert!((variance.sqrt() - DEVIATION).abs() < 0.02, "{name}: deviation {}", variance.sqrt());
    }
}

/// The exact consistency function of the straight path: the end of the probability-flow ODE, as a velocity.
fn consistency_network() -> ExactNetwork {
    Box::new(|x, t, output| {
        let (alpha, sigma) = (1.0 - t / 1000.0, t / 1000.0);
        for (x, output) in x.iter().zip(output) {
            let x = f64::from(*x);
            let x0 = MEAN + (x - alpha * MEAN) * DEVIATION / (alpha * DEVIATION).hypot(sigma);
            *output = ((x - x0) / sigma) as f32;
        }
    })
}

#[test]
fn consistency_samplers_sample_the_data_distribution_in_any_number_of_steps() {
    let network = consistency_network();
    for name in ["scm", "flow_lcm"] {
        for steps in [1, 2, 3, 8] {
            let sampler = build(name, &[], steps);
            let mut initial = vec![0.0; 20_000];
            Generator::Torch.seeded(7).fill(&mut initial);
            let (_, sample) = run(&sampler, initial, 8, &network);
            let count = sample.len() as f64;
            let mean = sample.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
            let variance = sample.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
            assert_eq!(sampler.draws(), steps, "{name}");
            assert!((mean - MEAN).abs() < 0.02, "{name}, {steps} steps: mean {mean}");
            let deviation = variance.sqrt();
            assert!((deviation - DEVIATION).abs() < 0.01, "{name}, {steps} steps: deviation {deviation}");
        }
    }
}
