//! Opens a session from a graph's file, from a prepared graph, or, where a version of ONNX Runtime does not follow links,
//! from a copy in memory whose external data is in the real files.

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::provider_selection::AttemptError;
use crate::inference::prepared_graph::PreparedGraph;
use crate::inference::provider::Provider;
use crate::onnx::{InlineData, ModelFiles, RealFiles, Rewrite};

/// The directory of external data for a graph in memory.
const FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Opens a session on a prepared graph.
///
/// On the CPU, optimisations that copy weights to another layout are left out: the weights stay mapped from the file.
pub(super) fn commit_prepared(
    mut builder: SessionBuilder,
    graph: &PreparedGraph,
    provider: Provider,
) -> ort::Result<Session> {
    if provider == Provider::Cpu {
        builder = builder.with_optimization_level(GraphOptimizationLevel::Level2)?.with_prepacking(false)?;
    }
    match graph {
        PreparedGraph::File(path) => builder.commit_from_file(path),
        PreparedGraph::Memory { bytes, folder } => {
            builder.with_config_entry(FOLDER, folder.to_string_lossy())?.commit_from_memory(bytes)
        }
    }
}

/// Opens a session on the exported graph.
///
/// Versions from 1.24 on refuse external data whose real file is outside the folder of the graph's path, and 1.24.1 even
/// if it is beside the real file of the graph, as in a hub's cache.
pub(super) fn commit(mut builder: SessionBuilder, files: &ModelFiles) -> Result<Session, AttemptError> {
    // A builder can be committed once, and the folder takes precedence over that of the file.
    let second = files.has_linked_data().then(|| builder.clone());
    match (builder.commit_from_file(&files.graph), second) {
        (Err(error), Some(second)) if error.to_string().contains("escapes model directory") => {
            log::debug!("{}: opening a copy in memory, because its weights are links", files.graph.display());
            let real = RealFiles::find(files).ok_or(error)?;
            let location = |location: &str| real.location(files, location);
            let rewrite = Rewrite { inline: InlineData::Keep, location: &location };
            let copy = rewrite.apply(&files.graph).map_err(AttemptError::provider)?;
            Ok(second
                .with_config_entry(FOLDER, real.folder.to_string_lossy())?
                .commit_from_memory(&copy.bytes)?)
        }
        (result, _) => Ok(result?),
    }
}
