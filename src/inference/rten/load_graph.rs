//! Gives a graph to rten, whose reader needs every default written out, and external data beside the real file of the
//! graph, under names that end in .data.

use std::os::unix::fs::symlink;
use std::path::Path;

use rten::ModelOptions;
use rten_onnx::onnx::{DataLocation, GraphProto, ModelProto, StringStringEntryProto, TensorProto};

use super::onnx_defaults::write_out;
use super::{ENGINE, load_error};
use crate::inference::error::EngineError;
use crate::inference::graph_source::TEMPORARY_HINT;
use crate::onnx::{InlineData, ModelFiles, Rewrite, decoding_fault};
use crate::tensor::ElementType;

/// The link to the graph's own file beside its copy.
const OWN_DATA: &str = "graph.data";

/// Loads a graph. If rten cannot read the file as it is, it reads a copy whose weights are links to the real files.
pub(super) fn load_graph(options: &ModelOptions, files: &ModelFiles) -> Result<rten::Model, EngineError> {
    let failed = |reason: String| load_error(&files.graph, &files.header, reason);
    let location = |location: &str| {
        files.data_index(location).map_or_else(|| location.to_owned(), |index| format!("{index}.data"))
    };
    let rewrite = Rewrite { inline: InlineData::External(OWN_DATA), location: &location };
    let copy = rewrite.apply(&files.graph).map_err(|error| failed(decoding_fault(&error)))?;
    let mut model = ModelProto::parse_buf(&copy.bytes).map_err(|error| failed(decoding_fault(&error)))?;
    let changed = copy.unpacked | write_out(&mut model).map_err(failed)?;
    drop(copy);
    let has_extension =
        files.graph.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
    let load = |path: &Path| options.load_file(path).map_err(|error| failed(error.to_string()));
    if !changed && files.data.is_empty() && has_extension {
        return load(&files.graph);
    }
    if let Some(graph) = &mut model.graph {
        complete_locations(graph);
    }
    let root = std::env::temp_dir();
    let io = |operation: &'static str| {
        let path = root.clone();
        move |error| EngineError::Io { operation, path, error, hint: TEMPORARY_HINT }
    };
    let directory = tempfile::tempdir().map_err(io("create a directory in"))?;
    let links = files.data.iter().enumerate().map(|(index, file)| (format!("{index}.data"), &file.path));
    for (name, path) in links.chain([(OWN_DATA.to_owned(), &files.graph)]) {
        let link = path.canonicalize().and_then(|real| symlink(real, directory.path().join(name)));
        link.map_err(io("create a link in"))?;
    }
    let path = directory.path().join("model.onnx");
    let file = std::fs::File::create(&path).map_err(io("create a file in"))?;
    let written = model.write_file(file).map_err(std::io::Error::other);
    written.map_err(io("write a file in"))?;
    drop(model);
    log::debug!("{ENGINE}: loading a copy of {} without its weights", files.graph.display());
    // rten reads the weights to memory, so that the directory is not needed afterwards.
    load(&path)
}

/// Gives every external tensor an offset and a length, which rten requires, and removes other entries, which it refuses.
fn complete_locations(graph: &mut GraphProto) {
    graph.initializer.iter_mut().for_each(complete_location);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().for_each(complete_location);
        attribute.g.iter_mut().for_each(complete_locations);
    }
}

fn complete_location(tensor: &mut TensorProto) {
    if tensor.data_location != Some(DataLocation::EXTERNAL) {
        return;
    }
    let entry = |key: &str, default: String| {
        let own = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
        let value = own.and_then(|entry| entry.value.clone()).unwrap_or(default);
        StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) }
    };
    let elements =
        tensor.dims.iter().try_fold(1_u64, |n, &length| n.checked_mul(u64::try_from(length).ok()?));
    let kind = tensor.data_type.map_or(0, |kind| kind.0);
    let len = elements.and_then(|elements| ElementType(kind).size_of(elements)).unwrap_or_default();
    tensor.external_data = vec![
        entry("location", String::new()),
        entry("offset", "0".to_owned()),
        entry("length", len.to_string()),
    ];
}
