//! A loaded model: the bundle's sessions, and how jobs are run on them.
//!
//! [`Bundle`] reads the directory, the engine opens the graph, [`Signature`](crate::bundle::Signature) gives each input its
//! meaning, and [`Predictor`] evaluates batches.

mod batch;
mod batch_invariance;
mod component;
mod denoiser;
mod error;
mod latent_pipeline;
mod network_memory;
mod pipeline_graphs;
mod prompt_text;
mod text_encoder;
mod text_encoder_checks;
mod tile_size;
mod tokenizer;
mod vae;
mod vae_tiling;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bundle::{Bundle, GraphDigests};
use crate::inference::{
    EngineError, EngineOptions, EvaluationError, LoadStage, Provider, SessionPool, SessionSize,
};
use denoiser::Denoiser;
use pipeline_graphs::PipelineGraphs;

pub use batch::Batch;
pub use batch_invariance::{BatchDependence, batch_dependence};
pub use denoiser::Predictor;
pub use error::{LatentError, ModelError};
pub use latent_pipeline::{Conditions, LatentPipeline, TextConditioning};
pub use pipeline_graphs::SizeLimits;
pub use tokenizer::TokenizerError;
pub use vae::LatentDistribution;

/// A loaded model.
pub struct Model {
    /// The contents of its directory.
    pub bundle: Bundle,
    /// The SHA-256 of its graphs.
    pub digests: Arc<GraphDigests>,
    /// The denoising network.
    pub predictor: Box<dyn Predictor>,
    /// The duration of the first evaluation after the warm-up.
    pub first_evaluation: Duration,
    /// How many values the network predicts per value of a sample: 1, or 2 with learned variances.
    pub outputs_per_value: usize,
    /// The sizes of all its sessions.
    pub session_sizes: Vec<SessionSize>,
    /// The text encoders and the autoencoder, if the network denoises latents.
    pub latent: Option<Arc<LatentPipeline>>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("bundle", &self.bundle)
            .field("backend", &self.predictor.backend())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Loads the bundle in a directory, and evaluates its network once.
    pub fn load(directory: &Path, options: &EngineOptions) -> Result<Self, ModelError> {
        Self::load_into(&SessionPool::default(), directory, options, &mut |_| {})
    }

    /// Loads the bundle in a directory with its sessions in a pool that other models use too. Reports each stage.
    pub fn load_into(
        pool: &SessionPool,
        directory: &Path,
        options: &EngineOptions,
        on_stage: &mut dyn FnMut(LoadStage),
    ) -> Result<Self, ModelError> {
        on_stage(LoadStage::Warming);
        Self::load_bundle(pool, Bundle::open(directory)?, options, on_stage)
    }

    /// Loads a bundle that is open already. What is known of its graphs is not read again.
    pub fn load_bundle(
        pool: &SessionPool,
        bundle: Bundle,
        options: &EngineOptions,
        on_stage: &mut dyn FnMut(LoadStage),
    ) -> Result<Self, ModelError> {
        let start = Instant::now();
        // Before the digests are made and the network is opened, which takes long.
        let graphs = PipelineGraphs::read(&bundle, &denoiser::signature(&bundle, options)?)?;
        let digests = bundle.digests()?;
        let mut predictor: Box<dyn Predictor> = Box::new(Denoiser::open(&bundle, options, pool, on_stage)?);
        let opened = Instant::now();
        let outputs_per_value = outputs_per_value(&bundle, predictor.as_mut())
            .map_err(|error| EngineError::Warmup { graph: bundle.graph.clone(), error })?;
        let first_evaluation = opened.elapsed();
        let backend = predictor.backend();
        log::info!(
            "model {} runs on {} {} with {}, after {} ms",
            bundle.name,
            backend.engine,
            backend.version,
            backend.provider,
            start.elapsed().as_millis()
        );
        for share in &backend.provider_shares {
            log::info!("model {}: {share}", bundle.name);
        }
        // A provider that does not work for the denoiser is not tried for the other components.
        let is_rejected = |provider: &&Provider| provider.to_string() != backend.provider;
        let providers = options.providers.iter().skip_while(is_rejected).copied().collect();
        let options = EngineOptions { providers, ..options.clone() };
        let latent = graphs
            .map(|graphs| LatentPipeline::open(&bundle, graphs, &options, pool, &*predictor))
            .transpose()?;
        Ok(Self {
            session_sizes: pool.sizes(&bundle.name),
            latent: latent.map(Arc::new),
            bundle,
            digests,
            predictor,
            first_evaluation,
            outputs_per_value,
        })
    }
}

/// Evaluates the network once, and returns how many values it predicts per value of a sample.
fn outputs_per_value(bundle: &Bundle, predictor: &mut dyn Predictor) -> Result<usize, EvaluationError> {
    let signature = predictor.signature();
    let (len, samples) = (signature.sample_len(), signature.smallest_batch());
    let batch = Batch::zeros(signature, &bundle.manifest, samples);
    let mut output = Vec::new();
    predictor.evaluate(&batch, &mut output)?;
    match output.len() {
        n if n == samples * len => Ok(1),
        n if n == samples * 2 * len => Ok(2),
        n => Err(EvaluationError::OutputLength { expected: samples * len, found: n }),
    }
}
