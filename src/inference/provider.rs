//! The execution providers of ONNX Runtime, and their options.

mod options;
mod shape_profile;
mod tensorrt_version;

pub use options::{Arena, ConvolutionSearch, Cuda, OpenVino, OpenVinoPrecision, ProviderOptions, TensorRt};
pub(crate) use shape_profile::{InputShapes, ShapeProfile};

/// An execution provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// Intel OpenVINO.
    OpenVino,
    /// The CPU, which is always available.
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

/// What happens if the first provider does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The next provider serves. The log, the state and every receipt name the rejected one.
    #[default]
    Preferred,
    /// The model is not loaded.
    Required,
}

impl Provider {
    /// Whether the provider builds an engine from the graph, which is worth caching.
    pub fn builds_engines(self) -> bool {
        matches!(self, Self::TensorRt | Self::OpenVino)
    }

    /// Whether the provider's GPU reads pinned host memory without a copy.
    pub(super) fn reads_pinned_memory(self) -> bool {
        matches!(self, Self::TensorRt | Self::Cuda)
    }

    /// The index of the GPU on which evaluations are captured as CUDA graphs, if `cuda_graph` is set.
    pub(super) fn cuda_graph_device(self, options: &ProviderOptions) -> Option<i32> {
        let (is_set, device) = match self {
            Self::TensorRt => (options.tensorrt.cuda_graph, options.tensorrt.device),
            Self::Cuda => (options.cuda.cuda_graph, options.cuda.device),
            Self::OpenVino | Self::Cpu => (false, None),
        };
        is_set.then(|| device.map_or(0, |device| device.0 as i32))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn options_that_are_not_set_are_not_passed_on() {
        assert_eq!(TensorRt::default().pairs(None, None, false), []);
        let small = [
            ("arena_extend_strategy", "kSameAsRequested"),
            ("cudnn_conv_algo_search", "HEURISTIC"),
            ("cudnn_conv_use_max_workspace", "0"),
        ];
        assert_eq!(Cuda::default().pairs(false), small.map(|(key, value)| (key, value.to_owned())));
        assert_eq!(OpenVino::default().pairs(None), [("device_type", "CPU".to_owned())]);
    }

    #[test]
    fn options_that_are_set_have_the_names_of_the_library() {
        let options: ProviderOptions = toml::from_str(
            "[tensorrt]\nfp16 = true\nint8 = true\ncalibration_table = \"t\"\ndla_core = 1\nworkspace = \"1 MiB\"\n\
             builder_level = 5\ncuda_graph = true\ndevice = 0\n[cuda]\nmemory_limit = \"2 MiB\"\n\
             arena = \"next_power_of_two\"\nconvolution_search = \"exhaustive\"\nconvolution_workspace = true\n\
             tf32 = false\n[openvino]\ndevice = \"GPU\"\nthreads = 2\n",
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
            ("arena_extend_strategy", "kNextPowerOfTwo"),
            ("cudnn_conv_algo_search", "EXHAUSTIVE"),
            ("cudnn_conv_use_max_workspace", "1"),
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
