//! What a session captures as CUDA graphs.

use super::dylib::Runtime;
use super::provider_selection::AttemptError;
use crate::inference::error::ProviderFailure;
use crate::inference::graph_source::GraphSource;
use crate::inference::options::EngineOptions;
use crate::inference::provider::{CudaGraphMode, GraphCapture, Provider, ShapeProfile, TensorRt};

/// The oldest version of ONNX Runtime that captures here: `ort` copies between host and GPU by functions that older ones lack.
const MIN_VERSION: (u32, u32) = (1, 23);

/// What a session captures.
pub(super) struct Capture {
    pub(super) kind: GraphCapture,
    /// The index of the GPU.
    pub(super) gpu: i32,
    /// The name and length of each dynamic axis, where one shape is captured.
    pub(super) fixed_axes: Vec<(String, usize)>,
    /// The shapes for which an engine is built.
    pub(super) profile: Option<ShapeProfile>,
}

impl Capture {
    /// What a session of this graph captures by the options. A graph of which nothing can be captured is an error only if
    /// the options ask for it.
    pub(super) fn new(
        runtime: &Runtime,
        source: &GraphSource,
        options: &EngineOptions,
        provider: Provider,
    ) -> Result<Self, AttemptError> {
        let gpu = provider.gpu(&options.provider);
        let profile = source.profile.clone().filter(|_| provider == Provider::TensorRt);
        let off = Self { kind: GraphCapture::Off, gpu, fixed_axes: Vec::new(), profile };
        match provider.cuda_graph(&options.provider) {
            CudaGraphMode::Off => Ok(off),
            CudaGraphMode::Auto => {
                let Some(status) = source.capture.as_ref().filter(|status| !status.is_unavailable()) else {
                    return Ok(off);
                };
                if is_too_old(runtime) {
                    status.set_unavailable(&source.name, &too_old(runtime));
                    return Ok(off);
                }
                Ok(Self { kind: GraphCapture::PerShape, ..off })
            }
            CudaGraphMode::OneShape => {
                check_options(runtime, options, provider)?;
                let Some(profile) = &source.profile else { return Ok(off) };
                Ok(Self {
                    kind: GraphCapture::OneShape,
                    gpu,
                    fixed_axes: source.files.header.dynamic_axes(&profile.max.0),
                    profile: Some(profile.fixed_to_max()),
                })
            }
        }
    }

    /// The same session without capturing.
    pub(super) fn without_capture(self) -> Self {
        Self { kind: GraphCapture::Off, ..self }
    }

    /// Tells the graph's status what its open session captures.
    pub(super) fn publish(&self, source: &GraphSource) {
        let Some(status) = &source.capture else { return };
        match self.kind {
            GraphCapture::Off => status.set_idle(),
            GraphCapture::OneShape | GraphCapture::PerShape => status.set_capturing(),
        }
    }
}

fn is_too_old(runtime: &Runtime) -> bool {
    !runtime.is_at_least(MIN_VERSION.0, MIN_VERSION.1)
}

fn too_old(runtime: &Runtime) -> String {
    let (major, minor) = MIN_VERSION;
    format!("that needs ONNX Runtime {major}.{minor} or newer, and this is {}", runtime.version)
}

/// Checks that the version and the other options allow the one captured shape that `cuda_graph = true` asks for.
fn check_options(runtime: &Runtime, options: &EngineOptions, provider: Provider) -> Result<(), AttemptError> {
    let failed = |reason: String| Err(AttemptError::Provider(ProviderFailure::Failed(reason)));
    if is_too_old(runtime) {
        return failed(format!(
            "cuda_graph needs ONNX Runtime 1.23 or newer, but this is {}; install a newer one, or remove cuda_graph",
            runtime.version
        ));
    }
    let TensorRt { min_batch, opt_batch, .. } = options.provider.tensorrt;
    if provider == Provider::TensorRt && min_batch.or(opt_batch).is_some() {
        return failed(
            "cuda_graph pads every batch to the largest, so that min_batch and opt_batch have no effect; remove \
             them, or cuda_graph"
                .to_owned(),
        );
    }
    Ok(())
}
