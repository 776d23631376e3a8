//! Writes the files of an entry: the graph, and its weights if they are not those of the export.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use rten_onnx::onnx::{ModelProto, TensorProto};

use super::checksums::Checksums;
use super::external_tensors::{Place, move_to, try_for_each};
use super::manifest::{GraphKind, Manifest};
use super::weights::{Layout, WeightsFile};

/// The graph in an entry.
pub(super) const GRAPH: &str = "model.onnx";
/// Its weights.
pub(super) const WEIGHTS: &str = "weights.bin";

/// A decoded graph, with what is known of its external weights.
pub(super) struct Weights {
    /// The bytes that they take in the types of the graph.
    pub(super) len: u64,
    /// Whether an engine may map all of them where they are.
    pub(super) are_mappable: bool,
}

impl Weights {
    /// Examines the external weights of a graph. Fails with a reason if their places are unknown.
    pub(super) fn of(model: &mut ModelProto) -> Result<Self, String> {
        let mut weights = Self { len: 0, are_mappable: true };
        let Some(graph) = &mut model.graph else { return Ok(weights) };
        try_for_each(graph, &mut |tensor| {
            let place = place(tensor)?;
            weights.len += place.prepared_len();
            weights.are_mappable &= place.is_mappable();
            Ok::<_, String>(())
        })?;
        Ok(weights)
    }
}

fn place(tensor: &TensorProto) -> Result<Place, String> {
    let name = tensor.name.as_deref().unwrap_or_default();
    Place::of(tensor).ok_or_else(|| format!("the place or the size of the values of {name:?} is unknown"))
}

/// Gives all external tensors their places in a file of weights of the entry.
pub(super) fn lay_out(model: &mut ModelProto) -> Result<Layout, String> {
    let mut layout = Layout::default();
    let Some(graph) = &mut model.graph else { return Ok(layout) };
    try_for_each(graph, &mut |tensor| {
        let place = place(tensor)?;
        if place.len == 0 {
            tensor.external_data.clear();
            tensor.data_location = None;
            return Ok(());
        }
        let len = place.prepared_len();
        move_to(tensor, WEIGHTS, layout.push(place), len);
        Ok::<_, String>(())
    })?;
    Ok(layout)
}

/// Writes an entry whose weights are its own. `name` is the graph's in the log.
pub(super) fn write_with_weights(
    directory: &Path,
    name: &str,
    model: &ModelProto,
    weights: &WeightsFile<'_>,
) -> std::io::Result<Manifest> {
    let graph = write_graph(directory, model)?;
    let weights = (WEIGHTS.to_owned(), weights.write(name)?);
    Ok(Manifest { graph: GraphKind::OwnWeights, files: BTreeMap::from([weights, graph]) })
}

/// Writes an entry whose graph refers to the weights of the export by the locations that the export names.
pub(super) fn write_graph_only(directory: &Path, model: &ModelProto) -> std::io::Result<Manifest> {
    let graph = write_graph(directory, model)?;
    Ok(Manifest { graph: GraphKind::ExportedWeights, files: BTreeMap::from([graph]) })
}

fn write_graph(directory: &Path, model: &ModelProto) -> std::io::Result<(String, Checksums)> {
    let path = directory.join(GRAPH);
    let bytes = model.write_buf().map_err(std::io::Error::other)?;
    File::create_new(&path)?.write_all(&bytes)?;
    Ok((GRAPH.to_owned(), Checksums::read(&path)?))
}
