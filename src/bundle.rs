//! A model bundle on disk, read and checked: the diffusers layout, or a directory with a graph and its scheduler.
//!
//! Nothing here opens an inference engine.

mod autoencoder_config;
mod autoencoder_halves;
mod autoencoder_io;
mod chat_template;
mod class_labels;
mod conditioning;
mod config_keys;
mod controlnet;
mod convolutions;
mod declared_components;
mod digest_memo;
mod error;
mod exchanged_graphs;
mod families;
mod graph_digests;
mod graphs;
mod inventory;
mod job_defaults;
mod json_file;
mod latent_components;
mod latent_sizes;
mod manifest;
mod manifest_defaults;
mod manifest_use;
mod manifest_values;
mod missing_file;
mod model_index;
mod network_graph;
mod network_size;
mod onnx_file;
pub(crate) mod other_graph;
mod pipeline_class;
mod pipeline_keys;
mod pipeline_kind;
mod preview_projection;
mod published_scaling;
mod required_components;
mod required_scaling;
mod sample_size;
mod scheduler_config;
mod scheduler_file;
mod scheduler_keys;
mod signature;
mod text_encoder_io;
mod text_encoding;
mod text_model;
pub(crate) mod tokenizer_source;
pub(crate) mod weight_types;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::onnx::ModelFiles;
use controlnet::ControlNetFolders;
use digest_memo::DigestMemo;
use graphs::Graphs;
use json_file::{read_or_default, read_text};
use latent_components::TEXT_ENCODERS;
pub(crate) use missing_file::{network_advice, other_graphs};
use model_index::ModelIndex;
use network_graph::{component_of, described_graph, network_graph};
use network_size::{NetworkConfig, network_size};
pub(crate) use other_graph::other_graph;
use scheduler_file::{fitting, for_pipeline, scheduler, warn_of_misspelt_keys};

pub use crate::onnx::OnnxError;
pub use autoencoder_config::{LatentStatistics, VaeConfig};
pub use autoencoder_io::AutoencoderIo;
pub use conditioning::{Role, TensorInput};
pub(crate) use controlnet::is_residual;
pub use controlnet::{ControlNet, ControlNetIo};
pub use error::BundleError;
pub use families::PipelineKind;
pub use graph_digests::GraphDigests;
pub(crate) use graph_digests::file_digest;
pub use inventory::{FileUse, Inventory, KeyUse};
use job_defaults::FolderFacts;
pub use job_defaults::{DefaultValue, JobDefaults};
pub use latent_components::LatentComponents;
pub(crate) use latent_sizes::{LatentSizes, unet_blocks};
pub use manifest::{Classes, Condition, Defaults, GraphNames, Manifest, SampleDescription, SampleKind};
pub(crate) use onnx_file::embedding_shape;
pub use onnx_file::{class_count, graph_io};
pub use pipeline_keys::PipelineTask;
pub use pipeline_kind::{GuidanceRule, LatentScaling, PipelineFacts, StrengthRule, TimeConvention};
pub use preview_projection::Projection;
pub use scheduler_config::{ConfigError, SchedulerConfig};
pub(crate) use signature::graph_key;
pub use signature::{
    LiveInputs, LoraInput, NetworkSize, ResidualInput, SampleLayout, Signature, SignatureError, TimeInput,
    TimestepShape,
};
pub use text_encoder_io::{TextEncoderConfig, TextEncoderIo};
pub(crate) use text_encoding::{
    FramedPrompt, LayerRule, Masking, Pooled, RowUse, TextEncoderFacts, TextLength,
};
#[cfg(test)]
pub(crate) use text_model::{CLIP, GEMMA, QWEN};
pub(crate) use text_model::{TextModel, VocabularyForm};

/// Where the ONNX file of the network is usually, relative to the bundle, the first choice first.
pub(crate) const NETWORK_GRAPHS: [&str; 3] = ["unet/model.onnx", "transformer/model.onnx", "model.onnx"];

