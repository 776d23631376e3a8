//! The session of a graph beside the denoiser.

use std::path::Path;
use std::sync::Arc;

use super::denoiser::digest;
use crate::bundle::{Bundle, BundleError};
use crate::inference::{
    Backend, CaptureStatus, EngineOptions, ExampleInputs, GraphSource, MeasuredGraph, OnStage, PooledSession,
    ProvenBackend, SessionMemory, SessionPool, component_options, load,
};

/// A graph beside the denoiser.
pub(super) struct ComponentGraph<'a> {
    pub(super) role: String,
    pub(super) path: &'a Path,
    pub(super) example: ExampleInputs,
    /// How many values of a sample have one token of the largest attention.
    pub(super) values_per_token: Option<u64>,
    /// Whether evaluations of one shape may be captured as a CUDA graph.
    pub(super) captures: bool,
    /// The backend, which the first evaluation sets.
    pub(super) proven: ProvenBackend,
}

/// What the backend of a component depends on.
#[derive(Debug, Clone)]
pub(super) struct Network {
    /// The backend that is tried first for the denoiser.
    pub(super) planned: Backend,
    /// The denoiser's backend, which its first evaluation sets.
    pub(super) proven: ProvenBackend,
}

/// Adds the session of a component to the pool.
pub(super) fn pooled_session(
    bundle: &Bundle,
    graph: ComponentGraph<'_>,
    options: &EngineOptions,
    pool: &SessionPool,
    network: &Network,
    on_stage: &OnStage,
) -> Result<PooledSession, BundleError> {
    let ComponentGraph { role, path, example, values_per_token, captures, proven } = graph;
    let on_stage = Arc::clone(on_stage);
    let files = bundle.files(path)?;
    let graph =
        MeasuredGraph { files: Arc::clone(&files), values_per_token, proven: ProvenBackend::clone(&proven) };
    let memory = SessionMemory::new(graph, network.proven.get().unwrap_or(&network.planned), options);
    let source = GraphSource {
        name: format!("{}-{role}", bundle.name),
        files,
        digest: digest(bundle, path, &options.cache),
        profile: None,
        capture: captures.then(CaptureStatus::default),
        example,
    };
    let (options, network) = (options.clone(), ProvenBackend::clone(&network.proven));
    let open = move || {
        let options = component_options(&options, network.get())?;
        load(&source, &options, &proven, &on_stage)
    };
    Ok(pool.insert(format!("{}/{role}", bundle.name), memory, Box::new(open)))
}
