//! A graph's file becomes a session on the engine that is there.

use std::path::Path;

use crate::bundle::signature::SignatureError;
use crate::inference::onnx_runtime::{self as onnxruntime, dylib as library};
use crate::inference::provider::{Shapes, TensorRt};
use crate::inference::rten as embedded;
use crate::inference::session::Session;
use crate::model::predictor::{Backend, EvaluationError};
use crate::model::{EngineKind, EngineOptions, ModelError, Stage};
use crate::tensor::GraphIo;

/// A graph to open.
pub(crate) struct GraphSource<'a> {
    /// How messages and kept engines call it.
    pub(crate) name: String,
    /// The ONNX file.
    pub(crate) graph: &'a Path,
    /// Its SHA-256, in hexadecimal.
    pub(crate) sha256: &'a str,
    /// What it is opened for.
    pub(crate) purpose: &'a dyn Warmup,
}

/// What a graph is opened for.
pub(crate) trait Warmup {
    /// Evaluate it as it will be; with `every_shape`, in every shape in which that will be.
    fn warm(&self, session: &mut dyn Session, every_shape: bool) -> Result<(), WarmupError>;

    /// The shapes of its inputs, for an engine that is built for them.
    fn shapes(&self, graph: &GraphIo, options: &TensorRt) -> Result<Option<Shapes>, SignatureError>;
}

/// Why a graph can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WarmupError {
    /// Its inputs or outputs.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The first evaluation failed.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// A graph that is open, with what serves it.
pub(crate) struct LoadedSession {
    pub(crate) session: Box<dyn Session>,
    pub(crate) origin: Backend,
}

/// Open a graph, and evaluate it once.
pub(crate) fn open(
    source: &GraphSource<'_>,
    options: &EngineOptions,
    on: &mut dyn FnMut(Stage),
) -> Result<LoadedSession, ModelError> {
    let runtime = match options.kind {
        EngineKind::Embedded => None,
        EngineKind::OnnxRuntime => Some(library::required(options.library.as_deref())?),
        EngineKind::Auto => library::if_present(options.library.as_deref())?,
    };
    if let Some(runtime) = runtime {
        return onnxruntime::open(&runtime, source, options, on);
    }
    let mut session = embedded::Embedded::open(source.graph)?;
    let graph = || source.graph.to_owned();
    source.purpose.warm(&mut session, false).map_err(|refusal| match refusal {
        WarmupError::Signature(error) => ModelError::Signature { graph: graph(), error },
        WarmupError::Evaluation(error) => ModelError::Warmup { graph: graph(), error },
    })?;
    Ok(LoadedSession { session: Box::new(session), origin: embedded::Embedded::origin() })
}
