//! The mathematics of diffusion models: noise schedules, the forward process and its
//! posterior, prediction types, seeded noise, and the samplers that walk from noise to a sample.
//!
//! Nothing here knows files, networks, engines or messages. A sampler is an `async fn` over a
//! [`trajectory::ModelHandle`]; whoever drives the [`trajectory::Trajectory`] answers its evaluations.

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
