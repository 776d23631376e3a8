//! A graph to open, and the provider that proved to run it.

use std::sync::{Arc, OnceLock};

use super::backend::Backend;
use super::cuda_graphs::CaptureStatus;
use super::provider::{InputShapes, ShapeProfile};
use crate::onnx::ModelFiles;

/// What to do if a file cannot be written to the directory for temporary files.
pub(super) const TEMPORARY_HINT: &str = "Files are written there while a graph is loaded: make room, or set TMPDIR to a \
     directory that can be written";

/// Returns the SHA-256 of a graph, in hexadecimal. The first call may read gigabytes of weights.
pub(crate) type GraphDigest =
    Arc<dyn Fn() -> Result<String, Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// The backend of a graph, which its first evaluation sets.
pub(crate) type ProvenBackend = Arc<OnceLock<Backend>>;

/// A graph to open.
#[derive(Clone)]
pub(crate) struct GraphSource {
    /// The name in log messages and in the engine cache.
    pub(crate) name: String,
    /// The ONNX file with the files of its external data.
    pub(crate) files: Arc<ModelFiles>,
    /// The digest, which engines that providers build and prepared graphs are found by.
    pub(crate) digest: GraphDigest,
    /// The shapes in which the graph is evaluated again and again. `None` for a graph that is evaluated once per job:
    /// no engine is made for its shapes.
    pub(crate) profile: Option<ShapeProfile>,
    /// Whether evaluations are captured as CUDA graphs. `None` for a graph whose shapes hardly recur.
    pub(crate) capture: Option<CaptureStatus>,
    /// With which a prepared graph is compared with this one.
    pub(crate) example: ExampleInputs,
}

/// Shapes of inputs that a graph takes, and an output to compute from them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExampleInputs {
    /// Empty if no inputs are known.
    pub(crate) shapes: InputShapes,
    pub(crate) output: String,
}
