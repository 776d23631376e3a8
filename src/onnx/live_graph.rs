//! Replaces an exported graph by one with live inputs. The weights stay where they are.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::rewriting::{LiveInputs, LoraLayers, add_live_inputs, has_live_inputs};
use super::{OnnxError, decode_without_weights};

/// The name of the export beside the graph that replaces it, whose weights may be in it.
pub(crate) const PLAIN: &str = "plain.onnx";

/// Why a graph does not get live inputs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveGraphError {
    /// The graph cannot be read or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// It has the inputs already.
    #[error("{} has live inputs already; to make others, replace it by the plain export first", .0.display())]
    AlreadyLive(PathBuf),
    /// The graph cannot be encoded again.
    #[error("{} cannot be rewritten: {reason}. {EXPORT}", graph.display())]
    Unwritable {
        /// The graph.
        graph: PathBuf,
        /// What would be lost.
        reason: String,
    },
    /// No layer was recognised.
    #[error(
        "the nodes of {} are not named by the modules of the network, as after an optimisation or in an export by dynamo, so \
         that its layers cannot be found. {EXPORT}",
        .0.display()
    )]
    NoNames(PathBuf),
}

const EXPORT: &str = "Export the model again with models/export or optimum, which keep these names";

/// Gives the graph in this file inputs for a ControlNet's residuals, if `residuals` is set, and for LoRAs.
///
/// The export becomes [`PLAIN`] beside it, and the graph refers to the weights in it. If the process ends in between,
/// another run completes the change.
pub(crate) fn make_live(
    graph: &Path,
    residuals: bool,
    lora: LoraLayers,
) -> Result<LiveInputs, LiveGraphError> {
    let plain = graph.with_file_name(PLAIN);
    if plain.is_file() && !graph.is_file() {
        std::fs::rename(&plain, graph).map_err(OnnxError::io(graph))?;
    }
    if plain.is_file() {
        return Err(LiveGraphError::AlreadyLive(graph.to_owned()));
    }
    let unwritable = |reason: String| LiveGraphError::Unwritable { graph: graph.to_owned(), reason };
    let mut model = decode_without_weights(graph, PLAIN).map_err(unwritable)?;
    if has_live_inputs(&model) {
        return Err(LiveGraphError::AlreadyLive(graph.to_owned()));
    }
    let count = add_live_inputs(&mut model, residuals, lora);
    if (residuals && count.residuals == 0) || (lora != LoraLayers::None && count.layers == 0) {
        return Err(LiveGraphError::NoNames(graph.to_owned()));
    }
    let bytes = model.write_buf().map_err(|error| unwritable(error.to_string()))?;
    let folder = graph.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(OnnxError::io(folder))?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(OnnxError::io(file.path()))?;
    let permissions = std::fs::metadata(graph).map_err(OnnxError::io(graph))?.permissions();
    std::fs::set_permissions(file.path(), permissions).map_err(OnnxError::io(file.path()))?;
    std::fs::rename(graph, &plain).map_err(OnnxError::io(&plain))?;
    file.persist(graph).map_err(|error| OnnxError::io(graph)(error.error))?;
    Ok(count)
}
