//! A loaded model: the bundle's sessions, and how jobs are run on them.
//!
//! [`Bundle`] reads the directory, [`Signature`] gives each input of the network its meaning, and [`Predictor`] opens the
//! graph on an engine and evaluates batches.

mod batch;
mod batch_invariance;
mod component;
mod component_session;
mod control;
mod control_net;
mod denoiser;
mod embedding_cache;
mod embedding_store;
mod error;
mod example_inputs;
mod latent_pipeline;
mod live_feed;
mod lora_store;
mod network_memory;
mod pipeline_graphs;
mod prompt_text;
mod residual_sums;
mod shape_profile;
mod text_encoder;
mod text_encoder_checks;
mod text_encoder_graph;
mod tile_size;
mod tokenizer;
mod vae;
mod vae_tiling;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bundle::{Bundle, LatentSizes, Signature};
use crate::inference::{
    EngineError, EngineOptions, EvaluationError, LoadStage, OnStage, SessionPool, SessionSize,
};
use denoiser::Denoiser;
use pipeline_graphs::PipelineGraphs;

pub use batch::Batch;
pub use batch_invariance::{BatchDependence, batch_dependence};
pub(crate) use control::is_in_window;
pub use control::{Control, JobControls, SampleControls};
pub use denoiser::Predictor;
pub use error::{LatentError, ModelError};
pub use latent_pipeline::{Conditions, LatentPipeline, TextConditioning};
pub use live_feed::Adaptation;
pub use lora_store::{JobLoras, LoraChoice, LoraFault};
pub use pipeline_graphs::SizeLimits;
pub use tokenizer::TokenizerError;
pub use vae::LatentDistribution;

/// A model whose sessions are opened when they are first used.
pub struct Model {
    /// The contents of its directory.
    pub bundle: Bundle,
    /// The denoising network.
    pub predictor: Box<dyn Predictor>,
    /// The duration of a warm-up evaluation per sample, if there was one.
    pub first_evaluation: Option<Duration>,
    /// How many values the network predicts per value of a sample: 1, or 2 with learned variances.
    pub outputs_per_value: usize,
    /// The sizes of all its sessions.
    pub session_sizes: Vec<SessionSize>,
    /// The text encoders and the autoencoder, if the network denoises latents.
    pub latent: Option<Arc<LatentPipeline>>,
    /// The directories of the LoRAs that jobs can name.
    pub lora_directories: Vec<PathBuf>,
    /// The pool that has its sessions.
    pub sessions: SessionPool,
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
    /// Opens the bundle in a directory, and evaluates its network once, so that a provider that does not work is noticed.
    pub fn load(directory: &Path, options: &EngineOptions) -> Result<Self, ModelError> {
        Self::load_bundle(Bundle::open(directory)?, options, Arc::new(|_| {}))
    }

    /// Does the same with a bundle that is open already. Reports each stage of each of its graphs.
    pub fn load_bundle(
        bundle: Bundle,
        options: &EngineOptions,
        on_stage: OnStage,
    ) -> Result<Self, ModelError> {
        let components = Arc::clone(&on_stage);
        let mut model = Self::open_bundle(&SessionPool::default(), bundle, options, on_stage, &components)?;
        model.warm_up(model.predictor.signature().smallest_batch())?;
        Ok(model)
    }

    /// Opens the bundle in a directory, with its sessions in a pool that other models use too. The stages of opening its
    /// network, at its first evaluation, are reported.
    ///
    /// Nothing is evaluated, unless the network's ONNX file does not declare the channels of its output: then the network
    /// is evaluated at the smallest size that it takes.
    pub fn open(
        pool: &SessionPool,
        directory: &Path,
        options: &EngineOptions,
        on_stage: OnStage,
    ) -> Result<Self, ModelError> {
        on_stage(LoadStage::Warming);
        let silent: OnStage = Arc::new(|_| {});
        Self::open_bundle(pool, Bundle::open(directory)?, options, on_stage, &silent)
    }

    /// Does the same with a bundle that is open already.
    pub(crate) fn open_in(
        pool: &SessionPool,
        bundle: Bundle,
        options: &EngineOptions,
        on_stage: OnStage,
    ) -> Result<Self, ModelError> {
        let silent: OnStage = Arc::new(|_| {});
        Self::open_bundle(pool, bundle, options, on_stage, &silent)
    }

    /// Closes its sessions that are not in use. They are opened again when they are used.
    pub(crate) fn close(&self) {
        self.sessions.close_model();
    }

