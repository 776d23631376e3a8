//! The options of each execution provider. An option without a value is not passed on, so that older versions of ONNX
//! Runtime get no option that they do not know.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CudaGraphMode, GraphCapture, Provider, ShapeProfile};
use crate::units::{Bounded, ByteSize};

/// The options of all providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderOptions {
    /// The options of TensorRT.
    pub tensorrt: TensorRt,
    /// The options of CUDA.
    pub cuda: Cuda,
    /// The options of OpenVINO.
    pub openvino: OpenVino,
}

impl ProviderOptions {
    /// Returns the providers of which any option is set.
    pub(crate) fn configured(&self) -> Vec<Provider> {
        let sections = [
            (Provider::TensorRt, self.tensorrt != TensorRt::default()),
            (Provider::Cuda, self.cuda != Cuda::default()),
            (Provider::OpenVino, self.openvino != OpenVino::default()),
        ];
        sections.into_iter().filter(|(_, is_set)| *is_set).map(|(provider, _)| provider).collect()
    }
}

/// The options of TensorRT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TensorRt {
    /// The index of the GPU.
    pub device: Option<Bounded<0, 63>>,
    /// Whether to allow half precision.
    pub fp16: bool,
    /// Whether to allow 8-bit integers.
    pub int8: bool,
    /// The calibration table, which int8 needs if the graph is not quantised.
    pub calibration_table: Option<PathBuf>,
    /// The deep learning accelerator to use instead of the GPU.
    pub dla_core: Option<Bounded<0, 3>>,
    /// The memory that a layer may use while it runs.
    pub workspace: Option<ByteSize>,
    /// How long the builder searches for fast kernels.
    pub builder_level: Option<Bounded<0, 5>>,
    /// Whether to capture an evaluation as a CUDA graph and replay it. Every batch is padded to the largest.
    pub cuda_graph: bool,
    /// Whether to keep measured kernel times for the next build.
    pub timing_cache: Option<bool>,
    /// The smallest batch that the engine serves. Defaults to 1.
    pub min_batch: Option<Bounded<1, 1024>>,
    /// The batch that the engine is tuned for. Defaults to the largest.
    pub opt_batch: Option<Bounded<1, 1024>>,
}

/// The options of CUDA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cuda {
    /// The index of the GPU.
    pub device: Option<Bounded<0, 63>>,
    /// The largest size of the arena.
    pub memory_limit: Option<ByteSize>,
    /// How the arena grows.
    pub arena: Arena,
    /// How the algorithm of a convolution is chosen.
    pub convolution_search: ConvolutionSearch,
    /// Whether convolutions may take as much memory as their fastest algorithm asks for, in place of 32 MB.
    pub convolution_workspace: bool,
    /// Whether to capture evaluations as CUDA graphs and replay them.
    pub cuda_graph: CudaGraphMode,
    /// Whether to allow TensorFloat-32, which is faster and less precise.
    pub tf32: Option<bool>,
}

/// How an arena grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arena {
    /// Each extension is larger than the last one, by powers of two.
    NextPowerOfTwo,
    /// Each extension has the requested size.
    #[default]
    SameAsRequested,
}

/// How cuDNN's algorithm for a convolution is chosen, once for each shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvolutionSearch {
    /// Every algorithm is timed, each with its own workspace.
    Exhaustive,
    /// cuDNN predicts the fastest algorithm.
    #[default]
    Heuristic,
    /// One algorithm serves all convolutions.
    Default,
}

/// The options of OpenVINO.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenVino {
    /// `CPU`, `GPU`, `NPU` or a combination. Defaults to `CPU`.
    #[serde(deserialize_with = "openvino_device")]
    pub device: Option<String>,
    /// The number of threads.
    pub threads: Option<Bounded<1, 1024>>,
    /// The type in which it computes.
    pub precision: Option<OpenVinoPrecision>,
}

/// The type in which OpenVINO computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum OpenVinoPrecision {
    /// float32.
    #[serde(rename = "FP32")]
    Float32,
    /// float16.
    #[serde(rename = "FP16")]
    Float16,
    /// The types of the graph.
    #[serde(rename = "ACCURACY")]
    Accuracy,
}

impl std::fmt::Display for OpenVinoPrecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Float32 => "FP32",
            Self::Float16 => "FP16",
            Self::Accuracy => "ACCURACY",
        })
    }
}

