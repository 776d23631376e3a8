//! Samplers and noise schedules of diffusion models, in pure Rust, with the numbers of [diffusers] and [k-diffusion].
//!
//! The model is yours: a closure, an inference engine, a batch server. This crate has no dependency on any of them.
//!
//! # Sample with a closure as the model
//!
//! ```
//! use diffusion_samplers::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults};
//! use diffusion_samplers::rng::Generator;
//! use diffusion_samplers::sampler::{self, InitialState, Options};
//! use diffusion_samplers::scheduler_settings::{Settings, Value};
//! use diffusion_samplers::sigma_schedule::SigmaTable;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The keys of a scheduler_config.json. The others have the defaults of diffusers, such as an ε-predicting model.
//! let keys = [("beta_start", 1e-4), ("beta_end", 0.02)].map(|(key, beta)| (key.to_owned(), Value::Number(beta)));
//! let mut settings = Settings::new(keys.into());
//!
//! // DPM-Solver++(2M) with Karras' noise levels.
//! let sampler = sampler::by_name("dpmpp_2m_karras")?.build(&mut settings, &Options::new(20))?;
//!
//! // The exact ε-prediction for data with the mean 0.3 and the standard deviation 0.5.
//! let table = SigmaTable::new(&NoiseSchedule::from_settings(&mut settings, ScheduleDefaults::DDPM)?);
//! let model = |x: &[f32], t: f64| -> Vec<f32> {
//!     let NoiseLevel { alpha, sigma } = NoiseLevel::from_sigma(table.sigma_at(t));
//!     let variance = (alpha * 0.5).powi(2) + sigma.powi(2);
//!     x.iter().map(|x| (sigma * (f64::from(*x) - alpha * 0.3) / variance) as f32).collect()
//! };
//!
//! // One generator per image: the initial noise comes first, then whatever the sampler draws.
//! let mut noise = Generator::Torch.seeded(42);
//! let mut initial = vec![0.0; 10_000];
//! noise.fill(&mut initial);
//!
//! let trajectory = sampler::start(sampler, InitialState::from_noise(initial), noise);
//! let sample = trajectory.run_to_end(model);
//!
//! let mean = sample.iter().sum::<f32>() / sample.len() as f32;
//! assert!((mean - 0.3).abs() < 0.02);
//! # Ok(())
//! # }
//! ```
//!
//! [`Trajectory::try_run_to_end`](trajectory::Trajectory::try_run_to_end) takes a model that can fail. To evaluate
//! several images in one batch, drive their trajectories yourself: see [`trajectory`].
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`sampler`] | every sampler, by name ([`sampler::names`]) or by its class in scheduler_config.json |
//! | [`trajectory`] | one sampling run: evaluations, previews, inpainting |
//! | [`scheduler_settings`] | the keys of a scheduler_config.json and how each was used |
//! | [`noise_schedule`] | β_t and ᾱ_t of the forward process, noise levels (α, σ) |
//! | [`sigma_schedule`] | schedules of noise levels (Karras, exponential, …), conversion between σ and t |
//! | [`timestep_spacing`] | the selection of time steps |
//! | [`prediction_type`] | ε, x₀, v, score and flow predictions, and their conversions |
//! | [`forward_process`] | q(x_t \| x₀) and its posterior |
//! | [`rng`] | seeded Gaussian noise with the bits of PyTorch |
//! | [`simd`] | vectorized loops over samples |
//!
//! # Conventions
//!
//! - A state or sample is a flat slice of f32 in the model's range, of any shape. Coefficients are f64.
//! - The time that a model receives has the unit of the sampler's
//!   [time conditioning](sampler::SamplerSpec::time): a time step, σ, or another.
//! - Seeded noise and the loops over samples have the same bits on every processor.
//! - A configuration that gives no valid sampler is an error before the first evaluation.
//!
//! # Write a sampler
//!
//! A sampler is an `async` block that awaits the model wherever its paper evaluates it. This is Euler's method on the
//! probability-flow ODE dx/dσ = ε for a model that takes an unscaled state and σ:
//!
//! ```
//! use std::sync::Arc;
//!
//! use diffusion_samplers::rng::{Generator, Noise};
//! use diffusion_samplers::sampler::{self, InitialState, Sampler};
//! use diffusion_samplers::sigma_schedule::karras;
//! use diffusion_samplers::simd::update;
//! use diffusion_samplers::trajectory::{InputScaling, ModelHandle, SampleFuture};
//!
//! /// Noise levels, largest first. The last one is 0.
//! struct Euler(Vec<f64>);
//!
//! impl Sampler for Euler {
//!     fn evaluations(&self) -> usize {
//!         self.0.len() - 1
//!     }
//!
//!     fn initial_sigma(&self) -> f64 {
//!         self.0[0]
//!     }
//!
//!     fn sample(self: Arc<Self>, mut x: Vec<f32>, _: Noise, model: ModelHandle) -> SampleFuture {
//!         Box::pin(async move {
//!             for pair in self.0.windows(2) {
//!                 let (sigma, next) = (pair[0], pair[1]);
//!                 let epsilon = model.predict(&mut x, InputScaling::State, sigma).await;
//!                 let step = (next - sigma) as f32;
//!                 update(&mut x, [&epsilon], move |x, [epsilon]| x + step * epsilon);
//!             }
//!             x
//!         })
//!     }
//! }
//!
//! let mut sigmas = karras(80.0, 0.002, 7.0, 50);
//! sigmas.push(0.0);
//! let mut noise = Generator::Torch.seeded(1);
//! let mut initial = vec![0.0; 10_000];
//! noise.fill(&mut initial);
//! let trajectory = sampler::start(Arc::new(Euler(sigmas)), InitialState::from_noise(initial), noise);
//! // The exact model for data with the mean 0 and the standard deviation 1: E[ε | x] = σ·x/(1 + σ²).
//! let sample = trajectory.run_to_end(|x, sigma| {
//!     x.iter().map(|x| (sigma * f64::from(*x) / (1.0 + sigma * sigma)) as f32).collect::<Vec<_>>()
//! });
//! let variance = sample.iter().map(|x| x * x).sum::<f32>() / sample.len() as f32;
//! assert!((variance - 1.0).abs() < 0.1);
//! ```
//!
//! # The forward process
//!
//! ```
//! use diffusion_samplers::forward_process::{Posterior, q_sample};
//! use diffusion_samplers::noise_schedule::{BetaSchedule, NoiseLevel, NoiseSchedule};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let schedule = NoiseSchedule::new(&BetaSchedule::SquaredCosCapV2, 0.0, 0.0, 1000)?;
//! let alpha_bars = schedule.alphas_cumprod();
//!
//! // x₅₀₀ of a sample of two values.
//! let (x0, noise, mut x_t) = ([1.0, -1.0], [0.3, 0.8], [0.0; 2]);
//! q_sample(NoiseLevel::from_alpha_bar(alpha_bars[500]), &x0, &noise, &mut x_t);
//!
//! // The mean of x₄₉₉ given x₅₀₀ and x₀.
//! let posterior = Posterior::new(alpha_bars[500], alpha_bars[499]);
//! let mean = posterior.x0 * f64::from(x0[0]) + posterior.x_t * f64::from(x_t[0]);
//! assert!((mean - f64::from(x_t[0])).abs() < 0.01);
//! # Ok(())
//! # }
//! ```
//!
//! [diffusers]: https://github.com/huggingface/diffusers
//! [k-diffusion]: https://github.com/crowsonkb/k-diffusion

pub mod forward_process;
pub mod noise_schedule;
pub mod prediction_type;
pub mod rng;
pub mod sampler;
pub mod scheduler_settings;
pub mod sigma_schedule;
pub mod simd;
pub mod timestep_spacing;
pub mod trajectory;

/// Compiles and runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
