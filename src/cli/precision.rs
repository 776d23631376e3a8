//! The types in which a model is computed.

use crate::bundle::BundleError;
use crate::bundle::weight_types::weight_types;
use crate::inference::{EngineOptions, Provider};
use crate::model::Model;

/// The name of ONNX Runtime in a backend.
pub(super) const ONNX_RUNTIME: &str = "onnxruntime";

/// The types in which the provider computes, as far as they are not its own choice.
pub(super) fn precision(model: &Model, options: &EngineOptions) -> Result<String, BundleError> {
    let weights = weight_types(&model.bundle.graph)?;
    let backend = model.predictor.backend();
    Ok(match &backend.tensorrt {
        Some(version) => options.provider.tensorrt.precision(version, &weights),
        None if backend.provider == Provider::OpenVino.to_string() => {
            match options.provider.openvino.precision {
                Some(precision) => {
                    format!("{precision} ([engine.openvino] precision), {weights} as exported")
                }
                None => format!("chosen by OpenVINO, {weights} as exported"),
            }
        }
        None => format!("{weights}, as exported"),
    })
}

/// The options of TensorRT that its version on this machine ignores.
pub(super) fn ignored_options(model: &Model, options: &EngineOptions) -> Vec<String> {
    let backend = model.predictor.backend();
    if backend.engine != ONNX_RUNTIME || !options.providers.contains(&Provider::TensorRt) {
        return Vec::new();
    }
    let installed = || options.host.library_version("libnvinfer.so", options.library.as_deref());
    let version = backend.tensorrt.clone().or_else(installed);
    options.provider.tensorrt.ignored_by(&version.unwrap_or_default())
}
