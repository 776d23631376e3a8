//! The mathematics of diffusion models: noise schedules, the forward process and its
//! posterior, prediction types, seeded noise, and the samplers that walk from noise to a sample.
//!
//! Nothing here knows files, networks, engines or messages. A sampler is an `async fn` over a
//! [`trajectory::Net`]; whoever drives the [`trajectory::Trajectory`] answers its evaluations.

pub mod lanes;
pub mod noise;
pub mod prediction;
pub mod process;
pub mod sampler;
pub mod schedule;
pub mod settings;
pub mod sigmas;
pub mod spacing;
pub mod trajectory;
