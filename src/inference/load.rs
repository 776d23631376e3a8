//! Opens a graph on the engine that is available.

use std::sync::Once;

use super::error::{EngineError, ProviderFailure};
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
        None => match options.required_provider() {
            Some(provider) if options.kind == EngineKind::Auto => {
                Err(EngineError::Provider { provider, failure: ProviderFailure::NoLibrary })
            }
            _ => {
                report_unused_options(options);
                rten::open(source)
            }
        },
    }
}

/// Reports once in this process which providers' options have no effect because no ONNX Runtime was found.
fn report_unused_options(options: &EngineOptions) {
    static REPORTED: Once = Once::new();
    let unused = options.unused_without_onnx_runtime();
    if !unused.is_empty() {
        REPORTED.call_once(|| {
            log::warn!("{unused}: the embedded engine serves, because {}", ProviderFailure::NoLibrary)
        });
    }
}
