//! A directory on disk becomes a predictor.
//!
//! [`Bundle`] reads the diffusers layout, an engine opens the graph and describes it,
//! [`Signature`] finds out what each input means, and the result answers evaluations behind the
//! trait [`Predictor`].

mod batch_invariance;
pub(crate) mod denoiser;
pub(crate) mod latent_pipeline;
pub(crate) mod predictor;
pub(crate) mod text_encoder;
pub(crate) mod tokenizer;
pub(crate) mod vae;
mod vae_tiling;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inference::host::{Host, UnknownHost};
use crate::inference::load::{self, GraphSource, LoadedSession};
use crate::inference::onnx_runtime::dylib as library;
use denoiser::{Network, NetworkPurpose};

pub use crate::bundle::latent_components::{LatentComponents, PipelineKind};
pub use crate::bundle::manifest::{Condition, Manifest, SampleKind};
pub use crate::bundle::onnx_file::ports;
pub use crate::bundle::preview_projection::Projection;
pub use crate::bundle::scheduler_config::{ConfigError, SchedulerConfig};
pub use crate::bundle::signature::{Role, Signature, SignatureError, TensorInput, TimeInput, TimestepShape};
pub use crate::bundle::{Bundle, BundleError};
pub use crate::inference::provider::{Cuda, OpenVino, Policy, Provider, ProviderOptions, TensorRt};
pub use crate::inference::session::Tensor;
pub use crate::inference::session_pool::{SessionPool, SessionSize};
pub use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};
pub use batch_invariance::{BatchDependence, batch_dependence};
pub use latent_pipeline::{Conditions, LatentError, LatentPipeline, TextConditioning};
pub use predictor::{Backend, Batch, EvaluationError, Predictor, ProviderShare, RejectedProvider};
pub use vae::{Posterior, VaeConfig};

/// Which engine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// ONNX Runtime where a library is found, else the embedded engine.
    #[default]
    Auto,
    /// ONNX Runtime, or an error.
    OnnxRuntime,
    /// The embedded engine, which needs nothing installed.
    Embedded,
}

/// What to run models with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Which engine.
    pub kind: EngineKind,
    /// ONNX Runtime's library; where it is `None` the usual places are searched.
    pub library: Option<PathBuf>,
    /// Execution providers in order of preference.
    pub providers: Vec<Provider>,
    /// Whether the first of them must be the one that serves.
    pub policy: Policy,
    /// The most samples that are evaluated at once.
    pub batch: usize,
    /// What is set of each provider.
    pub provider: ProviderOptions,
    /// The directory in which providers keep the engines that they build.
    pub cache: PathBuf,
    /// An engine is built only where so many bytes of memory are free.
    pub build_memory: u64,
    /// The most that all open graphs with their weights may take, in bytes.
    pub memory: Option<u64>,
    /// The longest side in pixels that an autoencoder works on at once; larger pictures are tiled.
    pub vae_tile: Option<usize>,
    /// The machine that the providers run on. Unknown by default: cached engines are not checked against the device.
    pub host: Arc<dyn Host>,
    /// The provider that serves while the first one's engine is built; none: nothing serves.
    pub meanwhile: Option<Provider>,
}

impl EngineOptions {
    /// What serves meanwhile, where that was asked for.
    pub fn meanwhile(&self) -> Option<Self> {
        let provider = self.meanwhile.filter(|provider| self.providers.first() != Some(provider))?;
        Some(Self { providers: vec![provider], meanwhile: None, ..self.clone() })
    }
}

/// What a model that is being loaded is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A provider builds an engine of its own, which may take minutes.
    BuildingEngine,
    /// The network is loaded and evaluated for the first time.
    Warming,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            kind: EngineKind::Auto,
            library: None,
            providers: vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu],
            policy: Policy::Preferred,
            batch: 8,
            provider: ProviderOptions::default(),
            cache: PathBuf::from("/var/cache/denoised"),
            build_memory: 1 << 30,
            memory: None,
            vae_tile: None,
            host: Arc::new(UnknownHost),
            meanwhile: None,
        }
    }
}

/// A model that can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The directory's files.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The graph's inputs or outputs.
    #[error("{graph}: {error}")]
    Signature {
        /// The graph's file.
        graph: PathBuf,
        /// What is wrong.
        #[source]
        error: SignatureError,
    },
    /// The engine can't take the graph.
    #[error("{engine} can't load {graph}: {reason}. {way_out}")]
    Load {
        /// The engine.
        engine: &'static str,
        /// The graph's file.
        graph: PathBuf,
        /// The engine's words.
        reason: String,
        /// What to do.
        way_out: &'static str,
    },
    /// ONNX Runtime's library.
    #[error(transparent)]
    Library(#[from] library::LibraryError),
    /// A tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::TokenizerError),
    /// Text encoders are missing.
    #[error(
        "{name}: its network takes a prompt, for which {needed} text encoders are needed and {found} are there; \
         export the folder whole: text_encoder/model.onnx and tokenizer/, their siblings with _2 and _3, and vae_decoder/"
    )]
    Texts {
        /// The bundle.
        name: String,
        /// How many are needed.
        needed: usize,
        /// How many are there.
        found: usize,
    },
    /// A provider that was required and isn't there.
    #[error(
        "the execution provider {provider} is required but does not work here: {reason}. Install \
         what it names, or set [engine] policy = \"preferred\" to let the next provider serve"
    )]
    Provider {
        /// Its name.
        provider: Provider,
        /// The runtime's words.
        reason: String,
    },
    /// The first evaluation, made while loading.
    #[error("{graph}: the first evaluation failed: {error}")]
    Warmup {
        /// The graph's file.
        graph: PathBuf,
        /// What is wrong.
        #[source]
        error: EvaluationError,
    },
}

