//! ONNX Runtime's execution providers.

use ort::ep::{self, ExecutionProviderDispatch};

/// Where ONNX Runtime does its arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor.
    Cpu,
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
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
    /// What to register in a session, an error if it fails; nothing for the processor, which
    /// every session has.
    pub(super) fn dispatch(self) -> Option<ExecutionProviderDispatch> {
        match self {
            Self::TensorRt => Some(ep::TensorRT::default().build().error_on_failure()),
            Self::Cuda => Some(ep::CUDA::default().build().error_on_failure()),
            Self::Cpu => None,
        }
    }
}
