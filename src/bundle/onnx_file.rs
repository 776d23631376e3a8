//! The graphs of a bundle: their inputs and outputs, and their memory.

use std::path::{Path, PathBuf};

use super::BundleError;
use crate::onnx::{Header, ModelFiles};
use crate::tensor::GraphIo;

/// The inputs and outputs of a graph. Inputs that an initializer fills are left out.
///
/// The data of initializers is skipped by seeking, so that this is as quick for gigabytes of weights.
pub fn graph_io(path: &Path) -> Result<GraphIo, BundleError> {
    Ok(Header::read(path)?.io)
}

/// The files of a graph: the ONNX file and those of its external data.
pub(super) fn files(graph: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let files = ModelFiles::open(graph)?;
    Ok([files.graph].into_iter().chain(files.data.into_iter().map(|data| data.path)).collect())
}

/// An estimate of the memory in bytes that a graph takes at most while it is opened: twice its file, which the
/// engine parses and then holds, and once each file of its external data.
pub(crate) fn peak_memory(graph: &Path) -> u64 {
    ModelFiles::open(graph).map_or(0, |files| 2 * files.graph_len + files.data_len())
}
