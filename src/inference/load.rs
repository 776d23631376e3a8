//! Opens a graph on the engine that is available.

use super::error::EngineError;
use super::graph_source::{GraphSource, LoadedSession};
use super::options::{EngineKind, EngineOptions, LoadStage};
use super::{onnx_runtime, rten};

/// Opens a graph and runs its warm-up.
pub(crate) fn load(
    source: &GraphSource<'_>,
    options: &EngineOptions,
    on_stage: &mut dyn FnMut(LoadStage),
) -> Result<LoadedSession, EngineError> {
    let library = options.library.as_deref();
    let runtime = match options.kind {
        EngineKind::Embedded => None,
        EngineKind::OnnxRuntime => Some(onnx_runtime::load_required(library)?),
        EngineKind::Auto => onnx_runtime::load_if_present(library)?,
    };
    match runtime {
        Some(runtime) => onnx_runtime::open(&runtime, source, options, on_stage),
        None => rten::open(source),
    }
}
