//! ONNX Runtime's execution providers.

mod options;
mod shape_profile;

use std::path::Path;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider, CUDA, ExecutionProvider, ExecutionProviderDispatch, OpenVINO,
    TensorRT,
};

pub use options::{Cuda, OpenVino, ProviderOptions, TensorRt};
pub(crate) use shape_profile::{InputShapes, Shapes};

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
    pub(crate) fn of_profile(name: &str) -> Option<Self> {
        Some(match name {
            "TensorrtExecutionProvider" => Self::TensorRt,
            "CUDAExecutionProvider" => Self::Cuda,
            "OpenVINOExecutionProvider" => Self::OpenVino,
            "CPUExecutionProvider" => Self::Cpu,
            _ => return None,
        })
    }

    /// Whether ONNX Runtime's library was built with it, which does not say that it works.
    pub(crate) fn is_compiled_in(self) -> bool {
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
    pub(crate) fn reads_pinned_memory(self) -> bool {
        matches!(self, Self::TensorRt | Self::Cuda)
    }

    /// Whether a run is to be captured as a CUDA graph and replayed, and on which GPU.
    pub(crate) fn captures(self, options: &ProviderOptions) -> Option<i32> {
        let (asked, device) = match self {
            Self::TensorRt => (options.tensorrt.cuda_graph, options.tensorrt.device),
            Self::Cuda => (options.cuda.cuda_graph, options.cuda.device),
            Self::OpenVino | Self::Cpu => (false, None),
        };
        asked.then(|| device.map_or(0, |device| device.0 as i32))
    }

    /// What to register in a session, an error if it fails; nothing for the processor, which
    /// every session has. `cache` is where its engine is kept; `shapes` are those of the inputs; with `capture` a run
    /// becomes a CUDA graph.
    pub(crate) fn dispatch(
        self,
        options: &ProviderOptions,
        cache: Option<&Path>,
        shapes: Option<&Shapes>,
        capture: bool,
    ) -> Option<ExecutionProviderDispatch> {
        let pairs = match self {
            Self::TensorRt => options.tensorrt.pairs(cache, shapes, capture),
            Self::Cuda => options.cuda.pairs(capture),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_set_are_left_to_the_library() {
        assert_eq!(TensorRt::default().pairs(None, None, false), []);
        assert_eq!(Cuda::default().pairs(false), []);
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
        let pairs = options.tensorrt.pairs(Some(Path::new("/c")), None, true);
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
        let cuda = [
            ("gpu_mem_limit", "2097152"),
            ("arena_extend_strategy", "kSameAsRequested"),
            ("enable_cuda_graph", "1"),
            ("use_tf32", "0"),
        ];
        assert_eq!(options.cuda.pairs(true), cuda.map(|(key, value)| (key, value.to_owned())));
        let openvino = [("device_type", "GPU"), ("num_of_threads", "2"), ("cache_dir", "/c")];
        assert_eq!(
            options.openvino.pairs(Some(Path::new("/c"))),
            openvino.map(|(key, value)| (key, value.to_owned()))
        );
    }
}
