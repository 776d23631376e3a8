//! `[engine]`, and its overrides for single models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{BatchLimit, Bounded, ByteSize, Config, MemoryLimit};
use crate::bundle::model_name;
use crate::inference::{
    Cuda, EngineKind, EngineOptions, LoraOptions, OpenVino, Policy, Provider, ProviderOptions, TensorRt,
};
use crate::units::binary_size;

/// The inference engine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// The engine.
    pub kind: EngineKind,
    /// The path of ONNX Runtime's library; empty: search for it.
    pub library: PathBuf,
    /// Execution providers, in order of preference.
    #[serde(deserialize_with = "super::checked::providers")]
    pub providers: Vec<Provider>,
    /// Whether the first provider must work.
    pub policy: Policy,
    /// The maximum batch size.
    pub batch: BatchLimit,
    /// The directory for the engines that providers build, for prepared graphs and for measurements.
    #[serde(deserialize_with = "super::checked::directory")]
    pub cache: PathBuf,
    /// The size of that directory; what was not used for the longest time is removed.
    pub cache_size: ByteSize,
    /// Whether prepared graphs may have other nodes than the export.
    pub rewrite: bool,
    /// The free memory that building an engine needs.
    pub build_memory: ByteSize,
    /// The memory for open sessions with their weights and evaluations.
    pub memory: MemoryLimit,
    /// The side of the VAE's tiles, in pixels; unset: as `memory` allows.
    pub vae_tile: Option<Bounded<64, 65536>>,
    /// The provider that runs jobs while the first provider builds its engine.
    #[serde(deserialize_with = "super::checked::interim_provider")]
    pub interim_provider: Option<Provider>,
    /// TensorRT's options.
    pub tensorrt: TensorRt,
    /// CUDA's options.
    pub cuda: Cuda,
    /// OpenVINO's options.
    pub openvino: OpenVino,
}

/// Overrides of `[engine]` for one model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelEngineConfig {
    /// Execution providers, in order of preference.
    #[serde(deserialize_with = "super::checked::optional_providers")]
    pub providers: Option<Vec<Provider>>,
    /// Whether the first provider must work.
    pub policy: Option<Policy>,
    /// The maximum batch size.
    pub batch: Option<BatchLimit>,
    /// TensorRT's options; replaces the whole table.
    pub tensorrt: Option<TensorRt>,
    /// CUDA's options; replaces the whole table.
    pub cuda: Option<Cuda>,
    /// OpenVINO's options; replaces the whole table.
    pub openvino: Option<OpenVino>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let options = EngineOptions::default();
        Self {
            kind: options.kind,
            library: PathBuf::new(),
            providers: options.providers,
            policy: options.policy,
            batch: BatchLimit::Fixed(Bounded(options.batch as u64)),
            cache: options.cache,
            cache_size: ByteSize(options.cache_size),
            rewrite: options.rewrite,
            build_memory: ByteSize(options.build_memory),
            memory: MemoryLimit::default(),
            vae_tile: None,
            interim_provider: options.interim_provider,
            tensorrt: TensorRt::default(),
            cuda: Cuda::default(),
            openvino: OpenVino::default(),
        }
    }
}

impl Config {
    /// Returns the overrides of `[engine]` for the model in this directory, with their key in `[models.engine]`: the name
    /// of the path, which may be a link, or else that of the directory.
    pub(crate) fn engine_override(&self, bundle: &Path) -> Option<(&str, &ModelEngineConfig)> {
        let of_path = bundle.file_name().map(|name| name.to_string_lossy().into_owned());
        let names = of_path.into_iter().chain([model_name(bundle)]);
        names
            .filter_map(|name| self.models.engine.get_key_value(&name))
            .map(|(key, own)| (key.as_str(), own))
            .next()
    }

    /// Returns the memory limit of all sessions in bytes. "auto" is the limit that was fixed at the start; before that, a
    /// share of the memory that is free now.
    pub fn memory_limit(&self) -> Option<u64> {
        match self.engine.memory {
            MemoryLimit::Auto => {
                self.automatic_memory.or_else(|| self.board.platform().memory_bounds().budget())
            }
            MemoryLimit::Unlimited => None,
            MemoryLimit::Bytes(bytes) => Some(bytes.0),
        }
    }

    /// Fixes an automatic memory limit to the bytes that it means now, before anything is loaded. Returns the limit in words.
    pub fn fix_memory(&mut self) -> String {
        let bounds = self.board.platform().memory_bounds();
        let source = match self.engine.memory {
            MemoryLimit::Auto => format!(", of {bounds}"),
            _ => String::new(),
        };
        let limit = self.memory_limit();
        self.automatic_memory = limit;
        match limit {
            Some(bytes) => format!("[engine] memory is {}{source}", binary_size(bytes)),
            None => "[engine] memory is not limited".to_owned(),
        }
    }

    /// Returns the engine options for the bundle in this directory.
    pub fn engine_options(&self, bundle: &Path) -> EngineOptions {
        let own = self.engine_override(bundle).map(|(_, own)| own.clone()).unwrap_or_default();
        let EngineConfig {
            kind,
            library,
            providers,
            policy,
            batch,
            cache,
            cache_size,
            rewrite,
            build_memory,
            vae_tile,
            interim_provider,
            ..
        } = self.engine.clone();
        let batch = own.batch.unwrap_or(batch);
        EngineOptions {
            kind,
            library: (!library.as_os_str().is_empty()).then_some(library),
            providers: own.providers.unwrap_or(providers),
            policy: own.policy.unwrap_or(policy),
            batch: match batch {
                BatchLimit::Auto => EngineOptions::default().batch,
                BatchLimit::Fixed(batch) => batch.0 as usize,
            },
            adapts_batch: batch == BatchLimit::Auto,
            provider: ProviderOptions {
                tensorrt: own.tensorrt.unwrap_or_else(|| self.engine.tensorrt.clone()),
                cuda: own.cuda.unwrap_or_else(|| self.engine.cuda.clone()),
                openvino: own.openvino.unwrap_or_else(|| self.engine.openvino.clone()),
            },
            cache,
            cache_size: cache_size.0,
            rewrite,
            requires_cache: false,
            build_memory: build_memory.0,
            memory: self.memory_limit(),
            vae_tile: vae_tile.map(|side| side.0 as usize),
            host: Arc::new(self.board.platform()),
            interim_provider,
            loras: LoraOptions {
                directories: self.models.loras.clone(),
                max_rank: self.limits.lora_rank.0 as usize,
            },
        }
    }
}
