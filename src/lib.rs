//! The denoising daemon: runs diffusion models exported to ONNX and publishes their images over MQTT.
//!
//! The program `denoised` is [`cli::run`]. As a library, the crate loads a model bundle and samples from it without a
//! broker:
//!
//! ```
//! use denoised::inference::{EngineKind, EngineOptions};
//! use denoised::job::{JobLimits, ModelCard, Request};
//! use denoised::model::Model;
//! use denoised::pipeline::{JobEvent, Pipeline};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
//! let model = Model::load("models/digits".as_ref(), &options)?;
//!
//! let request: Request = serde_json::from_str(r#"{"class": 3, "steps": 4, "seed": 1}"#)?;
//! let limits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
//! let job = request.check(&[ModelCard::new(&model)], limits, || 1)?;
//!
//! let mut pipeline = Pipeline::new(model);
//! pipeline.accept(job);
//! let mut images = Vec::new();
//! while !pipeline.is_idle() {
//!     pipeline.step(&mut |_, event| {
//!         if let JobEvent::Image { image, .. } = event {
//!             images.push(image.picture.data);
//!         }
//!     });
//! }
//! assert_eq!(images.len(), 1);
//! assert_eq!(images[0].len(), 28 * 28);
//! # Ok(())
//! # }
//! ```
//!
//! # The path of a job
//!
//! | step | module |
//! |---|---|
//! | A message arrives on the request topic. | [`mqtt`] |
//! | The request is parsed and validated; it becomes a job or an error. | [`job`] |
//! | The job is written to disk, and the message is acknowledged. | [`spool`] |
//! | The job waits for room in the batch. Prompts and the init image are encoded. | [`pipeline`] |
//! | Each image is a trajectory of a sampler; those that wait for the network share a batch. | [`pipeline`], [`diffusion_samplers`] |
//! | The batch is evaluated. | [`model`], [`inference`] |
//! | The sample is decoded by the VAE, if there is one, and encoded as PNG. | [`model`], [`image`] |
//! | The image, its [receipt](job::receipt) and the result are written to disk, then published. | [`spool`], [`mqtt`] |
//!
//! # Layers
//!
//! `cli` → `http` → `service` → `pipeline` → `job` → `image`, `model` → `inference`, `bundle` → `onnx` → `tensor`. A module imports only
//! from modules to its right. `home_assistant` and `config` are between `service` and `job`. `mqtt` and `spool` are below `service` and know no
//! tensors. `diffusion_samplers` is a separate crate and knows no module of this one. A test compares the imports with
//! these layers.

pub mod bundle;
pub mod cli;
pub mod config;
#[cfg(test)]
mod error_texts;
mod file_kind;
mod home_assistant;
mod http;
pub mod image;
pub mod inference;
pub mod job;
mod json_input;
#[cfg(test)]
mod layers;
pub mod lora;
pub mod model;
pub mod mqtt;
pub mod npy;
mod onnx;
mod panics;
pub mod pipeline;
mod platform;
mod regular_file;
mod serde_message;
pub mod service;
pub mod spool;
pub mod tensor;
mod toml_document;
mod topic_name;
mod units;
