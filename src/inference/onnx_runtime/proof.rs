//! Proves by the profile of a session's first evaluation that its provider runs the graph.

use std::path::Path;

use tempfile::TempDir;

use super::OnnxRuntimeSession;
use super::build_progress::BuildProgress;
use super::loaded_library::loaded_version;
use super::profile::provider_shares;
use super::provider_selection::AttemptError;
use super::session_builder::{SessionOpener, keep};
use crate::inference::backend::Backend;
use crate::inference::engine_cache::EngineCache;
use crate::inference::error::{EvaluationError, ProviderFailure};
use crate::inference::graph_source::TEMPORARY_HINT;
use crate::inference::provider::{GraphCapture, Provider};
use crate::inference::session::{Input, Session};

/// What is left to do until a session's provider counts as working. Dropping it removes an engine that was not proven.
pub(super) struct Proof {
    pub(super) provider: Provider,
    /// The directory of the profile, which ONNX Runtime writes at the end of profiling.
    pub(super) profiles: TempDir,
    /// The cache for the engine that the provider builds.
    pub(super) cache: Option<EngineCache>,
    /// What the session captures as CUDA graphs.
    pub(super) capture: GraphCapture,
    /// Whether the first evaluation builds an engine, which may take minutes.
    pub(super) builds_engine: bool,
}

impl Proof {
    /// Makes the first evaluation. A CUDA graph that the options ask for is also captured.
    pub(super) fn evaluate(
        &self,
        session: &mut OnnxRuntimeSession,
        opener: &SessionOpener,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let _progress = self.builds_engine.then(|| BuildProgress::new(&opener.source.name, self.provider));
        let shapes = session.run_all(inputs, names, outputs)?;
        match self.capture {
            GraphCapture::OneShape => session.run_all(inputs, names, outputs),
            GraphCapture::Off | GraphCapture::PerShape => Ok(shapes),
        }
    }

    /// Ends the profile, and checks that the provider ran at least one node.
    pub(super) fn complete(
        self,
        session: &mut OnnxRuntimeSession,
        opener: &SessionOpener,
    ) -> Result<Backend, AttemptError> {
        let Self { provider, profiles, cache, capture, .. } = self;
        let SessionOpener { source, options, .. } = opener;
        let profile = session.end_profiling()?;
        let nodes = if provider.builds_engines() { &source.files.header.node_names[..] } else { &[] };
        let profile = Path::new(&profile);
        let mut backend = super::backend(&opener.runtime, Some(provider));
        backend.cuda_graph = capture != GraphCapture::Off;
        backend.provider_shares = provider_shares(profile, nodes).map_err(AttemptError::io(
            "read the profile",
            profile,
            TEMPORARY_HINT,
        ))?;
        drop(profiles);
        if !backend.provider_shares.iter().any(|share| share.provider == backend.provider) {
            let reason = format!("it was registered, but ran none of the nodes of {}", source.name);
            return Err(AttemptError::Provider(ProviderFailure::Failed(reason)));
        }
        if let Some(cache) = cache {
            keep(cache, options, source, provider)?;
        }
        if provider == Provider::TensorRt {
            backend.tensorrt = loaded_version("libnvinfer.so");
            let version = backend.tensorrt.as_deref().unwrap_or_default();
            for ignored in options.provider.tensorrt.ignored_by(version) {
                log::warn!("{}: engine.tensorrt.{ignored}", source.name);
            }
        }
        Ok(backend)
    }
}