/// What a network takes.
#[derive(Debug)]
pub(crate) struct NetworkFacts {
    /// The shape of a sample without the batch axis.
    pub(crate) sample_shape: Vec<usize>,
    /// Whether it takes a class label.
    pub(crate) takes_class: bool,
    /// Whether it takes the embeddings of a prompt.
    pub(crate) takes_text: bool,
}

/// The contents of a bundle's directory. Graphs are read without their weights. Copies share what was read.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The name of the directory, by which jobs select the model.
    pub name: String,
    /// The ONNX file of the network.
    pub graph: PathBuf,
    /// The scheduler configuration.
    pub scheduler: SchedulerConfig,
    /// The contents of denoised.toml.
    pub manifest: Manifest,
    /// What a job gets that leaves out steps, guidance and other settings of the model.
    pub defaults: JobDefaults,
    /// The lengths of the network's dynamic axes.
    pub network: NetworkSize,
    /// The autoencoder and the text encoders of a latent diffusion pipeline.
    pub latent: Option<LatentComponents>,
    /// The ControlNets that jobs can choose from.
    pub controlnets: Vec<ControlNet>,
    /// `num_class_embeds` of unet/config.json.
    class_embeddings: Option<usize>,
    /// `_name_or_path` in the network's config.json.
    network_name: Option<String>,
    index: ModelIndex,
    directory: PathBuf,
    graphs: Arc<Graphs>,
    /// How the network is fed, if all its inputs are known.
    signature: Option<Signature>,
}

