//! A model bundle on disk, read and checked: the diffusers layout, or a directory with a graph and its scheduler.
//!
//! Nothing here opens an inference engine.

mod conditioning;
mod error;
mod json_file;
pub(crate) mod latent_components;
mod manifest;
pub(crate) mod onnx_file;
mod pipeline_kind;
mod preview_projection;
mod scheduler_config;
mod signature;
pub(crate) mod weight_types;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use json_file::{read_or_default, read_text};

pub use conditioning::{Role, TensorInput};
pub use error::BundleError;
pub use latent_components::{LatentComponents, VaeConfig};
pub use manifest::{Classes, Condition, Defaults, GraphNames, Manifest, SampleDescription, SampleKind};
pub use onnx_file::graph_io;
pub use pipeline_kind::{PipelineFacts, PipelineKind, StrengthRule};
pub use preview_projection::Projection;
pub use scheduler_config::{ConfigError, SchedulerConfig};
pub use signature::{NetworkSize, Signature, SignatureError, TimeInput, TimestepShape};

/// The contents of a bundle's directory. The graph itself is only located and hashed.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The name of the directory, by which jobs select the model.
    pub name: String,
    /// The ONNX file of the network.
    pub graph: PathBuf,
    /// The SHA-256 of the ONNX file and its external weights, in hexadecimal.
    pub sha256: String,
    /// The scheduler configuration.
    pub scheduler: SchedulerConfig,
    /// The contents of denoised.toml.
    pub manifest: Manifest,
    /// The lengths of the network's dynamic axes.
    pub network: NetworkSize,
    /// The autoencoder and the text encoders of a latent diffusion pipeline.
    pub latent: Option<LatentComponents>,
    /// `num_class_embeds` of unet/config.json.
    class_embeddings: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NetworkConfig {
    in_channels: Option<usize>,
    sample_size: Option<SampleSize>,
    num_class_embeds: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SampleSize {
    Square(usize),
    Rectangle([usize; 2]),
}

impl Bundle {
    /// Reads the bundle in a directory.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        if !directory.is_dir() {
            return Err(BundleError::NoDirectory(directory.to_owned()));
        }
        let canonical = directory.canonicalize().map_err(BundleError::reading(directory))?;
        let name = canonical
            .file_name()
            .map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
        // Only that it is a JSON object; the network's inputs determine the pipeline.
        read_or_default::<serde_json::Map<String, serde_json::Value>>(&directory.join("model_index.json"))?;
        let description = directory.join("denoised.toml");
        let manifest = read_manifest(&description)?;
        let graph = match &manifest.graph.file {
            Some(file) => first_file(directory, &[&file.to_string_lossy()])?,
            None => first_file(directory, &["unet/model.onnx", "transformer/model.onnx", "model.onnx"])?,
        };
        let scheduler = first_file(directory, &["scheduler/scheduler_config.json", "scheduler_config.json"]);
        let scheduler = match (scheduler, &manifest.scheduler) {
            (Ok(file), _) => SchedulerConfig::read(&file)?,
            (Err(_), Some(section)) => SchedulerConfig::from_section(&description, section)?,
            (Err(missing), None) => return Err(missing),
        };
        let network: NetworkConfig = read_or_default(&graph.with_file_name("config.json"))?;
        let latent = LatentComponents::read(directory)?;
        // A network of packed latents takes 2×2 patches, so it has four channels for each latent channel.
        let packed =
            network.in_channels.zip(latent.as_ref()).is_some_and(|(n, latent)| n == 4 * latent.vae.channels);
        Ok(Self {
            name,
            sha256: onnx_file::sha256(&graph)?,
            graph,
            scheduler,
            manifest,
            network: NetworkSize {
                channels: network.in_channels,
                size: network.sample_size.map(|size| match size {
                    SampleSize::Square(n) => (n, n),
                    SampleSize::Rectangle([h, w]) => (h, w),
                }),
                packed,
                own_channels: latent.as_ref().filter(|_| !packed).map(|latent| latent.vae.channels),
            },
            latent,
            class_embeddings: network.num_class_embeds,
        })
    }

    /// The number of classes that a job may choose from; 0 if the network has none.
    pub fn classes(&self) -> usize {
        match (self.manifest.classes.names.len(), self.class_embeddings) {
            (0, embeddings) => embeddings.unwrap_or(0),
            (named, _) => named,
        }
    }
}

fn first_file(directory: &Path, candidates: &[&str]) -> Result<PathBuf, BundleError> {
    candidates.iter().map(|candidate| directory.join(candidate)).find(|path| path.is_file()).ok_or_else(
        || BundleError::Missing {
            directory: directory.to_owned(),
            searched: candidates.iter().map(|&c| c.to_owned()).collect(),
        },
    )
}

fn read_manifest(path: &Path) -> Result<Manifest, BundleError> {
    let text = read_text(path)?.unwrap_or_default();
    Manifest::parse(&text).map_err(|fault| BundleError::Content { path: path.to_owned(), fault })
}
