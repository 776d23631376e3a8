//! `denoised`, the denoising daemon: diffusion models from ONNX, images over MQTT.
//!
//! The way of a job through the modules: [`mqtt`] receives a request, [`service`] checks it into
//! a [`job`], [`pipeline`] turns the job's images into trajectories of [`diffusion_samplers`] samplers and
//! answers what they ask with the network that [`model`] loaded, [`image`] encodes what arrives,
//! a [`job::receipt`] says how it was made, and [`mqtt`] delivers both. [`cli`] and [`config`] stand
//! in front. `diffusion_samplers` knows none of the others, and `mqtt` knows no tensors.

pub mod bundle;
pub mod cli;
pub mod config;
pub mod image;
pub mod inference;
pub mod job;
pub mod model;
pub mod mqtt;
pub mod npy;
pub mod pipeline;
pub mod platform;
mod serde_message;
pub mod service;
pub mod spool;
pub mod tensor;
pub mod units;
