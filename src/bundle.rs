//! A model bundle on disk: the diffusers layout, or a folder with a graph and its scheduler.

pub(crate) mod latent_components;
pub(crate) mod manifest;
pub(crate) mod onnx_file;
pub(crate) mod preview_projection;
pub(crate) mod scheduler_config;
pub(crate) mod signature;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::bundle::manifest::Manifest;
use crate::bundle::scheduler_config::{ConfigError, SchedulerConfig};
use crate::bundle::signature::NetworkSize;
use crate::inference::session_pool::files_of;
use latent_components::LatentComponents;

/// A directory's contents, read and checked; the graph itself is an engine's matter.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The directory's name, by which jobs call the model.
    pub name: String,
    /// The ONNX file.
    pub graph: PathBuf,
    /// The ONNX file's SHA-256, in hexadecimal.
    pub sha256: String,
    /// The noise schedule's configuration.
    pub scheduler: SchedulerConfig,
    /// What stands in denoised.toml.
    pub manifest: Manifest,
    /// The sizes that free axes take.
    pub network: NetworkSize,
    /// What stands around the network, where that draws latents.
    pub latent: Option<LatentComponents>,
    /// The number of classes that unet/config.json gives.
    class_embeddings: Option<usize>,
}

/// A bundle that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The directory isn't there.
    #[error("{0}: there is no such directory")]
    NoDirectory(PathBuf),
    /// A file isn't there.
    #[error("{directory}: the bundle has none of: {}", searched.join(", "))]
    Missing {
        /// The bundle.
        directory: PathBuf,
        /// Where it was looked for.
        searched: Vec<String>,
    },
    /// A file can't be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// A file's contents.
    #[error("{path}: {fault}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line or key.
        fault: String,
    },
    /// The scheduler's configuration.
    #[error(transparent)]
    Scheduler(#[from] ConfigError),
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
    /// Read a directory.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        if !directory.is_dir() {
            return Err(BundleError::NoDirectory(directory.to_owned()));
        }
        let canonical = directory.canonicalize().map_err(reading(directory))?;
        let name = canonical
            .file_name()
            .map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
        if let Some(index) = optional(&directory.join("model_index.json"))? {
            json::<serde_json::Map<String, serde_json::Value>>(&directory.join("model_index.json"), &index)?;
        }
        let description = directory.join("denoised.toml");
        let manifest = manifest(&description)?;
        let graph = match &manifest.graph.file {
            Some(file) => first(directory, &[&file.to_string_lossy()])?,
            None => first(directory, &["unet/model.onnx", "transformer/model.onnx", "model.onnx"])?,
        };
        let scheduler = first(directory, &["scheduler/scheduler_config.json", "scheduler_config.json"]);
        let scheduler = match (scheduler, &manifest.scheduler) {
            (Ok(file), _) => SchedulerConfig::read(&file)?,
            (Err(_), Some(section)) => SchedulerConfig::of_section(&description, section)?,
            (Err(missing), None) => return Err(missing),
        };
        let config = graph.with_file_name("config.json");
        let network: NetworkConfig = match optional(&config)? {
            Some(text) => json(&config, &text)?,
            None => NetworkConfig::default(),
        };
        let latent = LatentComponents::read(directory)?;
        // A network of packed latents takes four values of each channel at once.
        let packed =
            network.in_channels.zip(latent.as_ref()).is_some_and(|(n, latent)| n == 4 * latent.vae.channels);
        Ok(Self {
            name,
            sha256: sha256(&graph)?,
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

    /// How many classes a job may choose from; 0 where the network has none.
    pub fn classes(&self) -> usize {
        match (self.manifest.classes.names.len(), self.class_embeddings) {
            (0, embeddings) => embeddings.unwrap_or(0),
            (named, _) => named,
        }
    }
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> BundleError {
    let path = path.to_owned();
    |error| BundleError::Read { path, error }
}

fn first(directory: &Path, candidates: &[&str]) -> Result<PathBuf, BundleError> {
    candidates.iter().map(|candidate| directory.join(candidate)).find(|path| path.is_file()).ok_or_else(
        || BundleError::Missing {
            directory: directory.to_owned(),
            searched: candidates.iter().map(|&c| c.to_owned()).collect(),
        },
    )
}

pub(crate) fn optional(path: &Path) -> Result<Option<String>, BundleError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(reading(path)(error)),
    }
}

pub(crate) fn json<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, BundleError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let key = error.path().to_string();
        BundleError::Content { path: path.to_owned(), fault: format!("{key}: {}", error.into_inner()) }
    })
}

fn manifest(path: &Path) -> Result<Manifest, BundleError> {
    let text = optional(path)?.unwrap_or_default();
    Manifest::parse(&text).map_err(|fault| BundleError::Content { path: path.to_owned(), fault })
}

/// The digest of a graph and of the weights beside it.
pub(crate) fn sha256(graph: &Path) -> Result<String, BundleError> {
    let mut hasher = Sha256::new();
    for path in files_of(graph) {
        let mut file = std::fs::File::open(&path).map_err(reading(&path))?;
        std::io::copy(&mut file, &mut hasher).map_err(reading(&path))?;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
