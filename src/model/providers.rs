//! ONNX Runtime's execution providers.

mod options;

use std::path::Path;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider, CUDA, ExecutionProvider, ExecutionProviderDispatch, OpenVINO,
    TensorRT,
};

pub use options::{Cuda, OpenVino, ProviderOptions, TensorRt};

use super::signature::{Signature, TimeShape};
use crate::quantity::Between;

/// Where ONNX Runtime does its arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// Intel OpenVINO.
    OpenVino,
    /// The processor.
    Cpu,
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::OpenVino => "openvino",
            Self::Cpu => "cpu",
        })
    }
}

/// What happens when the first provider does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The next provider serves, and the log, the state and every receipt say so.
    #[default]
    Preferred,
    /// The model is not loaded.
    Required,
}

impl Provider {
    /// The provider with ONNX Runtime's own name for it, as profiles have it.
    pub(super) fn of_profile(name: &str) -> Option<Self> {
        Some(match name {
            "TensorrtExecutionProvider" => Self::TensorRt,
            "CUDAExecutionProvider" => Self::Cuda,
            "OpenVINOExecutionProvider" => Self::OpenVino,
            "CPUExecutionProvider" => Self::Cpu,
            _ => return None,
        })
    }

    /// Whether ONNX Runtime's library was built with it, which does not say that it works.
    pub(super) fn is_compiled_in(self) -> bool {
        let available = match self {
            Self::TensorRt => TensorRT::is_available(),
            Self::Cuda => CUDA::is_available(),
            Self::OpenVino => OpenVINO::is_available(),
            Self::Cpu => Ok(true),
        };
        available.unwrap_or(false)
    }

    /// Whether it builds an engine of its own from the graph, which is worth keeping.
    pub fn builds_engines(self) -> bool {
        matches!(self, Self::TensorRt | Self::OpenVino)
    }

    /// Whether the GPU that it runs on reads memory that is pinned without a copy.
    pub(super) fn reads_pinned_memory(self) -> bool {
        matches!(self, Self::TensorRt | Self::Cuda)
    }

    /// What to register in a session, an error if it fails; nothing for the processor, which
    /// every session has. `cache` is where its engine is kept; `shapes` are those of the inputs.
    pub(super) fn dispatch(
        self,
        options: &ProviderOptions,
        cache: Option<&Path>,
        shapes: Option<&Shapes>,
    ) -> Option<ExecutionProviderDispatch> {
        let pairs = match self {
            Self::TensorRt => options.tensorrt.pairs(cache, shapes),
            Self::Cuda => options.cuda.pairs(),
            Self::OpenVino => options.openvino.pairs(cache),
            Self::Cpu => return None,
        };
        let registered = match self {
            Self::TensorRt => with(TensorRT::default(), pairs).build(),
            Self::Cuda => with(CUDA::default(), pairs).build(),
            Self::OpenVino => with(OpenVINO::default(), pairs).build(),
            Self::Cpu => return None,
        };
        Some(registered.error_on_failure())
    }
}

fn with<P: ArbitrarilyConfigurableExecutionProvider>(provider: P, pairs: Vec<(&str, String)>) -> P {
    pairs.into_iter().fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
}

/// The shapes of a graph's inputs as TensorRT writes them, `sample:1x1x28x28,timestep:1`: an
/// engine built for these serves every batch between, so that no request ever builds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shapes {
    least: String,
    tuned: String,
    most: String,
}

impl Shapes {
    pub(super) fn of(signature: &Signature, options: &TensorRt) -> Self {
        let most = signature.largest_batch;
        let batch = |chosen: Option<Between<1, 1024>>, default: usize| {
            chosen.map_or(default, |n| n.0 as usize).clamp(signature.smallest_batch(), most)
        };
        Self {
            least: shapes(signature, batch(options.min_batch, signature.smallest_batch())),
            tuned: shapes(signature, batch(options.opt_batch, most)),
            most: shapes(signature, most),
        }
    }
}

fn shapes(signature: &Signature, batch: usize) -> String {
    let mut axes = signature.sample_shape.clone();
    axes[0] += signature.beside;
    let sample: Vec<_> = [batch].iter().chain(&axes).map(usize::to_string).collect();
    let time = match signature.time.shape {
        TimeShape::Each => Some((&signature.time.name, batch)),
        TimeShape::One => Some((&signature.time.name, 1)),
        TimeShape::Scalar => None,
    };
    let each = signature.class.iter().chain(&signature.conditions).map(|(name, _)| (name, batch));
    let vectors = time.into_iter().chain(each).map(|(name, n)| format!("{name}:{n}"));
    let all: Vec<_> =
        [format!("{}:{}", signature.sample, sample.join("x"))].into_iter().chain(vectors).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_set_are_left_to_the_library() {
        assert_eq!(TensorRt::default().pairs(None, None), []);
        assert_eq!(Cuda::default().pairs(), []);
        assert_eq!(OpenVino::default().pairs(None), [("device_type", "CPU".to_owned())]);
    }

    #[test]
    fn options_that_are_set_have_the_library_s_own_names() {
        let options: ProviderOptions = toml::from_str(
            "[tensorrt]\nfp16 = true\nint8 = true\ncalibration_table = \"t\"\ndla_core = 1\nworkspace = \"1 MiB\"\n\
             builder_level = 5\ncuda_graph = true\ndevice = 0\n[cuda]\nmemory_limit = \"2 MiB\"\n\
             arena = \"same_as_requested\"\ntf32 = false\n[openvino]\ndevice = \"GPU\"\nthreads = 2\n",
        )
        .unwrap();
        let pairs = options.tensorrt.pairs(Some(Path::new("/c")), None);
        let expected = [
            ("device_id", "0"),
            ("trt_fp16_enable", "1"),
            ("trt_int8_enable", "1"),
            ("trt_int8_calibration_table_name", "t"),
            ("trt_dla_enable", "1"),
            ("trt_dla_core", "1"),
            ("trt_max_workspace_size", "1048576"),
            ("trt_builder_optimization_level", "5"),
            ("trt_cuda_graph_enable", "1"),
            ("trt_engine_cache_enable", "1"),
            ("trt_engine_cache_path", "/c"),
            ("trt_timing_cache_enable", "1"),
            ("trt_timing_cache_path", "/c"),
        ];
        assert_eq!(pairs, expected.map(|(key, value)| (key, value.to_owned())));
        let cuda =
            [("gpu_mem_limit", "2097152"), ("arena_extend_strategy", "kSameAsRequested"), ("use_tf32", "0")];
        assert_eq!(options.cuda.pairs(), cuda.map(|(key, value)| (key, value.to_owned())));
        let openvino = [("device_type", "GPU"), ("num_of_threads", "2"), ("cache_dir", "/c")];
        assert_eq!(
            options.openvino.pairs(Some(Path::new("/c"))),
            openvino.map(|(key, value)| (key, value.to_owned()))
        );
    }
}
