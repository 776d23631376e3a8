//! Options for loading graphs, and the stages of loading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::memory::{MemoryBounds, ResidentMemory};
use super::provider::{Policy, Provider, ProviderOptions};

/// The choice of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// ONNX Runtime if its library is found, else the embedded engine.
    #[default]
    Auto,
    /// ONNX Runtime, or an error.
    OnnxRuntime,
    /// The embedded engine, which needs no library.
    Embedded,
}

/// The machine on which engines are built.
pub trait Host: std::fmt::Debug + Send + Sync {
    /// The devices that a built engine depends on: the board, the graphics cards and the CPU.
    fn device(&self) -> String;

    /// The bytes of memory that a new allocation could get, if known.
    fn available_memory(&self) -> Option<u64>;

    /// What bounds the memory of this process.
    fn memory_bounds(&self) -> MemoryBounds {
        MemoryBounds::default()
    }

    /// The resident memory of this process, if known.
    fn resident_memory(&self) -> Option<ResidentMemory> {
        None
    }

    /// The version of an installed library, by its file name without a version. It is the one that providers beside
    /// this library of ONNX Runtime load; `None` is the library that is found without a configuration.
    fn library_version(&self, file: &str, onnxruntime: Option<&Path>) -> Option<String>;
}

/// A machine of which nothing is known.
#[derive(Debug)]
struct UnknownHost;

impl Host for UnknownHost {
    fn device(&self) -> String {
        String::new()
    }

    fn available_memory(&self) -> Option<u64> {
        None
    }

    fn library_version(&self, _: &str, _: Option<&Path>) -> Option<String> {
        None
    }
}

/// Options for loading models.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The engine.
    pub kind: EngineKind,
    /// ONNX Runtime's library. `None` searches the usual places.
    pub library: Option<PathBuf>,
    /// The execution providers in order of preference.
    pub providers: Vec<Provider>,
    /// Whether the first provider is required.
    pub policy: Policy,
    /// The largest number of samples in one evaluation.
    pub batch: usize,
    /// Whether batches grow only while that evaluates more samples per second.
    pub adapts_batch: bool,
    /// The options of each provider.
    pub provider: ProviderOptions,
    /// The directory for the engines that providers build, and for prepared graphs.
    pub cache: PathBuf,
    /// The size in bytes that the cache keeps within, by removing what was not used for the longest time.
    pub cache_size: u64,
    /// Whether prepared graphs may have other nodes than the export, such as fused attention.
    pub rewrite: bool,
    /// Whether an engine that cannot be kept in the cache is an error instead of a warning.
    pub requires_cache: bool,
    /// An engine is built only if this many bytes of memory are available.
    pub build_memory: u64,
    /// The memory budget of all sessions with their evaluations, in bytes.
    pub memory: Option<u64>,
    /// The longest side in pixels that the autoencoder processes at once. Larger images are tiled. `None`: tiled only if
    /// the memory budget asks for it.
    pub vae_tile: Option<usize>,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// The provider that serves while the first provider's engine is built. `None`: nothing serves until then.
    pub interim_provider: Option<Provider>,
    /// The LoRAs that jobs can name.
    pub loras: LoraOptions,
}

/// The LoRAs that jobs can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraOptions {
    /// The directories of the files, after the model's own.
    pub directories: Vec<PathBuf>,
    /// The largest rank of a layer, that of a job's LoRAs together.
    pub max_rank: usize,
}

impl Default for LoraOptions {
    fn default() -> Self {
        Self { directories: Vec::new(), max_rank: 128 }
    }
}

impl EngineOptions {
    /// The first provider, if it must work and only ONNX Runtime has it. The embedded engine runs on the CPU.
    pub(crate) fn required_provider(&self) -> Option<Provider> {
        let first = self.providers.first().copied();
        first.filter(|first| self.policy == Policy::Required && *first != Provider::Cpu)
    }

    /// Returns which options only ONNX Runtime uses, as a sentence; empty if none is set or if another engine is chosen.
    pub(crate) fn unused_without_onnx_runtime(&self) -> String {
        let providers = self.provider.configured();
        if self.kind != EngineKind::Auto || providers.is_empty() {
            return String::new();
        }
        let sections: Vec<_> = providers.iter().map(|provider| format!("[engine.{provider}]")).collect();
        let verb = if sections.len() == 1 { "has" } else { "have" };
        format!("{} {verb} no effect", sections.join(" and "))
    }

    /// The options for the interim provider, if one is configured and it is not the first provider anyway.
    pub fn interim(&self) -> Option<Self> {
        let provider = self.interim_provider.filter(|provider| self.providers.first() != Some(provider))?;
        Some(Self { providers: vec![provider], interim_provider: None, ..self.clone() })
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            kind: EngineKind::Auto,
            library: None,
            providers: vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu],
            policy: Policy::Preferred,
            batch: 8,
            adapts_batch: false,
            provider: ProviderOptions::default(),
            cache: PathBuf::from("/var/cache/denoised"),
            cache_size: 16 << 30,
            rewrite: true,
            requires_cache: false,
            build_memory: 1 << 30,
            memory: None,
            vae_tile: None,
            host: Arc::new(UnknownHost),
            interim_provider: None,
            loras: LoraOptions::default(),
        }
    }
}

/// A stage of loading a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStage {
    /// A provider builds an engine, which may take minutes.
    BuildingEngine,
    /// The graph is converted for the provider and written to the engine cache, which takes up to a minute.
    Preparing,
    /// The graph is loaded and evaluated for the first time.
    Warming,
}

/// Receives the stages of loading a model.
pub type OnStage = Arc<dyn Fn(LoadStage) + Send + Sync>;