impl Bundle {
    /// Reads the bundle in a directory.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        if !directory.is_dir() {
            return Err(BundleError::NoDirectory(directory.to_owned()));
        }
        json_file::check_files(directory)?;
        let index = ModelIndex::read(directory)?;
        let description = directory.join("denoised.toml");
        let mut manifest = read_manifest(&description, &index)?;
        let graph = match &manifest.graph.file {
            Some(file) => described_graph(directory, &description, file)?,
            None => network_graph(directory, &index)?,
        };
        let scheduler = scheduler(directory, &index, &description, &manifest)?;
        config_keys::check_all(directory, &graph)?;
        let config: NetworkConfig = read_or_default(&graph.with_file_name("config.json"))?;
        sample_size::check_channels(&graph.with_file_name("config.json"), "in_channels", config.in_channels)?;
        let mut graphs = Graphs::default();
        exchanged_graphs::check(directory, &graph, &graphs)?;
        let mut latent = LatentComponents::read(directory, &index, &mut graphs)?;
        let io = &graphs.open(&graph)?.header.io;
        let (network, signature) = network_size(&graph, io, &manifest, &config, latent.as_ref(), &index)?;
        if let Some(signature) = &signature {
            let kind = PipelineKind::from_signature(signature);
            index.check_kind(kind, signature.text_mask())?;
            kind.map_or(Ok(()), |kind| declared_components::check_classes(&index, kind))?;
            sample_size::check_sample(&graph, &signature.sample_shape)?;
            if let (Some(latent), Some(kind)) = (&mut latent, kind) {
                latent.check_text_encoders(kind)?;
                published_scaling::set_if_unconfigured(directory, latent, kind);
                required_scaling::check(directory, latent, kind)?;
                chat_template::check_all(latent, kind)?;
            }
        }
        let folders = ControlNetFolders::find(directory, &description, &manifest)?;
        let controlnets = match &signature {
            Some(unet) => controlnet::read_all(&folders, &graph, unet, &mut graphs)?,
            None => Vec::new(),
        };
        for component in latent.iter().flat_map(LatentComponents::graphs) {
            graphs.open(component)?;
        }
        let kind = signature.as_ref().and_then(PipelineKind::from_signature);
        if latent.as_ref().is_some_and(|latent| latent.encoder.is_some()) {
            autoencoder_halves::warn_of_differences(directory, kind)?;
        }
        let scheduler = for_pipeline(scheduler, kind, &index)?;
        index.check_components(latent.as_ref(), &graph)?;
        let component = manifest.graph.file.is_none().then(|| component_of(directory, &graph)).flatten();
        declared_components::check_presence(directory, &index, component.as_deref(), kind)?;
        if let (Some(kind), true) = (kind, latent.is_some()) {
            required_components::check(directory, &index, kind)?;
        }
        let takes_class = signature.as_ref().is_some_and(|signature| signature.class.is_some());
        let labels = class_labels::embedding_rows(&graph, signature.as_ref())?.or(config.num_class_embeds);
        if let Some(labels) = labels.filter(|_| takes_class) {
            class_labels::check(&description, &manifest, labels)?;
        }
        manifest_defaults::check(&description, &manifest, &scheduler)?;
        if latent.is_some() && kind.is_some() {
            // The autoencoder determines what its pictures are.
            manifest.sample = SampleDescription::default();
        }
        let is_image = signature.as_ref().is_some_and(|signature| signature.sample_shape.len() == 3);
        if manifest.sample.kind == SampleKind::Points && is_image {
            let fault = "sample.kind is \"points\", but samples of the network have channels, a height and a width, as \
                         images do; remove the key"
                .to_owned();
            return Err(BundleError::Content { path: description, fault });
        }
        let projection = manifest.preview.as_ref().zip(latent.as_ref());
        if let Some(fault) = projection.and_then(|(preview, latent)| preview.fault(latent.vae.channels)) {
            return Err(BundleError::Content { path: description, fault });
        }
        let mut bundle = Self {
            name: model_name(directory),
            graph,
            scheduler,
            manifest,
            network,
            latent,
            controlnets,
            class_embeddings: config.num_class_embeds,
            network_name: config.name().map(str::to_owned),
            defaults: JobDefaults::decide(&FolderFacts::default(), &Defaults::default()),
            index,
            directory: directory.to_owned(),
            graphs: Arc::new(graphs),
            signature,
        };
        bundle.decide_defaults();
        manifest_use::warn_of_unused(&bundle, &read_table(&description)?);
        warn_of_misspelt_keys(&bundle.scheduler);
        Ok(bundle)
    }

    /// Replaces the scheduler by another, as an assignment to `pipeline.scheduler` does: its keys stay as they are.
    pub fn set_scheduler(&mut self, scheduler: SchedulerConfig) -> Result<(), BundleError> {
        let kind = self.signature.as_ref().and_then(PipelineKind::from_signature);
        self.scheduler = fitting(scheduler, kind)?.checked()?;
        // The file's class decides on the sampler, not denoised.toml.
        (self.manifest.default.sampler, self.manifest.default.eta) = (None, None);
        self.decide_defaults();
        Ok(())
    }

    fn decide_defaults(&mut self) {
        self.defaults = JobDefaults::decide(&FolderFacts::from_bundle(self), &self.manifest.default);
    }

    /// The files of a graph, as they were when the bundle was opened.
    pub(crate) fn files(&self, graph: &Path) -> Result<Arc<ModelFiles>, BundleError> {
        self.graphs.get(graph)
    }

    /// All graphs by their names: those of their folders, or of their files if they are in no folder of the bundle.
    pub(crate) fn graphs(&self) -> impl Iterator<Item = (String, &ModelFiles)> {
        self.graphs.iter().map(|(path, files)| (graph_digests::name(&self.directory, path), files))
    }

    /// The SHA-256 of the graphs. The first call reads all weights; others wait for it.
    pub fn digests(&self) -> Result<Arc<GraphDigests>, BundleError> {
        self.graphs.digests(&self.directory, DigestMemo::default)
    }

    /// The SHA-256 of the graphs. Digests that are remembered in a cache directory are not computed again, and new ones
    /// are remembered there.
    pub fn digests_remembered_in(&self, cache: &Path) -> Result<Arc<GraphDigests>, BundleError> {
        self.graphs.digests(&self.directory, || DigestMemo::open(cache))
    }

    /// The SHA-256 of one graph of the bundle, in hexadecimal, without waiting for those of others.
    pub(crate) fn digest(&self, graph: &Path, cache: &Path) -> Result<String, BundleError> {
        self.graphs.digest(graph, || DigestMemo::open(cache))
    }

    /// Makes the digests in the background, so that they are there when a receipt needs them.
    pub(crate) fn make_digests(&self, cache: &Path) {
        let (bundle, cache) = (self.clone(), cache.to_owned());
        let make = move || {
            if let Err(error) = bundle.digests_remembered_in(&cache) {
                log::debug!("{error}");
            }
        };
        // Without the thread, whoever asks for the digests first makes them.
        if let Err(error) = std::thread::Builder::new().name("digests".to_owned()).spawn(make) {
            log::debug!("cannot start the digests thread: {error}");
        }
    }

    /// Whether both are copies of one bundle that was opened once. Bundles of equal names and directories may be others.
    pub(crate) fn is_copy_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.graphs, &other.graphs)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every file of the directory and every key of its configurations, with how each is used.
    pub fn inventory(&self) -> Result<Inventory, BundleError> {
        Inventory::read(self)
    }

    /// Checks that the folder has the components that a pipeline of this kind needs around its network.
    pub(crate) fn check_components(&self, kind: PipelineKind) -> Result<(), BundleError> {
        required_components::check(&self.directory, &self.index, kind)
    }

    /// What a command for the network needs to know; `None` if not all of its inputs are known.
    pub(crate) fn network_facts(&self) -> Option<NetworkFacts> {
        let signature = self.signature.as_ref()?;
        Some(NetworkFacts {
            sample_shape: signature.sample_shape.clone(),
            takes_class: signature.class.is_some(),
            takes_text: signature.has(Role::Text),
        })
    }

    /// The number of classes that a job may choose from; 0 if the network has none.
    pub fn classes(&self) -> usize {
        // The label for no class has an empty name.
        match self.manifest.classes.names.iter().rposition(|name| !name.is_empty()) {
            None => self.class_embeddings.unwrap_or(0),
            Some(last) => last + 1,
        }
    }

    /// Whether samples are latents, which the autoencoder turns into pictures.
    fn has_latents(&self) -> bool {
        self.latent.is_some() && self.signature.as_ref().and_then(PipelineKind::from_signature).is_some()
    }
}

