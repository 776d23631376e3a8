//! The facts about a loaded model that requests are checked against.

use std::path::PathBuf;
use std::sync::Arc;

use crate::bundle::{Bundle, LatentComponents, PipelineFacts, PipelineKind, Signature};
use crate::inference::{Backend, SessionMemory};
use crate::model::{Model, SizeLimits};

/// The facts about a loaded model that requests are checked against.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// The bundle.
    pub bundle: Arc<Bundle>,
    /// The inputs and outputs of the denoising network.
    pub signature: Signature,
    /// The engine and the provider that run it; before its first evaluation, the provider that is tried first.
    pub backend: Backend,
    /// The network's output values per sample value: 1, or 2 with learned variances.
    pub outputs_per_value: usize,
    /// The kind and the components of a latent-diffusion pipeline, if the bundle is one.
    pub latent: Option<(PipelineKind, LatentComponents)>,
    /// The sizes and lengths that the graphs of a latent-diffusion pipeline take.
    pub size_limits: Option<SizeLimits>,
    /// The memory of the largest graph with its weights, in bytes.
    pub largest_graph: u64,
    /// What is known of the network's memory.
    pub memory: Option<Arc<SessionMemory>>,
    /// Whether images can be encoded into latents.
    pub has_vae_encoder: bool,
    /// Whether a graph has inputs for LoRAs.
    pub takes_loras: bool,
    /// The directories of the LoRAs that jobs can name.
    pub lora_directories: Vec<PathBuf>,
}

impl ModelCard {
    /// Collects the facts about a model.
    pub fn new(model: &Model) -> Arc<Self> {
        Arc::new(Self {
            bundle: Arc::new(model.bundle.clone()),
            signature: model.predictor.signature().clone(),
            backend: model.predictor.backend().clone(),
            outputs_per_value: model.outputs_per_value,
            latent: model.latent.as_ref().map(|latent| (latent.kind, latent.components.clone())),
            size_limits: model.latent.as_ref().map(|latent| latent.limits),
            largest_graph: model.session_sizes.iter().map(|session| session.bytes).max().unwrap_or(0),
            memory: model.predictor.memory().cloned(),
            has_vae_encoder: model.latent.as_ref().is_some_and(|latent| latent.has_encoder()),
            takes_loras: model.latent.as_ref().is_some_and(|latent| latent.takes_loras()),
            lora_directories: model.lora_directories.clone(),
        })
    }

    /// The digest of all graphs, in hexadecimal; empty if they cannot be read.
    pub(crate) fn digest(&self) -> String {
        self.bundle.digests().map(|digests| digests.total.clone()).unwrap_or_default()
    }

    /// The model's name.
    pub(super) fn name(&self) -> &str {
        &self.bundle.name
    }

    /// The facts of the pipeline's kind. Models of pixels have the defaults of Stable Diffusion.
    pub(crate) fn facts(&self) -> &'static PipelineFacts {
        self.latent.as_ref().map_or(PipelineKind::StableDiffusion, |(kind, _)| *kind).facts()
    }
}
