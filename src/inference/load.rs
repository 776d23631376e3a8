//! Opens a graph on the engine that is available.

use std::sync::Once;

use super::backend::Backend;
use super::error::{EngineError, ProviderFailure};
use super::graph_source::{GraphSource, ProvenBackend};
use super::options::{EngineKind, EngineOptions, OnStage};
use super::provider::Policy;
use super::session::Session;
use super::{onnx_runtime, rten};

/// Opens a graph without evaluating it.
///
/// The first evaluation proves that the provider runs the graph, or selects another one, and sets `proven`. If that is set
/// already, the graph is opened on that provider, without a profile and without reporting stages.
pub(crate) fn load(
    source: &GraphSource,
    options: &EngineOptions,
    proven: &ProvenBackend,
    on_stage: &OnStage,
) -> Result<Box<dyn Session>, EngineError> {
    match runtime(options)? {
        Some(runtime) => onnx_runtime::open(runtime, source, options, proven, on_stage),
        None => match options.required_provider() {
            Some(provider) if options.kind == EngineKind::Auto => {
                Err(EngineError::Provider { provider, failure: ProviderFailure::NoLibrary })
            }
            _ => {
                report_unused_options(options);
                rten::open(source, proven)
            }
        },
    }
}

/// The engine and the provider on which a graph will be tried first.
pub(crate) fn planned_backend(options: &EngineOptions) -> Result<Backend, EngineError> {
    let available = available_providers(options)?;
    Ok(match runtime(options)? {
        Some(runtime) => onnx_runtime::backend(&runtime, available.first().copied()),
        None => rten::backend(),
    })
}

/// The options for a graph beside a model's network. A provider that does not work for the network is not tried for the
/// others. Before the network was evaluated, those that the library lacks are left out: they are reported for the network.
pub(crate) fn component_options(
    options: &EngineOptions,
    network: Option<&Backend>,
) -> Result<EngineOptions, EngineError> {
    let providers = match network {
        Some(network) => {
            let is_rejected = |provider: &&_| ToString::to_string(*provider) != network.provider;
            options.providers.iter().skip_while(is_rejected).copied().collect()
        }
        None => available_providers(options)?,
    };
    Ok(EngineOptions { providers, ..options.clone() })
}

/// The providers that the engine's library has. A required one stays, so that loading fails with the reason.
fn available_providers(options: &EngineOptions) -> Result<Vec<super::Provider>, EngineError> {
    if options.policy == Policy::Required || runtime(options)?.is_none() {
        return Ok(options.providers.clone());
    }
    let all = options.providers.iter().copied();
    Ok(all.filter(|provider| onnx_runtime::is_compiled_in(*provider)).collect())
}

/// The library of ONNX Runtime. `None` means the embedded engine.
fn runtime(options: &EngineOptions) -> Result<Option<onnx_runtime::Runtime>, EngineError> {
    let library = options.library.as_deref();
    Ok(match options.kind {
        EngineKind::Embedded => None,
        EngineKind::OnnxRuntime => Some(onnx_runtime::load_required(library)?),
        EngineKind::Auto => onnx_runtime::load_if_present(library)?,
    })
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