/// Returns the name of the model in a directory, by which jobs select it. Links are followed.
pub(crate) fn model_name(directory: &Path) -> String {
    let canonical = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    canonical.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The sections of denoised.toml as they are written. A file that is not valid is reported by [`read_manifest`].
fn read_table(path: &Path) -> Result<toml::Table, BundleError> {
    let text = read_text(path)?.unwrap_or_default();
    Ok(toml::from_str(&text).unwrap_or_default())
}

/// Reads denoised.toml. Where it has no range of samples, the pipeline's class gives it.
fn read_manifest(path: &Path, index: &ModelIndex) -> Result<Manifest, BundleError> {
    let text = read_text(path)?.unwrap_or_default();
    let fault = |fault: String| BundleError::Content { path: path.to_owned(), fault };
    let mut manifest = Manifest::parse(&text).map_err(fault)?;
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let has_range = table.get("sample").is_some_and(|sample| sample.get("range").is_some());
    if let (false, Some(range)) = (has_range, index.sample_range()) {
        manifest.sample.range = range;
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_score_pipeline_are_drawn_from_0_to_1_unless_the_manifest_says_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("model_index.json");
        let manifest = directory.path().join("denoised.toml");
        let range = |class: &str, text: &str| {
            std::fs::write(&index, format!(r#"{{"_class_name": "{class}"}}"#)).unwrap();
            std::fs::write(&manifest, text).unwrap();
            read_manifest(&manifest, &ModelIndex::read(directory.path()).unwrap()).unwrap().sample.range
        };
        assert_eq!(range("DDPMPipeline", ""), [-1.0, 1.0]);
        assert_eq!(range("ScoreSdeVePipeline", ""), [0.0, 1.0]);
        assert_eq!(range("ScoreSdeVePipeline", "[sample]\nrange = [-2.0, 2.0]"), [-2.0, 2.0]);
    }
}
