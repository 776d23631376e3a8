//! Registers execution providers in ONNX Runtime.

use std::path::Path;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider, CUDA, ExecutionProvider, ExecutionProviderDispatch, OpenVINO,
    TensorRT,
};

use crate::inference::provider::{GraphCapture, Provider, ProviderOptions, ShapeProfile};

/// The provider by ONNX Runtime's name for it, which profiles use.
pub(super) fn from_profile_name(name: &str) -> Option<Provider> {
    Some(match name {
        "TensorrtExecutionProvider" => Provider::TensorRt,
        "CUDAExecutionProvider" => Provider::Cuda,
        "OpenVINOExecutionProvider" => Provider::OpenVino,
        "CPUExecutionProvider" => Provider::Cpu,
        _ => return None,
    })
}

/// Whether ONNX Runtime's library was built with the provider. This does not mean that the provider works.
pub(in crate::inference) fn is_compiled_in(provider: Provider) -> bool {
    let available = match provider {
        Provider::TensorRt => TensorRT::is_available(),
        Provider::Cuda => CUDA::is_available(),
        Provider::OpenVino => OpenVINO::is_available(),
        Provider::Cpu => Ok(true),
    };
    available.unwrap_or(false)
}

/// The provider to register in a session, which fails the session if it cannot be registered. `None` for the CPU, which
/// every session has.
///
/// `cache` is the directory for the engine that the provider builds for the shapes in `profile`.
pub(super) fn dispatch(
    provider: Provider,
    options: &ProviderOptions,
    cache: Option<&Path>,
    profile: Option<&ShapeProfile>,
    capture: GraphCapture,
) -> Option<ExecutionProviderDispatch> {
    let dispatch = match provider {
        Provider::TensorRt => {
            let captures = capture != GraphCapture::Off;
            configured(TensorRT::default(), options.tensorrt.pairs(cache, profile, captures)).build()
        }
        Provider::Cuda => configured(CUDA::default(), options.cuda.pairs(capture)).build(),
        Provider::OpenVino => configured(OpenVINO::default(), options.openvino.pairs(cache)).build(),
        Provider::Cpu => return None,
    };
    Some(dispatch.error_on_failure())
}

fn configured<P: ArbitrarilyConfigurableExecutionProvider>(provider: P, pairs: Vec<(&str, String)>) -> P {
    pairs.into_iter().fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
}
