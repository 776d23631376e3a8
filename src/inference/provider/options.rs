//! What can be set of each execution provider. A key that is not set is left to ONNX Runtime, so
//! that older libraries meet no option that they don't know.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Shapes;
use crate::units::{Bounded, ByteSize};

/// The options of all providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderOptions {
    /// TensorRT's.
    pub tensorrt: TensorRt,
    /// CUDA's.
    pub cuda: Cuda,
    /// OpenVINO's.
    pub openvino: OpenVino,
}

/// TensorRT's options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TensorRt {
    /// The GPU's number.
    pub device: Option<Bounded<0, 63>>,
    /// Whether half precision may be used.
    pub fp16: bool,
    /// Whether 8-bit integers may be used.
    pub int8: bool,
    /// The calibration table that int8 needs where the graph has no quantisation of its own.
    pub calibration_table: Option<PathBuf>,
    /// The deep learning accelerator to use in place of the GPU.
    pub dla_core: Option<Bounded<0, 3>>,
    /// Memory that a layer may use while it runs.
    pub workspace: Option<ByteSize>,
    /// How long the builder searches for faster kernels.
    pub builder_level: Option<Bounded<0, 5>>,
    /// Whether a run of the network is captured as a CUDA graph and replayed, for batches filled up to the largest.
    pub cuda_graph: bool,
    /// Whether measured kernel times are kept for the next build.
    pub timing_cache: Option<bool>,
    /// The smallest batch that the engine is built for; 1 if missing.
    pub min_batch: Option<Bounded<1, 1024>>,
    /// The batch that it is tuned for; the largest if missing.
    pub opt_batch: Option<Bounded<1, 1024>>,
}

/// CUDA's options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cuda {
    /// The GPU's number.
    pub device: Option<Bounded<0, 63>>,
    /// The most memory that the arena takes.
    pub memory_limit: Option<ByteSize>,
    /// How the arena grows.
    pub arena: Option<Arena>,
    /// Whether a run of the network is captured as a CUDA graph and replayed, for batches filled up to the largest.
    pub cuda_graph: bool,
    /// Whether TensorFloat-32 may be used, which is faster and less exact.
    pub tf32: Option<bool>,
}

/// How an arena grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arena {
    /// To the next power of two.
    NextPowerOfTwo,
    /// By what is asked for.
    SameAsRequested,
}

/// OpenVINO's options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenVino {
    /// `CPU`, `GPU`, `NPU` or a combination; CPU if missing.
    pub device: Option<String>,
    /// How many threads.
    pub threads: Option<Bounded<1, 1024>>,
    /// `FP32`, `FP16` or `ACCURACY`.
    pub precision: Option<String>,
}

type Pairs = Vec<(&'static str, String)>;

fn flag(on: bool) -> String {
    u8::from(on).to_string()
}

/// The pair, where there is a value.
fn set<T: ToString>(key: &'static str, value: Option<T>) -> Option<(&'static str, String)> {
    value.map(|value| (key, value.to_string()))
}

impl TensorRt {
    pub(crate) fn pairs(&self, cache: Option<&Path>, shapes: Option<&Shapes>, capture: bool) -> Pairs {
        let directory = cache.map(|path| path.display().to_string());
        let yes = |on: bool| on.then(|| flag(true));
        [
            set("device_id", self.device.map(|n| n.0)),
            set("trt_fp16_enable", yes(self.fp16)),
            set("trt_int8_enable", yes(self.int8)),
            set(
                "trt_int8_calibration_table_name",
                self.calibration_table.as_ref().map(|path| path.display().to_string()),
            ),
            set("trt_dla_enable", yes(self.dla_core.is_some())),
            set("trt_dla_core", self.dla_core.map(|n| n.0)),
            set("trt_max_workspace_size", self.workspace.map(|size| size.0)),
            set("trt_builder_optimization_level", self.builder_level.map(|n| n.0)),
            set("trt_cuda_graph_enable", yes(capture)),
            set("trt_engine_cache_enable", directory.as_ref().map(|_| flag(true))),
            set("trt_engine_cache_path", directory.as_ref()),
            set("trt_timing_cache_enable", self.timing_cache.or(directory.as_ref().map(|_| true)).map(flag)),
            set("trt_timing_cache_path", directory.as_ref()),
            set("trt_profile_min_shapes", shapes.map(|shapes| &shapes.least)),
            set("trt_profile_opt_shapes", shapes.map(|shapes| &shapes.tuned)),
            set("trt_profile_max_shapes", shapes.map(|shapes| &shapes.most)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Cuda {
    pub(crate) fn pairs(&self, capture: bool) -> Pairs {
        let arena = self.arena.map(|arena| match arena {
            Arena::NextPowerOfTwo => "kNextPowerOfTwo",
            Arena::SameAsRequested => "kSameAsRequested",
        });
        [
            set("device_id", self.device.map(|n| n.0)),
            set("gpu_mem_limit", self.memory_limit.map(|size| size.0)),
            set("arena_extend_strategy", arena),
            set("enable_cuda_graph", capture.then(|| flag(true))),
            set("use_tf32", self.tf32.map(flag)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl OpenVino {
    pub(crate) fn pairs(&self, cache: Option<&Path>) -> Pairs {
        [
            set("device_type", Some(self.device.as_deref().unwrap_or("CPU"))),
            set("num_of_threads", self.threads.map(|n| n.0)),
            set("precision", self.precision.as_ref()),
            set("cache_dir", cache.map(|path| path.display().to_string())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
