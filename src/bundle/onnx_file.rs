//! What a graph alone says, without the rest of its bundle.

use std::path::Path;

use super::BundleError;
use super::convolutions::Convolutions;
use crate::onnx::Header;
use crate::tensor::GraphIo;

/// The inputs and outputs of a graph. Inputs that an initializer fills are left out.
///
/// The data of initializers is skipped by seeking, so that this is as quick for gigabytes of weights.
pub fn graph_io(path: &Path) -> Result<GraphIo, BundleError> {
    Ok(Header::read(path)?.io)
}

/// The number of class labels that a graph knows, if its input of labels selects from an embedding.
pub fn class_count(graph: &Path, input: &str) -> Result<Option<usize>, BundleError> {
    Ok(embedding_shape(graph, input)?.map(|[rows, _]| rows))
}

/// The rows and the width of the embedding that an input selects from.
pub(crate) fn embedding_shape(graph: &Path, input: &str) -> Result<Option<[usize; 2]>, BundleError> {
    Ok(Convolutions::read(graph)?.embedding_shape(input))
}