    /// Puts into the engine cache what the graphs around the network need there. That of the network is there once it was
    /// evaluated.
    pub(crate) fn prepare_components(&mut self) -> Result<(), LatentError> {
        let evaluates = self.predictor.backend().prepares_shapes();
        self.predictor.prepare_control_nets(evaluates).map_err(LatentError::Session)?;
        let Some(latent) = &self.latent else { return Ok(()) };
        latent.prepare(&self.predictor.signature().sample_shape, evaluates)
    }

    fn open_bundle(
        pool: &SessionPool,
        bundle: Bundle,
        options: &EngineOptions,
        on_stage: OnStage,
        on_component_stage: &OnStage,
    ) -> Result<Self, ModelError> {
        let pool = &pool.for_new_model();
        let signature = denoiser::signature(&bundle, options)?;
        let graphs = PipelineGraphs::read(&bundle, &signature)?;
        let mut predictor = Denoiser::new(&bundle, options, pool, on_stage)?;
        predictor.add_control_nets(options, pool, on_component_stage)?;
        let latent = graphs
            .map(|graphs| LatentPipeline::new(&bundle, graphs, options, pool, &predictor, on_component_stage))
            .transpose()?;
        bundle.make_digests(&options.cache);
        let mut model = Self {
            session_sizes: pool.sizes(),
            sessions: pool.clone(),
            latent: latent.map(Arc::new),
            lora_directories: [vec![bundle.directory().join("loras")], options.loras.directories.clone()]
                .concat(),
            bundle,
            predictor: Box::new(predictor),
            first_evaluation: None,
            outputs_per_value: 1,
        };
        let of_family = model.latent.as_ref().and_then(|latent| latent.kind.facts().outputs_per_value);
        model.outputs_per_value = match of_family.or(signature.declared_outputs_per_value()) {
            Some(outputs) => outputs,
            None => model.evaluate_smallest_size()?,
        };
        Ok(model)
    }

    /// Evaluates the network with zeros at its default size in a batch of this size.
    ///
    /// Where a provider prepares a shape at its first evaluation, a second one is timed. Where the second one is captured, a
    /// third.
    pub fn warm_up(&mut self, batch: usize) -> Result<(), EngineError> {
        let sample_shape = self.predictor.signature().sample_shape.clone();
        let mut evaluation = self.evaluate_zeros(&sample_shape, batch)?;
        let preparing = if self.predictor.captures_shapes() { 2 } else { 1 };
        let preparing = if self.predictor.backend().prepares_shapes() { preparing } else { 0 };
        for _ in 0..preparing {
            evaluation = self.evaluate_zeros(&sample_shape, batch)?;
        }
        self.outputs_per_value = evaluation.outputs_per_value;
        self.first_evaluation = Some(evaluation.elapsed / u32::try_from(batch).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Returns how many values the network predicts per value of a sample, by an evaluation at the smallest size.
    fn evaluate_smallest_size(&mut self) -> Result<usize, ModelError> {
        self.open_network()?;
        let signature = self.predictor.signature();
        let mut shape = signature.sample_shape.clone();
        if let (true, [_, height, width]) = (signature.dynamic_size, &mut shape[..]) {
            let multiple = LatentSizes::read(&self.bundle.graph)?.multiple;
            [*height, *width] = [multiple; 2];
        }
        let batch = signature.smallest_batch();
        Ok(self.evaluate_zeros(&shape, batch)?.outputs_per_value)
    }

    fn open_network(&mut self) -> Result<(), EngineError> {
        self.predictor.open().map_err(|error| self.engine_error(error))
    }

    /// Evaluates the network with samples of zeros of this shape.
    fn evaluate_zeros(&mut self, sample_shape: &[usize], samples: usize) -> Result<Evaluation, EngineError> {
        self.open_network()?;
        let signature = self.predictor.signature();
        let signature = Signature { sample_shape: sample_shape.to_vec(), ..signature.clone() };
        let batch = Batch::zeros(&signature, &self.bundle.manifest, samples);
        let (mut output, start) = (Vec::new(), Instant::now());
        self.predictor.evaluate(&batch, &mut output).map_err(|error| self.engine_error(error))?;
        let elapsed = start.elapsed();
        let expected = samples * signature.sample_len();
        match output.len() {
            n if n == expected => Ok(Evaluation { outputs_per_value: 1, elapsed }),
            n if n == 2 * expected => Ok(Evaluation { outputs_per_value: 2, elapsed }),
            found => Err(self.engine_error(EvaluationError::OutputLength { expected, found })),
        }
    }

    /// The error of a network that cannot be opened, or whose first evaluation failed.
    fn engine_error(&self, error: EvaluationError) -> EngineError {
        match error {
            EvaluationError::Open(error) => *error,
            error => EngineError::Warmup { graph: self.bundle.graph.clone(), error },
        }
    }
}

/// An evaluation with zeros.
struct Evaluation {
    outputs_per_value: usize,
    elapsed: Duration,
}