/// A loaded model: its bundle, its network, and how its network is fed.
pub struct Model {
    /// The directory's contents.
    pub bundle: Bundle,
    /// The network.
    pub predictor: Box<dyn Predictor>,
    /// How long its first evaluation took.
    pub first_evaluation: Duration,
    /// What the network gives for each value of a sample: 1, or 2 with learned variances.
    pub outputs_per_value: usize,
    /// All its graphs.
    pub parts: Vec<SessionSize>,
    /// The networks around it, where it draws latents by a prompt.
    pub latent: Option<Arc<LatentPipeline>>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("bundle", &self.bundle)
            .field("origin", &self.predictor.origin())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Load the bundle in a directory and evaluate its network once, to learn its output's size
    /// and that it works.
    pub fn load(directory: &Path, options: &EngineOptions) -> Result<Self, ModelError> {
        Self::load_onto(&SessionPool::default(), directory, options, &mut |_| {})
    }

    /// The same with its graphs among those of other models, telling what it is at.
    pub fn load_onto(
        shelf: &SessionPool,
        directory: &Path,
        options: &EngineOptions,
        on: &mut dyn FnMut(Stage),
    ) -> Result<Self, ModelError> {
        let began = Instant::now();
        on(Stage::Warming);
        let bundle = Bundle::open(directory)?;
        let mut predictor = open_network(&bundle, options, shelf, on)?;
        let opened = Instant::now();
        let outputs_per_value = outputs_per_value(&bundle, predictor.as_mut())
            .map_err(|error| ModelError::Warmup { graph: bundle.graph.clone(), error })?;
        let first_evaluation = opened.elapsed();
        let origin = predictor.origin();
        log::info!(
            "model {} runs on {} {} with {}, after {} ms",
            bundle.name,
            origin.engine,
            origin.version,
            origin.provider,
            began.elapsed().as_millis()
        );
        for share in &origin.ran {
            log::info!("model {}: {share}", bundle.name);
        }
        // What did not work for the network is not tried again for those around it.
        let refused = |provider: &&Provider| provider.to_string() != origin.provider;
        let providers = options.providers.iter().skip_while(refused).copied().collect();
        let settled = EngineOptions { providers, ..options.clone() };
        let around = bundle.latent.as_ref();
        let around = around.map(|latent| {
            latent_pipeline::open(&bundle.name, latent, predictor.signature(), &settled, shelf)
        });
        let latent = around.transpose()?.flatten();
        if latent.is_none() && !predictor.signature().tensors.is_empty() {
            let found = bundle.latent.as_ref().map_or(0, |latent| latent.texts.len());
            return Err(ModelError::Texts { name: bundle.name, needed: 1, found });
        }
        Ok(Self {
            parts: shelf.sizes(&bundle.name),
            latent: latent.map(Arc::new),
            bundle,
            predictor,
            first_evaluation,
            outputs_per_value,
        })
    }
}

/// Open the bundle's network, now and whenever it was closed for want of memory.
fn open_network(
    bundle: &Bundle,
    options: &EngineOptions,
    shelf: &SessionPool,
    on: &mut dyn FnMut(Stage),
) -> Result<Box<dyn Predictor>, ModelError> {
    shelf.make_room_for(&bundle.graph);
    let purpose = NetworkPurpose { bundle, largest_batch: options.batch };
    let source = |purpose| GraphSource {
        name: bundle.name.clone(),
        graph: &bundle.graph,
        sha256: &bundle.sha256,
        purpose,
    };
    let LoadedSession { session, origin } = load::open(&source(&purpose), options, on)?;
    let signature = purpose
        .signature(session.graph())
        .map_err(|error| ModelError::Signature { graph: bundle.graph.clone(), error })?;
    let again = {
        let (bundle, options) = (bundle.clone(), options.clone());
        move || {
            let purpose = NetworkPurpose { bundle: &bundle, largest_batch: options.batch };
            let (name, sha256) = (bundle.name.clone(), bundle.sha256.as_str());
            let source = GraphSource { name, graph: &bundle.graph, sha256, purpose: &purpose };
            load::open(&source, &options, &mut |_| {}).map(|opened| opened.session)
        }
    };
    let part = shelf.put(bundle.name.clone(), &bundle.graph, Some(session), Box::new(again));
    Ok(Box::new(Network { part, signature, origin }))
}

/// Evaluate the network once, to learn what it gives for each value of a sample.
fn outputs_per_value(bundle: &Bundle, predictor: &mut dyn Predictor) -> Result<usize, EvaluationError> {
    let signature = predictor.signature();
    let (len, samples) = (signature.sample_len(), signature.smallest_batch());
    let batch = denoiser::neutral(signature, &bundle.manifest, samples);
    let mut output = Vec::new();
    predictor.evaluate(&batch, &mut output)?;
    match output.len() {
        n if n == samples * len => Ok(1),
        n if n == samples * 2 * len => Ok(2),
        n => Err(EvaluationError::OutputLength { expected: samples * len, found: n }),
    }
}
