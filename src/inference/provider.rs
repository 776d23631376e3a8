//! The execution providers of ONNX Runtime, and their options.

mod cuda_graph_mode;
mod options;
mod shape_profile;
mod tensorrt_version;

pub use cuda_graph_mode::CudaGraphMode;
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

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 4] = [Self::TensorRt, Self::Cuda, Self::OpenVino, Self::Cpu];
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

    /// Whether the provider runs on a GPU with CUDA, which reads pinned host memory without a copy.
    pub(super) fn uses_gpu(self) -> bool {
        matches!(self, Self::TensorRt | Self::Cuda)
    }

    /// Whether evaluations are captured as CUDA graphs.
    pub(super) fn cuda_graph(self, options: &ProviderOptions) -> CudaGraphMode {
        match self {
            Self::TensorRt if options.tensorrt.cuda_graph => CudaGraphMode::OneShape,
            Self::Cuda => options.cuda.cuda_graph,
            Self::TensorRt | Self::OpenVino | Self::Cpu => CudaGraphMode::Off,
        }
    }

    /// The index of the GPU that the provider uses.
    pub(super) fn gpu(self, options: &ProviderOptions) -> i32 {
        let device = match self {
            Self::TensorRt => options.tensorrt.device,
            Self::Cuda => options.cuda.device,
            Self::OpenVino | Self::Cpu => None,
        };
        device.map_or(0, |device| device.0 as i32)
    }
}

/// What a session captures as CUDA graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GraphCapture {
    /// Nothing.
    Off,
    /// The one shape to which all dynamic axes are fixed.
    OneShape,
    /// Each shape.
    PerShape,
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
        assert_eq!(
            Cuda::default().pairs(GraphCapture::Off),
            small.map(|(key, value)| (key, value.to_owned()))
        );
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
        assert_eq!(
            options.cuda.pairs(GraphCapture::OneShape),
            cuda.map(|(key, value)| (key, value.to_owned()))
        );
        let per_shape = options.cuda.pairs(GraphCapture::PerShape);
        assert!(per_shape.contains(&("enable_cuda_graph", "1".to_owned())));
        assert!(per_shape.contains(&("sdpa_kernel", "19".to_owned())));
        let openvino = [("device_type", "GPU"), ("num_of_threads", "2"), ("cache_dir", "/c")];
        assert_eq!(
            options.openvino.pairs(Some(Path::new("/c"))),
            openvino.map(|(key, value)| (key, value.to_owned()))
        );
    }
}
