//! Opens a graph on the engine that is available.

use super::error::EngineError;
use super::graph_source::{GraphSource, LoadedSession};
use super::options::{EngineKind, EngineOptions, LoadStage};
use super::provider::Provider;
use super::{onnx_runtime, rten};

/// Opens a graph and runs its warm-up.
pub(crate) fn load(
    source: &GraphSource<'_>,
    options: &EngineOptions,
    on_stage: &mut dyn FnMut(LoadStage),
) -> Result<LoadedSession, EngineError> {
    match runtime(options)? {
        Some(runtime) => onnx_runtime::open(&runtime, source, options, on_stage),
        None => rten::open(source),
    }
}

/// Whether float16 weights become float32 when a graph is opened: both engines compute so on a processor.
pub(crate) fn widens_float16(options: &EngineOptions) -> Result<bool, EngineError> {
    if runtime(options)?.is_none() {
        return Ok(true);
    }
    let first = options.providers.iter().find(|provider| onnx_runtime::is_compiled_in(**provider));
    Ok(first.is_none_or(|provider| *provider == Provider::Cpu))
}

/// The library of ONNX Runtime; `None` if the embedded engine serves.
fn runtime(options: &EngineOptions) -> Result<Option<onnx_runtime::Runtime>, EngineError> {
    let library = options.library.as_deref();
    Ok(match options.kind {
        EngineKind::Embedded => None,
        EngineKind::OnnxRuntime => Some(onnx_runtime::load_required(library)?),
        EngineKind::Auto => onnx_runtime::load_if_present(library)?,
    })
}
