//! A graph's file becomes a session on the engine that is there.

use std::path::Path;

use super::graph::Graph;
use super::predictor::{EvaluationError, Origin};
use super::providers::{Shapes, TensorRt};
use super::session::Session;
use super::signature::SignatureError;
use super::{EngineKind, EngineOptions, ModelError, Stage, embedded, library, onnxruntime};

/// A graph to open.
pub(super) struct Source<'a> {
    /// How messages and kept engines call it.
    pub(super) name: String,
    /// The ONNX file.
    pub(super) graph: &'a Path,
    /// Its SHA-256, in hexadecimal.
    pub(super) sha256: &'a str,
    /// What it is opened for.
    pub(super) purpose: &'a dyn Purpose,
}

/// What a graph is opened for.
pub(super) trait Purpose {
    /// Evaluate it as it will be; with `every_shape`, in every shape in which that will be.
    fn warm(&self, session: &mut dyn Session, every_shape: bool) -> Result<(), Refusal>;

    /// The shapes of its inputs, for an engine that is built for them.
    fn shapes(&self, graph: &Graph, options: &TensorRt) -> Result<Option<Shapes>, SignatureError>;
}

/// Why a graph can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Its inputs or outputs.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The first evaluation failed.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// A graph that is open, with what serves it.
pub(super) struct Opened {
    pub(super) session: Box<dyn Session>,
    pub(super) origin: Origin,
}

/// Open a graph, and evaluate it once.
pub(super) fn open(
    source: &Source<'_>,
    options: &EngineOptions,
    on: &mut dyn FnMut(Stage),
) -> Result<Opened, ModelError> {
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
        Refusal::Signature(error) => ModelError::Signature { graph: graph(), error },
        Refusal::Evaluation(error) => ModelError::Warmup { graph: graph(), error },
    })?;
    Ok(Opened { session: Box::new(session), origin: embedded::Embedded::origin() })
}