/// Reads a device such as `GPU`, `GPU.1` or `HETERO:GPU,CPU`.
fn openvino_device<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let device = String::deserialize(deserializer)?;
    let is_single = |name: &str| {
        let (kind, number) = name.split_once('.').unwrap_or((name, "0"));
        matches!(kind, "CPU" | "GPU" | "NPU") && number.parse::<u8>().is_ok()
    };
    let is_valid = match device.split_once(':') {
        Some(("AUTO" | "HETERO" | "MULTI", devices)) => devices.split(',').all(is_single),
        Some(_) => false,
        None => device == "AUTO" || is_single(&device),
    };
    if !is_valid {
        let expected = "CPU, GPU, NPU, or a combination such as HETERO:GPU,CPU";
        return Err(serde::de::Error::invalid_value(serde::de::Unexpected::Str(&device), &expected));
    }
    Ok(Some(device))
}

type Pairs = Vec<(&'static str, String)>;

fn flag(on: bool) -> String {
    u8::from(on).to_string()
}

/// The option, if it has a value.
fn set<T: ToString>(key: &'static str, value: Option<T>) -> Option<(&'static str, String)> {
    value.map(|value| (key, value.to_string()))
}

impl TensorRt {
    pub(in crate::inference) fn pairs(
        &self,
        cache: Option<&Path>,
        profile: Option<&ShapeProfile>,
        capture: bool,
    ) -> Pairs {
        let directory = cache.map(|path| path.display().to_string());
        let enabled = |on: bool| on.then(|| flag(true));
        [
            set("device_id", self.device.map(|n| n.0)),
            set("trt_fp16_enable", enabled(self.fp16)),
            set("trt_int8_enable", enabled(self.int8)),
            set(
                "trt_int8_calibration_table_name",
                self.calibration_table.as_ref().map(|path| path.display().to_string()),
            ),
            set("trt_dla_enable", enabled(self.dla_core.is_some())),
            set("trt_dla_core", self.dla_core.map(|n| n.0)),
            set("trt_max_workspace_size", self.workspace.map(|size| size.0)),
            set("trt_builder_optimization_level", self.builder_level.map(|n| n.0)),
            set("trt_cuda_graph_enable", enabled(capture)),
            set("trt_engine_cache_enable", directory.as_ref().map(|_| flag(true))),
            set("trt_engine_cache_path", directory.as_ref()),
            set("trt_timing_cache_enable", self.timing_cache.or(directory.as_ref().map(|_| true)).map(flag)),
            set("trt_timing_cache_path", directory.as_ref()),
            set("trt_profile_min_shapes", profile.map(|profile| &profile.min)),
            set("trt_profile_opt_shapes", profile.map(|profile| &profile.opt)),
            set("trt_profile_max_shapes", profile.map(|profile| &profile.max)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The kernels of `MultiHeadAttention` without a state in the session: flash attention (1), memory-efficient attention (2)
/// and the plain one (16). Those of TensorRT keep the sequence length of the latest evaluation, which a captured graph of
/// another length would read.
const STATELESS_ATTENTION: u32 = 1 + 2 + 16;

impl Cuda {
    pub(in crate::inference) fn pairs(&self, capture: GraphCapture) -> Pairs {
        let arena = match self.arena {
            Arena::NextPowerOfTwo => "kNextPowerOfTwo",
            Arena::SameAsRequested => "kSameAsRequested",
        };
        let search = match self.convolution_search {
            ConvolutionSearch::Exhaustive => "EXHAUSTIVE",
            ConvolutionSearch::Heuristic => "HEURISTIC",
            ConvolutionSearch::Default => "DEFAULT",
        };
        [
            set("device_id", self.device.map(|n| n.0)),
            set("gpu_mem_limit", self.memory_limit.map(|size| size.0)),
            set("arena_extend_strategy", Some(arena)),
            set("cudnn_conv_algo_search", Some(search)),
            set("cudnn_conv_use_max_workspace", Some(flag(self.convolution_workspace))),
            set("enable_cuda_graph", (capture != GraphCapture::Off).then(|| flag(true))),
            set("sdpa_kernel", (capture == GraphCapture::PerShape).then_some(STATELESS_ATTENTION)),
            set("use_tf32", self.tf32.map(flag)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl OpenVino {
    pub(in crate::inference) fn pairs(&self, cache: Option<&Path>) -> Pairs {
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
