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
    /// Its exporter gave it live inputs.
    #[error("{} has live inputs from its exporter; to have others, export it again without them", .0.display())]
    ExportedLive(PathBuf),
    /// The graph is a plain export, but another one is kept beside it.
    #[error(
        "{} is a plain export, and {PLAIN} beside it is an earlier one; remove {PLAIN}, unless the graph needs it for its \
         weights",
        .0.display()
    )]
    TwoExports(PathBuf),
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
/// another run completes the change. A graph that was made live before is made again from the export, with other inputs.
pub(crate) fn make_live(
    graph: &Path,
    residuals: bool,
    lora: LoraLayers,
) -> Result<LiveInputs, LiveGraphError> {
    let plain = graph.with_file_name(PLAIN);
    let unwritable = |reason: String| LiveGraphError::Unwritable { graph: graph.to_owned(), reason };
    let decode = |graph: &Path| decode_without_weights(graph, PLAIN).map_err(unwritable);
    let (has_plain, has_graph) = (plain.is_file(), graph.is_file());
    let mut model = decode(if has_graph { graph } else { &plain })?;
    match (has_plain, has_graph && has_live_inputs(&model)) {
        (false, true) => return Err(LiveGraphError::ExportedLive(graph.to_owned())),
        (true, false) if has_graph => return Err(LiveGraphError::TwoExports(graph.to_owned())),
        (true, true) => model = decode(&plain)?,
        _ => {}
    }
    let export = if has_plain { &plain } else { graph };
    let count = add_live_inputs(&mut model, residuals, lora);
    if (residuals && count.residuals == 0) || (lora != LoraLayers::None && count.layers == 0) {
        return Err(LiveGraphError::NoNames(graph.to_owned()));
    }
    let bytes = model.write_buf().map_err(|error| unwritable(error.to_string()))?;
    let folder = graph.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(OnnxError::io(folder))?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(OnnxError::io(file.path()))?;
    let permissions = std::fs::metadata(export).map_err(OnnxError::io(export))?.permissions();
    std::fs::set_permissions(file.path(), permissions).map_err(OnnxError::io(file.path()))?;
    if !has_plain {
        std::fs::rename(graph, &plain).map_err(OnnxError::io(&plain))?;
    }
    file.persist(graph).map_err(|error| OnnxError::io(graph)(error.error))?;
    Ok(count)
}

/// Puts a plain export back in the place of the graph that was made from it. Returns whether there was one.
pub(crate) fn make_plain(graph: &Path) -> Result<bool, OnnxError> {
    let plain = graph.with_file_name(PLAIN);
    if !plain.is_file() {
        return Ok(false);
    }
    std::fs::rename(&plain, graph).map_err(OnnxError::io(graph))?;
    Ok(true)
}
